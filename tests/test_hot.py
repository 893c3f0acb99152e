"""The hot tier on a cache with compare-and-swap, and on caches of Django that have none."""

import dataclasses
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyMemcacheCache
from servers import Memcached, free_port

from django_dynamo_failover.breaker import Breaker
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.exceptions import HotUnavailable, ValueTooLarge
from django_dynamo_failover.hot import HotTier, State
from django_dynamo_failover.keys import Keyring, storage_id
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.record import encode_hot, encode_tombstone, new_record

from .sites import ID, KEYRING, NOW, Clock, threads_in_a_hurry

KEY = f"session:{ID}"
TOKEN_KEY = "session-site-token:0"
RECORD = new_record(ID, b"one", NOW + 1000, NOW)
NEXT = RECORD.changed(b"two", NOW + 1000, NOW + 1)
TOO_LARGE = dataclasses.replace(NEXT, payload=bytes(2_000_000))


class Site:
    """A hot tier, as one process has it."""

    def __init__(self, cache):
        self.cache = cache
        self.clock = Clock()
        self.breaker = Breaker(clock=self.clock)
        self.metrics = Metrics()
        self.hot = HotTier(
            lambda: self.cache, KEYRING, self.metrics, lambda: self.breaker, now=self.clock
        )

    def counts(self):
        return {name: number for name, number in self.metrics.snapshot().items() if number}


@pytest.fixture(params=["MemcachedCache", "PyMemcacheCache", "LocMemCache"])
def open_cache(request):
    """``open_cache()``: a cache as a process opens it; each has the same contents."""
    opened = []
    kind = request.param
    server = None if kind == "LocMemCache" else request.getfixturevalue("memcached")

    def open_cache():
        if server is None:
            cache = LocMemCache(request.node.nodeid, {})
        else:
            cache = (MemcachedCache if kind == "MemcachedCache" else PyMemcacheCache)(
                server.address, {}
            )
        opened.append(cache)
        return cache

    yield open_cache
    for cache in opened:
        if server is None:
            cache.clear()
        elif kind == "MemcachedCache":
            cache.disconnect()
        cache.close()


@pytest.fixture
def site(open_cache):
    return Site(open_cache())


@pytest.fixture
def hot(site):
    return site.hot


@pytest.fixture
def memcached_site(memcached):
    cache = MemcachedCache(memcached.address, {})
    yield Site(cache)
    cache.disconnect()


def held(hot):
    """Return what a live entry holds."""
    answer = hot.get(ID)
    assert answer.state is State.LIVE
    return answer.record


# --- Entries ----------------------------------------------------------------------------------


def test_compare_and_swap_is_used_where_the_cache_has_it(memcached_site):
    assert memcached_site.hot.atomic
    assert not Site(LocMemCache("a", {})).hot.atomic


def test_what_is_not_held_is_a_miss(hot):
    answer = hot.get(ID)
    assert (answer.state, answer.record) == (State.MISS, None)


def test_what_is_added_is_held(hot):
    assert hot.add(RECORD)
    assert held(hot) == RECORD


def test_an_add_never_replaces(hot):
    assert hot.add(RECORD)
    assert not hot.add(NEXT)
    assert held(hot) == RECORD


def test_a_swap_replaces_what_was_read(hot):
    hot.add(RECORD)
    assert hot.swap(NEXT, hot.get(ID).token)
    assert held(hot) == NEXT


def test_a_swap_loses_against_one_that_came_first(hot):
    hot.add(RECORD)
    first, second = hot.get(ID), hot.get(ID)
    assert hot.swap(NEXT, first.token)
    assert not hot.swap(dataclasses.replace(NEXT, payload=b"lost"), second.token)
    assert held(hot) == NEXT


def test_a_swap_of_what_is_gone_does_not_bring_it_back(site):
    site.hot.add(RECORD)
    token = site.hot.get(ID).token
    site.cache.clear()
    assert not site.hot.swap(NEXT, token)
    assert site.hot.get(ID).state is State.MISS


def test_an_entry_is_what_every_process_reads(open_cache):
    one, other = Site(open_cache()), Site(open_cache())
    one.hot.add(RECORD)
    assert held(other.hot) == RECORD


def test_the_cache_is_asked_for_anew_in_every_call(open_cache):
    """As Django has an instance for each thread."""
    site = Site(open_cache())
    site.hot.add(RECORD)
    site.cache = open_cache()
    assert held(site.hot) == RECORD


def test_no_save_is_lost_among_threads(memcached_site):
    hot = memcached_site.hot
    threads, saves = 8, 25
    hot.add(RECORD)

    def save():
        for _ in range(saves):
            while True:
                answer = hot.get(ID)
                if hot.swap(answer.record.changed(b"x", NOW + 1000, NOW), answer.token):
                    break

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(save) for _ in range(threads)]:
            future.result()
    assert held(hot).version == 1 + threads * saves


# --- Tombstones -------------------------------------------------------------------------------


def test_a_tombstone_says_that_the_session_ended(hot):
    hot.add(RECORD)
    hot.bury(ID, 60)
    answer = hot.get(ID)
    assert (answer.state, answer.record) == (State.TOMBSTONE, None)


def test_a_tombstone_is_put_where_nothing_was(hot):
    hot.bury(ID, 60)
    assert hot.get(ID).state is State.TOMBSTONE


def test_a_save_that_began_before_the_logout_loses(hot):
    hot.add(RECORD)
    token = hot.get(ID).token
    hot.bury(ID, 60)
    assert not hot.swap(NEXT, token)
    assert hot.get(ID).state is State.TOMBSTONE


def test_a_refill_that_began_before_the_logout_loses(hot):
    hot.bury(ID, 60)
    assert not hot.add(RECORD)
    assert hot.get(ID).state is State.TOMBSTONE


def test_a_tombstone_ends_one_session_only(hot):
    other = storage_id("another")
    hot.add(dataclasses.replace(RECORD, id=other))
    hot.bury(ID, 60)
    assert hot.get(other).state is State.LIVE


@pytest.mark.parametrize("open_cache", ["MemcachedCache", "LocMemCache"], indirect=True)
def test_a_logout_wins_against_any_number_of_saves(site):
    hot = site.hot
    for _ in range(5):
        site.cache.clear()
        hot.add(RECORD)
        saved, buried = threading.Event(), threading.Event()

        def save(saved=saved, buried=buried):
            while True:
                was_buried = buried.is_set()
                answer = hot.get(ID)
                if answer.state is not State.LIVE:
                    return
                swapped = hot.swap(answer.record.changed(b"x", NOW + 1000, NOW), answer.token)
                assert not (swapped and was_buried)
                saved.set()

        with threads_in_a_hurry(), ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(save) for _ in range(4)]
            saved.wait(5)
            hot.bury(ID, 60)
            buried.set()
            for future in futures:
                future.result(5)
        assert hot.get(ID).state is State.TOMBSTONE
        if not hot.atomic:
            assert site.cache.get(KEY) is None  # for it would outlive the tombstone


class Interrupted(LocMemCache):
    """A cache in which something happens just before one of its writes."""

    def __init__(self, name):
        super().__init__(name, {})
        self.interruptions = {}

    def interrupt(self, name):
        self.interruptions.pop(name, lambda: None)()

    def set(self, *args, **kwargs):
        self.interrupt("set")
        super().set(*args, **kwargs)

    def add(self, *args, **kwargs):
        self.interrupt("add")
        return super().add(*args, **kwargs)


@pytest.fixture
def interrupted(request):
    cache = Interrupted(request.node.nodeid)
    yield Site(cache)
    cache.clear()


def test_without_compare_and_swap_a_logout_between_look_and_save_wins(interrupted):
    hot, cache = interrupted.hot, interrupted.cache
    hot.add(RECORD)
    token = hot.get(ID).token
    cache.interruptions["set"] = lambda: hot.bury(ID, 60)
    assert not hot.swap(NEXT, token)
    assert hot.get(ID).state is State.TOMBSTONE
    assert cache.get(KEY) is None


def test_without_compare_and_swap_a_logout_between_miss_and_refill_wins(interrupted):
    hot, cache = interrupted.hot, interrupted.cache
    cache.interruptions["add"] = lambda: hot.bury(ID, 60)
    assert not hot.add(RECORD)
    assert hot.get(ID).state is State.TOMBSTONE
    assert cache.get(KEY) is None


# --- How long entries are kept ----------------------------------------------------------------


class Timed(LocMemCache):
    """A cache that remembers for how long it was to keep things."""

    def __init__(self):
        super().__init__("timed", {})
        self.clear()
        self.timeouts = []

    def set(self, key, value, timeout=None, version=None):
        self.timeouts.append(timeout)
        super().set(key, value, timeout, version)

    def add(self, key, value, timeout=None, version=None):
        self.timeouts.append(timeout)
        return super().add(key, value, timeout, version)


@pytest.fixture
def timed():
    return Site(Timed())


def test_an_entry_is_kept_until_its_session_expires(timed):
    timed.clock.now = NOW + 0.5
    timed.hot.add(RECORD)
    timed.hot.swap(NEXT, timed.hot.get(ID).token)
    assert timed.cache.timeouts == [1000, 1000]


@pytest.mark.parametrize("late", [1000, 1000.5, 5000])
def test_a_session_that_expires_now_is_not_kept_for_ever(timed, late):
    """0 would mean: do not keep. Less than 0 is whatever the cache makes of it."""
    timed.clock.now = NOW + late
    timed.hot.add(RECORD)
    assert timed.cache.timeouts == [1]


def test_a_tombstone_is_kept_as_long_as_was_asked(timed):
    timed.hot.bury(ID, 59.2)
    assert timed.cache.timeouts == [60]


def test_a_hole_is_kept_for_a_minute(timed):
    timed.hot.dig(ID, None)
    assert timed.cache.timeouts == [60]


# --- Holes, and sessions that are too large ---------------------------------------------------


def test_a_hole_reads_as_a_miss_that_no_refill_fills(hot):
    assert hot.dig(ID, None)
    assert hot.get(ID).state is State.MISS
    assert not hot.add(RECORD)
    assert hot.get(ID).state is State.MISS


def test_a_hole_takes_the_place_of_an_entry(hot):
    hot.add(RECORD)
    assert hot.dig(ID, hot.get(ID).token)
    assert hot.get(ID).state is State.MISS


def test_a_hole_loses_against_a_save_that_came_first(hot):
    hot.add(RECORD)
    token = hot.get(ID).token
    hot.swap(NEXT, token)
    assert not hot.dig(ID, token)
    assert held(hot) == NEXT
    assert not hot.dig(ID, None)
    assert held(hot) == NEXT


def test_a_hole_does_not_hide_a_logout(hot):
    hot.add(RECORD)
    token = hot.get(ID).token
    hot.bury(ID, 60)
    assert not hot.dig(ID, token)
    assert not hot.dig(ID, None)
    assert hot.get(ID).state is State.TOMBSTONE


def test_a_logout_buries_a_hole(hot):
    hot.dig(ID, None)
    hot.bury(ID, 60)
    assert hot.get(ID).state is State.TOMBSTONE


@pytest.mark.parametrize("open_cache", ["MemcachedCache", "PyMemcacheCache"], indirect=True)
def test_a_value_that_the_cache_refuses_for_its_size_is_no_outage(site):
    hot = site.hot
    with pytest.raises(ValueTooLarge):
        hot.add(TOO_LARGE)
    hot.add(RECORD)
    with pytest.raises(ValueTooLarge):
        hot.swap(TOO_LARGE, hot.get(ID).token)
    assert site.breaker.closed
    assert site.counts() == {}


# --- What was not written by us ---------------------------------------------------------------

NOT_OURS = {
    "noise": b"noise",
    "an entry of another session": encode_hot(RECORD, KEYRING)[:-1] + b"x",
    "an entry of another secret": encode_hot(RECORD, Keyring(["other"])),
    "a tombstone of another session": encode_tombstone(storage_id("another"), KEYRING),
    "text": "text",
    "a number": 7,
}


@pytest.mark.parametrize("value", NOT_OURS.values(), ids=NOT_OURS)
def test_what_was_not_written_by_us_is_refused_and_left_as_it_is(site, value, caplog):
    site.cache.set(KEY, value)
    assert site.hot.get(ID).state is State.UNREADABLE
    assert site.cache.get(KEY) == value
    assert site.counts() == {"hot_unreadable": 1}
    assert site.breaker.closed
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert ID[:8] in record.getMessage()
    assert ID not in record.getMessage()


def test_a_planted_tombstone_does_not_end_a_session(site):
    forged = encode_tombstone(ID, Keyring(["another secret"]))
    site.cache.set(KEY if site.hot.atomic else f"{KEY}:ended", forged)
    assert site.hot.get(ID).state is State.UNREADABLE


PICKLE_FLAGS = 1


def test_a_planted_pickle_is_refused_and_is_no_outage(memcached, memcached_site):
    memcached.set(f":1:{KEY}", pickle.dumps("harmless"), flags=PICKLE_FLAGS)
    assert memcached_site.hot.get(ID).state is State.UNREADABLE
    assert memcached_site.breaker.closed


# --- Outages ----------------------------------------------------------------------------------

CALLS = {
    "get": lambda hot: hot.get(ID),
    "add": lambda hot: hot.add(RECORD),
    "swap": lambda hot: hot.swap(RECORD, b"1"),
    "dig": lambda hot: hot.dig(ID, None),
    "bury": lambda hot: hot.bury(ID, 60),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Failing(LocMemCache):
    """A cache that fails while it is told to."""

    def __init__(self, name="failing"):
        super().__init__(name, {})
        self.clear()
        self.error = None
        self.asked = 0

    def _ask(self):
        self.asked += 1
        if self.error is not None:
            raise self.error

    def get(self, *args, **kwargs):
        self._ask()
        return super().get(*args, **kwargs)

    def get_many(self, *args, **kwargs):
        self._ask()
        return super().get_many(*args, **kwargs)

    def set(self, *args, **kwargs):
        self._ask()
        return super().set(*args, **kwargs)

    def add(self, *args, **kwargs):
        self._ask()
        return super().add(*args, **kwargs)


@pytest.fixture
def failing():
    return Site(Failing())


@each_call
def test_a_server_that_is_down_is_not_a_miss(call):
    site = Site(MemcachedCache(f"127.0.0.1:{free_port()}", {}))
    with pytest.raises(HotUnavailable):
        call(site.hot)
    assert site.counts() == {"hot_errors": 1}
    assert not site.breaker.closed


@each_call
@pytest.mark.parametrize("error", [OSError("x"), RuntimeError("x"), KeyError("x")])
def test_any_error_of_any_cache_is_an_outage(failing, call, error):
    failing.cache.error = error
    with pytest.raises(HotUnavailable) as caught:
        call(failing.hot)
    assert str(caught.value) == type(error).__name__
    assert failing.counts() == {"hot_errors": 1}


@each_call
def test_a_tier_that_was_down_a_moment_ago_is_not_asked_except_to_bury(failing, call):
    failing.cache.error = OSError()
    with pytest.raises(HotUnavailable):
        failing.hot.get(ID)
    with pytest.raises(HotUnavailable):
        call(failing.hot)
    assert failing.cache.asked == (2 if call is CALLS["bury"] else 1)


def test_a_burial_that_gets_through_ends_the_outage(failing):
    failing.cache.error = OSError()
    with pytest.raises(HotUnavailable):
        failing.hot.get(ID)
    failing.cache.error = None
    failing.hot.bury(ID, 60)
    assert failing.hot.get(ID).state is State.TOMBSTONE


def test_one_probe_finds_out_that_the_tier_is_back(failing):
    failing.hot.add(RECORD)
    failing.cache.error = OSError()
    with pytest.raises(HotUnavailable):
        failing.hot.get(ID)
    failing.cache.error = None
    with pytest.raises(HotUnavailable):
        failing.hot.get(ID)
    failing.clock.tick(2)
    assert held(failing.hot) == RECORD
    assert held(failing.hot) == RECORD


def test_after_an_outage_entries_from_before_it_are_distrusted(failing):
    hot, clock = failing.hot, failing.clock
    before = dataclasses.replace(RECORD, agreed_at=clock.now)
    assert hot.is_up
    failing.cache.error = OSError()
    clock.tick()
    with pytest.raises(HotUnavailable):
        hot.get(ID)
    assert not hot.is_up
    assert hot.trusts(before)  # so far there is no outage to have missed anything in
    failing.cache.error = None
    meanwhile = dataclasses.replace(RECORD, agreed_at=clock.tick())
    back = dataclasses.replace(RECORD, agreed_at=clock.tick())
    hot.get(ID)
    assert hot.is_up
    assert [hot.trusts(each) for each in [before, meanwhile, back]] == [False, False, True]
    clock.tick()
    hot.get(ID)
    assert hot.trusts(back)


def test_the_first_answer_after_an_outage_is_distrusted_already(failing):
    failing.hot.add(RECORD)
    failing.cache.error = OSError()
    with pytest.raises(HotUnavailable):
        failing.hot.get(ID)
    failing.cache.error = None
    failing.clock.tick(5)
    assert not failing.hot.trusts(held(failing.hot))


OTHER_ANSWERS = {
    "unreadable": lambda site: site.hot.get(ID),
    "too large": lambda site: site.hot.add(TOO_LARGE),
}


@pytest.mark.parametrize("ask", OTHER_ANSWERS.values(), ids=OTHER_ANSWERS)
def test_whatever_the_first_answer_after_an_outage_says_it_ends_the_outage(
    memcached, memcached_site, ask
):
    site = memcached_site
    memcached.set(f":1:{KEY}", pickle.dumps("harmless"), flags=PICKLE_FLAGS)
    site.breaker.failure()
    site.clock.tick(2)
    with suppress(ValueTooLarge):
        ask(site)
    assert site.hot.is_up
    assert not site.hot.trusts(RECORD)


# --- Several servers --------------------------------------------------------------------------


class TwoServers:
    """A hot tier on two memcached servers, each of which can be killed."""

    def __init__(self, servers):
        self.servers = servers
        self.cache = MemcachedCache([server.address for server in servers], {})
        self.clock = Clock()
        self.metrics = Metrics()
        self.hot = HotTier(
            lambda: self.cache,
            KEYRING,
            self.metrics,
            lambda: Breaker(clock=self.clock),
            now=self.clock,
        )
        #: A session on each server.
        self.records = []
        while len(self.records) < 2:
            number = len(self.records)
            ids = (storage_id(f"{candidate}") for candidate in range(100))
            id = next(i for i in ids if self.cache.server_of(f"session:{i}") == number)
            self.records.append(dataclasses.replace(RECORD, id=id))
            assert self.hot.add(self.records[-1])


@pytest.fixture
def two(start):
    two = TwoServers([start(Memcached), start(Memcached)])
    yield two
    two.cache.disconnect()


def test_a_server_that_is_down_takes_its_own_sessions_with_it_and_no_others(two):
    gone, there = two.records
    two.servers[0].kill()
    for _ in range(3):
        with pytest.raises(HotUnavailable):
            two.hot.get(gone.id)
        assert two.hot.get(there.id).record == there
    assert two.metrics.snapshot()["hot_errors"] == 1  # the first; then its breaker answers
    assert not two.hot.is_up


def test_only_the_entries_of_the_server_that_was_down_are_distrusted(two):
    two.servers[0].kill()
    with pytest.raises(HotUnavailable):
        two.hot.get(two.records[0].id)
    two.servers[0].start()
    two.clock.tick(2)
    two.hot.get(two.records[0].id)
    assert two.hot.is_up
    assert [two.hot.trusts(record) for record in two.records] == [False, True]


@pytest.mark.parametrize("lost", [0, 1])
def test_the_loss_of_one_server_is_found_out(two, lost):
    assert not two.hot.check_tokens()
    assert not two.hot.check_tokens()
    two.servers[lost].restart()
    assert two.hot.check_tokens()
    assert not two.hot.check_tokens()


def test_the_loss_of_a_server_is_found_out_while_another_is_down(two):
    two.hot.check_tokens()
    two.servers[0].kill()
    two.servers[1].restart()
    assert two.hot.check_tokens()
    assert not two.hot.check_tokens()


# --- Site tokens ------------------------------------------------------------------------------


def test_a_loss_of_the_contents_is_told_once(site):
    assert not site.hot.check_tokens()
    assert not site.hot.check_tokens()
    site.cache.clear()
    assert site.hot.check_tokens()
    assert not site.hot.check_tokens()


def test_every_process_finds_out_about_a_loss(open_cache):
    one, other = Site(open_cache()), Site(open_cache())
    assert not one.hot.check_tokens()
    assert not other.hot.check_tokens()
    one.cache.clear()
    assert one.hot.check_tokens()
    assert other.hot.check_tokens()
    assert not one.hot.check_tokens()
    assert not other.hot.check_tokens()


def test_processes_that_start_together_agree_on_a_token(open_cache):
    for _ in range(10):
        sites = [Site(open_cache()) for _ in range(4)]
        sites[0].cache.clear()
        start = threading.Barrier(4)

        def name(site, start=start):
            start.wait(5)
            try:
                assert not site.hot.check_tokens()
            finally:
                site.cache.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(name, sites))
        assert not any(site.hot.check_tokens() for site in sites)


def test_a_token_cannot_be_guessed(site):
    tokens = set()
    for _ in range(10):
        site.cache.clear()
        site.hot.check_tokens()
        tokens.add(site.cache.get(TOKEN_KEY))
    assert len(tokens) == 10
    assert {len(token) for token in tokens} == {22}


def test_an_outage_is_no_loss(failing):
    failing.hot.check_tokens()
    failing.cache.error = OSError()
    assert not failing.hot.check_tokens()
    assert not failing.hot.is_up
    assert failing.counts() == {"hot_errors": 1}
    failing.cache.error = None
    failing.clock.tick(2)
    assert not failing.hot.check_tokens()
    assert failing.hot.is_up


def test_a_restarted_memcached_has_lost_its_contents(start):
    server = start(Memcached)
    site = Site(MemcachedCache(server.address, {}))
    site.hot.check_tokens()
    server.restart()
    assert site.hot.check_tokens()
    site.cache.disconnect()


@pytest.mark.parametrize("value", ["short", "x" * 500, b"x" * 22, 7])
def test_what_is_no_token_is_replaced_by_one(site, value):
    site.cache.set(TOKEN_KEY, value, None)
    assert not site.hot.check_tokens()
    assert len(site.cache.get(TOKEN_KEY)) == 22
    site.cache.set(TOKEN_KEY, value, None)
    assert site.hot.check_tokens()


def test_a_pickle_planted_as_the_token_is_replaced_by_one(memcached, memcached_site):
    """Else nobody would watch the hot tier any more."""
    memcached.set(f":1:{TOKEN_KEY}", pickle.dumps("harmless"), flags=PICKLE_FLAGS)
    memcached_site.hot.check_tokens()
    assert len(memcached.get(f":1:{TOKEN_KEY}")) == 22


def test_a_cache_that_keeps_nothing_is_no_hot_tier():
    site = Site(DummyCache("dummy", {}))
    assert not site.hot.check_tokens()
    assert not site.hot.is_up


def test_a_tombstone_that_the_cache_dropped_without_a_word_is_a_failure():
    """Stock memcached backends do so for a while after a server failed."""
    site = Site(DummyCache("dummy", {}))
    with pytest.raises(HotUnavailable):
        site.hot.bury(ID, 60)
