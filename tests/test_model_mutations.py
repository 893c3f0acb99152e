"""The model finds the bug when one of the things that the guarantees rest on is removed."""

import dataclasses

import pytest
from hypothesis import Phase

from django_dynamo_failover import hot, sessions
from django_dynamo_failover.cold import ColdTier
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.sessions import SessionStore
from django_dynamo_failover.store import TieredStore

from .model.machine import FailOvers, Handovers, Outages, Races, play

#: So many examples are enough to find any of them.
EXAMPLES = 1000

#: None of them finds anything where nothing was removed.
UNMUTATED = 200


def the_tombstone(monkeypatch):
    """A logout deletes the entry from memcached, and puts nothing in its place."""

    def delete(self, cache, key, tombstone, timeout):
        cache.delete(key)

    monkeypatch.setattr(hot._CasAccess, "bury", delete)


def add_on_refill(monkeypatch):
    """What was read from DynamoDB is put into memcached whatever is there."""
    add = HotTier.add

    def add_or_set(self, record):
        if not record.base:
            return add(self, record)

        def put(cache, key, *args):
            cache.set(key, *args)
            return True

        monkeypatch.setattr(self._access, "add", put)
        try:
            return add(self, record)
        finally:
            monkeypatch.delattr(self._access, "add")

    monkeypatch.setattr(HotTier, "add", add_or_set)


def the_revocation_item(monkeypatch):
    """A logout deletes the item from DynamoDB, and leaves no word of it."""
    write = DynamoTable._write

    def delete_only(self, requests, until):
        return write(self, [each for each in requests if "DeleteRequest" in each], until)

    monkeypatch.setattr(DynamoTable, "_write", delete_only)


def the_version_condition(monkeypatch):
    """A write of a lineage may replace a later one of it."""
    without(monkeypatch, " AND #version < :version")


def the_site_condition(monkeypatch):
    """A write may replace what another site wrote, if only its number is higher."""
    without(monkeypatch, " AND (#site = :site OR #version = :base)")


def without(monkeypatch, part):
    put = DynamoTable._put

    def put_without(self, attributes, condition, values, until):
        put(self, attributes, condition.replace(part, ""), values, until)

    monkeypatch.setattr(DynamoTable, "_put", put_without)


def the_lease(monkeypatch):
    """What memcached holds is believed for as long as the session lives."""
    monkeypatch.setattr(TieredStore, "_is_trusted", lambda self, record, now: record.expires > now)


def the_merge(monkeypatch):
    """A save that lost the race replaces the other one."""
    monkeypatch.setattr(sessions, "merge", lambda base, ours, theirs: ours)


def compare_and_swap(monkeypatch):
    """A save replaces whatever is there by then."""

    def swap(self, cache, key, entry, token, timeout):
        cache.set(key, entry, timeout)
        return True

    monkeypatch.setattr(hot._CasAccess, "swap", swap)


def writing_through(monkeypatch):
    """A login is written when its time comes."""
    monkeypatch.setattr(SessionStore, "_through", lambda self, data: {})


def the_memory_of_what_is_pending(monkeypatch):
    """What a process has still to write is not looked at when memcached has lost it."""
    monkeypatch.setattr(TieredStore, "_pending", lambda self, id: None)


def asking_all_regions(monkeypatch):
    """The nearest region's "no such session" is believed."""
    read = ColdTier.read

    def read_nearest(self, *args):
        regions, self._regions = self._regions, self._regions[:1]
        try:
            return dataclasses.replace(read(self, *args), complete=True)
        finally:
            self._regions = regions

    monkeypatch.setattr(ColdTier, "read", read_nearest)


REMOVALS = [
    (the_tombstone, Races),
    (add_on_refill, Races),
    (the_revocation_item, Races),
    (the_version_condition, Handovers),
    (the_site_condition, FailOvers),
    (the_lease, FailOvers),
    (the_merge, Races),
    (compare_and_swap, Races),
    (writing_through, Races),
    (the_memory_of_what_is_pending, Races),
    (asking_all_regions, Outages),
]


@pytest.mark.parametrize(
    ("removal", "game"), [pytest.param(*each, id=each[0].__name__) for each in REMOVALS]
)
def test_the_model_misses(removal, game, monkeypatch):
    removal(monkeypatch)
    with pytest.raises(AssertionError, match=r"^G[1-6]: "):
        play(EXAMPLES, game, phases=[Phase.generate])


@pytest.mark.parametrize("game", [Handovers, Races, FailOvers, Outages])
def test_without_a_removal_it_holds(game):
    play(UNMUTATED, game, phases=[Phase.generate])
