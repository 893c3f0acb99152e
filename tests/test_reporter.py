"""What a process tells of itself to whoever looks at the site, on real servers."""

import json
import logging
import os
import pickle
import socket
import threading
import zlib
from collections import Counter

import pytest
import time_machine
from django.core.cache import caches
from servers import Memcached

from django_dynamo_failover import __version__, fleet, reporter, runtime
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.exceptions import HotUnavailable, SessionUnavailable
from django_dynamo_failover.histogram import count
from django_dynamo_failover.keys import TAG_BYTES, Keyring, storage_id
from django_dynamo_failover.snapshot import Snapshot

from .configurations import BOTO_SESSION, LOGIN, eventually, quieten, write_pending
from .fleets import Process
from .sites import KEYRING, NOW
from .test_costs import wait_for_background
from .test_members import PICKLE_FLAGS, ids_of


@pytest.fixture
def site(make_engine, memcached, dynamodb, table, monkeypatch):
    """An engine whose background thread has nothing to do of itself."""
    quieten(monkeypatch)
    engine = make_engine(memcached, dynamodb, table=table, SITE="east", BOTO_SESSION=BOTO_SESSION)
    engine.configure(NEW_SESSION_DELAY=3600)
    assert engine.runtime
    wait_for_background()  # its first look at the hot tier
    return engine


@pytest.fixture
def start_process(site):
    """``start_process()``: one more process of the site, as it is once it has started."""

    def start_process():
        run = runtime.build(runtime.config())
        run.fleet.tell(0)
        return run

    return start_process


def told(run):
    """What others read of a process, once it has reported."""
    run.reporter.report()
    [snapshot] = [each for each in run.fleet.snapshots() if each.id == run.fleet.id]
    return snapshot


def events(run):
    return [(event.kind, event.subject) for event in told(run).events]


def snapshot_key(run):
    """Where memcached holds what a process tells."""
    return f":1:{fleet._snapshot_name(run.fleet._slot)}"


# --- What it tells ----------------------------------------------------------------------------


def test_it_tells_who_it_is(site):
    with time_machine.travel(NOW, tick=False) as traveller:
        run = runtime.build(runtime.config())
        run.fleet.tell(0)
        traveller.shift(10)
        snapshot = told(run)
    assert (snapshot.id, snapshot.site) == (run.fleet.id, "east")
    assert (snapshot.host, snapshot.pid) == (socket.gethostname(), os.getpid())
    assert snapshot.version == __version__
    assert (snapshot.started, snapshot.at) == (NOW, NOW + 10)
    assert snapshot.up == {"hot": True, "us-east-1": True}
    assert snapshot.counters == snapshot.latencies == snapshot.errors == {}
    assert (snapshot.pending, snapshot.oldest, snapshot.logouts) == (0, 0, 0)
    assert (snapshot.draining, snapshot.minutes, snapshot.events) == (False, (), ())


def test_it_tells_what_was_counted_and_how_long_it_took(site):
    session = site.store()
    session.update(LOGIN)
    session.save()
    for _ in range(3):
        site.store(session.session_key).load()
    snapshot = told(site.runtime)
    assert snapshot.counters["hot_hits"] == 3
    assert snapshot.counters["created"] == 1
    assert 0 not in snapshot.counters.values()
    calls = {call: count(histogram) for call, histogram in snapshot.latencies.items()}
    assert calls.keys() == {"hot read", "hot write", "us-east-1 write"}
    assert calls["us-east-1 write"] == snapshot.counters["cold_writes"]
    assert calls["hot read"] >= 3
    [minute] = snapshot.minutes
    assert minute.counts["hot_hits"] == 3
    assert count(minute.hot) == calls["hot read"] + calls["hot write"]
    assert count(minute.cold) == calls["us-east-1 write"]


def test_it_tells_what_waits_for_dynamodb_and_since_when(site):
    with time_machine.travel(NOW, tick=False) as traveller:
        for number in range(2):
            session = site.store()
            session["number"] = number
            session.save()
            traveller.shift(10)
        snapshot = told(site.runtime)
        assert (snapshot.pending, snapshot.oldest, snapshot.logouts) == (2, NOW, 0)
        write_pending()
        snapshot = told(site.runtime)
    assert (snapshot.pending, snapshot.oldest) == (0, 0)


def test_it_tells_of_logouts_that_dynamodb_does_not_know(site, dynamodb):
    session = site.store()
    session.update(LOGIN)
    session.save()
    dynamodb.fail("BatchWriteItem", "AccessDeniedException", times=None)
    session.delete()
    snapshot = told(site.runtime)
    assert (snapshot.logouts, snapshot.pending) == (1, 1)
    assert snapshot.errors == {"us-east-1 AccessDeniedException": snapshot.counters["cold_errors"]}
    dynamodb.heal()
    write_pending()
    assert told(site.runtime).logouts == 0


def test_it_tells_no_session(site, memcached):
    session = site.store()
    session.update({**LOGIN, "card_number": "4111-1111"})
    session.save()
    key = session.session_key
    site.store(key).load()
    site.runtime.reporter.report()
    note = zlib.decompress(memcached.get(snapshot_key(site.runtime))[TAG_BYTES:])
    assert json.loads(note)["counters"]["hot_hits"] == 1
    id = storage_id(key)
    for secret in (key, id, id[:8], "4111", "card_number", LOGIN["_auth_user_backend"]):
        assert secret.encode() not in note


# --- Events -----------------------------------------------------------------------------------


def test_what_stood_when_it_began_is_no_event(site, start_process):
    site.runtime.fleet.drain(True)
    site.runtime.fleet.revalidate()
    run = start_process()
    run.fleet.look()
    assert told(run).draining
    assert events(run) == []


def test_orders_are_events(site):
    run = site.runtime
    assert events(run) == []
    run.fleet.drain(True)
    assert events(run) == [("drain on", "")]
    assert told(run).draining
    run.fleet.drain(False)
    run.fleet.revalidate()
    assert events(run) == [("drain on", ""), ("drain off", ""), ("revalidate", "")]
    assert len(events(run)) == 3  # each once


def test_a_memcached_that_has_lost_its_contents_is_an_event(site, memcached):
    run = site.runtime
    run.writer._poll()
    assert events(run) == []
    memcached.flush()
    run.writer._poll()
    assert events(run) == [("lost", "hot")]
    run.writer._poll()
    assert events(run) == [("lost", "hot")]


def test_a_tier_that_goes_down_and_comes_back_is_two_events(site, dynamodb):
    run = site.runtime
    dynamodb.fail("*", "InternalServerError", status=500, times=None)
    for _ in range(2):
        session = site.store()
        session.update(LOGIN)
        with pytest.raises(SessionUnavailable):
            session.save()
    snapshot = told(run)
    assert snapshot.up == {"hot": True, "us-east-1": False}
    assert events(run) == [("down", "us-east-1")]
    assert snapshot.errors["us-east-1 InternalServerError"] >= 2
    dynamodb.heal()
    eventually(lambda: run.cold.is_up)
    assert told(run).up == {"hot": True, "us-east-1": True}
    assert events(run) == [("down", "us-east-1"), ("up", "us-east-1")]


@pytest.fixture
def mortal(make_engine, start, dynamodb, table, monkeypatch):
    """An engine on a memcached of its own, to kill."""
    quieten(monkeypatch)
    memcached = start(Memcached)
    engine = make_engine(memcached, dynamodb, table=table, BOTO_SESSION=BOTO_SESSION)
    assert engine.runtime
    wait_for_background()  # its first look at the hot tier
    return engine


def test_an_outage_of_memcached_is_told_after_it(mortal):
    run = mortal.runtime
    told(run)
    mortal.hot.kill()
    run.reporter.report()
    assert not run.reporter.snapshot().up["hot"]
    mortal.hot.start()
    eventually(lambda: run.hot.is_up)
    run.fleet.tell(0)
    snapshot = told(run)
    assert [(event.kind, event.subject) for event in snapshot.events] == [
        ("down", "hot"),
        ("up", "hot"),
    ]
    assert {name.partition(" ")[0] for name in snapshot.errors} == {"hot"}
    assert sum(snapshot.errors.values()) == snapshot.counters["hot_errors"]


def test_while_memcached_is_down_nothing_is_raised_and_one_line_is_logged(mortal, caplog):
    run = mortal.runtime
    told(run)
    caplog.clear()
    mortal.hot.kill()
    for _ in range(100):
        assert run.reporter.report() == reporter.REPORT_SECONDS
        with pytest.raises(HotUnavailable):
            run.fleet.tell(0)
    assert [record.getMessage() for record in caplog.records] == ["hot: does not answer."]
    # Counted once, and by the probes: not at each report.
    assert run.reporter.snapshot().counters["hot_errors"] < 20


def test_a_cache_that_takes_no_such_note_is_not_complained_of(site, monkeypatch, caplog):
    def refuse(*args):
        raise ValueError("object too large for cache")

    run = site.runtime
    monkeypatch.setattr(MemcachedCache, "set", refuse)
    caplog.clear()
    assert run.reporter.report() == reporter.REPORT_SECONDS
    assert run.fleet.snapshots() == []
    assert caplog.records == []
    assert run.hot.is_up


# --- Who reads it -----------------------------------------------------------------------------


def looks_of(cache, monkeypatch):
    """The keys of each ``get_many``, as the cache is asked."""
    looks = []
    get_many = cache.get_many

    def look(keys):
        looks.append(list(keys))
        return get_many(keys)

    monkeypatch.setattr(cache, "get_many", look)
    return looks


def snapshot_of(process, **values):
    return Snapshot(process.id, "host", 1, None, "0.1.0", NOW, process.clock.now, **values)


def test_all_processes_are_read_in_one_round_trip(site, memcached, start_process, monkeypatch):
    runs = [site.runtime, start_process()]
    for run in runs:
        run.reporter.report()
    looks = looks_of(caches["sessions"], monkeypatch)
    before = memcached.commands()
    snapshots = runs[0].fleet.snapshots()
    assert {snapshot.id for snapshot in snapshots} == {run.fleet.id for run in runs}
    assert +(memcached.commands() - before) == Counter(get=fleet.SLOTS)
    assert len(looks) == 1


def test_of_several_servers_each_is_asked_once(three, monkeypatch):
    processes = [three.join() for _ in range(6)]
    for process in processes:
        process.tell(0)
        process.publish(snapshot_of(process))
    looks = looks_of(processes[0].cache, monkeypatch)
    before = [server.commands() for server in three.servers]
    assert len(processes[0].snapshots()) == 6
    asked = [
        (server.commands() - earlier)["get"]
        for server, earlier in zip(three.servers, before, strict=True)
    ]
    assert len(looks) == 3
    assert sorted(asked) == sorted(map(len, looks))
    assert sum(asked) == fleet.SLOTS


def test_to_tell_costs_one_write(site, memcached):
    told(site.runtime)
    before = memcached.commands()
    site.runtime.reporter.report()
    assert +(memcached.commands() - before) == Counter(set=1)


def test_what_is_told_last_counts(join):
    one, other = join(), join()
    one.tell(0)
    for pending in (3, 2, 1):
        one.clock.tick()
        one.publish(snapshot_of(one, pending=pending))
    assert [snapshot.pending for snapshot in other.snapshots()] == [1]


def test_who_has_no_slot_yet_tells_nothing(join):
    one = join()
    one.publish(snapshot_of(one))
    assert one.snapshots() == []


def test_who_has_to_take_another_slot_is_there_once(join):
    """Its first one may be on a server that was out of reach for a moment."""
    one, other = join(), join()
    one.tell(0)
    one.publish(snapshot_of(one, pending=1))
    slot, one._slot = one._slot, None
    while one._slot in (None, slot):
        one._slot = None
        one.tell(0)
    one.clock.tick()
    one.publish(snapshot_of(one, pending=2))
    assert [(snapshot.id, snapshot.pending) for snapshot in other.snapshots()] == [(one.id, 2)]


def test_who_leaves_takes_what_it_has_told_away(join):
    one, other = join(), join()
    for process in (one, other):
        process.tell(0)
        process.publish(snapshot_of(process))
    one.leave()
    assert [snapshot.id for snapshot in other.snapshots()] == [other.id]
    assert other.ended() == []


def test_who_leaves_while_it_tells_takes_that_away_too(join):
    """The process ends while its background thread reports."""
    one, other = join(), join()
    one.tell(0)
    put_note = one.hot.put_note

    def put_after_it_has_left(*arguments):
        one.leave()
        put_note(*arguments)

    one.hot.put_note = put_after_it_has_left
    one.publish(snapshot_of(one))
    assert other.snapshots() == []


def test_what_is_told_at_the_end_is_kept_apart_and_nobody_takes_its_place(join, monkeypatch):
    monkeypatch.setattr(fleet, "_ENDED_NAMES", fleet._ENDED_NAMES[:5])
    processes = [join() for _ in range(5)]
    for process in processes:
        process.tell(0)
        process.publish(snapshot_of(process))
    for process in processes:
        process.leave(snapshot_of(process))
    onlooker = join()
    assert onlooker.snapshots() == []
    assert ids_of(onlooker.ended()) == sorted(process.id for process in processes)


def test_of_too_many_that_end_some_leave_nothing(join, monkeypatch):
    monkeypatch.setattr(fleet, "_ENDED_NAMES", fleet._ENDED_NAMES[:5])
    for _ in range(6):
        process = join()
        process.tell(0)
        process.leave(snapshot_of(process))
    assert len(join().ended()) == 5


def use(site):
    session = site.store()
    session["number"] = 1
    session.save()
    told(site.runtime)
    return site.runtime.fleet.id


def test_a_process_that_ends_in_order_is_not_missed_and_leaves_its_hour(site, start_process):
    onlooker, id = start_process(), use(site)
    site.restart()  # which writes what is pending
    assert onlooker.fleet.snapshots() == []
    [ended] = [each for each in onlooker.fleet.ended() if each.id == id]
    assert ended.pending == 0
    counts = Counter()
    for minute in ended.minutes:
        counts.update(minute.counts)
    assert counts["created"] == counts["cold_writes"] == 1


def test_a_process_that_gives_up_changes_is_missed(site, start_process, dynamodb):
    onlooker = start_process()
    site.configure(SHUTDOWN_TIMEOUT=0.1)
    id = use(site)
    dynamodb.fail("*", "hang", times=None)
    site.restart()
    [missed] = onlooker.fleet.snapshots()
    assert (missed.id, missed.pending, missed.counters["lost_writes"]) == (id, 1, 1)
    assert id in ids_of(onlooker.fleet.ended())


def test_who_is_killed_is_seen_for_a_while(join, soon_forgotten, monkeypatch):
    """So that it is missed: its slot is free soon, and what it told says when that was."""
    monkeypatch.setattr(fleet, "_SNAPSHOT_SECONDS", 3)
    one, other = join(), join()
    one.tell(0)
    one.publish(snapshot_of(one))
    eventually(lambda: other.members() == [])
    assert [snapshot.id for snapshot in other.snapshots()] == [one.id]
    eventually(lambda: other.snapshots() == [])


def test_it_is_missed_for_some_minutes_at_most(site, memcached, monkeypatch):
    timeouts = []
    monkeypatch.setattr(
        MemcachedCache, "set", lambda self, key, value, timeout: timeouts.append(timeout)
    )
    site.runtime.reporter.report()
    assert timeouts == [300]


# --- What was not written by us ---------------------------------------------------------------

NAME = "session-snapshot:7"
NOTE = Snapshot("eve", "host", 1, None, "0.1.0", NOW, NOW).encode()
FORGED = {
    "noise": b"noise",
    "nothing": b"",
    "unsigned": NOTE,
    "another secret": Keyring(["other"]).sign_hot(NAME, NOTE) + NOTE,
    "another slot": KEYRING.sign_hot("session-snapshot:8", NOTE) + NOTE,
    "of a slot": KEYRING.sign_hot("session-process:7", NOTE) + NOTE,
    "a pickle": pickle.dumps("harmless"),
    "noise with our signature": KEYRING.sign_hot(NAME, b"noise") + b"noise",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_planted_note_is_refused_and_hides_nobody(memcached, open_memcached, name, monkeypatch):
    # None of the processes takes the place of that note.
    monkeypatch.setattr(fleet, "_SLOT_NAMES", fleet._SLOT_NAMES[:7])
    processes = [Process(open_memcached()) for _ in range(3)]
    for process in processes:
        process.tell(0)
        process.publish(snapshot_of(process))
    memcached.set(f":1:{NAME}", FORGED[name], flags=PICKLE_FLAGS if name == "a pickle" else 0)
    for _ in range(2):
        assert {snapshot.id for snapshot in processes[0].snapshots()} == {
            process.id for process in processes
        }


def test_our_own_note_in_that_place_is_read(memcached, open_memcached):
    """So that the test above can fail."""
    memcached.set(f":1:{NAME}", KEYRING.sign_hot(NAME, NOTE) + NOTE)
    assert [snapshot.id for snapshot in Process(open_memcached()).snapshots()] == ["eve"]


# --- The background ---------------------------------------------------------------------------


def test_a_process_reports_by_itself(site, start_process, monkeypatch):
    monkeypatch.setattr(runtime, "FIRST_REPORT_SECONDS", 0.01)
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.01)
    onlooker = start_process()
    site.restart()
    run = site.runtime
    publish = run.fleet.publish
    reported, published = threading.Event(), []

    def publish_and_tell(snapshot):
        publish(snapshot)
        published.append(snapshot)
        if len(published) == 2:
            reported.set()

    monkeypatch.setattr(run.fleet, "publish", publish_and_tell)
    assert reported.wait(5)
    assert run.fleet.id in {snapshot.id for snapshot in onlooker.fleet.snapshots()}


def test_without_dynamodb_there_is_nothing_to_tell(make_engine, memcached, monkeypatch):
    monkeypatch.setattr(runtime, "FIRST_REPORT_SECONDS", 0)
    engine = make_engine(memcached)
    session = engine.store()
    session["a"] = 1
    session.save()
    polls = engine.runtime.writer._polls
    assert "report" not in polls
    assert "heartbeat" not in polls


def test_without_a_background_thread_a_request_reports(site, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "FIRST_REPORT_SECONDS", 0)
    caplog.set_level(logging.WARNING)
    site.configure(BACKGROUND=False)
    run = site.runtime
    assert run.fleet.snapshots() == []
    run.writer.run_due()
    assert [snapshot.id for snapshot in run.fleet.snapshots()] == [run.fleet.id]
    assert caplog.records == []
