"""MemcachedCache on real memcached processes."""

import ctypes
import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import signals
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheKey
from django.core.exceptions import ImproperlyConfigured
from django.utils.safestring import mark_safe
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)
from servers import Memcached, free_port

from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.exceptions import Unreadable

COMMANDS = {
    "get": lambda cache: cache.get("a"),
    "gets": lambda cache: cache.gets("a"),
    "get_many": lambda cache: cache.get_many(["a", "b"]),
    "has_key": lambda cache: cache.has_key("a"),
    "get_or_set": lambda cache: cache.get_or_set("a", b"late"),
    "set": lambda cache: cache.set("a", b"late"),
    "set_many": lambda cache: cache.set_many({"a": b"late", "b": b"late"}),
    "add": lambda cache: cache.add("a", b"late"),
    "cas": lambda cache: cache.cas("a", b"late", b"1"),
    "touch": lambda cache: cache.touch("a"),
    "delete": lambda cache: cache.delete("a"),
    "delete_many": lambda cache: cache.delete_many(["a", "b"]),
    "incr": lambda cache: cache.incr("a"),
    "decr": lambda cache: cache.decr("a"),
    "incr_version": lambda cache: cache.incr_version("a"),
    "clear": lambda cache: cache.clear(),
}
each_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)

MONTH = 30 * 24 * 60 * 60  # seconds


@pytest.fixture
def make_cache():
    """``make_cache(server, …, timeout=1)``: a cache on servers or addresses, with OPTIONS.

    Waits for 10 s if not told otherwise: a busy machine is no failure.
    """
    made = []

    def make_cache(*servers, params=(), **options):
        location = [getattr(server, "address", server) for server in servers]
        options = {"timeout": 10, "connect_timeout": 10, **options}
        cache = MemcachedCache(location, {**dict(params), "OPTIONS": options})
        made.append(cache)
        return cache

    yield make_cache
    for cache in made:
        cache.disconnect()


@pytest.fixture
def cache(make_cache, memcached):
    return make_cache(memcached)


@pytest.fixture
def relay(memcached):
    with Relay(memcached) as relay:
        yield relay


class Relay:
    """A server that passes commands on to memcached and can spoil what comes back.

    One command is one packet here, and so is its reply.
    """

    def __init__(self, memcached, path=None):
        self._memcached = memcached
        self._server = (
            socket.create_server(("127.0.0.1", 0))
            if path is None
            else socket.create_server(path, family=socket.AF_UNIX)
        )
        self._sockets = [self._server]
        self._threads = []
        self.commands = []
        self.losing = 0  # so many replies are lost: the connection is closed instead
        self.answer = None  # sent in place of any reply
        self.piecemeal = False  # replies come one byte at a time

    @property
    def address(self):
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info):
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            upstream = socket.create_connection(("127.0.0.1", self._memcached.port))
            self._sockets += [client, upstream]
            self._start(self._serve, client, upstream)

    def _serve(self, client, upstream):
        with client, upstream:
            while command := client.recv(65536):
                self.commands.append(command)
                upstream.sendall(command)
                reply = upstream.recv(65536)
                if self.losing:
                    self.losing -= 1
                    return
                reply = reply if self.answer is None else self.answer
                pieces = [bytes([byte]) for byte in reply] if self.piecemeal else [reply]
                try:
                    for piece in pieces:
                        client.sendall(piece)
                except OSError:
                    return


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class Gate(str):
    """A value that keeps its thread's connection busy until all threads have one."""

    barrier: Any

    def encode(self, *args):
        self.barrier.wait(10)
        return b"through"


def in_threads(count, work):
    """Run ``work(number)`` in so many threads at once; return what they returned."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(10)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def open_connections(cache, count):
    """Make the cache open so many connections at once."""
    gate = Gate("value")
    gate.barrier = threading.Barrier(count)
    in_threads(count, lambda number: cache.set("gate", gate))


def connections(memcached):
    """How many connections were ever made to the server, that of this look included."""
    return memcached.stats()["total_connections"]


def freeze(memcached):
    """Freeze the server, and wait until it is: a signal takes its time."""
    memcached.freeze()
    os.waitid(os.P_PID, memcached.pid, os.WSTOPPED | os.WNOWAIT)


def ttl(memcached, key):
    """Seconds that the server will keep a key (-1: no end), None if it is not there."""
    answer = memcached._ask(f"mg {key} t").split()
    return int(answer[1][1:]) if answer[0] == b"HD" else None


# --- Values -----------------------------------------------------------------------------------

VALUES = [b"", b"\x00\xff\r\nEND\r\n", "", "grüße\r\n", 0, 7, -7, 2**70, b"12", "12"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was_and_with_its_type(cache, value):
    cache.set("a", value)
    cache.set_many({"b": value})
    for found in [cache.get("a"), cache.gets("a")[0], cache.get_many(["b"])["b"]]:
        assert (found, type(found)) == (value, type(value))


def test_a_subclass_of_str_comes_back_as_plain_str(cache):
    cache.set("a", mark_safe("<b>"))
    assert type(cache.get("a")) is str


def test_bytes_are_stored_as_they_are(cache, memcached):
    cache.set("a", b"\x80\x04raw")
    assert memcached.get(":1:a") == b"\x80\x04raw"


@pytest.mark.parametrize("size", [4095, 16_300, 16_384, 16_385, 32_768, 200_000, 1_000_000])
def test_a_value_of_any_size_is_read_whole(cache, size):
    value = (b"\r\nEND\r\nVALUE :1:b 0 1 1\r\n" * (size // 20))[:size]
    cache.set("a", value)
    cache.set("b", b"next")
    assert cache.get("a") == value
    assert cache.get_many(["a", "b"]) == {"a": value, "b": b"next"}


def test_many_large_values_are_read_in_linear_time(cache):
    data = {f"key{number}": b"%d" % (number % 10) * 100_000 for number in range(300)}
    cache.set_many(data)
    few = dict(list(data.items())[:10])

    def seconds_per_value(data):
        began = time.process_time()
        assert cache.get_many(data) == data
        return (time.process_time() - began) / len(data)

    assert seconds_per_value(data) < 10 * min(seconds_per_value(few) for _ in range(5))


def test_a_reply_is_read_whole_also_if_it_comes_byte_by_byte(make_cache, relay):
    cache = make_cache(relay)
    cache.set_many({"a": b"1\r\n2", "b": "x", "c": 3})
    relay.piecemeal = True
    assert cache.get("a") == b"1\r\n2"
    assert cache.get_many("abc") == {"a": b"1\r\n2", "b": "x", "c": 3}


@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, (b"a",), bytearray(b"a"), object()])
@pytest.mark.parametrize(
    "store",
    [
        lambda cache, value: cache.set("a", value),
        lambda cache, value: cache.add("a", value),
        lambda cache, value: cache.cas("a", value, b"1"),
        lambda cache, value: cache.set_many({"a": value}),
        lambda cache, value: cache.get_or_set("a", lambda: value),
    ],
    ids=["set", "add", "cas", "set_many", "get_or_set"],
)
def test_a_value_that_would_take_a_pickle_is_refused_with_the_reason(
    cache, memcached, store, value
):
    cache.get("a")
    before = memcached.commands()["set"]
    with pytest.raises(TypeError, match=r"not \w+: that would take a pickle.*Encode the value"):
        store(cache, value)
    assert memcached.commands()["set"] == before


@pytest.mark.parametrize(
    "read",
    [COMMANDS[name] for name in ("get", "gets", "get_many", "has_key", "get_or_set")],
)
def test_a_planted_pickle_is_refused_not_executed_and_not_a_miss(cache, memcached, tmp_path, read):
    memcached.set(":1:a", pickle.dumps(Bomb(str(tmp_path / "bang"))), flags=1)
    with pytest.raises(Unreadable, match="flags 1") as caught:
        read(cache)
    assert not (tmp_path / "bang").exists()
    assert "bang" not in str(caught.value)
    cache.set("a", b"ours")
    assert read(cache)


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        *[(flags, b"1") for flags in (1, 3, 4, 8, 17, 18, 2**31)],
        (2, b"text"),
        (16, b"\xff"),
    ],
)
def test_what_this_backend_would_not_have_written_is_refused(cache, memcached, flags, value):
    memcached.set(":1:a", value, flags=flags)
    with pytest.raises(Unreadable):
        cache.get("a")
    assert cache.delete("a")


# --- Django's cache API -----------------------------------------------------------------------


@pytest.fixture(params=[1, 2], ids=["one server", "two servers"])
def any_cache(request, make_cache, memcached, start):
    return make_cache(memcached, *(start(Memcached) for _ in range(request.param - 1)))


def test_get_of_a_missing_key_is_the_default(any_cache):
    assert any_cache.get("a") is None
    assert any_cache.get("a", "default") == "default"


def test_add_stores_only_what_is_not_there(any_cache):
    assert any_cache.add("a", b"1") is True
    assert any_cache.add("a", b"2") is False
    assert any_cache.get("a") == b"1"


def test_delete_tells_whether_there_was_something(any_cache):
    any_cache.set("a", b"1")
    assert any_cache.delete("a") is True
    assert any_cache.delete("a") is False
    assert not any_cache.has_key("a")
    assert "a" not in any_cache


def test_the_many_methods_do_what_the_single_ones_do(any_cache):
    data = {f"key{number}": number for number in range(100)}
    assert any_cache.set_many(data) == []
    assert any_cache.get_many([*data, "missing"]) == data
    assert any_cache.get_many(iter(["key1", "key1"])) == {"key1": 1}
    any_cache.delete_many(f"key{number}" for number in range(50))
    assert sorted(any_cache.get_many(data).values()) == list(range(50, 100))


def test_the_many_methods_take_nothing(any_cache):
    assert any_cache.get_many([]) == {}
    assert any_cache.set_many({}) == []
    any_cache.delete_many([])


def test_the_many_methods_take_very_many(cache):
    data = {f"key{number}": b"value" for number in range(50_000)}
    assert cache.set_many(data) == []
    assert cache.get_many(data) == data
    cache.delete_many(data)
    assert cache.get_many(data) == {}


def test_incr_and_decr_count_on_an_int(any_cache):
    any_cache.set("a", 99)
    assert any_cache.incr("a") == 100
    assert any_cache.decr("a") == 99
    assert any_cache.get("a") == 99
    assert any_cache.incr("a", -90) == 9
    assert any_cache.get("a") == 9
    assert any_cache.decr("a", 10) == 0  # memcached does not go below
    with pytest.raises(ValueError, match="not found"):
        any_cache.incr("missing")
    with pytest.raises(ValueError, match="not found"):
        any_cache.decr("missing")
    any_cache.set("a", "text")
    with pytest.raises(MemcacheClientError, match="non-numeric"):
        any_cache.incr("a")


def test_clear_empties_every_server(any_cache):
    any_cache.set_many({f"key{number}": number for number in range(100)})
    any_cache.clear()
    assert any_cache.get_many(f"key{number}" for number in range(100)) == {}


def test_get_or_set_keeps_what_is_there(any_cache):
    assert any_cache.get_or_set("a", lambda: b"1") == b"1"
    assert any_cache.get_or_set("a", b"2") == b"1"


def test_a_version_is_a_space_of_its_own(any_cache):
    any_cache.set("a", b"1")
    any_cache.set("a", b"2", version=2)
    assert any_cache.get("a") == b"1"
    assert any_cache.gets("a", version=2)[0] == b"2"
    assert any_cache.incr_version("a", 2) == 3
    assert any_cache.get("a") is None
    assert any_cache.get("a", version=3) == b"1"
    assert any_cache.decr_version("a", version=3) == 2


def test_key_prefix_and_version_come_from_the_settings(make_cache, memcached):
    cache = make_cache(memcached, params={"KEY_PREFIX": "shop", "VERSION": 5})
    cache.set("a", b"1")
    assert memcached.keys() == ["shop:5:a"]


def test_the_async_twins_work(cache):
    async def work():
        await cache.aset("a", b"1")
        assert await cache.aadd("a", b"2") is False
        assert await cache.aget("a") == b"1"
        assert await cache.aget_many(["a"]) == {"a": b"1"}
        assert await cache.atouch("a", 10)
        assert await cache.ahas_key("a")
        await cache.aset_many({"n": 1})
        assert await cache.aincr("n") == 2
        await cache.adelete_many(["a"])
        assert await cache.aget_or_set("a", b"3") == b"3"
        await cache.aclear()
        await cache.aclose()
        assert await cache.aget("a") is None

    async_to_sync(work)()


STORES = {
    "set": lambda cache, timeout: cache.set("a", b"1", timeout),
    "set_many": lambda cache, timeout: cache.set_many({"a": b"1"}, timeout),
    "add": lambda cache, timeout: cache.add("a", b"1", timeout),
    "cas": lambda cache, timeout: (
        cache.set("a", b"0"),
        cache.cas("a", b"1", cache.gets("a")[1], timeout),
    ),
    "touch": lambda cache, timeout: (cache.set("a", b"0"), cache.touch("a", timeout)),
}
each_store = pytest.mark.parametrize("store", STORES.values(), ids=STORES)


@each_store
@pytest.mark.parametrize("timeout", [100, MONTH, MONTH + 1, 5 * 12 * MONTH])
def test_a_value_is_kept_for_its_timeout(cache, memcached, store, timeout):
    store(cache, timeout)
    assert timeout - 3 <= ttl(memcached, ":1:a") <= timeout + 3


@each_store
def test_a_timeout_of_none_keeps_a_value_for_good(cache, memcached, store):
    store(cache, None)
    assert ttl(memcached, ":1:a") == -1


@each_store
@pytest.mark.parametrize("timeout", [0, -1, -(2**31) - 1, -(2**40), -(2**70)])
def test_a_timeout_of_0_or_below_expires_a_value_at_once(cache, memcached, store, timeout):
    store(cache, timeout)
    assert cache.get("a") is None


@each_store
@pytest.mark.parametrize("timeout", [2**31 - 1, 2**31, 2**40, 2**70])
def test_a_timeout_past_2038_ends_there_instead_of_at_once(cache, memcached, store, timeout):
    store(cache, timeout)
    assert ttl(memcached, ":1:a") == pytest.approx(2**31 - 1 - time.time(), abs=3)


def test_the_default_timeout_is_that_of_the_settings(make_cache, memcached):
    make_cache(memcached, params={"TIMEOUT": 77}).set("a", b"1")
    assert 74 <= ttl(memcached, ":1:a") <= 77


# --- Keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a b", "a\nb", "a\x7fb", "a\x00", "k" * 248, "ü" * 124], ids=ascii)
@each_command
def test_a_key_that_memcached_cannot_take_is_refused_by_every_method(
    cache, command, key, monkeypatch
):
    monkeypatch.setattr(cache, "key_func", lambda name, prefix, version: f":1:{key}")
    if command is COMMANDS["clear"]:
        return
    with pytest.raises(InvalidCacheKey):
        command(cache)


def test_an_empty_key_is_refused(make_cache, memcached):
    cache = make_cache(memcached, params={"KEY_FUNCTION": lambda key, prefix, version: key})
    with pytest.raises(InvalidCacheKey):
        cache.set("", b"\r\nflush_all\r\n")


def test_the_value_of_a_key_that_is_too_long_is_not_run_as_a_command(cache):
    cache.set("victim", b"1")
    with pytest.raises(InvalidCacheKey):
        cache.set("ü" * 130, b"flush_all\r\n")
    assert cache.get("victim") == b"1"


@pytest.mark.parametrize("key", ["k" * 247, "ü" * 123, "schlüssel", "a\u00a0b", 5], ids=ascii)
def test_any_other_text_is_a_key(cache, key):
    cache.set(key, b"1")
    assert cache.get(key) == b"1"
    assert cache.get_many([key]) == {key: b"1"}
    assert cache.delete(key)


# --- gets and cas -----------------------------------------------------------------------------


def test_gets_of_a_missing_key_is_none(cache):
    assert cache.gets("a") is None


def test_cas_stores_over_what_gets_returned(cache):
    cache.set("a", b"1")
    value, token = cache.gets("a")
    assert (value, type(token)) == (b"1", bytes)
    assert cache.cas("a", b"2", token) is True
    assert cache.get("a") == b"2"


def test_cas_does_not_store_over_a_change_even_to_the_same_value(cache):
    cache.set("a", b"1")
    _, token = cache.gets("a")
    cache.set("a", b"1")
    assert cache.cas("a", b"2", token) is False
    assert cache.get("a") == b"1"


def test_cas_does_not_store_where_the_key_is_gone(cache):
    cache.set("a", b"1")
    _, token = cache.gets("a")
    cache.delete("a")
    assert cache.cas("a", b"2", token) is False
    assert cache.get("a") is None


def test_cas_stores_in_the_version_that_gets_read(cache):
    cache.set("a", b"1")
    cache.set("a", b"2", version=2)
    _, token = cache.gets("a", version=2)
    assert cache.cas("a", b"3", token, version=2)
    assert (cache.get("a"), cache.get("a", version=2)) == (b"1", b"3")


def test_a_token_is_used_up_by_its_own_cas(cache):
    cache.set("a", b"1")
    _, token = cache.gets("a")
    assert cache.cas("a", b"2", token)
    assert not cache.cas("a", b"3", token)


def test_racing_threads_lose_no_increment(make_cache, memcached):
    make_cache(memcached).set("a", b"0")

    def count(number):
        cache = make_cache(memcached)
        for _ in range(50):
            while True:
                value, token = cache.gets("a")
                if cache.cas("a", b"%d" % (int(value) + 1), token):
                    break

    in_threads(8, count)
    assert make_cache(memcached).get("a") == b"400"


def test_threads_get_their_own_answers(make_cache, memcached):
    def work(number):
        cache = make_cache(memcached)
        for turn in range(200):
            value = b"%d:%d" % (number, turn) * (1 + turn % 7 * 1000)
            cache.set(f"key{number}", value)
            assert cache.get(f"key{number}") == value
            assert cache.get_many([f"key{number}", "x"]) == {f"key{number}": value}

    in_threads(8, work)


# --- Size -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "store",
    [
        lambda cache, value: cache.set("a", value),
        lambda cache, value: cache.add("new", value),
        lambda cache, value: cache.cas("a", value, cache.gets("a")[1]),
        lambda cache, value: cache.set_many({"b": b"1", "a": value}),
    ],
    ids=["set", "add", "cas", "set_many"],
)
def test_a_value_over_the_item_size_raises_too_large(cache, store):
    cache.set("a", b"old")
    with pytest.raises(MemcacheServerError, match="too large"):
        store(cache, b"x" * 1_100_000)
    cache.set("b", b"works")
    assert cache.get("b") == b"works"


def test_a_value_too_large_to_replace_the_old_one_does_not_leave_it(cache):
    cache.set("a", b"old")
    with pytest.raises(MemcacheServerError):
        cache.set("a", b"x" * 1_100_000)
    assert cache.get("a") is None


# --- A server that is down, hangs, or comes back ----------------------------------------------


@each_command
def test_a_server_that_is_down_is_an_error_not_a_miss(make_cache, start, command):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    cache.set("a", 1)
    memcached.kill()
    for _ in range(4):  # the first of them has a connection from before
        with pytest.raises((ConnectionError, MemcacheUnexpectedCloseError)):
            command(cache)


@each_command
def test_a_frozen_server_is_an_error_in_time_and_its_late_reply_is_nobodys(
    make_cache, memcached, command
):
    cache = make_cache(memcached, timeout=0.2)
    cache.set_many({"a": 1, "other": b"other"})
    freeze(memcached)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            command(cache)
        assert time.monotonic() - began < 2
    memcached.thaw()
    memcached.stats()  # it is awake
    late = [None] if command is COMMANDS["clear"] else []  # it may still clear now
    for _ in range(5):
        assert cache.get("missing") is None
        assert cache.get("other") in [b"other", *late]
        assert cache.touch("missing") is False
        cache.set("mine", b"mine")
        assert cache.get("mine") in [b"mine", *late]


def test_a_worker_that_is_told_to_exit_while_it_waits_leaves_no_reply_behind(cache, memcached):
    cache.set_many({"a": b"a", "b": b"b"})
    freeze(memcached)

    def abort(*args):
        raise SystemExit

    before = signal.signal(signal.SIGALRM, abort)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(SystemExit):
            cache.get("a")
    finally:
        signal.signal(signal.SIGALRM, before)
    memcached.thaw()
    assert cache.get("b") == b"b"


def test_a_command_that_timed_out_is_not_sent_again(make_cache, memcached, relay):
    cache = make_cache(relay, timeout=0.3)
    cache.get("a")
    del relay.commands[:]
    freeze(memcached)
    with pytest.raises(TimeoutError):
        cache.set("a", b"1")
    assert len(relay.commands) == 1


@each_command
def test_a_restart_is_noticed_by_nobody_but_a_counter(make_cache, start, command):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    open_connections(cache, 5)
    memcached.restart()
    if command in (COMMANDS["incr"], COMMANDS["decr"]):
        with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
            command(cache)
    if command in [COMMANDS[name] for name in ("incr", "decr", "incr_version")]:
        with pytest.raises(ValueError, match="not found"):  # it is gone with all else
            command(cache)
    else:
        command(cache)


def test_after_a_restart_one_command_drops_all_old_connections(make_cache, start):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    open_connections(cache, 5)
    memcached.restart()
    before = connections(memcached)
    for _ in range(5):
        assert cache.get("a") is None
    assert connections(memcached) == before + 1 + 1


def test_a_restart_under_many_threads_raises_in_none(make_cache, start):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    open_connections(cache, 8)
    memcached.restart()

    def work(number):
        for _ in range(50):
            cache.set(f"key{number}", number)
            assert cache.get(f"key{number}") == number

    in_threads(8, work)


def test_a_new_connection_that_breaks_is_an_error_at_once(make_cache, relay):
    cache = make_cache(relay)
    relay.losing = 99
    with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
        cache.get("a")
    assert len(relay.commands) == 1


def test_a_lost_reply_makes_add_return_false_for_what_it_did_itself(make_cache, relay):
    cache = make_cache(relay)
    cache.get("a")
    relay.losing = 1
    assert cache.add("a", b"1") is False
    assert cache.get("a") == b"1"


def test_a_lost_reply_makes_cas_return_false_for_what_it_did_itself(make_cache, relay):
    cache = make_cache(relay)
    cache.set("a", b"1")
    _, token = cache.gets("a")
    relay.losing = 1
    assert cache.cas("a", b"2", token) is False
    assert cache.get("a") == b"2"


@pytest.mark.parametrize(("name", "after"), [("incr", 6), ("decr", 4)])
def test_a_lost_reply_makes_no_counter_count_twice(make_cache, relay, name, after):
    cache = make_cache(relay)
    cache.set("a", 5)
    relay.losing = 1
    with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
        getattr(cache, name)("a")
    assert cache.get("a") == after


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"VALUE :1:b 0 1 7\r\nx\r\nEND\r\n", MemcacheUnknownError),
        (b"END\r\nVALUE :1:a 0 1 7\r\nx\r\nEND\r\n", MemcacheUnknownError),
        (b"STORED\r\n", MemcacheUnknownError),
        (b"\r\n", MemcacheUnknownError),
        (b"ERROR\r\n", MemcacheClientError),
        (b"SERVER_ERROR out of memory writing get response\r\n", MemcacheServerError),
        (b"VALUE :1:a 0 1 7\r\nx", TimeoutError),
        (b"EN", TimeoutError),
    ],
)
def test_an_answer_to_something_else_is_an_error_not_a_miss(make_cache, relay, answer, error):
    cache = make_cache(relay, timeout=0.3 if error is TimeoutError else 10)
    cache.set("a", b"mine")
    relay.answer = answer
    for read in [cache.get, cache.gets, lambda key: cache.get_many([key])]:
        with pytest.raises(error):
            read("a")
    relay.answer = None
    assert cache.get("a") == b"mine"


# --- Several servers --------------------------------------------------------------------------


def keys_by_server(cache, servers, count=200):
    """Store so many keys; return those that each server has."""
    cache.set_many({f"key{number}": number for number in range(count)})
    stored = [server.keys() for server in servers]
    return [[key.removeprefix(":1:") for key in keys] for keys in stored]


def test_keys_are_spread_evenly_and_each_is_on_one_server(make_cache, start):
    servers = [start(Memcached) for _ in range(3)]
    spread = keys_by_server(make_cache(*servers), servers, 600)
    assert sum(map(len, spread)) == len({key for keys in spread for key in keys}) == 600
    assert all(130 < len(keys) < 270 for keys in spread)


def test_the_order_of_the_servers_moves_no_key(make_cache, start):
    servers = [start(Memcached) for _ in range(3)]
    spread = keys_by_server(make_cache(*servers), servers)
    assert keys_by_server(make_cache(*reversed(servers)), servers) == spread


def test_a_release_of_this_package_moves_no_key(make_cache):
    cache = make_cache("10.0.0.1:11211", "10.0.0.2:11211", "unix:/run/memcached.sock")
    places = "".join(
        str(cache._cache.pools.index(cache._cache.pool(f":1:{number}"))) for number in range(20)
    )
    assert places == "20211222201101111002"


def test_with_one_server_down_its_keys_fail_and_all_others_work(make_cache, start):
    servers = up, down = [start(Memcached), start(Memcached)]
    cache = make_cache(*servers)
    up_keys, down_keys = keys_by_server(cache, servers, 40)
    down.kill()
    for _ in range(3):
        for key in down_keys:
            with pytest.raises((OSError, MemcacheError)):
                cache.get(key)
            with pytest.raises((OSError, MemcacheError)):
                cache.set(key, b"moved")
        for key in up_keys:
            cache.set(key, b"still here")
            assert cache.get(key) == b"still here"
    down.start()
    assert sorted(f":1:{key}" for key in up_keys) == up.keys()
    keys_by_server(cache, servers, 40)
    assert sorted(f":1:{key}" for key in down_keys) == down.keys()


def test_with_one_server_down_the_many_methods_do_the_rest_and_raise(make_cache, start):
    servers = start(Memcached), start(Memcached)
    for down, up in [servers, reversed(servers)]:
        cache = make_cache(*servers)
        cache.clear()
        spread = keys_by_server(cache, [up, down], 40)
        keys = [key for part in spread for key in part]
        down.kill()
        with pytest.raises((OSError, MemcacheError)):
            cache.get_many(keys)
        with pytest.raises((OSError, MemcacheError)):
            cache.delete_many(keys)
        assert up.keys() == []
        with pytest.raises((OSError, MemcacheError)):
            cache.set_many(dict.fromkeys(keys, b"1"))
        assert len(up.keys()) == len(spread[0])
        with pytest.raises((OSError, MemcacheError)):
            cache.clear()
        assert up.keys() == []
        down.start()


# --- Connections ------------------------------------------------------------------------------


def test_connections_outlive_the_request_and_are_shared_by_threads(settings, start):
    memcached = start(Memcached)
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "a": {
            "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
            "LOCATION": memcached.address,
        },
    }
    seen = set()

    def request(number):
        seen.add(caches["a"])
        caches["a"].set(f"key{number}", number)
        assert caches["a"].get(f"key{number}") == number
        signals.request_finished.send(MemcachedCache)

    try:
        before = connections(memcached)
        for number in range(20):  # one after the other, each in a thread of its own
            in_threads(1, lambda _, number=number: request(number))
        assert len(seen) == 20
        assert connections(memcached) == before + 1 + 1
        for _ in range(5):
            in_threads(4, request)
        assert connections(memcached) <= before + 2 + 4
    finally:
        caches["a"].disconnect()


def test_other_options_have_other_connections(make_cache, start):
    memcached = start(Memcached)
    before = connections(memcached)
    for timeout in (1, 2, 1, 2):
        make_cache(memcached, timeout=timeout).get("a")
    assert connections(memcached) == before + 1 + 2


def test_after_a_burst_no_more_than_max_pool_size_stay_open(make_cache, start):
    memcached = start(Memcached)
    cache = make_cache(memcached, max_pool_size=2)
    before = memcached.stats()["curr_connections"]
    open_connections(cache, 6)
    deadline = time.monotonic() + 10
    while memcached.stats()["curr_connections"] != before + 2:
        assert time.monotonic() < deadline
    assert cache.get("gate") == "through"


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(make_cache, start):
    memcached = start(Memcached)
    cache = make_cache(memcached, pool_idle_timeout=1e-9)
    before = connections(memcached)
    for _ in range(3):
        cache.get("a")
    assert connections(memcached) == before + 1 + 3


def test_disconnect_closes_the_connections_and_the_next_command_opens_one(make_cache, start):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    open_connections(cache, 3)
    before = connections(memcached)
    cache.disconnect()
    gc.collect()  # a socket that was left open would warn, and warnings are errors
    assert cache.get("gate") == "through"
    assert connections(memcached) == before + 1 + 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["fork", "fork in C"])
def test_a_forked_child_does_not_use_its_parents_connections(make_cache, start, fork):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    cache.set_many({"parent": b"parent", "child": b"child"})
    before = connections(memcached)
    reader, writer = os.pipe()
    pid = fork()
    right = False
    try:
        name = "parent" if pid else "child"
        right = all(cache.get(name) == name.encode() for _ in range(300))
    finally:
        if not pid:
            os.write(writer, b"right" if right else b"wrong")
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123
        assert pipe.read() == b"right"
    assert os.waitpid(pid, 0) == (pid, 0)
    assert right
    assert connections(memcached) == before + 1 + 1  # the child's, and this look's


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_parent_keeps_its_connections_when_a_child_ends(make_cache, start):
    memcached = start(Memcached)
    cache = make_cache(memcached)
    cache.set("a", b"1")
    before = connections(memcached)
    if not (pid := os.fork()):
        with suppress(Exception):
            cache.get("a")
            cache.disconnect()
        os._exit(0)
    os.waitpid(pid, 0)
    assert cache.get("a") == b"1"
    assert connections(memcached) == before + 1 + 1  # the child's, and this look's


def test_a_process_ends_without_a_warning_about_its_connections(memcached):
    program = f"""
from django_dynamo_failover.cache import MemcachedCache
MemcachedCache({memcached.address!r}, {{}}).set("a", b"1")
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert memcached.get(":1:a") == b"1"


@pytest.mark.parametrize("form", ["unix:{}", "{}"])
def test_a_server_can_be_a_unix_socket(make_cache, memcached, tmp_path, form):
    path = str(tmp_path / "memcached.sock")
    with Relay(memcached, path) as relay:
        cache = make_cache(form.format(path))
        cache.set("a", b"1")
        assert cache.get("a") == b"1"
        assert len(relay.commands) == 2


# --- Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "{0},{1}",
        "{0};{1}",
        " {0} , {1} ,",
        ["{0}", "{1}"],
        ("{0}", "{1}", "{0}"),
    ],
)
def test_location_is_text_or_a_list(location, memcached):
    other = f"127.0.0.1:{free_port()}"
    text = isinstance(location, str)
    forms = [each.format(memcached.address, other) for each in ([location] if text else location)]
    cache = MemcachedCache(forms[0] if text else forms, {})
    assert len(cache._cache.pools) == 2


def test_location_may_have_pairs(memcached):
    cache = MemcachedCache([("127.0.0.1", memcached.port)], {})
    cache.set("a", b"1")
    assert cache.get("a") == b"1"
    cache.disconnect()


@pytest.mark.parametrize("location", ["", " , ", [], "127.0.0.1:port", [11211]])
def test_a_location_without_a_server_is_refused(location):
    with pytest.raises(ImproperlyConfigured, match="LOCATION"):
        MemcachedCache(location, {})


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_exc": True},
        {"default_noreply": True},
        {"retry_attempts": 2},
        {"retry_timeout": 1},
        {"dead_timeout": 60},
        {"use_pooling": False},
        {"allow_unicode_keys": False},
        {"serde": pickle},
        {"serializer": pickle.dumps},
        {"deserializer": pickle.loads},
        {"key_prefix": b"x"},
        {"MAX_ENTRIES": 5},
        {"time_out": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_would_hide_a_failure_or_read_a_pickle_is_refused(options):
    with pytest.raises(ImproperlyConfigured, match=f"'{next(iter(options))}'.*Remove it"):
        MemcachedCache("127.0.0.1", {"OPTIONS": options})


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [None, 0, -1, float("nan"), float("inf"), "1"])
def test_a_timeout_that_would_let_a_request_hang_is_refused(name, value):
    with pytest.raises(ImproperlyConfigured, match=f"'{name}' must be a number of seconds"):
        MemcachedCache("127.0.0.1", {"OPTIONS": {name: value}})


def test_options_that_say_what_is_so_anyway_are_taken(make_cache, memcached):
    cache = make_cache(
        memcached, ignore_exc=False, retry_attempts=0, dead_timeout=0, use_pooling=True
    )
    cache.set("a", b"1")
    assert cache.get("a") == b"1"
