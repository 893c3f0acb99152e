"""What waits to be written to DynamoDB: nothing is dropped, and the newest is what gets there.

``writer`` does its work when it is told to, on a clock of the test; ``make_writer`` has threads.
"""

import copy
import logging
import random
import threading
import time
from dataclasses import replace

import pytest
from django.core.cache.backends.locmem import LocMemCache
from servers import boto3_client

from django_dynamo_failover import signals
from django_dynamo_failover import writer as writer_module
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.changes import Pending
from django_dynamo_failover.cold import ColdTier
from django_dynamo_failover.exceptions import ColdUnavailable, SessionUnreadable
from django_dynamo_failover.hot import State
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.record import encode_hot
from django_dynamo_failover.writer import POLL_SECONDS, Writer

from .configurations import eventually
from .sites import ID, KEYRING, LIFETIME, NOW, Clock, Site, connect, threads_in_a_hurry

WAIT = 5  # seconds for what should happen at once


@pytest.fixture(scope="module")
def connected(dynamodb_server):
    return connect(dynamodb_server)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def site(memcached, connected, table, clock):
    sessions = copy.copy(connected)
    sessions.table = table
    cache = MemcachedCache(memcached.address, {})
    yield Site(cache, sessions, clock)
    cache.disconnect()


@pytest.fixture
def writer(site, clock):
    """A writer that works when it is told to: ``writer.run_due()``."""
    return Writer(
        site.reconciler,
        site.hot,
        site.cold,
        site.fleet,
        site.metrics,
        background=False,
        now=clock,
        monotonic=clock,
    )


@pytest.fixture
def make_writer(site, clock):
    """``make_writer()``: a writer with threads, on the real clock."""
    writers = []

    def make_writer():
        writers.append(
            Writer(
                site.reconciler,
                site.hot,
                site.cold,
                site.fleet,
                site.metrics,
                background=True,
                now=clock,
            )
        )
        return writers[-1]

    yield make_writer
    for writer in writers:
        writer._jobs.close()
        writer._polls.close()
        for thread in writer._jobs._threads + writer._polls._threads:
            thread.join(WAIT)
            assert not thread.is_alive()


@pytest.fixture
def failed():
    """What was signalled as cold_write_failed."""
    failed = []

    def receive(signal, sender, **arguments):
        failed.append(arguments)

    signals.cold_write_failed.connect(receive)
    yield failed
    signals.cold_write_failed.disconnect(receive)


def throttle(dynamodb):
    dynamodb.fail("*", "AccessDeniedException", times=None)  # which is not tried twice


def joined(base, ours, theirs):
    return b"%b|%b|%b" % (base, ours, theirs), NOW + LIFETIME


# --- When a change is written -----------------------------------------------------------------


def test_a_change_is_written_when_its_time_has_come(site, writer, clock):
    site.open()
    writer.write_later(Pending(site.save(b"second")), 100)
    clock.tick(89)
    writer.run_due()
    assert site.payload_stored() == b"first"
    clock.tick(11)
    writer.run_due()
    assert site.payload_stored() == b"second"
    assert not site.held().dirty


def test_sessions_do_not_stay_in_step(site, writer, clock):
    record = site.open()
    for number in range(50):
        id = storage_id(f"{number}")
        writer.write_later(Pending(replace(record, id=id)), 100)
    times = [job.due - clock.now for job in writer._jobs._jobs.values()]
    assert 90 <= min(times) < max(times) <= 100
    assert len(set(times)) > 40


def test_a_change_is_pending_until_dynamodb_has_it(site, writer):
    site.open()
    assert writer.pending(ID) is None
    record = site.save(b"second")
    writer.write_later(Pending(record), 0)
    assert writer.pending(ID) is record
    assert writer.pending_count == 1
    writer.run_due()
    assert writer.pending(ID) is None
    assert writer.pending_count == 0


def test_a_newer_change_takes_the_place_of_an_older_and_its_time(site, writer, clock, dynamodb):
    site.open()
    writer.write_later(Pending(site.save(b"second")), 100)
    clock.tick(50)
    newer = site.save(b"third")
    writer.write_later(Pending(newer), 100)
    assert writer.pending(ID) is newer
    assert writer.pending_count == 1
    dynamodb.reset_requests()
    clock.tick(50)
    writer.run_due()
    assert dynamodb.requests()["PutItem"] == 1
    assert site.payload_stored() == b"third"


def test_an_older_change_that_comes_late_does_not_take_the_place_of_a_newer(site, writer):
    """Two threads saved one after the other, and came here the other way round."""
    site.open()
    older, newer = site.save(b"second"), site.save(b"third")
    writer.write_later(Pending(newer), 0)
    writer.write_later(Pending(older), 0)
    assert writer.pending(ID) is newer
    site.lose()
    writer.run_due()
    assert site.payload_stored() == b"third"


def test_an_older_change_that_comes_late_may_be_in_more_of_a_hurry(site, writer):
    """It was to be in DynamoDB before the response, and could not."""
    site.open()
    login, cart = site.save(b"login"), site.save(b"login and cart")
    writer.write_later(Pending(cart), 900)
    writer.write_later(Pending(login), 0)
    writer.run_due()
    assert site.payload_stored() == b"login and cart"


def test_a_change_that_comes_while_another_is_written_is_written_too(
    site, writer, monkeypatch, clock
):
    site.open()
    writer.write_later(Pending(site.save(b"second")), 0)
    put_over = site.cold.put_over

    def put(*args):
        monkeypatch.setattr(site.cold, "put_over", put_over)
        put_over(*args)
        writer.write_later(Pending(site.save(b"third")), 100)

    monkeypatch.setattr(site.cold, "put_over", put)
    writer.run_due()
    assert site.payload_stored() == b"second"
    assert writer.pending(ID).payload == b"third"
    clock.tick(100)
    writer.run_due()
    assert site.payload_stored() == b"third"
    assert writer.pending_count == 0


@pytest.fixture
def changed_elsewhere(site):
    """A session of which DynamoDB holds "theirs", and of which two changes wait here."""
    site.open()
    changes = [site.save(b"second"), site.save(b"third")]
    site.lose()
    site.refill()
    site.reconciler.note(site.save_through(b"theirs"), NOW)
    return changes


def test_what_several_saves_changed_is_merged_from_where_the_first_began(
    site, writer, changed_elsewhere
):
    first, second = changed_elsewhere
    writer.write_later(Pending(first, b"first", joined), 0)
    writer.write_later(Pending(second, b"second", joined), 0)
    writer.run_due()
    assert site.payload_stored() == b"first|theirs|third"
    assert writer.pending_count == 0


def test_a_change_that_can_be_merged_is_so_after_one_that_cannot(site, writer, changed_elsewhere):
    first, second = changed_elsewhere
    writer.write_later(Pending(first), 0)
    writer.write_later(Pending(second, b"second", joined), 0)
    writer.run_due()
    assert site.payload_stored() == b"second|theirs|third"


def test_a_change_of_another_life_of_the_entry_is_not_taken_for_a_later_one(site, writer):
    """The hot tier forgot the first; a request then saved without it. Both must be written."""
    site.open()
    writer.write_later(Pending(site.save(b"ours"), b"first", joined), 0)
    site.lose()
    site.refill()
    writer.write_later(Pending(site.save(b"theirs"), b"first", joined), 0)
    writer.run_due()
    assert b"ours" in site.payload_stored()
    assert b"theirs" in site.payload_stored()


def test_a_hurry_writes_at_once(site, writer):
    site.open()
    writer.write_later(Pending(site.save(b"second")), 900)
    writer.hurry()
    writer.run_due()
    assert site.payload_stored() == b"second"


# --- What is no longer to be written ----------------------------------------------------------


def test_nothing_is_written_of_a_session_that_has_ended(site, writer, dynamodb):
    site.open()
    writer.write_later(Pending(site.save(b"second")), 0)
    writer.forget(ID)
    writer.forget(ID)
    assert writer.pending(ID) is None
    dynamodb.reset_requests()
    writer.run_due()
    assert writer.flush(1) == 0
    assert not dynamodb.requests()


def test_nothing_is_written_twice(site, writer, dynamodb):
    site.open()
    record = site.save_through(b"second")
    writer.write_later(Pending(record), 0)
    writer.settled(record)
    assert writer.pending(ID) is None
    dynamodb.reset_requests()
    writer.run_due()
    assert not dynamodb.requests()


def test_a_newer_change_stays_pending_when_an_older_one_is_written(site, writer):
    site.open()
    older, newer = site.save(b"second"), site.save(b"third")
    writer.write_later(Pending(newer), 0)
    writer.settled(older)
    assert writer.pending(ID) is newer
    writer.settled(site.save(b"fourth"))
    assert writer.pending(ID) is None


def test_a_change_of_a_session_that_was_ended_elsewhere_is_given_up(site, writer):
    site.open()
    writer.write_later(Pending(site.save(b"second")), 0)
    site.cold.revoke(ID, int(NOW) + LIFETIME)
    writer.run_due()
    assert writer.pending_count == 0
    assert site.hot.get(ID).state is State.TOMBSTONE


def test_it_knows_since_when_the_oldest_change_waits(site, writer, clock):
    assert writer.oldest == 0
    site.open()
    oldest = site.save(b"second")
    writer.write_later(Pending(oldest), 900)
    clock.tick(10)
    writer.write_later(Pending(site.save(b"third")), 900)
    assert writer.oldest == oldest.dirty_since == site.held().dirty_since
    other = storage_id("another one")
    site.open(b"first", other)
    writer.write_later(Pending(site.save(b"second", other)), 0)
    assert writer.oldest == oldest.dirty_since
    writer.flush(5)
    assert writer.oldest == 0


def test_a_change_that_is_written_apart_waits_too(site, writer, clock, dynamodb):
    """Memcached has lost it, and there is another one since."""
    site.open()
    lost = site.save(b"second")
    writer.write_later(Pending(lost), 900)
    site.lose()
    site.refill()
    throttle(dynamodb)
    clock.tick(10)
    newer = site.save(b"third")
    writer.write_later(Pending(newer), 900)
    writer.run_due()
    assert (writer.pending_count, writer.oldest) == (2, lost.dirty_since)
    dynamodb.heal()
    clock.tick(10)
    writer.run_due()
    assert (writer.pending_count, writer.oldest) == (1, newer.dirty_since)


# --- Outages of DynamoDB ----------------------------------------------------------------------


def test_a_change_is_tried_again_until_dynamodb_is_back(site, writer, dynamodb, clock, failed):
    site.open()
    record = site.save(b"second")
    throttle(dynamodb)
    writer.write_later(Pending(record), 0)
    for times in range(1, 4):
        writer.run_due()
        writer.run_due()
        assert failed == [{"id": ID[:8], "error": "ColdUnavailable"}] * times
        assert writer.pending(ID) is record
        clock.tick(1)
    dynamodb.heal()
    writer.run_due()
    assert site.payload_stored() == b"second"
    assert writer.pending_count == 0


def test_while_dynamodb_is_down_one_probe_is_enough(site, writer, dynamodb, clock, failed):
    """Not one for each change, and the first that gets through is not left to a request."""
    writer.start()
    writer.run_due()
    ids = [storage_id(f"{number}") for number in range(20)]
    for id in ids:
        site.open(b"first", id)
        writer.write_later(Pending(site.save(b"second", id)), 0)
    site.cold_breaker._threshold = 1
    site.cold_breaker.on_change = lambda up: up or writer.probe_later()
    throttle(dynamodb)
    dynamodb.reset_requests()
    writer.run_due()
    assert dynamodb.requests().total() == 1
    for _ in range(20):
        clock.tick(1)
        writer.run_due()
    assert dynamodb.requests().total() <= 6
    assert writer.pending_count == 20
    dynamodb.heal()
    clock.tick(60)
    while writer.pending_count:
        writer.run_due()
        clock.tick(0.1)
    assert clock.now < NOW + 200
    assert {site.payload_stored(id) for id in ids} == {b"second"}


def test_a_change_that_comes_in_an_outage_does_not_put_the_next_attempt_off(
    site, writer, dynamodb, clock
):
    site.open()
    throttle(dynamodb)
    writer.write_later(Pending(site.save(b"second")), 0)
    writer.run_due()
    writer.write_later(Pending(site.save(b"third")), 900)
    dynamodb.heal()
    clock.tick(1)
    writer.run_due()
    assert site.payload_stored() == b"third"


def test_what_can_never_be_resolved_is_not_tried_for_ever(site, writer, monkeypatch, failed):
    site.open()
    record = site.save(b"second")

    def refuse(pending):
        raise SessionUnreadable

    monkeypatch.setattr(site.reconciler, "flush", refuse)
    writer.write_later(Pending(record), 0)
    writer.run_due()
    assert writer.pending_count == 0
    assert writer.flush(0.1) == 0
    assert failed == []
    assert site.held() == record


def test_a_change_is_not_given_up_for_a_bug(site, writer, monkeypatch, clock):
    site.open()
    flush = site.reconciler.flush

    def fail(pending):
        raise RuntimeError("a bug")

    monkeypatch.setattr(site.reconciler, "flush", fail)
    writer.write_later(Pending(site.save(b"second")), 0)
    writer.run_due()
    assert writer.pending_count == 1
    monkeypatch.setattr(site.reconciler, "flush", flush)
    clock.tick(3600)
    writer.run_due()
    assert site.payload_stored() == b"second"


# --- Memory -----------------------------------------------------------------------------------


def test_too_much_that_is_pending_is_written_early(site, writer, clock, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_PENDING_BYTES", 1000)
    ids = [storage_id(f"{number}") for number in range(4)]
    for id in ids:
        site.open(b"first", id)
        writer.write_later(Pending(site.save(bytes(300), id), b"x" * 20), 900)
    writer.run_due()
    written = [site.payload_stored(id) == bytes(300) for id in ids]
    assert written == [False, False, False, True]
    assert writer.pending_count == 3
    clock.tick(900)
    writer.run_due()
    assert writer.pending_count == 0
    assert writer._pending_bytes == 0


def test_every_way_out_of_memory_is_accounted_for(site, writer):
    site.open()
    for payload in [bytes(300), bytes(100), bytes(500)]:
        writer.write_later(Pending(site.save(payload), b"loaded", joined), 900)
    assert writer._pending_bytes == 500 + len(b"firstloaded")
    writer.forget(ID)
    assert writer._pending_bytes == 0
    writer.write_later(Pending(site.save(bytes(300))), 900)
    writer.settled(site.held())
    assert writer._pending_bytes == 0
    writer.write_later(Pending(site.save(bytes(300))), 0)
    writer.run_due()
    assert writer._pending_bytes == 0


# --- Watching the hot tier --------------------------------------------------------------------


def test_when_the_hot_tier_has_lost_its_contents_all_is_written_at_once(
    site, writer, clock, caplog
):
    writer.start()
    writer.run_due()
    site.open()
    writer.write_later(Pending(site.save(b"second")), 900)
    site.lose()
    clock.tick(POLL_SECONDS)
    writer.run_due()
    writer.run_due()
    assert site.payload_stored() == b"second"
    assert site.counts("hot_lost") == [1]
    assert "lost its contents" in caplog.text
    clock.tick(POLL_SECONDS)
    writer.run_due()
    assert site.counts("hot_lost") == [1]


def test_a_write_during_an_outage_of_the_hot_tier_is_noted_after_it(site, writer, clock):
    """Another process may have filled it with the version before."""
    site.open()
    record = site.save(b"second")
    writer.write_later(Pending(record), 900)
    earlier = site.reconciler.read(ID)
    site.go_down()
    writer.hurry()
    writer.run_due()
    assert site.payload_stored() == b"second"
    assert writer.pending_count == 0
    site.come_back()
    site.lose()
    assert site.cache.add(f"session:{ID}", encode_hot(earlier.reborn(), KEYRING))
    clock.tick(30)
    writer.run_due()
    held = site.held()
    assert held == replace(record.written(), lineage=held.lineage)


def test_the_hot_tier_is_watched_through_outages(site, writer, clock):
    writer.start()
    writer.run_due()
    site.go_down()
    for _ in range(3):
        clock.tick(30)
        writer.run_due()
    assert site.counts("hot_errors") == [3]
    site.come_back()
    site.lose()
    clock.tick(30)
    writer.run_due()
    assert site.counts("hot_lost") == [1]


def test_the_hot_tier_is_watched_whatever_somebody_plants_in_it(memcached, site, writer, clock):
    writer.start()
    writer.run_due()
    memcached.set(":1:session-site-token:0", b"not a pickle", flags=1)
    for _ in range(3):
        clock.tick(POLL_SECONDS)
        writer.run_due()
    site.lose()
    clock.tick(POLL_SECONDS)
    writer.run_due()
    assert "poll" in writer._polls
    assert 1 <= site.counts("hot_lost")[0] <= 2


def test_the_hot_tier_is_watched_after_whatever_error(site, writer, clock, monkeypatch, caplog):
    def fail():
        raise RuntimeError("a bug")

    writer.start()
    writer.run_due()
    with monkeypatch.context() as patch:
        patch.setattr(site.fleet, "look", fail)
        clock.tick(POLL_SECONDS)
        writer.run_due()
    assert "a bug" in caplog.text
    site.lose()
    clock.tick(30)
    writer.run_due()
    assert site.counts("hot_lost") == [1]


def test_dynamodb_is_probed_whatever_somebody_plants_in_it(dynamodb, table, site, writer, clock):
    """The item of nobody is read, to see whether it answers again."""
    item = {"id": {"S": "0" * 64}, "data": {"S": "planted"}}
    boto3_client(dynamodb.endpoint_url).put_item(TableName=table, Item=item)
    for _ in range(1000):
        site.cold_breaker.failure()
    writer.probe_later()
    clock.tick(30)
    writer.run_due()
    assert not site.cold.is_down
    clock.tick(30)
    writer.run_due()
    assert "probe" not in writer._polls


def test_without_a_cold_tier_nothing_is_watched(site):
    cold = ColdTier([], site.metrics, deadline=1)
    writer = Writer(site.reconciler, site.hot, cold, site.fleet, site.metrics, background=True)
    writer.start()
    assert writer._polls._threads == []


# --- Noting, renewing, ending -----------------------------------------------------------------


def test_what_was_written_in_the_request_is_noted_later(site, writer):
    site.open()
    record = site.save_through(b"second")
    writer.write_later(Pending(record), 900)
    writer.note_later(record, NOW)
    assert writer.pending(ID) is None
    writer.run_due()
    assert site.held() == record.written()


def test_what_was_written_is_noted_when_the_hot_tier_is_back(site, writer, clock):
    site.open()
    record = site.save_through(b"second")
    site.go_down()
    writer.note_later(record, NOW)
    for _ in range(3):
        writer.run_due()
        clock.tick(1)
    site.come_back()
    clock.tick(30)
    writer.run_due()
    assert site.held() == record.written()


def test_of_two_writes_the_later_is_noted(site, writer):
    """Else the hot tier goes on to think that DynamoDB lacks it, and it is written once more."""
    site.open()
    writer.note_later(site.save_through(b"second"), NOW)
    writer.note_later(site.save_through(b"third"), NOW)
    writer.run_due()
    assert not site.held().dirty


@pytest.fixture
def renewing(site, clock):
    """A writer that may renew, but does its work when it is told to."""
    writer = Writer(
        site.reconciler,
        site.hot,
        site.cold,
        site.fleet,
        site.metrics,
        background=True,
        threads=0,
        now=clock,
        monotonic=clock,
    )
    writer.work = lambda: writer._jobs.run_due(1)
    return writer


def test_a_lease_is_renewed(site, renewing, clock, dynamodb):
    site.open()
    clock.tick(600)
    dynamodb.reset_requests()
    renewing.renew_later(ID)
    renewing.renew_later(ID)
    renewing.work()
    assert site.held().agreed_at == clock.now
    assert dynamodb.requests() == {"BatchGetItem": 1}


def test_what_has_ended_since_is_not_renewed(site, renewing, dynamodb):
    site.open()
    renewing.renew_later(ID)
    site.logout()
    dynamodb.reset_requests()
    renewing.work()
    site.lose()
    renewing.renew_later(ID)
    renewing.work()
    assert not dynamodb.requests()


def test_a_renewal_that_fails_is_left_to_the_next_request(site, renewing, dynamodb, caplog):
    site.open()
    throttle(dynamodb)
    renewing.renew_later(ID)
    renewing.work()
    dynamodb.heal()
    site.go_down()
    renewing.renew_later(ID)
    renewing.work()
    assert ("renew", ID) not in renewing._jobs
    assert "background job failed" not in caplog.text


def test_in_a_request_no_lease_is_renewed_early(site, writer, dynamodb):
    site.open()
    dynamodb.reset_requests()
    writer.renew_later(ID)
    writer.run_due()
    assert not dynamodb.requests()


def test_without_compare_and_swap_no_lease_is_renewed_early(request, site, clock, dynamodb):
    plain = Site(LocMemCache(request.node.nodeid, {}), site.table, clock)
    plain.open()
    renewing = Writer(
        plain.reconciler,
        plain.hot,
        plain.cold,
        plain.fleet,
        plain.metrics,
        background=True,
        threads=0,
    )
    dynamodb.reset_requests()
    renewing.renew_later(ID)
    renewing._jobs.run_due(1)
    assert not dynamodb.requests()


def test_a_logout_reaches_dynamodb_as_soon_as_that_answers(site, writer, dynamodb, clock):
    site.open()
    throttle(dynamodb)
    writer.revoke_later(ID, int(NOW) + LIFETIME, told=False)
    for _ in range(3):
        clock.tick(1)
        writer.run_due()
        assert writer.is_revoked(ID)
    dynamodb.heal()
    assert site.payload_stored() == b"first"
    clock.tick(1)
    writer.run_due()
    assert site.table.read(ID, time.monotonic() + WAIT).revoked
    assert not writer.is_revoked(ID)


def test_a_logout_is_told_until_every_region_has_heard_of_it(site, writer, clock, monkeypatch):
    answers = [False, False, True]
    monkeypatch.setattr(site.cold, "revoke", lambda id, expires: answers.pop(0))
    writer.revoke_later(ID, int(NOW) + LIFETIME, told=False)
    for left in [2, 1]:
        clock.tick(1)
        writer.run_due()
        assert len(answers) == left
        assert writer.is_revoked(ID)
    clock.tick(1)
    writer.run_due()
    assert not writer.is_revoked(ID)


def test_a_logout_is_known_also_while_dynamodb_is_being_told(site, make_writer, monkeypatch):
    """Whoever reads DynamoDB at that moment still finds the session there."""
    site.open()
    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.01)
    writer = make_writer()
    asked, go = threading.Event(), threading.Event()
    revoke = site.cold.revoke

    def slow(id, expires):
        asked.set()
        assert go.wait(WAIT)
        return revoke(id, expires)

    monkeypatch.setattr(site.cold, "revoke", slow)
    writer.revoke_later(ID, int(NOW) + LIFETIME, told=False)
    assert asked.wait(WAIT)
    known = writer.is_revoked(ID)
    go.set()
    eventually(lambda: not writer.is_revoked(ID))
    assert known


def test_a_logout_is_known_at_every_moment_of_an_outage(site, make_writer, monkeypatch):
    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.0)
    writer = make_writer()

    def fail(id, expires):
        raise ColdUnavailable

    monkeypatch.setattr(site.cold, "revoke", fail)
    with threads_in_a_hurry():
        writer.revoke_later(ID, int(NOW) + LIFETIME, told=False)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert writer.is_revoked(ID)


def test_a_tombstone_is_put_as_soon_as_the_hot_tier_answers(site, writer, clock):
    site.open()
    site.go_down()
    writer.bury_later(ID, int(NOW) + LIFETIME)
    for _ in range(3):
        clock.tick(30)
        writer.run_due()
    site.come_back()
    clock.tick(30)
    writer.run_due()
    assert site.hot.get(ID).state is State.TOMBSTONE
    assert ("bury", ID) not in writer._jobs


def test_a_tombstone_is_given_up_when_the_session_would_be_over(site, writer, clock):
    site.go_down()
    writer.bury_later(ID, int(NOW) + 100)
    for _ in range(5):
        clock.tick(30)
        writer.run_due()
    assert ("bury", ID) not in writer._jobs


# --- The end of the process -------------------------------------------------------------------


def test_a_flush_writes_all_that_is_pending(site, writer):
    ids = [storage_id(f"{number}") for number in range(5)]
    for id in ids:
        site.open(b"first", id)
        writer.write_later(Pending(site.save(b"second", id)), 900)
    assert writer.flush(WAIT) == 0
    assert {site.payload_stored(id) for id in ids} == {b"second"}


def test_a_close_writes_and_ends_the_threads(site, make_writer):
    writer = make_writer()
    writer.start()
    site.open()
    writer.write_later(Pending(site.save(b"second")), 900)
    writer.revoke_later(storage_id("another"), int(NOW) + LIFETIME, told=False)
    writer.close(WAIT)
    assert site.payload_stored() == b"second"
    assert site.table.read(storage_id("another"), time.monotonic() + WAIT).revoked
    assert site.counts("lost_writes") == [0]
    for thread in writer._jobs._threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_a_close_counts_what_is_lost(site, make_writer, dynamodb, caplog):
    writer = make_writer()
    for number in range(3):
        id = storage_id(f"{number}")
        site.open(b"first", id)
        writer.write_later(Pending(site.save(b"second", id)), 900)
    throttle(dynamodb)
    began = time.monotonic()
    writer.close(0.3)
    assert time.monotonic() - began < 2
    assert site.counts("lost_writes") == [3]
    [record] = [
        record
        for record in caplog.records
        if record.levelno == logging.ERROR and record.name == "django_dynamo_failover.writer"
    ]
    assert record.getMessage().startswith("3 changes")


def test_a_close_counts_also_what_a_bug_has_lost(site, make_writer, monkeypatch):
    failed = threading.Event()

    def fail(pending):
        failed.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(site.reconciler, "flush", fail)
    writer = make_writer()
    site.open()
    writer.write_later(Pending(site.save(b"second")), 0)
    assert failed.wait(WAIT)
    writer.close(0.2)
    assert site.counts("lost_writes") == [1]


# --- Threads ----------------------------------------------------------------------------------


def test_without_a_background_thread_there_is_none(site, writer):
    writer.start()
    site.open()
    writer.write_later(Pending(site.save(b"second")), 0)
    writer.renew_later(ID)
    assert writer._jobs._threads == []


def test_with_a_background_thread_requests_do_none_of_its_work(site, make_writer):
    writer = make_writer()
    ran = []
    writer._jobs.put("x", 60, lambda: ran.append("x"))
    writer._jobs.hurry()
    writer._jobs._jobs["x"].due = 0
    writer.run_due()
    assert ran == []


def test_the_newest_of_many_changes_gets_there_whatever_dynamodb_does(
    site, make_writer, dynamodb, monkeypatch
):
    """No change is dropped while a newer one comes in, and none is left behind."""
    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.01)
    writer = make_writer()
    ids = [storage_id(f"{number}") for number in range(4)]
    for id in ids:
        site.open(b"0", id)
    missing = []

    def save(id):
        dice = random.Random(id)
        for number in range(1, 31):
            answer = site.hot.get(id)
            while not site.hot.swap(
                record := answer.record.changed(b"%d" % number, NOW + LIFETIME, NOW), answer.token
            ):
                answer = site.hot.get(id)  # the writer has noted something
            writer.write_later(Pending(record), dice.choice([0, 0.001, 900]))
            pending = writer.pending(id)
            if pending is not None and pending.version < record.version:
                missing.append(record.version)

    def disturb(done):
        while not done.is_set():
            dynamodb.fail("PutItem", random.choice(["ThrottlingException", "drop"]), times=3)
            dynamodb.fail("PutItem", "drop", times=2, after=True)
            done.wait(0.05)
        dynamodb.heal()

    done = threading.Event()
    disturber = threading.Thread(target=disturb, args=(done,))
    threads = [threading.Thread(target=save, args=(id,)) for id in ids]
    for thread in [disturber, *threads]:
        thread.start()
    for thread in threads:
        thread.join(30)
    done.set()
    disturber.join()
    assert writer.flush(10) == 0
    assert missing == []
    assert [site.payload_stored(id) for id in ids] == [b"30"] * 4
    assert writer.pending_count == 0
    assert writer._pending_bytes == 0
    assert site.counts("conflicts", "ended") == [0, 0]
