"""``live``, ``ready`` and ``failover``, as a load balancer asks them."""

import contextlib
import dataclasses
import json
import os
import socket
import statistics
import time

import pytest
import requests
from asgiref.sync import async_to_sync
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path, reverse
from servers import Dynalite, Memcached
from shop.urls import urlpatterns as shop_urls

from django_dynamo_failover import __version__, fleet
from django_dynamo_failover.exceptions import SessionUnavailable
from django_dynamo_failover.readiness import Readiness

from .configurations import BOTO_SESSION, hot_key, later, quieten, write_pending
from .operating import open_till
from .sites import Clock
from .test_costs import cost_of, wait_for_background
from .test_readiness import member
from .web import COOKIE, until

TOKEN = "s3cr3t-s3cr3t-s3cr3t"
NAMES = ("live", "ready", "failover")
WELL = {"live": 200, "ready": 200, "failover": 200}
each_endpoint = pytest.mark.parametrize("name", NAMES)

#: In seconds.
FAST = 0.005


def ask(name, token=None, client=None, **options):
    if token is not None:
        options["headers"] = {"Authorization": f"Bearer {token}"}
    return (client or Client()).get(reverse(f"django_dynamo_failover:{name}"), **options)


def details(name):
    return ask(name, TOKEN).json()["details"]


def statuses():
    """What each says; nothing but that."""
    found = {}
    for name in NAMES:
        answer = ask(name)
        found[name] = answer.status_code
        word = "ok" if answer.status_code == 200 else "unavailable"
        assert answer.json() == {"status": word}
    return found


def save(site, **data):
    session = site.store()
    session.update(data)
    session.save()
    return session.session_key


@pytest.fixture
def site(engine, monkeypatch):
    """A site whose background thread has nothing to do of itself for the time of a test."""
    quieten(monkeypatch)
    engine.configure(
        BOTO_SESSION=BOTO_SESSION, NEW_SESSION_DELAY=3600, SITE="east", HEALTH_TOKEN=TOKEN
    )
    assert engine.runtime
    wait_for_background()
    return engine


@pytest.fixture
def many(site):
    """200 other processes of the site."""
    hot, taken = site.runtime.hot, 0
    for number, name in enumerate(fleet._SLOT_NAMES[:201]):
        note = json.dumps(dataclasses.asdict(member(number, host=f"web-{number}"))).encode()
        taken += hot.write_note(name, note, None, 60)
    assert taken >= 200
    return taken


# --- Outages ----------------------------------------------------------------------------------

OUTAGES = {
    "hot": {"live": 200, "ready": 200, "failover": 503},
    "cold": {"live": 200, "ready": 200, "failover": 503},
    "hot and cold": {"live": 200, "ready": 503, "failover": 503},
}


def find_out(site):
    """Let requests find out that DynamoDB is down; nobody else asks it."""
    for _ in range(3):
        key = site.runtime.keyring.new_session_key()
        with contextlib.suppress(SessionUnavailable):
            site.store(key).load()


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_each_tells_of_an_outage_and_of_its_end(
    make_engine, start, tmp_path, monkeypatch, outage, how
):
    monkeypatch.setattr("django_dynamo_failover.writer.POLL_SECONDS", 0.2)
    hot, cold = start(Memcached), start(Dynalite, path=tmp_path)
    site = make_engine(hot, cold, BOTO_SESSION=BOTO_SESSION, READ_TIMEOUT=0.3, SHUTDOWN_TIMEOUT=0)
    until(lambda: statuses() == WELL)

    servers = [server for name, server in [("hot", hot), ("cold", cold)] if name in outage]
    for server in servers:
        server.kill() if how == "killed" else server.freeze()
    find_out(site)
    until(lambda: statuses() == OUTAGES[outage])
    assert statuses() == OUTAGES[outage]

    for server in servers:
        server.start() if how == "killed" else server.thaw()
    until(lambda: statuses() == WELL)


@pytest.mark.parametrize("background", [True, False])
def test_who_gets_no_traffic_finds_out_that_a_tier_is_back(make_engine, start, background):
    """Nothing but these requests comes to a process that is not ready."""
    hot = start(Memcached)
    site = make_engine(hot, BACKGROUND=background)
    assert site.runtime
    hot.kill()
    find_out(site)
    assert ask("ready").status_code == 503
    hot.start()
    until(lambda: ask("ready").status_code == 200)


def test_the_first_request_of_a_process_finds_out_that_the_hot_tier_is_down(make_engine, start):
    hot = start(Memcached)
    make_engine(hot)
    hot.kill()
    assert ask("ready").status_code == 503


# --- Settings ---------------------------------------------------------------------------------

WRONG = {
    "a value": ("DYNAMO_FAILOVER", {"DEADLINE": 0, "HEALTH_TOKEN": TOKEN}),
    "no dict": ("DYNAMO_FAILOVER", None),
    "a callable that is not there": (
        "DYNAMO_FAILOVER",
        {"BOTO_SESSION": "no.such", "REGIONS": ["x"]},
    ),
    "a cache that is not there": ("SESSION_CACHE_ALIAS", "none"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_with_wrong_settings_a_process_lives_and_is_not_ready(site, settings, caplog, wrong):
    setattr(settings, *WRONG[wrong])
    assert statuses() == {"live": 200, "ready": 503, "failover": 503}
    assert TOKEN not in caplog.text
    assert "Run manage.py check." in caplog.text


def test_live_starts_nothing(site, memcached):
    site.restart()
    before = memcached.commands()
    assert ask("live", TOKEN).status_code == 200
    assert memcached.commands() == before


# --- Details ----------------------------------------------------------------------------------


def test_with_the_token_there_are_details(site):
    about = details("live")
    assert 0 < about.pop("uptime_seconds") < 24 * 3600
    assert about == {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "site": "east",
    }
    assert details("ready") == {"hot": True, "us-east-1": True}
    assert details("failover") == {
        "pending": 0,
        "oldest_pending_seconds": 0,
        "logouts": 0,
        "processes": 1,
        "draining": False,
        "tiers": {"hot": True, "us-east-1": True},
        "reasons": [],
    }


def test_the_details_say_why_not(site, dynamodb):
    save(site, number=1)
    ended = save(site, number=2)
    write_pending()
    save(site, number=3)
    dynamodb.fail("*", "InternalServerError", times=None)
    site.store(ended).delete()
    find_out(site)
    with later(60):
        found = details("failover")
    assert 60 <= found["oldest_pending_seconds"] < 70
    assert (found["pending"], found["logouts"]) == (2, 1)
    assert found["tiers"] == details("ready") == {"hot": True, "us-east-1": False}
    assert found["reasons"] == [
        "No region of DynamoDB answers.",
        "DynamoDB has still to be told of changes or logouts: 2.",
    ]


@each_endpoint
@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 20])
def test_a_wrong_token_is_refused(site, name, token):
    answer = ask(name, token)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer["Cache-Control"] == "no-store"
    assert answer.json() == {"status": "unauthorized"}


@each_endpoint
@pytest.mark.parametrize("sent", ["Basic dXNlcjpwYXNz", TOKEN, ""])
def test_what_is_no_token_is_as_none(site, name, sent):
    answer = ask(name, headers={"Authorization": sent})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@each_endpoint
def test_the_name_of_the_scheme_has_no_case(site, name):
    assert "details" in ask(name, headers={"Authorization": f"bearer {TOKEN}"}).json()


@each_endpoint
@pytest.mark.parametrize("token", [TOKEN, "None", ""])
def test_where_no_token_is_set_none_is_asked_for(site, name, token):
    site.configure(HEALTH_TOKEN=None)
    answer = ask(name, token)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@each_endpoint
def test_no_answer_tells_of_a_session_the_table_or_a_secret(site, settings, name):
    key = save(site, number=1)
    answer = ask(name, TOKEN)
    text = f"{answer.content!r} {answer.headers}"
    for secret in (key, hot_key(key)[-64:], site.table, settings.SECRET_KEY, TOKEN, "127.0.0.1"):
        assert secret not in text


class TestDebugPage:
    @pytest.fixture
    def debug(self, site, settings):
        settings.DEBUG = True
        settings.ROOT_URLCONF = (
            path("session/", lambda request: HttpResponse(request.session.get("number"))),
            *shop_urls,
        )
        return Client(raise_request_exception=False)

    def test_of_an_endpoint_does_not_show_the_token(self, debug, monkeypatch):
        def fail(_):
            raise RuntimeError("a mistake of ours")

        monkeypatch.setattr(Readiness, "failover", fail)
        answer = ask("failover", TOKEN, debug)
        assert answer.status_code == 500
        assert b"a mistake of ours" in answer.content
        assert b"HEALTH_TOKEN" in answer.content
        assert TOKEN.encode() not in answer.content

    def test_of_wrong_settings_does_not_show_the_token(self, debug, site):
        site.configure(DEADLINE=0)
        debug.cookies[COOKIE] = "x" * 32
        answer = debug.get("/session/")
        assert answer.status_code == 500
        assert b"HEALTH_TOKEN" in answer.content
        assert TOKEN.encode() not in answer.content


# --- HTTP -------------------------------------------------------------------------------------


@each_endpoint
@pytest.mark.parametrize("method", ["post", "put", "delete", "options"])
def test_other_methods_are_refused(site, name, method):
    client = Client(enforce_csrf_checks=True)
    answer = getattr(client, method)(reverse(f"django_dynamo_failover:{name}"))
    assert answer.status_code == 405
    assert answer["Cache-Control"] == "no-store"


@each_endpoint
def test_head_has_the_same_status_and_no_body(site, name):
    save(site, number=1)
    answer = Client().head(reverse(f"django_dynamo_failover:{name}"))
    assert answer.status_code == ask(name).status_code
    assert answer.content == b""


@each_endpoint
def test_no_answer_is_kept_and_no_cookie_is_set(site, name):
    for client in (Client(), Client()):
        answer = ask(name, client=client)
        assert answer["Cache-Control"] == "no-store"
        assert not answer.has_header("Vary")
        assert not answer.cookies
        client.cookies[COOKIE] = save(site, number=1)


@each_endpoint
def test_nobody_has_to_log_in(site, settings, name):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    assert ask(name).status_code == 200


def test_a_503_is_an_answer_and_no_error_to_be_mailed(site, caplog):
    save(site, number=1)
    assert ask("failover").status_code == 503
    assert ask("failover", "wrong").status_code == 401
    assert not caplog.records


def test_under_asgi_they_answer_the_same(site):
    def ask_async(name):
        answer = async_to_sync(AsyncClient().get)(reverse(f"django_dynamo_failover:{name}"))
        assert not answer.cookies
        return answer.status_code

    assert {name: ask_async(name) for name in NAMES} == WELL
    save(site, number=1)
    assert ask_async("failover") == 503


# --- What they cost ---------------------------------------------------------------------------


@pytest.fixture
def browser(site):
    """A browser with a session."""
    browser = Client()
    browser.cookies[COOKIE] = save(site, number=1)
    write_pending()
    return browser


@pytest.mark.parametrize("name", ["live", "ready"])
def test_live_and_ready_cost_nothing(site, browser, name):
    with cost_of(site) as cost:
        for token in (None, TOKEN, "wrong"):
            for _ in range(10):
                ask(name, token, browser)
    assert not +cost.hot
    assert not +cost.cold


def test_failover_costs_one_look_at_the_slots_a_second(site, browser):
    with cost_of(site) as cost:
        began = time.monotonic()
        for _ in range(30):
            for token in (None, TOKEN, "wrong"):
                ask("failover", token, browser)
        assert time.monotonic() - began < 1, "this machine is too busy"
    assert +cost.hot == {"get": fleet.SLOTS}
    assert not +cost.cold


@each_endpoint
def test_they_answer_in_no_time_with_200_other_processes(site, many, name, monkeypatch):
    client, clock = Client(), Clock()
    monkeypatch.setattr(site.runtime.readiness, "_monotonic", clock)
    ask(name, TOKEN, client)

    def took(seconds_between):
        clock.tick(seconds_between)
        began = time.perf_counter()
        answer = ask(name, TOKEN, client)
        took = time.perf_counter() - began
        assert answer.status_code == 200
        return took

    often = statistics.median(took(0) for _ in range(100))
    rarely = [took(1) for _ in range(30)]
    rare = statistics.median(rarely)
    print(f"{name}: {often * 1e3:.2f} ms; asked once a second {rare * 1e3:.2f} ms")
    if name == "failover":
        assert details(name)["processes"] == many + 1
    assert often < FAST
    assert min(rarely) < FAST  # the best, as it talks to memcached on a machine that may be busy


# --- A planned failover -----------------------------------------------------------------------


def test_failover_is_well_once_all_processes_have_drained(serve, operator):
    webs = [serve(), serve()]
    tills = [open_till(web.url, "mug") for web in webs]

    def statuses():
        return [requests.get(f"{web.url}/health/failover", timeout=5).status_code for web in webs]

    until(lambda: len(operator.members) == 2)
    for till in tills:
        till.change("espresso")
    until(lambda: statuses() == [503, 503])  # each has heard of the other by then, or of itself
    assert operator.carts(tills) != [{"mug": 1, "espresso": 1}] * 2

    operator.run("drainsessions", "on")
    until(lambda: statuses() == [200, 200])
    assert operator.carts(tills) == [{"mug": 1, "espresso": 1}] * 2
    for till in tills:  # and stays so
        till.change("mug")
        assert statuses() == [200, 200]
    assert operator.carts(tills) == [{"mug": 2, "espresso": 1}] * 2

    operator.run("drainsessions", "off")
    for till in tills:
        till.change("mug")
    until(lambda: statuses() == [503, 503])
