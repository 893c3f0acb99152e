"""What the buttons of the panel do: asked before, permitted, logged, and told of in a sentence."""

import re
import time

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_dynamo_failover.panel import actions
from django_dynamo_failover.panel.actions import ACTIONS

from .panels import PANEL, make_user, visitor, words
from .web import COOKIE

pytestmark = pytest.mark.django_db
each_action = pytest.mark.parametrize("name", ACTIONS)


def do(browser, name, **data):
    """Press a button and confirm it; return what the page then says."""
    response = browser.post(f"{PANEL}{name}/", data)
    if response.status_code == 302:
        assert response["Location"] == PANEL
        response = browser.get(PANEL)
        messages = re.findall(r'<li class="(good|bad)">(.*?)</li>', response.content.decode())
        assert len(messages) == 1, messages
        return messages[0]
    return ("page", words(response))


def logged():
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


def plant_expired(panel_site, number):
    expires = {"N": str(int(time.time()) - 9000)}
    for item in range(number):
        panel_site.put_item({"id": {"S": f"old{item}"}, "expires": expires})


@each_action
def test_each_asks_before_it_does_anything(chief, dynamodb, name):
    chief.get(PANEL)
    writes = dynamodb.requests()["BatchWriteItem"]
    response = chief.get(f"{PANEL}{name}/")
    assert response.status_code == 200
    assert ACTIONS[name].explanation[:40] in words(response)
    assert '<form method="post">' in response.content.decode()
    assert dynamodb.requests()["BatchWriteItem"] == writes
    assert logged() == []


@each_action
@pytest.mark.parametrize("method", ["get", "post"])
def test_each_needs_the_permission(panel_site, name, method):
    make_user("mia")
    for permissions in (["view_failoverhealth"], ["operate_failoverhealth"], []):
        browser = visitor(make_user(f"bob{len(permissions)}{permissions[:1]}", *permissions))
        response = getattr(browser, method)(f"{PANEL}{name}/", {"username": "mia"})
        assert response.status_code == 403
    assert logged() == []


def test_whoever_may_look_and_operate_may_press_them(panel_site):
    browser = visitor(make_user("bob", "view_failoverhealth", "operate_failoverhealth"))
    page = browser.get(PANEL).content.decode()
    for name in ACTIONS.keys() - {"drain-off"}:  # which is for where it is on
        assert f'href="{PANEL}{name}/"' in page
    assert do(browser, "drain-on")[0] == "good"
    page = browser.get(PANEL).content.decode()
    assert f'href="{PANEL}drain-off/"' in page
    assert f'href="{PANEL}drain-on/"' not in page


@each_action
def test_each_is_safe_from_other_sites(chief, name):
    strict = Client(enforce_csrf_checks=True)
    strict.cookies[COOKIE] = chief.cookies[COOKIE].value
    assert strict.post(f"{PANEL}{name}/", {"username": "chief"}).status_code == 403


def test_there_are_no_others(chief):
    assert chief.get(f"{PANEL}explode/").status_code == 404


def test_a_probe_shows_what_a_health_check_finds(chief):
    kind, said = do(chief, "probe")
    assert kind == "page"
    assert "OK: us-east-1: a session comes back as it was stored, and ends" in said
    assert "these credentials may do what the engine does" in said
    assert "Back to the panel" in said
    (entry,) = logged()
    assert entry.startswith("Probe now: ")
    assert LogEntry.objects.get().user.username == "chief"


def test_draining_begins_and_ends(panel_site, chief):
    shopper = panel_site.store()
    shopper["cart"] = 1
    shopper.save()
    assert do(chief, "drain-on")[0] == "good"
    assert panel_site.runtime.fleet.draining
    shown = words(chief.get(PANEL))
    assert "Draining is on:" in shown
    assert do(chief, "drain-off")[0] == "good"
    assert not panel_site.runtime.fleet.draining
    assert "Draining is on:" not in words(chief.get(PANEL))
    assert [entry.partition(":")[0] for entry in logged()] == ["Drain", "End draining"]


def test_revalidating_makes_all_entries_ask_dynamodb(panel_site, chief, dynamodb):
    shopper = panel_site.store()
    shopper["cart"] = 1
    shopper.save()
    assert panel_site.runtime.writer.flush(5) == 0
    before = panel_site.runtime.metrics.snapshot()["renewed"]
    panel_site.store(shopper.session_key).load()
    assert panel_site.runtime.metrics.snapshot()["renewed"] == before
    kind, said = do(chief, "revalidate")
    assert (kind, "agreed with DynamoDB anew" in said) == ("good", True)
    panel_site.store(shopper.session_key).load()
    assert panel_site.runtime.metrics.snapshot()["renewed"] > before


def test_what_has_expired_is_cleared(panel_site, chief):
    plant_expired(panel_site, 5)
    assert do(chief, "clear") == ("good", "5 expired items deleted, to the end of the table.")
    assert not [id for id in panel_site.items() if id.startswith("old")]


def test_clearing_stops_at_its_limit(panel_site, chief, monkeypatch):
    monkeypatch.setattr(actions, "CLEAR_LIMIT", 3)
    plant_expired(panel_site, 5)
    kind, said = do(chief, "clear")
    assert (kind, "3 expired items deleted, and there may be more" in said) == ("good", True)
    assert len([id for id in panel_site.items() if id.startswith("old")]) == 2


def test_a_user_is_logged_out_everywhere(panel_site, chief):
    mia = visitor(make_user("mia"))
    assert mia.get(f"{PANEL}").status_code == 403
    kind, said = do(chief, "log-out", username="mia")
    assert (kind, "Mia is logged out: at this site now" in said) == ("good", True)
    mia.leaving = True
    assert mia.get(PANEL).status_code == 302
    assert "Log out a user: mia is logged out" in logged()[0]


@pytest.mark.parametrize("username", ["nobody", "", "x" * 300])
def test_there_must_be_such_a_user(chief, username):
    kind, said = do(chief, "log-out", username=username)
    assert kind == "page"
    assert "Cancel" in said
    assert logged() == []


def test_whoever_logs_himself_out_is_asked_to_log_in(chief):
    chief.leaving = True
    response = chief.post(f"{PANEL}log-out/", {"username": "chief"})
    assert response.status_code == 302
    response = chief.get(PANEL)
    assert response.status_code == 302
    assert "login" in response["Location"]


class TestWhileATierIsDown:
    @pytest.fixture
    def chief(self, panel_servers):
        """One who has been shown the panel while all was well."""
        chief = visitor(make_user("chief", is_superuser=True))
        chief.get(PANEL)
        return chief

    def test_without_the_hot_tier_nobody_can_be_told(self, panel_servers, chief):
        panel_servers.hot.kill()
        for name in ("drain-on", "drain-off", "revalidate"):
            kind, said = do(chief, name)
            assert kind == "bad"
            assert "The hot tier does not answer" in said
        assert len(logged()) == 3

    def test_without_dynamodb_nothing_is_promised(self, panel_servers, chief):
        panel_servers.cold.kill()
        kind, said = do(chief, "log-out", username="chief")
        assert kind == "bad"
        assert "nothing is promised" in said

    def test_without_dynamodb_a_probe_says_so(self, panel_servers, chief, monkeypatch):
        monkeypatch.setattr(actions, "_PROBE_SECONDS", 2)
        panel_servers.cold.kill()
        kind, said = do(chief, "probe")
        assert kind == "page"
        assert "Not ready: " in said

    def test_without_dynamodb_nothing_is_cleared(self, panel_servers, chief, monkeypatch):
        monkeypatch.setattr(actions, "CLEAR_SECONDS", 0.5)
        panel_servers.cold.kill()
        kind, said = do(chief, "clear")
        assert (kind, "did not answer in time" in said) == ("bad", True)
