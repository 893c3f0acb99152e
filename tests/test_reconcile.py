"""One session against its item in DynamoDB, on a real memcached and a real dynalite.

Two sites are two hot tiers over one table. What happens at the same time happens here between two
steps of one call: ``before`` and ``after``.
"""

import contextlib
import copy
import logging
import random
import time
from dataclasses import replace

import pytest
from django.core.cache.backends.locmem import LocMemCache

from django_dynamo_failover import reconcile, signals
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.changes import Pending
from django_dynamo_failover.dynamo import MAX_ITEM_BYTES
from django_dynamo_failover.exceptions import (
    ColdUnavailable,
    ConditionFailed,
    HotUnavailable,
    SessionEnded,
    SessionUnreadable,
    ValueTooLarge,
)
from django_dynamo_failover.hot import State
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.reconcile import Outcome
from django_dynamo_failover.record import new_record

from .conftest import client
from .sites import ID, LEASE, LIFETIME, NOW, Clock, Site, connect

OTHER = storage_id("another session")


@pytest.fixture(scope="module")
def connected(dynamodb_server):
    return connect(dynamodb_server)


@pytest.fixture
def sessions(connected, table):
    sessions = copy.copy(connected)
    sessions.table = table
    return sessions


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_site(memcached, sessions, clock):
    caches = []

    def forget(name):
        keys = memcached.keys()
        for key in keys:
            if key.startswith(f"{name}:"):
                memcached.delete(key)

    def make_site(name):
        cache = MemcachedCache(memcached.address, {"KEY_PREFIX": name})
        cache.clear = lambda: forget(name)
        caches.append(cache)
        return Site(cache, sessions, clock)

    yield make_site
    for cache in caches:
        cache.disconnect()


@pytest.fixture
def site(make_site):
    return make_site("east")


@pytest.fixture
def other(make_site):
    return make_site("west")


@pytest.fixture
def plain(request, sessions, clock):
    """A site whose cache has no compare-and-swap."""
    cache = LocMemCache(request.node.nodeid, {})
    yield Site(cache, sessions, clock)
    cache.clear()


@pytest.fixture
def stored(sessions):
    """``stored()``: the item in the table, None if there is none; at no count."""

    def stored():
        return sessions.read(ID, time.monotonic() + 5).item

    return stored


@pytest.fixture
def sent():
    """What was signalled: [("session_ended", {"id": …}), …]."""
    sent = []
    receivers = []
    for name in ["session_restored", "session_conflict", "session_ended"]:

        def receive(name=name, **arguments):
            del arguments["signal"], arguments["sender"]
            sent.append((name, arguments))

        receivers.append((getattr(signals, name), receive))
        getattr(signals, name).connect(receive)
    yield sent
    for signal, receive in receivers:
        signal.disconnect(receive)


@pytest.fixture
def between(monkeypatch):
    """``between(site.cold, "put_over", before=…, after=…)``: once, while that is being called."""

    def between(owner, method, *, before=lambda: None, after=lambda: None):
        original = getattr(owner, method)

        def wrapped(*args, **kwargs):
            monkeypatch.setattr(owner, method, original)
            before()
            result = original(*args, **kwargs)
            after()
            return result

        monkeypatch.setattr(owner, method, wrapped)

    return between


def judge(site, record, *, ordered=True):
    """What becomes of a write, and of what it met."""
    return site.reconciler.write(record, ordered=ordered)


def alone(site, record):
    """Write a version that no hot tier has ordered, as a request does while that is down."""
    return judge(site, record, ordered=False).outcome


def reborn(record, other):
    """Return a record as it reads in another life of the entry."""
    return replace(record, lineage=other.lineage)


def incompressible(size):
    return random.Random(1).randbytes(size)


@pytest.fixture
def spoil(dynamodb, table):
    """``spoil()``: what the table holds of the session is not what we wrote there."""

    def spoil():
        server = client(dynamodb.endpoint_url)
        item = server.get_item(TableName=table, Key={"id": {"S": ID}})["Item"]
        server.put_item(TableName=table, Item={**item, "data": {"B": b"spoilt"}})

    return spoil


def delete(site):
    """Take the item away, as TTL does."""
    with contextlib.suppress(ConditionFailed):
        site.table.delete_expired(ID, NOW + 100 * LIFETIME, time.monotonic() + 30)


def bring_back(site, record):
    """Let a write of another region replicate after what deleted it."""
    delete(site)
    assert site.write(replace(record, base=0)) is Outcome.WRITTEN


# --- Reading ----------------------------------------------------------------------------------


def test_a_session_is_read_as_a_clean_record(site):
    opened = site.open()
    found = site.reconciler.read(ID)
    assert found == reborn(replace(opened, agreed_at=site.clock.now), found)


def test_a_session_is_over_without_an_item_and_when_it_has_expired(site):
    assert site.reconciler.read(ID) is None
    site.open()
    site.clock.now = NOW + LIFETIME - 1
    assert site.reconciler.read(ID) is not None
    site.clock.now = NOW + LIFETIME
    assert site.reconciler.read(ID) is None


@pytest.mark.parametrize("back", [False, True])
def test_a_revoked_session_is_over_also_when_its_item_came_back(site, back):
    """The write of another region may replicate after the logout."""
    opened = site.open()
    site.cold.revoke(ID, int(NOW) + LIFETIME)
    if back:
        bring_back(site, opened)
    with pytest.raises(SessionEnded):
        site.reconciler.read(ID)


def test_no_item_is_no_proof_for_a_known_session_while_a_region_is_down(site, monkeypatch):
    opened = site.open()
    delete(site)
    read = site.cold.read
    monkeypatch.setattr(site.cold, "read", lambda *args: replace(read(*args), complete=False))
    assert site.reconciler.read(ID) is None
    with pytest.raises(ColdUnavailable):
        site.reconciler.read(ID, opened)


def test_what_cannot_be_trusted_proves_nothing(site, spoil, stored, caplog):
    site.open()
    spoil()
    with pytest.raises(SessionUnreadable):
        site.reconciler.read(ID)
    assert site.counts("cold_unreadable", "ended") == [1, 0]
    assert stored().data == b"spoilt"
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert ID[:8] in record.getMessage()
    assert ID not in record.getMessage()


def test_an_outage_proves_nothing(site, dynamodb):
    site.open()
    dynamodb.fail("*", "InternalServerError", status=500, times=None)
    with pytest.raises(ColdUnavailable):
        site.reconciler.read(ID)


# --- The conditional write: each of its outcomes ----------------------------------------------


def test_a_new_session_is_written(site, stored):
    record = new_record(ID, b"new", NOW + LIFETIME, NOW)
    assert site.write(record) is Outcome.WRITTEN
    item = stored()
    assert (item.version, item.site, item.expires) == (1, record.lineage.hex(), NOW + LIFETIME)
    assert site.payload_stored() == b"new"


def test_a_change_is_written_over_its_base(site, stored):
    site.open()
    assert site.write(site.save(b"second")) is Outcome.WRITTEN
    assert stored().version == 2


def test_a_change_is_written_over_any_earlier_version_of_its_lineage(site):
    opened = site.open()
    site.save_through(b"second")
    third = replace(opened.changed(b"third", NOW + LIFETIME, NOW), version=3)
    assert third.base == 1
    assert site.write(third) is Outcome.WRITTEN
    assert site.payload_stored() == b"third"


def test_a_change_is_written_over_another_sites_version_that_it_is_based_on(site, other):
    site.open()
    other.refill()
    assert other.write(other.save(b"west")) is Outcome.WRITTEN
    assert site.payload_stored() == b"west"


def test_a_new_session_takes_the_place_of_one_that_has_expired(site):
    site.open()
    site.clock.now = NOW + LIFETIME + 1
    record = new_record(ID, b"new", NOW + 2 * LIFETIME, site.clock.now)
    assert site.write(record) is Outcome.WRITTEN
    assert site.payload_stored() == b"new"


def test_a_put_whose_reply_was_lost_is_recognized_by_its_nonce(site, dynamodb, stored):
    dynamodb.fail("PutItem", "drop", after=True)
    assert site.write(new_record(ID, b"new", NOW + LIFETIME, NOW)) is Outcome.WRITTEN
    site.refill()
    dynamodb.fail("PutItem", "drop", after=True)
    assert site.write(site.save(b"second")) is Outcome.WRITTEN
    assert stored().version == 2


def test_a_put_that_was_given_up_though_it_had_succeeded_is_recognized_later(site, dynamodb):
    site.open()
    record = site.save(b"second")
    dynamodb.fail("PutItem", "drop", after=True, times=2)
    with pytest.raises(ColdUnavailable):
        site.write(record)
    verdict = judge(site, record)
    assert verdict.outcome is Outcome.SUPERSEDED
    assert verdict.theirs.same_as(record)


@pytest.mark.parametrize("version", [2, 3])
def test_a_write_is_superseded_by_the_same_or_a_later_version_of_its_lineage(site, version):
    site.open()
    second = site.save_through(b"second")
    if version == 3:
        site.save_through(b"third")
    verdict = judge(site, second)
    assert verdict.outcome is Outcome.SUPERSEDED
    assert verdict.theirs.version == version
    assert site.payload_stored() == verdict.theirs.payload


def test_the_first_write_of_a_session_is_superseded_by_a_later_one(site):
    opened = site.open()
    assert site.write(replace(opened, base=0)) is Outcome.SUPERSEDED


def test_a_write_that_does_not_know_of_an_earlier_one_of_its_lineage_goes_over_it(site):
    """Two processes write versions 1 and 2 of a new session, each as the first."""
    opened = site.open()
    second = replace(opened, version=2, base=0, payload=b"second")
    assert site.write(second) is Outcome.WRITTEN
    assert site.payload_stored() == b"second"


@pytest.mark.parametrize("ours", [1, 3])
@pytest.mark.parametrize("theirs", [1, 3])
def test_a_write_diverges_from_what_another_site_wrote_whatever_the_numbers(
    site, other, ours, theirs
):
    site.open()
    other.refill()
    for _ in range(theirs):
        last = other.save_through(b"west")
    for _ in range(ours):
        record = site.save(b"east")
    verdict = judge(site, record)
    assert verdict.outcome is Outcome.DIVERGED
    assert verdict.theirs.same_as(last)
    assert site.payload_stored() == b"west"


def test_a_write_diverges_from_another_life_of_the_entry_at_the_same_site(site):
    """Numbers are counted anew after a loss: a higher one proves nothing."""
    site.open()
    lost = [site.save(b"lost") for _ in range(3)][-1]
    site.lose()
    site.refill()
    site.save_through(b"second life")
    assert site.write(lost) is Outcome.DIVERGED
    assert site.payload_stored() == b"second life"


def test_two_sites_that_create_the_same_session_diverge(site, other):
    site.open()
    record = new_record(ID, b"west", NOW + LIFETIME, NOW)
    assert other.write(record) is Outcome.DIVERGED
    assert site.payload_stored() == b"first"


def test_a_write_that_no_hot_tier_ordered_goes_over_its_base_only(site):
    opened = site.open()
    one = opened.changed(b"one", NOW + LIFETIME, NOW)
    two = opened.changed(b"two", NOW + LIFETIME, NOW)
    assert alone(site, one) is Outcome.WRITTEN
    verdict = judge(site, two, ordered=False)
    assert verdict.outcome is Outcome.DIVERGED
    assert verdict.theirs.payload == b"one"
    three = one.agreed(NOW).changed(b"three", NOW + LIFETIME, NOW)
    assert alone(site, three) is Outcome.WRITTEN
    assert site.payload_stored() == b"three"


def test_what_the_hot_tier_ordered_does_not_supersede_what_it_did_not(site):
    opened = site.open()
    site.save_through(b"second")
    assert alone(site, opened.changed(b"late", NOW + LIFETIME, NOW)) is Outcome.DIVERGED


def test_what_the_hot_tier_did_not_order_does_not_supersede_what_it_did(site):
    opened = site.open()
    assert alone(site, opened.changed(b"alone", NOW + LIFETIME, NOW)) is Outcome.WRITTEN
    assert site.write(site.save(b"second")) is Outcome.DIVERGED


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("how", ["revoked", "gone"])
def test_a_change_of_a_session_that_has_ended_does_not_bring_it_back(site, stored, ordered, how):
    site.open()
    record = site.save(b"second")
    if how == "revoked":
        site.cold.revoke(ID, int(NOW) + LIFETIME)
    else:
        delete(site)
    assert judge(site, record, ordered=ordered).outcome is Outcome.ENDED
    assert stored() is None


def test_a_change_of_a_session_that_has_expired_elsewhere_has_ended(site, other):
    site.open()
    other.refill()
    other.save_through(b"west")
    record = site.save(b"east")
    site.clock.now = NOW + LIFETIME
    assert site.write(record) is Outcome.ENDED


@pytest.mark.parametrize("ordered", [True, False])
def test_an_outage_that_outlasts_the_copy_in_dynamodb_ends_no_session(site, ordered):
    """TTL deletes the copy of a session that went on in the hot tier: that is no logout."""
    site.open()
    site.clock.now = NOW + LIFETIME + 10
    record = site.held().changed(b"went on", NOW + 2 * LIFETIME, NOW + LIFETIME - 10)
    delete(site)
    assert judge(site, record, ordered=ordered).outcome is Outcome.WRITTEN
    assert site.payload_stored() == b"went on"


@pytest.mark.parametrize(("copy_expired", "over"), [(False, False), (True, True)])
def test_a_copy_that_is_gone_is_proof_unless_it_had_expired_and_the_session_has_not(
    site, copy_expired, over
):
    site.open()
    record = site.save(b"second")
    site.clock.now = NOW + LIFETIME + (10 if copy_expired else -10)
    delete(site)
    assert (record.expires <= site.clock.now) is over
    assert site.write(record) is Outcome.ENDED


def test_a_session_that_outlived_its_copy_but_was_revoked_has_ended(site):
    site.open()
    site.clock.now = NOW + LIFETIME + 10
    record = site.held().changed(b"went on", NOW + 2 * LIFETIME, NOW + LIFETIME - 10)
    site.cold.revoke(ID, int(NOW) + 2 * LIFETIME)
    assert site.write(record) is Outcome.ENDED


def test_a_write_against_what_cannot_be_trusted_changes_nothing(site, other, spoil, stored):
    site.open()
    other.refill()
    other.save_through(b"west")
    spoil()
    with pytest.raises(SessionUnreadable):
        site.write(site.save(b"east"))
    assert site.counts("cold_unreadable", "ended") == [1, 0]
    assert stored().data == b"spoilt"


def test_a_write_that_loses_every_race_gives_up(site, monkeypatch):
    opened = site.open()
    asked = []

    def fail(*args):
        asked.append(args)
        raise ConditionFailed

    monkeypatch.setattr(site.cold, "put_over", fail)
    with pytest.raises(ColdUnavailable):
        site.write(replace(opened, version=2))
    assert len(asked) == 4


def test_a_write_that_gets_no_answer_proves_nothing(site, dynamodb):
    site.open()
    record = site.save(b"second")
    dynamodb.fail("*", "InternalServerError", status=500, times=None)
    with pytest.raises(ColdUnavailable):
        site.write(record)


def test_a_failed_condition_that_cannot_be_explained_proves_nothing(site, dynamodb):
    site.open()
    record = site.save(b"second")
    site.cold.revoke(ID, int(NOW) + LIFETIME)
    dynamodb.fail("BatchGetItem", "InternalServerError", status=500, times=None)
    with pytest.raises(ColdUnavailable):
        site.write(record)


def test_a_failed_condition_proves_nothing_while_a_region_is_down(site, monkeypatch):
    """The other region may be the one that has the item."""
    site.open()
    record = site.save(b"second")
    delete(site)
    read = site.cold.read
    monkeypatch.setattr(site.cold, "read", lambda *args: replace(read(*args), complete=False))
    with pytest.raises(ColdUnavailable):
        site.write(record)


def test_a_session_that_is_too_large_for_dynamodb_is_not_sent(site, dynamodb):
    record = new_record(ID, incompressible(MAX_ITEM_BYTES), NOW + LIFETIME, NOW)
    dynamodb.reset_requests()
    with pytest.raises(ValueTooLarge):
        site.write(record)
    assert not dynamodb.requests()


# --- Sizes ------------------------------------------------------------------------------------


def test_what_fits_is_what_dynamodb_takes(site):
    sizes = range(MAX_ITEM_BYTES - 1000, MAX_ITEM_BYTES + 100, 50)
    records = [new_record(ID, incompressible(size), NOW + LIFETIME, NOW) for size in sizes]
    fitting = [record for record in records if site.reconciler.fits(record)]
    assert 0 < len(fitting) < len(records)
    assert site.write(fitting[-1]) is Outcome.WRITTEN


def test_what_fits_when_compressed_fits(site):
    record = new_record(ID, b"x" * 2 * MAX_ITEM_BYTES, NOW + LIFETIME, NOW)
    assert site.reconciler.fits(record)
    assert site.write(record) is Outcome.WRITTEN


# --- Renewing a lease -------------------------------------------------------------------------


def test_a_clean_session_that_nobody_changed_gets_a_new_lease(site, dynamodb):
    opened = site.open()
    dynamodb.reset_requests()
    now = site.clock.tick()
    assert site.renew() == site.held() == replace(opened, agreed_at=now)
    assert dynamodb.requests() == {"BatchGetItem": 1}
    assert site.counts("renewed", "restored", "conflicts") == [1, 0, 0]


def test_a_change_that_is_due_is_written_at_a_renewal(site, dynamodb):
    site.open()
    record = site.save(b"second")
    dynamodb.reset_requests()
    now = site.clock.tick(LEASE)
    assert site.renew() == site.held() == record.agreed(now)
    assert dynamodb.requests() == {"BatchGetItem": 1, "PutItem": 1}
    assert site.payload_stored() == b"second"


def test_a_change_that_is_not_due_yet_is_only_confirmed(site, dynamodb):
    """DynamoDB is written at most once per WRITE_INTERVAL."""
    site.open()
    record = site.save(b"second")
    dynamodb.reset_requests()
    now = site.clock.tick(LEASE - 1)
    assert site.renew() == site.held() == replace(record, agreed_at=now)
    assert site.held().dirty
    assert dynamodb.requests() == {"BatchGetItem": 1}


@pytest.mark.parametrize("changed", [False, True], ids=["clean", "changed"])
def test_a_save_during_a_renewal_has_the_new_lease_too(site, changed):
    """Else a session that is saved all the time would be renewed all the time, and never be."""
    site.open()
    if changed:
        site.save(b"second")
    answer = site.hot.get(ID)
    now = site.clock.tick(LEASE * 0.7)
    saved = site.save(b"third")
    site.reconciler.renew(answer)
    assert site.held() == replace(saved, agreed_at=now + 1)
    assert saved.dirty


def test_a_new_session_is_written_at_its_first_renewal(site):
    site.new()
    assert site.renew() == site.held()
    assert not site.held().dirty
    assert site.payload_stored() == b"first"


@pytest.mark.parametrize("due", [False, True])
@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("how", ["revoked", "revoked, but the item came back", "gone"])
def test_a_session_that_was_ended_elsewhere_is_over(site, other, sent, dirty, due, how):
    """Also one that is changed in every lease, and so is never only read."""
    opened = site.open()
    if dirty:
        site.save(b"second")
    if how == "gone":
        delete(site)
    else:
        other.logout()
    if "came back" in how:
        bring_back(site, opened)
    site.clock.tick(LEASE if due else 1)
    assert site.renew() is None
    assert site.hot.get(ID).state is State.TOMBSTONE
    assert site.counts("ended") == [1]
    assert sent == [("session_ended", {"id": ID[:8]})]


def test_a_new_session_that_was_ended_elsewhere_is_over(site):
    site.new()
    site.cold.revoke(ID, int(NOW) + LIFETIME)
    assert site.renew() is None
    assert site.hot.get(ID).state is State.TOMBSTONE


def test_a_clean_session_that_has_expired_is_over(site):
    site.open()
    site.clock.now = NOW + LIFETIME
    assert site.renew() is None
    assert site.hot.get(ID).state is State.TOMBSTONE


def test_a_session_that_went_on_while_its_copy_expired_goes_on(site):
    site.open()
    answer = site.hot.get(ID)
    site.clock.now = NOW + LIFETIME - 10
    went_on = answer.record.changed(b"went on", NOW + 2 * LIFETIME, site.clock.now)
    assert site.hot.swap(went_on, answer.token)
    delete(site)
    site.clock.tick(20)
    assert site.renew() == site.held()
    assert site.payload_stored() == b"went on"


def test_what_another_site_changed_takes_the_place_of_a_clean_session(site, other, sent):
    site.open()
    other.refill()
    theirs = other.save_through(b"west")
    now = site.clock.tick()
    renewed = site.renew()
    assert renewed == site.held() == reborn(theirs.agreed(now), renewed)
    assert site.counts("restored", "conflicts") == [1, 0]
    assert sent == [("session_restored", {"id": ID[:8]})]


@pytest.mark.parametrize("ours", [1, 3])
@pytest.mark.parametrize("theirs", [1, 3])
def test_of_two_sites_changes_the_later_stands_theirs(site, other, sent, ours, theirs):
    """Whoever saved more often has the higher number, which means nothing."""
    site.open()
    other.refill()
    for _ in range(ours):
        site.save(b"east")
    for _ in range(theirs):
        last = other.save_through(b"west")
    site.clock.tick(LEASE)
    renewed = site.renew()
    assert renewed == site.held()
    assert renewed.same_as(last)
    assert not renewed.dirty
    assert site.payload_stored() == b"west"
    assert site.counts("conflicts") == [1]
    assert ("session_conflict", {"id": ID[:8], "kept": "theirs"}) in sent


@pytest.mark.parametrize("ours", [1, 3])
@pytest.mark.parametrize("theirs", [1, 3])
def test_of_two_sites_changes_the_later_stands_ours(
    site, other, sent, stored, caplog, ours, theirs
):
    site.open()
    other.refill()
    for _ in range(theirs):
        other.save_through(b"west")
    for _ in range(ours):
        last = site.save(b"east")
    site.clock.tick(LEASE)
    renewed = site.renew()
    assert renewed == site.held()
    assert (renewed.payload, renewed.dirty) == (b"east", False)
    assert renewed.modified == pytest.approx(last.modified, rel=0, abs=0.002)
    assert renewed.version == renewed.base == stored().version > max(1 + theirs, 1 + ours)
    assert site.payload_stored() == b"east"
    assert site.counts("conflicts") == [1]
    assert sent == [("session_conflict", {"id": ID[:8], "kept": "ours"})]
    assert ID[:8] in caplog.text
    assert ID not in caplog.text


def test_after_a_conflict_the_other_site_follows(site, other):
    site.open()
    other.refill()
    west = other.save_through(b"west")
    other.reconciler.note(west, other.clock.now)
    site.save(b"east")
    site.clock.tick(LEASE)
    site.renew()
    assert other.renew().payload == b"east"
    assert other.counts("conflicts") == [0]


def test_a_region_that_went_back_to_an_older_version_gets_ours_again(site, stored):
    """A lost region's writes may be missing where another one acknowledged them."""
    opened = site.open()
    second = site.save_through(b"second")
    site.reconciler.note(second, site.clock.now)
    bring_back(site, opened)
    assert stored().version == 1
    now = site.clock.tick()
    renewed = site.renew()
    assert renewed == site.held()
    assert (renewed.payload, renewed.agreed_at, renewed.dirty) == (b"second", now, False)
    assert site.payload_stored() == b"second"
    assert site.counts("conflicts") == [0]


def test_a_region_that_went_back_gets_ours_again_also_where_another_site_had_written_it(
    site, other, stored
):
    opened = site.open()
    other.refill()
    other.save_through(b"west")
    assert site.renew().payload == b"west"
    bring_back(site, opened)
    site.clock.tick()
    assert site.renew().payload == b"west"
    assert stored().version == 2
    assert not site.held().dirty
    assert site.counts("conflicts") == [0]


def test_a_change_upon_what_a_region_has_lost_is_no_conflict(site, other):
    opened = site.open()
    other.refill()
    other.save_through(b"west")
    site.renew()
    site.save(b"west, then east")
    bring_back(site, opened)
    site.clock.tick(LEASE)
    assert site.renew().payload == site.payload_stored() == b"west, then east"
    assert site.counts("conflicts") == [0]


def test_a_change_of_another_site_counts_although_its_number_is_lower(site, other):
    """East counted up to 4 in its own region; then west's, based on 1, won in replication."""
    opened = site.open()
    for payload in [b"second", b"third", b"fourth"]:
        site.reconciler.note(site.save_through(payload), site.clock.now)
    other.hot.add(opened.reborn())
    theirs = other.save(b"west")
    bring_back(other, theirs)
    site.clock.tick()
    assert not site.held().dirty
    assert site.renew().payload == b"west"
    assert site.payload_stored() == b"west"


def test_a_version_that_was_written_but_not_noted_is_noted(site, sent):
    site.open()
    record = site.save_through(b"second")
    now = site.clock.tick()
    assert site.held().dirty
    assert site.renew() == site.held() == record.agreed(now)
    assert site.counts("conflicts", "restored") == [0, 0]
    assert sent == []


def test_an_outage_of_dynamodb_leaves_the_entry_as_it_is(site, dynamodb):
    opened = site.open()
    dynamodb.fail("*", "InternalServerError", status=500, times=None)
    with pytest.raises(ColdUnavailable):
        site.renew()
    assert site.held() == opened
    dirty = site.save(b"second")
    site.clock.tick(LEASE)
    with pytest.raises(ColdUnavailable):
        site.renew()
    assert site.held() == dirty


def test_an_outage_of_a_region_ends_no_session_that_another_one_lacks(site, monkeypatch):
    opened = site.open()
    delete(site)
    read = site.cold.read
    monkeypatch.setattr(site.cold, "read", lambda *args: replace(read(*args), complete=False))
    with pytest.raises(ColdUnavailable):
        site.renew()
    assert site.held() == opened


@pytest.mark.parametrize("dirty", [False, True])
def test_what_cannot_be_trusted_leaves_the_entry_as_it_is(site, other, spoil, dirty):
    site.open()
    other.refill()
    other.save_through(b"west")
    if dirty:
        site.save(b"east")
    before = site.held()
    spoil()
    with pytest.raises(SessionUnreadable):
        site.renew()
    assert site.held() == before


def test_a_hot_tier_that_fails_during_a_renewal_does_not_spoil_it(site, between):
    site.open()
    site.save(b"second")
    site.clock.tick(LEASE)
    between(site.cold, "put_over", after=site.go_down)
    assert site.renew().payload == b"second"
    assert site.payload_stored() == b"second"


def test_without_compare_and_swap_a_request_renews_as_well(plain):
    plain.open()
    plain.save(b"second")
    plain.clock.tick(LEASE)
    assert plain.renew() == plain.held()
    assert not plain.held().dirty
    assert plain.payload_stored() == b"second"


# --- Renewing, while something else happens ---------------------------------------------------


@pytest.fixture
def due(site):
    """A site with a change that a renewal writes."""
    site.open()
    site.save(b"second")
    site.clock.tick(LEASE)
    return site


def test_a_save_before_the_write_is_kept_and_knows_what_was_written(due, between):
    started = due.clock.now
    between(due.cold, "put_over", before=lambda: due.save(b"third"))
    due.renew()
    held = due.held()
    assert (held.payload, held.version, held.base) == (b"third", 3, 2)
    assert held.dirty
    assert held.agreed_at == started


def test_a_save_between_write_and_note_is_kept_and_knows_what_was_written(due, between):
    started = due.clock.now
    between(due.cold, "put_over", after=lambda: due.save(b"third"))
    due.renew()
    held = due.held()
    assert (held.payload, held.version, held.base) == (b"third", 3, 2)
    assert held.base_expires == NOW + LIFETIME
    assert held.agreed_at == held.dirty_since == started
    due.clock.tick(LEASE)
    assert due.renew().payload == b"third"
    assert due.payload_stored() == b"third"
    assert due.counts("conflicts") == [0]


@pytest.mark.parametrize("dirty", [False, True])
def test_a_save_between_read_and_note_is_kept(site, between, dirty):
    site.open()
    if dirty:
        site.save(b"second")
    between(site.cold, "read", after=lambda: site.save(b"third"))
    site.renew()
    assert site.held().payload == b"third"
    assert site.held().dirty


def test_a_save_that_was_written_through_meanwhile_is_no_conflict(due, between, sent, stored):
    """It was this hot tier that ordered both."""
    between(due.cold, "put_over", before=lambda: due.save_through(b"third"))
    due.renew()
    assert due.held().payload == b"third"
    assert stored().version == 3
    assert due.counts("conflicts", "restored") == [0, 0]
    assert sent == []


@pytest.mark.parametrize("dirty", [False, True])
def test_a_save_that_was_written_through_before_the_read_was_not_restored(
    site, between, sent, dirty
):
    site.open()
    if dirty:
        site.save(b"second")
    between(site.cold, "read", before=lambda: site.save_through(b"third"))
    site.renew()
    assert site.held().payload == site.payload_stored() == b"third"
    assert site.counts("conflicts", "restored") == [0, 0]
    assert sent == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("method", ["put_over", "read"])
def test_a_logout_meanwhile_is_final(due, between, stored, moment, method):
    between(due.cold, method, **{moment: due.logout})
    due.renew()
    assert due.hot.get(ID).state is State.TOMBSTONE
    assert stored() is None


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_logout_during_the_first_write_of_a_session_is_final(site, between, moment):
    site.new()
    between(site.cold, "put_new", **{moment: site.logout})
    site.renew()
    assert site.hot.get(ID).state is State.TOMBSTONE
    with pytest.raises(SessionEnded):
        site.reconciler.read(ID)


@pytest.fixture
def conflict(site, other):
    """A site that has a later change than another one has written."""
    site.open()
    other.refill()
    other.save_through(b"west")
    site.save(b"east")
    site.clock.tick(LEASE)
    return site


def test_a_logout_during_a_conflict_is_final(conflict, between, stored):
    between(conflict.hot, "swap", before=conflict.logout)
    with pytest.raises(ColdUnavailable):
        conflict.renew()
    assert conflict.hot.get(ID).state is State.TOMBSTONE
    assert stored() is None


def test_a_save_during_a_conflict_goes_first(conflict, between):
    between(conflict.hot, "swap", before=lambda: conflict.save(b"east again"))
    with pytest.raises(ColdUnavailable):
        conflict.renew()
    assert conflict.payload_stored() == b"west"
    assert conflict.renew().payload == b"east again"
    assert conflict.payload_stored() == b"east again"


def test_a_change_of_another_site_during_a_conflict_is_looked_at_again(conflict, other, between):
    between(conflict.hot, "swap", after=lambda: other.save_through(b"west again"))
    assert conflict.renew().payload == b"west again"
    conflict.clock.tick(LEASE)
    assert conflict.renew().payload == conflict.payload_stored() == b"west again"


# --- Sessions that are too large --------------------------------------------------------------


def test_a_session_too_large_for_dynamodb_is_kept_and_gets_a_new_lease(site):
    site.open()
    record = site.save(incompressible(MAX_ITEM_BYTES))
    now = site.clock.tick(LEASE)
    assert site.renew() == site.held() == replace(record, agreed_at=now)
    assert site.held().dirty


def test_a_session_too_large_for_dynamodb_that_is_over_is_over(site, other):
    site.open()
    site.save(incompressible(MAX_ITEM_BYTES))
    other.logout()
    site.clock.tick(LEASE)
    assert site.renew() is None
    assert site.hot.get(ID).state is State.TOMBSTONE


def test_a_new_session_too_large_for_dynamodb_is_not_missed_there(site):
    site.new(incompressible(MAX_ITEM_BYTES))
    now = site.clock.tick()
    assert site.renew().agreed_at == site.held().agreed_at == now


def test_a_pending_change_too_large_for_dynamodb_is_left_to_the_hot_tier(site, stored):
    site.open()
    record = site.save(incompressible(MAX_ITEM_BYTES))
    site.reconciler.flush(Pending(record))
    assert stored().version == 1
    assert site.held().payload == record.payload


# --- Flushing what is pending -----------------------------------------------------------------


def joined(base, ours, theirs):
    return b"%b|%b|%b" % (base, ours, theirs), NOW + LIFETIME + 7


def test_a_pending_change_is_written_and_noted(site):
    site.open()
    record = site.save(b"second")
    site.clock.tick()
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"
    assert site.held() == record.written()


def test_a_later_change_in_the_hot_tier_is_written_instead(site):
    site.open()
    record = site.save(b"second")
    site.save(b"third")
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"third"
    assert not site.held().dirty


@pytest.mark.parametrize("later", [False, True])
def test_what_another_process_has_written_is_not_written_again(site, dynamodb, later):
    site.open()
    record = site.save(b"second")
    if later:
        site.save(b"third")
    site.clock.tick(LEASE)
    site.renew()
    dynamodb.reset_requests()
    site.reconciler.flush(Pending(record))
    assert not dynamodb.requests()


def test_a_change_of_a_session_that_has_ended_is_not_written(site, dynamodb, stored):
    site.open()
    record = site.save(b"second")
    site.logout()
    dynamodb.reset_requests()
    site.reconciler.flush(Pending(record))
    assert not dynamodb.requests()
    assert stored() is None


def test_a_change_of_a_session_that_was_ended_elsewhere_ends_it_here(site, other, sent):
    site.open()
    record = site.save(b"second")
    other.logout()
    site.reconciler.flush(Pending(record))
    assert site.hot.get(ID).state is State.TOMBSTONE
    assert sent == [("session_ended", {"id": ID[:8]})]


@pytest.mark.parametrize("new", [False, True])
def test_a_write_that_asks_nobody_begins_no_new_lease(site, other, new):
    """Only a read sees the revocation of a session whose item came back, or was never there."""
    if new:
        record = site.new()
        site.cold.revoke(ID, int(NOW) + LIFETIME)
    else:
        opened = site.open()
        record = site.save(b"second")
        other.logout()
        bring_back(site, opened)
    began = site.held().agreed_at
    site.clock.tick(LEASE - 10)
    site.reconciler.flush(Pending(record))
    answer = site.hot.get(ID)
    assert answer.state is State.TOMBSTONE or answer.record.agreed_at == began


def test_a_change_that_was_evicted_is_written_and_put_back(site):
    """Else whoever had read the earlier version meanwhile would fill the hot tier with that."""
    site.open()
    record = site.save(b"second")
    site.lose()
    earlier = site.reconciler.read(ID)
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"
    assert not site.hot.add(earlier.reborn())
    held = site.held()
    assert held == reborn(replace(record.written(), agreed_at=0), held)


def test_what_is_put_back_is_looked_at_before_it_is_served(site, other, sent):
    """A write is not told of a logout elsewhere, if the item came back."""
    opened = site.open()
    record = site.save(b"second")
    other.logout()
    bring_back(site, opened)
    site.lose()
    site.reconciler.flush(Pending(record))
    assert site.held().agreed_at == 0
    assert site.renew() is None
    assert site.hot.get(ID).state is State.TOMBSTONE


def test_a_change_that_the_hot_tier_has_no_room_for_is_written_and_not_put_back(site):
    site.open()
    record = site.save(b"second")
    site.lose()
    assert site.hot.dig(ID, None)
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"
    assert site.hot.get(ID).state is State.MISS
    large = incompressible(2_000_000)
    site.reconciler.note(replace(record, id=OTHER, payload=large), site.clock.now)
    assert site.hot.get(OTHER).state is State.MISS


def test_a_pending_change_is_written_while_the_hot_tier_is_down(site):
    site.open()
    record = site.save(b"second")
    site.go_down()
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"


def test_a_pending_change_is_written_where_the_hot_entry_is_spoilt(site):
    site.open()
    record = site.save(b"second")
    site.cache.set(f"session:{ID}", b"spoilt")
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"
    assert site.hot.get(ID).state is State.UNREADABLE


def test_a_pending_change_outlives_an_outage_of_dynamodb(site, dynamodb):
    site.open()
    record = site.save(b"second")
    dynamodb.fail("*", "InternalServerError", status=500, times=None)
    with pytest.raises(ColdUnavailable):
        site.reconciler.flush(Pending(record))
    dynamodb.heal()
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"


def test_a_change_that_the_hot_tier_forgot_is_put_back_there(site):
    site.open()
    record = site.save(b"second")
    site.lose()
    site.refill()
    assert site.held().payload == b"first"
    site.clock.tick()
    site.reconciler.flush(Pending(record))
    assert site.payload_stored() == b"second"
    held = site.held()
    assert held == reborn(record.written(), held)
    assert site.counts("conflicts", "merged") == [0, 0]


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_what_the_hot_tier_forgot_is_merged_with_what_was_changed_since(site, sent, saves):
    """However often either of them was saved, neither is lost, and whoever comes second merges."""
    site.open()
    site.save(b"second")
    ours = site.save(b"ours")
    site.lose()
    site.refill()
    for _ in range(saves):
        theirs = site.save(b"theirs")
    site.reconciler.flush(Pending(ours, b"first", joined))
    assert site.payload_stored() == b"ours"
    assert site.held().payload == b"theirs"
    site.reconciler.flush(Pending(theirs, b"first", joined))
    assert site.payload_stored() == site.held().payload == b"first|theirs|ours"
    assert site.held().expires == NOW + LIFETIME + 7
    assert not site.held().dirty
    assert sent == [("session_conflict", {"id": ID[:8], "kept": "merged"})]


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_what_was_changed_since_the_hot_tier_forgot_is_merged_the_other_way_round(site, saves):
    site.open()
    site.save(b"second")
    ours = site.save(b"ours")
    site.lose()
    site.refill()
    for _ in range(saves):
        theirs = site.save(b"theirs")
    site.reconciler.flush(Pending(theirs, b"first", joined))
    assert site.payload_stored() == site.held().payload == b"theirs"
    site.reconciler.flush(Pending(ours, b"first", joined))
    assert site.payload_stored() == site.held().payload == b"first|theirs|ours"
    assert not site.held().dirty


@pytest.mark.parametrize("lost", [False, True])
def test_what_another_site_changed_is_merged_with_a_pending_change(site, other, lost):
    site.open()
    other.refill()
    site.save(b"second")
    ours = site.save(b"ours")
    other.save_through(b"west")
    if lost:
        site.lose()
        site.refill()
    site.reconciler.flush(Pending(ours, b"first", joined))
    assert site.payload_stored() == site.held().payload == b"first|west|ours"
    assert site.counts("conflicts") == [1]


@pytest.mark.parametrize("ours_is_later", [False, True])
def test_where_nothing_merges_the_later_change_stands(site, other, sent, ours_is_later):
    site.open()
    other.refill()
    ours = site.save(b"ours")
    other.save_through(b"west")
    if ours_is_later:
        ours = site.save(b"ours")
    site.reconciler.flush(Pending(ours))
    assert site.payload_stored() == (b"ours" if ours_is_later else b"west")
    assert site.held().payload == site.payload_stored()
    kept = "ours" if ours_is_later else "theirs"
    assert ("session_conflict", {"id": ID[:8], "kept": kept}) in sent


def test_the_background_thread_does_not_write_a_cache_without_compare_and_swap(plain):
    plain.open()
    record = plain.save(b"second")
    plain.reconciler.flush(Pending(record))
    assert plain.payload_stored() == b"second"
    assert plain.held() == record
    assert plain.reconciler.refreshed(plain.held()) == record.written()


@pytest.mark.parametrize("through", [False, True])
def test_a_save_before_a_flush_writes_is_no_conflict(site, between, sent, through):
    site.open()
    record = site.save(b"second")
    save = site.save_through if through else site.save
    between(site.cold, "put_over", before=lambda: save(b"third"))
    site.reconciler.flush(Pending(record))
    assert site.held().payload == b"third"
    assert site.payload_stored() == (b"third" if through else b"second")
    assert site.counts("conflicts", "restored") == [0, 0]
    assert sent == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("new", [False, True])
def test_a_logout_during_a_flush_is_final(site, between, moment, new):
    if new:
        record = site.new()
    else:
        site.open()
        record = site.save(b"second")
    between(site.cold, "put_new" if new else "put_over", **{moment: site.logout})
    site.reconciler.flush(Pending(record))
    assert site.hot.get(ID).state is State.TOMBSTONE
    with pytest.raises(SessionEnded):
        site.reconciler.read(ID)


# --- Noting what was written ------------------------------------------------------------------


def test_a_write_is_noted(site):
    site.open()
    record = site.save_through(b"second")
    site.reconciler.note(record, site.clock.now)
    assert site.held() == record.written()


def test_a_write_is_noted_in_a_later_version_too(site):
    site.open()
    record = site.save_through(b"second")
    started = site.clock.now
    third = site.save(b"third")
    site.reconciler.note(record, started)
    assert site.held() == third.ahead_of(record, started)


def test_a_write_that_is_noted_late_changes_nothing(site):
    site.open()
    second = site.save_through(b"second")
    third = site.save_through(b"third")
    site.reconciler.note(third, site.clock.now)
    before = site.held()
    site.reconciler.note(second, site.clock.tick())
    assert site.held() == before


def test_a_write_that_the_hot_tier_does_not_have_is_put_there(site):
    """It was made in DynamoDB alone, while the hot tier was down."""
    opened = site.open()
    record = opened.changed(b"alone", NOW + LIFETIME, site.clock.tick())
    alone(site, record)
    site.reconciler.note(record, site.clock.now)
    assert site.held().payload == b"alone"
    assert not site.held().dirty


def test_a_write_alone_does_not_undo_another_change_in_the_hot_tier(site):
    opened = site.open()
    record = opened.changed(b"alone", NOW + LIFETIME, site.clock.tick()).reborn()
    alone(site, record)
    for payload in [b"later", b"later still"]:
        later = site.save(payload)
        site.reconciler.note(record, site.clock.now)
        assert site.held() == later


def test_a_write_is_not_noted_where_the_session_has_ended(site):
    site.open()
    record = site.save_through(b"second")
    site.logout()
    site.reconciler.note(record, site.clock.now)
    assert site.hot.get(ID).state is State.TOMBSTONE
    assert site.reconciler.refreshed(record) is record


def test_a_logout_between_look_and_note_is_final(site, between):
    site.open()
    record = site.save_through(b"second")
    between(site.hot, "swap", before=site.logout)
    site.reconciler.note(record, site.clock.now)
    assert site.hot.get(ID).state is State.TOMBSTONE


def test_a_save_between_look_and_note_is_kept(site, between):
    site.open()
    record = site.save_through(b"second")
    between(site.hot, "swap", before=lambda: site.save(b"third"))
    site.reconciler.note(record, site.clock.now)
    assert (site.held().payload, site.held().base) == (b"third", 2)


def test_a_write_cannot_be_noted_while_the_hot_tier_is_down(site):
    site.open()
    record = site.save_through(b"second")
    site.go_down()
    with pytest.raises(HotUnavailable):
        site.reconciler.note(record, site.clock.now)


# --- What could not be noted ------------------------------------------------------------------


@pytest.fixture
def unnoted(site, monkeypatch):
    """A site that has written version 2, and could not note it for all the saves that came."""
    site.open()
    record = site.save_through(b"second")
    swap = site.hot.swap
    monkeypatch.setattr(site.hot, "swap", lambda record, token: False)
    site.reconciler.note(record, site.clock.now)
    monkeypatch.setattr(site.hot, "swap", swap)
    assert site.held() == record
    return site


def test_the_next_save_knows_what_could_not_be_noted(unnoted):
    held = unnoted.held()
    assert unnoted.reconciler.refreshed(held) == held.written()
    assert unnoted.reconciler.refreshed(held) is held  # which the save has stored


def test_a_later_save_of_another_process_knows_it_too(unnoted):
    started = unnoted.clock.now
    written, third = unnoted.held(), unnoted.save(b"third")
    assert unnoted.reconciler.refreshed(third) == third.ahead_of(written, started)


def test_what_another_process_knows_of_a_later_write_is_not_forgotten(unnoted):
    third = unnoted.save(b"third").agreed(unnoted.clock.tick())
    assert unnoted.reconciler.refreshed(third) is third


def test_what_could_not_be_noted_tells_nothing_of_an_earlier_version(unnoted):
    earlier = replace(unnoted.held(), version=1, base=1)
    assert unnoted.reconciler.refreshed(earlier) is earlier


def test_what_could_not_be_noted_tells_nothing_of_another_life_of_the_entry(unnoted):
    another = replace(unnoted.held(), version=9, modified=NOW + 99).reborn()
    assert unnoted.reconciler.refreshed(another) is another


def test_what_could_not_be_noted_tells_nothing_of_another_session(unnoted):
    another = replace(unnoted.held(), id=storage_id("another"))
    assert unnoted.reconciler.refreshed(another) is another


def test_what_could_not_be_noted_does_not_pile_up(plain, monkeypatch):
    monkeypatch.setattr(reconcile, "_MAX_UNNOTED", 10)
    record = new_record(ID, b"", NOW + LIFETIME, NOW)
    for number in range(25):
        plain.reconciler.note(replace(record, id=f"{number}"), NOW)
    assert len(plain.reconciler._unnoted) <= 10
    for number in [20, 24]:
        last = replace(record, id=f"{number}")
        assert not plain.reconciler.refreshed(last).dirty


# --- The end ----------------------------------------------------------------------------------


def test_the_end_is_noted_counted_and_signalled(site, sent):
    site.reconciler.end(site.open())
    assert site.hot.get(ID).state is State.TOMBSTONE
    assert site.counts("ended") == [1]
    assert sent == [("session_ended", {"id": ID[:8]})]


def test_the_end_is_noted_for_as_long_as_the_session_would_have_lived(site, monkeypatch):
    record = site.open()
    seconds = []
    monkeypatch.setattr(site.hot, "bury", lambda id, timeout: seconds.append(timeout))
    site.reconciler.end(record)
    assert site.clock() + seconds[0] >= NOW + LIFETIME


def test_an_end_that_cannot_be_noted_is_an_end_all_the_same(site, sent):
    record = site.open()
    site.go_down()
    site.reconciler.end(record)
    assert sent == [("session_ended", {"id": ID[:8]})]


def test_a_receiver_that_raises_stops_nothing(site):
    def fail(**arguments):
        raise ValueError

    signals.session_ended.connect(fail)
    try:
        site.reconciler.end(site.open())
    finally:
        signals.session_ended.disconnect(fail)
    assert site.hot.get(ID).state is State.TOMBSTONE
