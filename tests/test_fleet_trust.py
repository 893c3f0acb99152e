"""What processes hear in a cache that they share with strangers, and what they believe after it."""

import dataclasses
import json
import pickle

import pytest

from django_dynamo_failover.keys import Keyring
from django_dynamo_failover.orders import Orders
from django_dynamo_failover.record import new_record

from .fleets import ISSUE, Process, each_order
from .sites import ID, KEYRING, NOW

ORDERS = "session-orders:0"
DRAIN = Orders().drain(True, NOW).encode()
PICKLE_FLAGS = 1
RECORD = dataclasses.replace(new_record(ID, b"one", NOW + 10_000, NOW), agreed_at=NOW)


# --- What was not written by us ---------------------------------------------------------------


def _signed(note):
    return KEYRING.sign_hot(ORDERS, note) + note


FORGED = {
    "noise": b"noise",
    "nothing": b"",
    "another secret": Keyring(["other"]).sign_hot(ORDERS, DRAIN) + DRAIN,
    "another name": KEYRING.sign_hot("session-orders:1", DRAIN) + DRAIN,
    "a changed one": _signed(DRAIN)[:-1] + b"x",
    "a pickle": pickle.dumps("harmless"),
    "noise with our signature": _signed(b"noise"),
    "orders of another release": _signed(b'{"version": 1}'),
}


@pytest.mark.parametrize("note", FORGED.values(), ids=FORGED)
def test_a_planted_note_is_refused_and_replaced(memcached, open_memcached, note):
    flags = PICKLE_FLAGS if note == FORGED["a pickle"] else 0
    one, later = Process(open_memcached()), Process(open_memcached())
    one.revoke({"ann": NOW})
    memcached.set(f":1:{ORDERS}", note, flags=flags)
    later.look()
    assert later.known == (False, 0, [])
    one.look()
    later.look()
    assert later.known == (False, 0, ["ann"])
    assert one.hot.is_up
    assert later.hot.is_up


@pytest.mark.parametrize("note", FORGED.values(), ids=FORGED)
def test_a_planted_note_does_not_keep_orders_from_being_given(memcached, open_memcached, note):
    flags = PICKLE_FLAGS if note == FORGED["a pickle"] else 0
    memcached.set(f":1:{ORDERS}", note, flags=flags)
    one, later = Process(open_memcached()), Process(open_memcached())
    one.drain(True)
    later.look()
    assert later.draining


def test_an_old_note_that_is_planted_again_changes_nothing(memcached, open_memcached):
    one = Process(open_memcached())
    one.drain(True)
    note = memcached.get(f":1:{ORDERS}")
    one.drain(False)
    memcached.set(f":1:{ORDERS}", note)
    one.look()
    later = Process(open_memcached())
    later.look()
    assert not later.draining


def test_a_newer_release_keeps_orders_that_this_one_does_not_know(memcached, open_memcached):
    """This one leaves its note as it is, as long as it has nothing to add."""
    one = Process(open_memcached())
    one.drain(True)
    newer = _signed(json.dumps({**dataclasses.asdict(one.orders), "freeze": True}).encode())
    memcached.set(f":1:{ORDERS}", newer)
    one.look()
    later = Process(open_memcached())
    later.look()
    assert later.draining
    assert memcached.get(f":1:{ORDERS}") == newer


STRANGERS = {
    "another prefix": ({"KEY_PREFIX": "other"}, KEYRING),
    "another secret": ({}, Keyring(["other"])),
}


@each_order
@pytest.mark.parametrize(("params", "keyring"), STRANGERS.values(), ids=STRANGERS)
def test_another_site_on_the_same_memcached_hears_nothing(open_memcached, order, params, keyring):
    ours, theirs = Process(open_memcached()), Process(open_memcached(**params), keyring)
    ISSUE[order](ours)
    ours.poll()
    theirs.poll()
    assert theirs.known == (False, 0, [])
    assert [member.id for member in theirs.members()] == [theirs.id]


def test_a_secret_that_is_being_replaced_is_understood(open_memcached):
    """Web processes with the old one alone must be gone before anybody writes with the new one."""
    one = Process(open_memcached(), Keyring(["old"]))
    other = Process(open_memcached(), Keyring(["new", "old"]))
    one.drain(True)
    one.poll()
    other.look()
    assert other.draining
    assert len(other.members()) == 1


# --- What entries are believed ----------------------------------------------------------------


def test_entries_from_before_a_revalidation_are_not_believed(join):
    one, other = join(), join()
    assert other.hot.trusts(RECORD)
    one.clock.tick(5)
    one.revalidate()
    assert not one.hot.trusts(RECORD)
    assert other.hot.trusts(RECORD)
    other.clock.tick(6)
    other.look()
    assert not other.hot.trusts(RECORD)
    assert other.hot.trusts(dataclasses.replace(RECORD, agreed_at=NOW + 5))


def test_a_process_that_starts_later_believes_no_older_entry_either(join):
    one = join()
    one.clock.tick(5)
    one.revalidate()
    later = join()
    later.clock.tick(1000)
    later.look()
    assert not later.hot.trusts(RECORD)
    assert later.hot.trusts(dataclasses.replace(RECORD, agreed_at=NOW + 6))


def test_a_clock_that_is_ahead_does_not_let_entries_agree_at_every_hit(join):
    one, other = join(), join()
    one.clock.tick(3600)
    one.revalidate()
    other.clock.tick(5)
    other.look()
    assert not other.hot.trusts(RECORD)
    agreed = dataclasses.replace(RECORD, agreed_at=other.clock.tick())
    other.clock.tick()
    other.look()
    assert other.hot.trusts(agreed)
