"""What pages cost, in commands of memcached and requests of DynamoDB, as these have counted them.

G9: a page hit is one hot round trip, and a save is one more. G7: a made-up cookie is none at all.
"""

import contextlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest
from django.contrib.auth import authenticate, get_user_model, login, logout
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from servers import free_port

from django_dynamo_failover import runtime
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.heartbeat import Heartbeat
from django_dynamo_failover.keys import ALPHABET, KEY_LENGTH, storage_id
from django_dynamo_failover.reporter import Reporter
from django_dynamo_failover.writer import Writer

from .configurations import BOTO_SESSION, eventually, hot_key, later, quieten, write_pending
from .sites import KEYRING, Clock, connect
from .sites import Site as Place

LEASE = 900
NOTHING = Counter()
READ = Counter(get=1)
CHANGE = Counter(get=1, set=1, cas=1)
#: The background thread reads the entry and swaps it for one that says what DynamoDB has.
NOTE = Counter(get=1, set=1, cas=1)


def nothing(request):
    return HttpResponse()


def read(request):
    return HttpResponse(request.session.get("count", "none"))


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    request.session["more"] = "x" * 100
    return HttpResponse()


def log_in(request):
    login(request, authenticate(request, username="mia", password="s3same"))
    return HttpResponse()


def log_out(request):
    logout(request)
    return HttpResponse()


urlpatterns = [path(view.__name__, view) for view in (nothing, read, count, log_in, log_out)]


@pytest.fixture
def site(engine, settings, monkeypatch):
    """A site whose background thread has nothing to do of itself for the time of a test."""
    quieten(monkeypatch)
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [
        "django_dynamo_failover.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    engine.configure(NEW_SESSION_DELAY=3600, BOTO_SESSION=BOTO_SESSION)
    assert engine.runtime  # has begun to watch the hot tier
    return engine


@pytest.fixture
def browser(site):
    """A browser with a session that both tiers have."""
    browser = Client()
    browser.get("/count")
    write_pending()
    return browser


def wait_for_background():
    """Wait until the background thread has done all that is not put off."""
    writer = runtime.current().writer

    def is_quiet(jobs):
        with jobs._changed:
            soon = jobs._clock() + 60
            waiting = [job for job in jobs._jobs.values() if job.key != "probe"]
            return not jobs._running and all(job.due > soon for job in waiting)

    eventually(lambda: is_quiet(writer._polls) and is_quiet(writer._jobs))


@dataclass
class Cost:
    hot: Counter = field(default_factory=Counter)
    cold: Counter = field(default_factory=Counter)


@contextlib.contextmanager
def cost_of(site):
    """Count what the block costs, with all that it sets going in the background."""
    wait_for_background()
    hot, cold = site.hot.commands(), site.cold.requests()
    cost = Cost()
    yield cost
    wait_for_background()
    cost.hot, cost.cold = site.hot.commands() - hot, site.cold.requests() - cold


def key_of(browser):
    return browser.cookies["sessionid"].value


def evict(site, browser):
    assert site.hot.delete(hot_key(key_of(browser)))


def made_up_key():
    return "".join(secrets.choice(ALPHABET) for _ in range(KEY_LENGTH))


class TestPage:
    def test_that_leaves_the_session_alone_costs_nothing(self, site, browser):
        with cost_of(site) as cost:
            browser.get("/nothing")
        assert cost == Cost(NOTHING, NOTHING)

    def test_of_a_visitor_without_a_session_costs_nothing(self, site):
        with cost_of(site) as cost:
            assert Client().get("/read").content == b"none"
        assert cost == Cost(NOTHING, NOTHING)

    def test_that_reads_the_session_costs_one_get(self, site, browser):
        with cost_of(site) as cost:
            assert browser.get("/read").content == b"1"
        assert cost == Cost(READ, NOTHING)

    def test_that_changes_the_session_costs_two_commands(self, site, browser):
        with cost_of(site) as cost:
            browser.get("/count")
        assert cost == Cost(CHANGE, NOTHING)
        assert browser.get("/read").content == b"2"

    def test_that_begins_a_session_costs_one_command(self, site):
        browser = Client()
        with cost_of(site) as cost:
            browser.get("/count")
        assert cost == Cost(Counter(set=1), NOTHING)
        assert browser.get("/read").content == b"1"

    def test_that_is_saved_at_every_request_costs_two_commands(self, site, browser, settings):
        settings.SESSION_SAVE_EVERY_REQUEST = True
        with cost_of(site) as cost:
            browser.get("/read")
        assert cost == Cost(CHANGE, NOTHING)


class TestLogin:
    @pytest.fixture(autouse=True)
    def user(self, db, site):
        get_user_model().objects.create_user("mia", password="s3same")

    def test_is_one_write_to_dynamodb(self, site):
        browser = Client()
        with cost_of(site) as cost:
            browser.get("/log_in")
        # cycle_key() adds the session without the login, the response saves it with the login.
        assert cost == Cost(Counter(set=1) + CHANGE + NOTE, Counter(PutItem=1))

    def test_with_a_session_from_before_ends_that_one_too(self, site, browser):
        with cost_of(site) as cost:
            browser.get("/log_in")
        tombstone = Counter(set=1)
        assert cost.hot == READ + Counter(set=1) + NOTE + tombstone + CHANGE + NOTE
        # The new session is durable before the old one is ended.
        assert cost.cold == Counter(PutItem=2, BatchWriteItem=1)

    def test_makes_no_later_page_dearer(self, site):
        browser = Client()
        browser.get("/log_in")
        with cost_of(site) as cost:
            browser.get("/read")
        assert cost == Cost(READ, NOTHING)

    def test_and_logout_is_one_write_too(self, site):
        browser = Client()
        browser.get("/log_in")
        with cost_of(site) as cost:
            browser.get("/log_out")
        assert cost == Cost(READ + Counter(set=1), Counter(BatchWriteItem=1))


class TestMadeUpCookie:
    def test_a_thousand_of_them_cost_nothing(self, site, browser):
        cookies = [made_up_key() for _ in range(998)]
        genuine = key_of(browser)
        cookies += [genuine[:-1] + ("a" if genuine[-1] != "a" else "b"), genuine.upper()]
        with cost_of(site) as cost:
            for cookie in cookies:
                visitor = Client()
                visitor.cookies["sessionid"] = cookie
                assert visitor.get("/read").content == b"none"
        assert cost == Cost(NOTHING, NOTHING)
        assert runtime.current().metrics.snapshot()["forged_keys"] == 1000

    def test_of_a_session_that_is_over_costs_one_request_in_a_while(
        self, site, browser, monkeypatch
    ):
        key = key_of(browser)
        evict(site, browser)
        absent = runtime.current().store._over
        site.put_item({"id": {"S": f"revoked:{storage_id(key)}"}, "expires": {"N": "9999999999"}})
        with cost_of(site) as cost:
            for _ in range(20):
                assert site.store(key).load() == {}
        assert cost.cold == Counter(BatchGetItem=1)
        monkeypatch.setattr(absent, "_clock", lambda: time.time() + 61)
        with cost_of(site) as cost:
            site.store(key).load()
        assert cost.cold == Counter(BatchGetItem=1)

    def test_with_a_change_costs_what_a_new_session_does(self, site):
        visitor = Client()
        visitor.cookies["sessionid"] = made_up = made_up_key()
        with cost_of(site) as cost:
            visitor.get("/count")
        assert cost == Cost(Counter(set=1), NOTHING)
        assert key_of(visitor) != made_up


class TestEviction:
    def test_costs_one_request_and_the_session_is_back(self, site, browser):
        evict(site, browser)
        with cost_of(site) as cost:
            assert browser.get("/read").content == b"1"
        assert cost == Cost(Counter(get=1, set=1), Counter(BatchGetItem=1))
        with cost_of(site) as cost:
            assert browser.get("/read").content == b"1"
        assert cost == Cost(READ, NOTHING)

    def test_before_a_page_that_changes_the_session_costs_no_more_requests(self, site, browser):
        evict(site, browser)
        with cost_of(site) as cost:
            browser.get("/count")
        assert cost.cold == Counter(BatchGetItem=1)
        assert browser.get("/read").content == b"2"

    def test_under_many_requests_of_one_user_costs_one_request(self, site, browser):
        key = key_of(browser)
        evict(site, browser)
        site.cold.latency(300)
        answers = []
        threads = [
            Thread(target=lambda: answers.append(site.store(key).get("count"))) for _ in range(8)
        ]
        with cost_of(site) as cost:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert answers == [1] * 8
        assert cost.cold == Counter(BatchGetItem=1)


class TestDynamoDB:
    def test_gets_a_new_session_once_without_being_asked(self, site):
        site.configure(NEW_SESSION_DELAY=0.05)
        browser = Client()
        with cost_of(site) as cost:
            browser.get("/count")
        assert cost == Cost(Counter(set=1) + NOTE, Counter(PutItem=1))

    def test_gets_all_changes_of_an_interval_in_one_write(self, site, browser):
        with cost_of(site) as cost:
            for _ in range(10):
                browser.get("/count")
        assert cost.cold == NOTHING
        with cost_of(site) as cost:
            write_pending()
        assert cost.cold == Counter(PutItem=1)
        evict(site, browser)
        assert browser.get("/read").content == b"11"

    def test_gets_them_when_the_user_goes_idle_too(self, site):
        site.configure(WRITE_INTERVAL=2, NEW_SESSION_DELAY=0)
        browser = Client()
        browser.get("/count")
        wait_for_background()
        site.cold.reset_requests()
        began = time.monotonic()
        for _ in range(5):
            browser.get("/count")
        eventually(site.cold.requests)
        assert 1 < time.monotonic() - began < 3
        wait_for_background()
        assert site.cold.requests() == Counter(PutItem=1)
        evict(site, browser)
        assert browser.get("/read").content == b"6"

    def test_is_asked_for_every_page_only_while_memcached_is_down(self, site, browser, settings):
        write_pending()
        down = {**settings.CACHES["sessions"], "LOCATION": f"127.0.0.1:{free_port()}"}
        settings.CACHES = {**settings.CACHES, "sessions": down}
        with cost_of(site) as cost:
            for _ in range(5):
                assert browser.get("/read").content == b"1"
        assert cost == Cost(NOTHING, Counter(BatchGetItem=5))
        before = site.cold.requests()
        browser.get("/count")
        assert site.cold.requests() - before == Counter(BatchGetItem=1, PutItem=1)
        assert browser.get("/read").content == b"2"


class TestBeingSeen:
    """What processes do of themselves, whether or not there are requests: see docs/how.rst."""

    DOCUMENTED = " ".join((Path(__file__).parent.parent / "docs" / "how.rst").read_text().split())

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def process(self, memcached, dynamodb, table, clock):
        """A process without requests, that lives when it is told to."""
        table_of_site = connect(dynamodb)
        table_of_site.table = table
        cache = MemcachedCache(memcached.address, {})
        site = Place(cache, table_of_site, clock)
        parts = (site.hot, site.cold, site.fleet)
        site.writer = Writer(
            site.reconciler, *parts, site.metrics, background=False, now=clock, monotonic=clock
        )
        site.reporter = Reporter("here", *parts, site.writer, site.metrics, now=clock)
        site.heartbeat = Heartbeat("here", KEYRING.fingerprints, site.hot, site.cold, now=clock)
        site.writer.start()
        site.writer.run_due()
        site.heartbeat.beat()
        yield site
        cache.disconnect()

    def live(self, process, clock, seconds):
        """Let the background do what it does in so many seconds."""
        end = clock.now + seconds
        while (due := process.writer._polls._heap[0].due) <= end:
            clock.tick(due - clock.now)
            process.writer.run_due()

    def test_to_hear_of_orders_and_to_keep_a_slot_costs_four_commands(self, process, memcached):
        before = memcached.commands()
        for _ in range(100):
            process.writer._poll()
        # One look for the site token, one for orders, one at the own slot.
        assert +(memcached.commands() - before) == Counter(get=300, set=100, cas=100)

    def test_a_snapshot_costs_one_command(self, process, memcached):
        before = memcached.commands()
        for _ in range(100):
            process.reporter.report()
        assert +(memcached.commands() - before) == Counter(set=100)

    def test_a_heartbeat_costs_one_command_and_one_write_in_a_site(
        self, process, memcached, dynamodb
    ):
        before, sent = memcached.commands(), dynamodb.requests()
        for _ in range(10):
            process.heartbeat.beat()  # but the turn is taken
        assert +(memcached.commands() - before) == Counter(set=10)
        assert dynamodb.requests() == sent
        memcached.flush()
        process.heartbeat.beat()
        assert dynamodb.requests() - sent == Counter(PutItem=1)  # and no note of the site again

    def test_an_hour_costs_what_is_documented(self, process, memcached, dynamodb, clock):
        process.writer.every_now_and_then("report", 2, process.reporter.report)
        process.writer.every_now_and_then("heartbeat", 2, process.heartbeat.beat)
        before, sent = memcached.commands(), dynamodb.requests()
        self.live(process, clock, 3600)
        cost = memcached.commands() - before
        assert cost["get"] == 5400
        assert cost["cas"] == 1800
        assert 60 <= cost["set"] - 1800 - 720 <= 67  # whose turn it is to beat
        assert dynamodb.requests() == sent
        for text in (f"{5400 + 1800:,} commands", "720 commands", "60 to 67 that ask"):
            assert text in self.DOCUMENTED

    def test_its_bytes_are_what_is_documented(self, process, memcached):
        """So many each hour, in KB: what is sent and what is answered."""

        def bytes_of(work, times):
            before = memcached.stats()
            for _ in range(100):
                work()
            after = memcached.stats()
            moved = sum(after[name] - before[name] for name in ("bytes_read", "bytes_written"))
            return moved / 100 * times / 1000

        assert "1,100 KB" in self.DOCUMENTED
        assert bytes_of(process.writer._poll, 1800) == pytest.approx(1100, rel=0.15)
        assert "200 KB" in self.DOCUMENTED
        assert bytes_of(process.reporter.report, 720) == pytest.approx(200, rel=0.15)


class TestLease:
    def test_costs_nothing_in_its_first_two_thirds(self, site, browser):
        with later(LEASE * 0.6), cost_of(site) as cost:
            browser.get("/read")
        assert cost == Cost(READ, NOTHING)

    def test_is_renewed_behind_the_user_by_one_read_in_its_last_third(self, site, browser):
        with later(LEASE * 0.85):
            with cost_of(site) as cost:
                browser.get("/read")
            assert cost == Cost(READ + NOTE, Counter(BatchGetItem=1))
            with cost_of(site) as cost:
                for _ in range(5):
                    browser.get("/read")
            assert cost == Cost(Counter(get=5), NOTHING)
        with later(LEASE * 1.3), cost_of(site) as cost:
            browser.get("/read")
        assert cost == Cost(READ, NOTHING)

    def test_is_renewed_once_for_many_pages(self, site, browser):
        site.cold.latency(200)
        with later(LEASE * 0.85), cost_of(site) as cost:
            for _ in range(5):
                browser.get("/read")
        assert cost.cold == Counter(BatchGetItem=1)

    def test_of_a_changed_session_is_renewed_by_a_read_too(self, site, browser):
        """Its write comes when it is due, and would not see a revocation."""
        browser.get("/count")
        with later(LEASE * 0.85), cost_of(site) as cost:
            browser.get("/read")
        assert cost == Cost(READ + NOTE, Counter(BatchGetItem=1))
        with cost_of(site) as cost:
            write_pending()
        assert cost.cold == Counter(PutItem=1)

    @pytest.mark.parametrize("changed", [False, True], ids=["unchanged", "changed"])
    def test_that_is_over_costs_a_request_in_the_page(self, site, browser, changed, monkeypatch):
        # So that nothing can have renewed it but the page.
        monkeypatch.setattr(Writer, "renew_later", lambda *_: None)
        if changed:
            browser.get("/count")
        with later(LEASE + 1):
            with cost_of(site) as cost:
                assert browser.get("/read").content == (b"2" if changed else b"1")
            assert cost.cold == Counter(BatchGetItem=1, PutItem=1 if changed else 0)
            with cost_of(site) as cost:
                browser.get("/read")
            assert cost == Cost(READ, NOTHING)
