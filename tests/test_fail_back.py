"""Two sites with a memcached each, over one DynamoDB: real processes on real servers.

G4: another site serves a session that was logged out for one lease at most. G5: an entry from
before a failover is served for one lease at most.
"""

import time
from contextlib import ExitStack

import pytest
from servers import Memcached

from .workers import start_workers

LEASE = 2.0
USERS = 100


@pytest.fixture
def sites(make_engine, start, memcached, dynamodb, table):
    """The engines of two sites and a process of each: east and west."""
    with ExitStack() as stack:
        sites = []
        for hot in (memcached, start(Memcached)):
            engine = make_engine(
                hot, dynamodb, table=table, WRITE_INTERVAL=LEASE, NEW_SESSION_DELAY=0
            )
            sites.append((engine, *stack.enter_context(start_workers(engine.settings, 1))))
        yield sites


def load(worker, keys):
    return worker.do("each", "load", [[key] for key in keys])


def change(worker, keys, data):
    return worker.do("each", "change", [[key, data] for key in keys])


def open_sessions(worker):
    keys = worker.do("each", "open", [[{"cart": 1}]] * USERS)
    assert worker.do("write") == 0
    return keys


@pytest.fixture
def keys(sites):
    """Sessions that east's memcached and DynamoDB have."""
    (_, east), _ = sites
    return open_sessions(east)


def is_all(found, expected):
    return all(data == expected for data in found)


class TestFailBack:
    """East is warm; its users go to west, change their sessions, and come back."""

    def test_is_stale_for_one_lease_at_most(self, sites, keys):
        (_, east), (_, west) = sites
        assert is_all(load(east, keys), {"cart": 1})
        assert is_all(change(west, keys, {"cart": 2}), {"cart": 2})
        assert west.do("write") == 0
        written = time.monotonic()

        stale = 0.0
        while time.monotonic() < written + LEASE + 0.5:
            asked = time.monotonic() - written
            found = load(east, keys)
            assert all(data in ({"cart": 1}, {"cart": 2}) for data in found)
            if not is_all(found, {"cart": 2}):
                stale = asked
            time.sleep(0.05)  # as active users do
        print(f"a lease of {LEASE} s; stale for {stale:.1f} s")
        assert stale < LEASE

    def test_after_a_lease_without_a_visit_is_not_stale_at_all(self, sites, keys):
        (_, east), (_, west) = sites
        change(west, keys, {"cart": 2})
        assert west.do("write") == 0
        time.sleep(LEASE)
        assert is_all(load(east, keys), {"cart": 2})

    def test_loses_no_change_of_either_site(self, sites, keys):
        (_, east), (_, west) = sites
        change(east, keys, {"here": 1})
        change(west, keys, {"there": 1})
        change(east, keys, {"again": 1})
        for worker in (west, east):
            assert worker.do("write") == 0
        everything = {"cart": 1, "here": 1, "there": 1, "again": 1}
        time.sleep(LEASE)
        for worker in (east, west):
            assert is_all(load(worker, keys), everything)


class TestLogoutAtTheOtherSite:
    def test_is_known_here_after_one_lease(self, sites, keys):
        (_, east), (_, west) = sites
        assert is_all(load(east, keys), {"cart": 1})
        west.do("each", "logout", [[key] for key in keys])
        assert is_all(load(west, keys), None)
        time.sleep(LEASE)
        assert is_all(load(east, keys), None)
        for _, worker in sites:
            assert worker.do("write") == 0
            assert is_all(load(worker, keys), None)

    def test_is_not_undone_by_a_save_that_is_under_way_here(self, sites, keys):
        (engine, east), (_, west) = sites
        key = keys[0]
        with east.stopped("hot.cas", "change", key, {"cart": 2}):
            west.do("logout", key)
        time.sleep(LEASE)
        for _, worker in sites:
            assert worker.do("load", key) is None
            assert worker.do("write") == 0
        engine.hot.flush()
        for _, worker in sites:
            assert worker.do("load", key) is None

    @pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
    def test_while_memcached_is_frozen_here(self, sites, keys, noticed):
        """It thaws with the old sessions in it."""
        (engine, east), (_, west) = sites
        engine.hot.freeze()
        if noticed:
            assert is_all(load(east, keys[:5]), {"cart": 1})
        west.do("each", "logout", [[key] for key in keys])
        thawed = time.monotonic()
        engine.hot.thaw()
        if noticed:  # what is from before the outage is not believed at all
            assert is_all(load(east, keys), None)
        time.sleep(max(0.0, thawed + LEASE - time.monotonic()))
        assert is_all(load(east, keys), None)
