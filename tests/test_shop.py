"""The site that the demo fails over: it must be a real one for the demo to prove anything."""

import json
import time

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.urls import reverse
from shop import pins
from shop.cart import MAX_QUANTITY
from shop.models import Associate, Sale
from shop.people import PINS, SUMMARY
from shop.templatetags.humane import humane

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def cheap_passwords(settings):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        "shop.pins.PinHasher",
    ]


@pytest.fixture
def manager():
    return get_user_model().objects.create_superuser("mia", password="s3same")


@pytest.fixture
def grace():
    associate = Associate(name="Grace")
    associate.set_pin("1906")
    associate.save()
    return associate


@pytest.fixture
def till(client, manager):
    client.post(reverse("login"), {"username": "mia", "password": "s3same"})
    return client


def status(client):
    return client.get(reverse("status-json")).json()


def switch(client, associate, pin):
    return client.post(reverse("switch"), {"associate": associate.pk, "pin": pin})


class TestLogin:
    def test_the_till_asks_for_a_login(self, client):
        response = client.get(reverse("till"))

        assert response.status_code == 302
        assert response["Location"].startswith(reverse("login"))

    def test_a_manager_logs_in_and_lands_at_the_till(self, client, manager):
        response = client.post(
            reverse("login"), {"username": "mia", "password": "s3same"}, follow=True
        )

        assert response.redirect_chain[-1] == (reverse("till"), 302)
        assert "Espresso" in response.text
        assert status(client)["user"] == "mia"

    def test_a_wrong_password_gets_no_further(self, client, manager):
        response = client.post(reverse("login"), {"username": "mia", "password": "nope"})

        assert "do not match" in response.text
        assert status(client)["user"] is None

    def test_a_logout_ends_the_session_for_its_old_cookie_too(self, till):
        cookie = till.cookies["sessionid"].value

        till.post(reverse("logout"))

        till.cookies["sessionid"] = cookie
        assert status(till)["user"] is None

    def test_a_get_does_not_log_out(self, till):
        assert till.get(reverse("logout")).status_code == 405
        assert status(till)["user"] == "mia"


class TestCart:
    def test_it_grows_shrinks_and_adds_up(self, till):
        for sku in ["espresso", "espresso", "mug"]:
            till.post(reverse("cart-add", args=[sku]))

        assert status(till)["cart"] == {
            "items": {"espresso": 2, "mug": 1},
            "count": 3,
            "total_cents": 2320,
            "total": "€23.20",
        }
        till.post(reverse("cart-remove", args=["espresso"]))
        till.post(reverse("cart-remove", args=["mug"]))
        assert status(till)["cart"]["items"] == {"espresso": 1}

    def test_the_page_shows_it(self, till):
        page = till.post(reverse("cart-add", args=["kettle"]), follow=True).text

        assert "Check out" in page
        assert page.count("€64.90") == 3  # on the shelf, in the line and as the total

    def test_removing_what_is_not_in_it_changes_nothing(self, till):
        till.post(reverse("cart-remove", args=["mug"]))

        assert status(till)["cart"]["items"] == {}

    def test_a_quantity_has_an_upper_bound(self, till):
        session = till.session
        session["cart"] = {"espresso": MAX_QUANTITY}
        session.save()

        till.post(reverse("cart-add", args=["espresso"]))

        assert status(till)["cart"]["count"] == MAX_QUANTITY

    def test_a_product_that_is_no_longer_sold_is_left_out(self, till):
        session = till.session
        session["cart"] = {"espresso": 1, "fax-machine": 2}
        session.save()

        assert status(till)["cart"]["items"] == {"espresso": 1}

    def test_an_unknown_product_is_not_found(self, till):
        assert till.post(reverse("cart-add", args=["fax-machine"])).status_code == 404

    def test_a_get_changes_nothing(self, till):
        assert till.get(reverse("cart-add", args=["mug"])).status_code == 405

    def test_a_checkout_books_the_sale_and_empties_it(self, till):
        till.post(reverse("cart-add", args=["mug"]))

        page = till.post(reverse("checkout"), follow=True).text

        sale = Sale.objects.get()
        assert (sale.items, sale.total_cents) == ({"mug": 1}, 1800)
        assert (sale.seller, sale.site) == ("mia", settings.SHOP_SITE)
        assert f"Paid €18.00. Receipt #{sale.pk}." in page
        assert status(till)["cart"]["count"] == 0

    def test_an_empty_cart_cannot_be_checked_out(self, till):
        page = till.post(reverse("checkout"), follow=True).text

        assert "The cart is empty." in page
        assert not Sale.objects.exists()


class TestSwitch:
    def test_an_associate_takes_over_and_cart_and_login_stay(self, till, grace):
        till.post(reverse("cart-add", args=["mug"]))

        response = switch(till, grace, "1906")

        assert response["Location"] == reverse("till")
        now = status(till)
        assert (now["associate"], now["user"], now["cart"]["count"]) == ("Grace", "mia", 1)

    def test_sales_are_booked_under_the_associate(self, till, grace):
        switch(till, grace, "1906")
        till.post(reverse("cart-add", args=["mug"]))
        till.post(reverse("checkout"))

        assert Sale.objects.get().seller == "Grace"

    def test_the_turn_ends(self, till, grace):
        switch(till, grace, "1906")

        till.post(reverse("switch-back"))

        assert status(till)["associate"] is None

    def test_a_wrong_pin_counts_down(self, till, grace):
        response = switch(till, grace, "0000")

        assert f"Wrong PIN. Tries left: {pins.MAX_FAILURES - 1}." in response.text
        assert status(till)["associate"] is None

    @pytest.mark.parametrize("pin", ["", "12", "abcd", "123456789", "1906\n"])
    def test_what_is_not_a_pin_is_no_try(self, till, grace, pin):
        switch(till, grace, pin)

        assert "pin_failures" not in till.session

    def test_too_many_wrong_pins_lock_even_the_right_one_out_for_a_while(self, till, grace):
        for _ in range(pins.MAX_FAILURES):
            response = switch(till, grace, "0000")

        assert response.status_code == 429
        assert switch(till, grace, "1906").status_code == 429
        assert status(till)["associate"] is None

        session = till.session
        session["pin_locked_until"] = time.time() - 1
        session.save()
        switch(till, grace, "1906")
        assert status(till)["associate"] == "Grace"
        assert not {"pin_failures", "pin_locked_until"} & set(till.session.keys())

    def test_pins_are_stored_hashed_and_peppered(self, grace, settings):
        assert "1906" not in grace.pin
        assert grace.check_pin("1906")
        settings.SECRET_KEY = "another"
        assert not grace.check_pin("1906")


class TestStatus:
    def test_it_names_the_datacenter_and_the_age_of_the_session(self, till):
        session = till.session
        session["opened_at"] = time.time() - 200
        session.save()

        now = status(till)

        assert now["site"] == settings.SHOP_SITE
        assert 199 < now["session_age"] < 210
        assert now["counters"]["hot_hits"] > 0
        page = till.get(reverse("status")).text
        assert "3 min 2" in page
        assert "hot_hits" in page

    def test_a_stranger_learns_only_the_datacenter(self, client):
        assert set(status(client)) == {"site", "pid", "user"}
        assert client.get(reverse("status")).status_code == 302

    def test_ping_costs_no_session(self, till, django_assert_num_queries):
        with django_assert_num_queries(0):
            response = till.get(reverse("ping"))

        assert response.text == settings.SHOP_SITE
        assert "Cookie" not in response.get("Vary", "")

    def test_the_hot_tier_cannot_be_emptied_unless_it_is_the_demo(self, till):
        assert till.post("/demo/empty-hot-tier").status_code == 404

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
    )
    def test_durations_read_well(self, seconds, text):
        assert humane(seconds) == text


class TestAdmin:
    def test_a_new_associate_gets_a_pin(self, till):
        url = reverse("admin:shop_associate_add")
        assert "needs a PIN" in till.post(url, {"name": "Linus"}).text

        till.post(url, {"name": "Linus", "new_pin": "1969"})

        assert Associate.objects.get(name="Linus").check_pin("1969")

    def test_renaming_keeps_the_pin(self, till, grace):
        till.post(reverse("admin:shop_associate_change", args=[grace.pk]), {"name": "Grace H."})

        grace.refresh_from_db()
        assert (grace.name, grace.check_pin("1906")) == ("Grace H.", True)

    def test_sales_are_read_only(self, till):
        assert till.get(reverse("admin:shop_sale_changelist")).status_code == 200
        assert till.get(reverse("admin:shop_sale_add")).status_code == 403


def test_setup_makes_the_people_once(capsys):
    from django.core.management import call_command

    call_command("setup_shop")
    call_command("setup_shop")

    assert capsys.readouterr().out.count(SUMMARY) == 2
    assert set(Associate.objects.values_list("name", flat=True)) == set(PINS)
    assert get_user_model().objects.get().is_superuser


def test_the_session_holds_plain_data(till, grace):
    switch(till, grace, "1906")
    till.post(reverse("cart-add", args=["mug"]))

    json.dumps(dict(till.session.items()))
