"""What a process knows of a failover, and how rarely it asks the hot tier for that."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import Memcached

from django_dynamo_failover import fleet
from django_dynamo_failover.fleet import Member
from django_dynamo_failover.readiness import FRESH_SECONDS, STALE_SECONDS, Readiness

from .configurations import BOTO_SESSION, eventually, quieten
from .sites import Clock
from .test_costs import wait_for_background

UNKNOWN = ("The processes of the site could not be asked.",)
A_SERVER_IS_DOWN = ("Not every server of the hot tier answers, so that processes may be unheard.",)


def member(number, **told):
    values = {"host": "web", "pid": number, "site": None, "pending": 0, "orders": 0}
    return Member(id=f"{number:016}", **{**values, "drained": False, **told})


@pytest.fixture
def site(engine, monkeypatch):
    quieten(monkeypatch)
    engine.configure(BOTO_SESSION=BOTO_SESSION, NEW_SESSION_DELAY=3600)
    assert engine.runtime
    wait_for_background()
    return engine


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def readiness(site, clock):
    """That of this process, at a time that only the test moves."""
    run = site.runtime
    return Readiness(run.hot, run.cold, run.fleet, run.writer, monotonic=clock)


@pytest.fixture
def tell(site):
    """``tell(member, …)``: what other processes tell of themselves."""

    def tell(*members):
        hot, names = site.runtime.hot, iter(fleet._SLOT_NAMES)
        for each in members:
            note = json.dumps(dataclasses.asdict(each)).encode()
            while not hot.write_note(next(names), note, None, fleet.SLOT_SECONDS):
                pass  # taken

    return tell


def save(site):
    session = site.store()
    session["number"] = 1
    session.save()


class TestFailover:
    def test_nothing_is_lost_where_nothing_is_pending(self, readiness, tell):
        tell(member(1), member(2))
        found = readiness.failover()
        assert found.reasons == ()
        assert (found.pending, found.oldest, found.logouts) == (0, 0, 0)
        assert (found.processes, found.draining) == (3, False)

    def test_what_any_process_holds_would_be_lost(self, readiness, site, tell):
        tell(member(1, pending=2, oldest=9e9), member(2, pending=3, logouts=3))
        save(site)
        found = readiness.failover()
        assert (found.pending, found.logouts) == (6, 3)
        assert found.oldest == site.runtime.writer.oldest > 0
        assert found.reasons == ("DynamoDB has still to be told of changes or logouts: 6.",)

    def test_the_oldest_change_is_that_of_whatever_process(self, readiness, site, tell):
        tell(member(1), member(2, pending=1, oldest=7.0), member(3, pending=1, oldest=8.0))
        save(site)
        assert readiness.failover().oldest == 7

    def test_each_process_tells_since_when_its_oldest_change_waits(self, site, dynamodb):
        save(site)
        run = site.runtime
        run.writer._poll()
        [told] = run.fleet.members()
        assert (told.pending, told.oldest, told.logouts) == (1, run.writer.oldest, 0)
        dynamodb.fail("*", "InternalServerError", times=None)
        run.store.delete("0" * 64, 2**31)
        run.writer._poll()
        [told] = run.fleet.members()
        assert (told.pending, told.logouts) == (2, 1)

    def test_what_this_process_holds_is_known_at_once_and_counted_once(
        self, readiness, site, clock
    ):
        assert not readiness.failover().reasons
        save(site)
        assert readiness.failover().pending == 1
        site.runtime.fleet.tell(1)
        clock.tick(FRESH_SECONDS)
        assert readiness.failover().pending == 1
        site.runtime.writer.flush(5)
        assert not readiness.failover().reasons

    def test_who_has_not_drained_may_still_have_what_was_not_told(
        self, readiness, site, tell, clock
    ):
        site.runtime.fleet.drain(True)
        site.runtime.fleet.tell(0)
        tell(member(1, drained=True), member(2))
        found = readiness.failover()
        assert found.draining
        assert found.reasons == ("Processes that have not drained yet: 2 of 3.",)
        site.runtime.fleet.tell(0)
        clock.tick(FRESH_SECONDS)
        assert readiness.failover().reasons == ("Processes that have not drained yet: 1 of 3.",)

    def test_no_process_is_heard_of(self, readiness, site):
        site.runtime.fleet.leave()
        assert readiness.failover().reasons == ("No process of the site tells of itself.",)

    def test_more_processes_than_can_be_heard(self, readiness, tell, monkeypatch):
        monkeypatch.setattr("django_dynamo_failover.readiness.SLOTS", 3)
        tell(member(1), member(2))
        [reason] = readiness.failover().reasons
        assert reason.startswith("There may be more than 3 processes")

    def test_no_cold_tier(self, make_engine, memcached):
        [reason, *_] = make_engine(memcached).runtime.readiness.failover().reasons
        assert reason == "There is no cold tier: REGIONS is empty."

    def test_a_server_of_several_is_down(self, make_engine, start, dynamodb, table, monkeypatch):
        quieten(monkeypatch)
        one, other = start(Memcached), start(Memcached)
        cache = {
            "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
            "LOCATION": [one.address, other.address],
        }
        run = make_engine(None, dynamodb, table=table, cache=cache).runtime
        readiness = Readiness(
            run.hot, run.cold, run.fleet, run.writer, monotonic=(clock := Clock())
        )
        assert not readiness.failover().reasons
        other.kill()
        clock.tick(FRESH_SECONDS)
        assert A_SERVER_IS_DOWN[0] in readiness.failover().reasons
        other.start()
        eventually(lambda: run.hot.is_up)  # within less than it takes to read again
        [reason] = readiness.failover().reasons
        assert reason == "A moment ago not every server of the hot tier answered."
        run.fleet.tell(0)
        clock.tick(FRESH_SECONDS)
        assert not readiness.failover().reasons


class TestCost:
    def test_the_others_are_heard_once_a_second(self, readiness, memcached, clock):
        before = memcached.commands()
        for _ in range(50):
            readiness.failover()
        assert memcached.commands() - before == {"get": fleet.SLOTS}
        clock.tick(FRESH_SECONDS)
        for _ in range(50):
            readiness.failover()
        assert memcached.commands() - before == {"get": 2 * fleet.SLOTS}

    def test_nobody_waits_for_a_reader_that_is_stuck(self, readiness, clock, monkeypatch, caplog):
        assert not readiness.failover().reasons
        is_stuck, go_on = threading.Event(), threading.Event()

        def members(_):
            assert not is_stuck.is_set() or go_on.is_set(), "a second one is stuck"
            is_stuck.set()
            assert go_on.wait(10)
            return [member(1)]

        monkeypatch.setattr(fleet.Fleet, "members", members)
        clock.tick(FRESH_SECONDS)
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(readiness.failover)
            assert is_stuck.wait(5)
            try:
                assert readiness.failover().reasons == ()  # as a second ago
                clock.tick(STALE_SECONDS + 1)
                assert readiness.failover().reasons == UNKNOWN
            finally:
                go_on.set()
            assert stuck.result(5).reasons == UNKNOWN  # it is out of date by now
        assert not caplog.records
        clock.tick(FRESH_SECONDS)
        assert readiness.failover().reasons == ()

    def test_who_comes_while_it_is_read_first_waits_for_that(self, readiness, monkeypatch):
        is_reading, go_on = threading.Event(), threading.Event()

        def members(_):
            is_reading.set()
            assert go_on.wait(10)
            return [member(1)]

        monkeypatch.setattr(fleet.Fleet, "members", members)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(readiness.failover)
            assert is_reading.wait(5)
            monkeypatch.setattr(fleet.Fleet, "members", None)
            second = pool.submit(readiness.failover)
            eventually(lambda: readiness._has_read._cond._waiters)
            go_on.set()
            assert first.result(5) == second.result(5)
            assert first.result().reasons == ()

    def test_what_cannot_be_read_is_asked_for_no_more_often(
        self, readiness, clock, monkeypatch, caplog
    ):
        def fail(_):
            raise RuntimeError("any cache may be set")

        assert not readiness.failover().reasons
        monkeypatch.setattr(fleet.Fleet, "members", fail)
        clock.tick(FRESH_SECONDS)
        assert [readiness.failover().reasons for _ in range(9)] == [()] * 9
        clock.tick(STALE_SECONDS)
        assert [readiness.failover().reasons for _ in range(9)] == [UNKNOWN] * 9
        assert len(caplog.records) == 2

    def test_nothing_is_remembered_of_before_a_restart(self, site, tell):
        assert not site.runtime.readiness.failover().reasons
        tell(member(1, pending=1))
        assert not site.runtime.readiness.failover().reasons
        site.restart()
        assert site.runtime.readiness.failover().pending == 1
