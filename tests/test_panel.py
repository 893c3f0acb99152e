"""The health panel in the admin: who sees it, what it shows in which outage, and how soon."""

import re
import time
from io import StringIO

import django
import pytest
from django.core.management import call_command
from django.urls import reverse
from servers import Dynalite, Memcached

from django_dynamo_failover import fleet, runtime
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.exceptions import ColdMisconfigured
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.panel.words import NOTHING

from .configurations import BOTO_SESSION, quieten
from .conftest import create_table
from .panels import (
    PANEL,
    Servers,
    busy_snapshot,
    free_slots,
    make_user,
    publish,
    snapshot,
    visitor,
    words,
)
from .test_costs import wait_for_background
from .web import COOKIE, Visitor, is_503, until

pytestmark = pytest.mark.django_db

SECTIONS = f"{PANEL}sections/"


def verdict(response):
    assert response.status_code == 200, response.content
    return re.search(r"</svg>(.*?)</h2>", response.content.decode())[1]


class TestWhoSeesIt:
    def test_whoever_may_view_it(self, panel_site):
        browser = visitor(make_user("bob", "view_failoverhealth"))
        assert verdict(browser.get(PANEL)) == "Failover ready"
        assert PANEL in browser.get(reverse("admin:index")).content.decode()
        assert "failover-actions" not in browser.get(PANEL).content.decode()

    def test_nobody_else_of_the_staff(self, panel_site):
        browser = visitor(make_user("bob", "view_user"))
        for path in (PANEL, SECTIONS, f"{PANEL}probe/"):
            assert browser.get(path).status_code == 403
        assert PANEL not in browser.get(reverse("admin:index")).content.decode()

    def test_whoever_is_not_logged_in_is_asked_to(self, panel_site):
        browser = Visitor()
        for path in (PANEL, SECTIONS, f"{PANEL}probe/"):
            response = browser.get(path)
            assert response.status_code == 302
            assert response["Location"].startswith(reverse("admin:login"))
        assert COOKIE not in browser.cookies

    def test_a_look_does_not_save_the_session(self, panel_site, chief, memcached, dynamodb):
        chief.get(PANEL)
        key = chief.cookies[COOKIE].value
        held = panel_site.store(key)
        held.load()
        version = held._held.record.version
        chief.get(PANEL)
        chief.get(SECTIONS)
        again = panel_site.store(key)
        again.load()
        assert again._held.record.version == version

    def test_the_model_needs_no_migration(self, panel_site):
        call_command("makemigrations", "--check", "--dry-run", stdout=StringIO())

    def test_there_is_nothing_to_add_change_or_delete(self, chief):
        assert chief.get(f"{PANEL}add/").status_code == 404
        assert chief.get(f"{PANEL}1/change/").status_code == 404


class TestWhatItShows:
    def test_tiers_processes_and_sites(self, panel_site, chief, monkeypatch):
        monkeypatch.setattr(runtime, "FIRST_REPORT_SECONDS", 0)
        panel_site.restart()
        assert panel_site.runtime
        until(lambda: {"sites", "heartbeat:east"} <= panel_site.items().keys())
        shown = words(chief.get(PANEL))
        assert "Failover ready A failover right now logs nobody out." in shown
        assert re.search(r"Hot tier answers \d+(\.\d)? (µs|ms) ", shown)
        assert re.search(r"us-east-1 answers \d+(\.\d)? (µs|ms) ", shown)
        assert "this one" in shown
        assert "east (this one)" in shown
        assert "the same" in shown

    def test_the_sections_are_those_of_the_page(self, chief):
        page, part = chief.get(PANEL).content.decode(), chief.get(SECTIONS).content.decode()
        ids = re.findall(r'<section id="([\w-]+)"', page)
        assert len(ids) == 8
        assert re.findall(r'<section id="([\w-]+)"', part) == ids
        assert "<html" not in part

    def test_it_shows_what_another_process_was_told_to_do(self, panel_site, chief, monkeypatch):
        """Before this one has heard of it by itself: the next page may come from any of them."""
        quieten(monkeypatch)
        panel_site.restart()
        assert "Draining is on" not in words(chief.get(PANEL))
        wait_for_background()
        runtime.build(runtime.config()).fleet.drain(True)
        until(lambda: "Draining is on" in words(chief.get(PANEL)))

    def test_other_processes_and_those_that_are_gone(self, panel_site, chief):
        gone = snapshot(2, at=time.time() - 60)
        publish([snapshot(1, pending=7, oldest=time.time() - 100)])
        *_, last = free_slots()
        panel_site.runtime.hot.put_note(fleet._snapshot_name(last), gone.encode(), 60)
        shown = words(chief.get(PANEL))
        assert "Processes of this site: 2 heard of" in shown
        assert "web-0 1001 east 0.1.0 2 h 0 7 2 min" in shown
        assert "60 s ago: stale" in shown
        assert "at most 2 min" in shown

    def test_html_in_what_others_tell_is_only_text(self, panel_site, chief):
        evil = "<script>alert(1)</script>"
        publish([snapshot(1, host=evil, site=evil, version=evil, errors={f"hot {evil}": 1})])
        assert b"<script>alert" not in chief.get(PANEL).content

    def test_no_secret(self, panel_site, chief, settings):
        key = chief.cookies[COOKIE].value
        session = panel_site.store(key)
        session["note"] = "the payload"
        session.save()
        page = chief.get(PANEL).content.decode()
        secrets = [key, storage_id(key), panel_site.table, settings.SECRET_KEY, "the payload"]
        assert not [secret for secret in secrets if secret in page]

    def test_each_server_of_the_hot_tier_and_all_of_it(self, make_engine, start):
        hot = [start(Memcached), start(Memcached)]
        cache = {
            "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
            "LOCATION": [server.address for server in hot],
        }
        make_engine(hot[0], start(Dynalite), cache=cache, BOTO_SESSION=BOTO_SESSION)
        chief = visitor(make_user("chief", is_superuser=True))
        whole = r"Hot tier answers [\d.]+ .s .* closed none Hot tier, server 1 of 2 answers"
        assert re.search(whole, words(chief.get(PANEL)))
        hot[1].kill()
        until(lambda: "Hot tier 1 of 2 answer" in words(chief.get(SECTIONS)))
        nothing = " ".join([NOTHING] * 4)
        alone = rf"Hot tier, server 1 of 2 answers [\d.]+ .s {nothing}"
        assert re.search(alone, words(chief.get(SECTIONS)))
        assert verdict(chief.get(SECTIONS)) == "Degraded"

    def test_wrong_settings_are_named(self, panel_site, chief, monkeypatch):
        def refuse(patience):
            raise runtime.ImproperlyConfigured("DYNAMO_FAILOVER has an unknown key 'TABEL'.")

        monkeypatch.setattr("django_dynamo_failover.admin.look", refuse)
        shown = words(chief.get(PANEL))
        assert "Not ready The settings are wrong: DYNAMO_FAILOVER has an unknown key" in shown
        assert re.search(r"As of \d\d:\d\d:\d\d\.", shown)

    def test_credentials_that_lack_the_permission(self, panel_site, chief, monkeypatch):
        def deny(*arguments):
            raise ColdMisconfigured("BatchGetItem: AccessDeniedException")

        monkeypatch.setattr(DynamoTable, "read_items", deny)
        shown = words(chief.get(PANEL))
        assert "these AWS credentials lack the permission" in shown
        assert "Degraded" in shown


class TestOutages:
    def test_memcached_is_down_and_back(self, panel_servers):
        chief = visitor(make_user("chief", is_superuser=True))
        assert verdict(chief.get(PANEL)) == "Failover ready"
        panel_servers.hot.kill()
        until(lambda: verdict(chief.get(SECTIONS)) == "Degraded")
        assert "its sessions come from DynamoDB" in words(chief.get(SECTIONS))
        panel_servers.hot.start()
        until(lambda: verdict(chief.get(SECTIONS)) == "Failover ready")

    @pytest.mark.parametrize("how", ["freeze", "kill"])
    def test_dynamodb_is_down_and_back(self, make_engine, start, tmp_path, how, table_name):
        panel_servers = Servers(make_engine, start)
        cold = panel_servers.cold
        chief = visitor(make_user("chief", is_superuser=True))
        assert verdict(chief.get(PANEL)) == "Failover ready"
        getattr(cold, how)()
        until(lambda: verdict(chief.get(SECTIONS)) == "Degraded")
        assert "logins get a 503" in words(chief.get(SECTIONS))
        if how == "freeze":
            cold.thaw()
        else:
            cold.start()
            create_table(cold.endpoint_url, table_name)
        until(lambda: verdict(chief.get(SECTIONS)) == "Failover ready")

    def test_all_is_down(self, panel_servers):
        chief = visitor(make_user("chief", is_superuser=True))
        chief.get(PANEL)
        publish([busy_snapshot(number) for number in range(200)])
        deadline = panel_servers.engine.runtime.config.deadline
        with panel_servers.without(panel_servers.hot, panel_servers.cold):
            for _ in range(3):
                began = time.monotonic()
                response = chief.get(PANEL)
                assert time.monotonic() - began < deadline + 1
                assert verdict(response) == "Not ready"
                assert "Your own session cannot be read right now" in words(response)
                assert "Traceback" not in words(response)
                assert COOKIE not in response.cookies
            assert verdict(chief.get(SECTIONS)) == "Not ready"
            assert is_503(chief.get(f"{PANEL}drain-on/"))
            assert is_503(chief.get(reverse("admin:index")))
        until(lambda: verdict(chief.get(SECTIONS)) == "Failover ready")
        assert chief.get(reverse("admin:index")).status_code == 200  # still logged in


class TestThePass:
    """While no tier answers, whoever was shown the panel in this session sees it still."""

    @pytest.fixture
    def bob(self, panel_servers):
        self.servers = panel_servers
        self.user = make_user("bob", "view_failoverhealth")
        browser = visitor(self.user)
        browser.get(PANEL)
        return browser

    def down(self):
        return self.servers.without(self.servers.hot, self.servers.cold)

    def test_is_good_only_for_the_panel(self, bob):
        assert bob.cookies["failover_panel"]["path"] == PANEL
        assert bob.cookies["failover_panel"]["httponly"]
        assert bob.cookies["failover_panel"]["samesite"] == "Strict"
        with self.down():
            assert verdict(bob.get(PANEL)) == "Not ready"

    def test_is_of_no_use_while_a_tier_answers(self, bob):
        del bob.cookies[COOKIE]
        assert bob.get(PANEL).status_code == 302

    @pytest.mark.skipif(django.VERSION < (6,), reason="Django 5.2 asks for the user of any view")
    def test_is_good_where_a_middleware_asks_all_to_log_in(self, bob, settings):
        required = "django.contrib.auth.middleware.LoginRequiredMiddleware"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, required]
        browser = visitor(self.user)
        assert verdict(browser.get(PANEL)) == "Failover ready"
        with self.down():
            assert verdict(browser.get(PANEL)) == "Not ready"
        response = Visitor().get(PANEL)
        assert response["Location"].startswith(reverse("admin:login"))

    def test_nobody_else_has_one(self, bob):
        other = visitor(make_user("eve", is_superuser=True))
        with self.down():
            assert is_503(other.get(PANEL))

    def test_needs_the_session_cookie_that_it_was_given_with(self, bob):
        other = visitor(make_user("eve", is_superuser=True))
        other.cookies["failover_panel"] = bob.cookies["failover_panel"].value
        with self.down():
            assert is_503(other.get(PANEL))
            del bob.cookies[COOKIE]
            assert bob.get(PANEL).status_code in (302, 503)

    def test_ends_with_the_password(self, bob):
        self.user.set_password("another")
        self.user.save()
        with self.down():
            assert is_503(bob.get(PANEL))

    @pytest.mark.parametrize("field", ["is_active", "is_staff"])
    def test_ends_with_the_account(self, bob, field):
        setattr(self.user, field, False)
        self.user.save()
        with self.down():
            assert is_503(bob.get(PANEL))

    def test_ends_with_the_permission(self, bob):
        self.user.user_permissions.clear()
        with self.down():
            assert bob.get(PANEL).status_code == 403

    def test_ends_after_a_day(self, bob, monkeypatch):
        monkeypatch.setattr("django_dynamo_failover.panel.passes.PASS_SECONDS", -1)
        with self.down():
            assert is_503(bob.get(PANEL))

    @pytest.mark.parametrize("forged", ["", "x", "W10:1u:x", "WyIxIiwieCJd:1uAAAA:AAAA"])
    def test_cannot_be_made_up(self, bob, forged):
        bob.cookies["failover_panel"] = forged
        with self.down():
            assert is_503(bob.get(PANEL))

    def test_lets_nobody_do_anything(self, bob):
        with self.down():
            assert is_503(bob.post(PANEL))

    def test_is_good_too_where_pages_go_on_without_a_session(self, make_engine, start):
        self.servers = Servers(make_engine, start, ON_UNAVAILABLE="anonymous")
        bob = visitor(make_user("bob", "view_failoverhealth"))
        bob.get(PANEL)
        with self.down():
            assert verdict(bob.get(PANEL)) == "Not ready"


class TestSpeed:
    def test_at_200_processes_it_takes_a_second_at_most_and_is_small(self, panel_site, chief):
        publish([busy_snapshot(number) for number in range(200)])
        times = []
        for _ in range(5):
            began = time.monotonic()
            response = chief.get(PANEL)
            times.append(time.monotonic() - began)
        assert "200 heard of" in words(response) or "201 heard of" in words(response)
        assert sorted(times)[2] < 1
        assert len(response.content) < 300_000
