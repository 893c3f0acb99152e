"""Connections to memcached servers, shared by the threads of a process. Knows no Django."""

import atexit
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from os import getpid
from time import monotonic
from typing import Any, TypeVar

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError, MemcacheUnknownError

from .exceptions import Unreadable

_T = TypeVar("_T")

#: Host and port, or the path of a socket.
Address = tuple[str, int] | str

_TEXT, _INTEGER = 16, 2  # the flags of pymemcache's own serializer
_STALE = (MemcacheUnexpectedCloseError, ConnectionResetError, BrokenPipeError)
_NOT_TWICE = {Client.incr, Client.decr}
_CHUNK = 16_384  # bytes; most sessions come in one recv()


class _PlainSerde:
    """bytes as they are, str and int by a flag. Nothing else in, nothing else out."""

    def serialize(self, key: object, value: object) -> tuple[bytes, int]:
        if isinstance(value, bytes):
            return value, 0
        if isinstance(value, str):
            return value.encode(), _TEXT
        if isinstance(value, int) and not isinstance(value, bool):
            return b"%d" % value, _INTEGER
        raise TypeError(
            f"MemcachedCache stores bytes, str and int, not {type(value).__name__}: that would take"
            " a pickle, and reading one that somebody has planted in memcached runs their code."
            " Encode the value first, for example with json.dumps, or use another cache for it."
        )

    def deserialize(self, key: object, value: bytes, flags: int) -> bytes | str | int:
        if flags == 0:
            return value
        with suppress(ValueError):
            if flags == _TEXT:
                return value.decode()
            if flags == _INTEGER:
                return int(value)  # decr leaves blanks behind the digits
        raise Unreadable(f"a value that MemcachedCache did not write (flags {flags}), not decoded")


class _Connection(Client):
    """One socket to one server, for one thread at a time."""

    sock: Any  # None before the first command
    released: float  # monotonic seconds

    def check_key(self, key: Any, key_prefix: bytes) -> bytes:
        return str(key).encode()  # MemcachedCache.validate_key has checked it

    def fetch(self, keys: Iterable[str]) -> dict[str, tuple[Any, bytes]]:
        """Return value and token of each key that is there. A wrong answer is not a miss."""
        wanted = {key.encode(): key for key in keys}
        if self.sock is None:
            self._connect()
        self.sock.sendall(b"gets " + b" ".join(wanted) + b"\r\n")
        found: dict[str, tuple[Any, bytes]] = {}
        buffer, at = b"", 0
        while True:
            while (end := buffer.find(b"\r\n", at)) < 0:
                buffer, at = self._more(buffer[at:], len(buffer) - at + 1), 0
            line, at = buffer[at:end], end + 2
            if line == b"END" and at == len(buffer):
                return found
            words = line.split(b" ")
            if words[0] != b"VALUE" or words[1] not in wanted:
                self._raise_errors(line, b"gets")
                raise MemcacheUnknownError(words[0])
            _, key, flags, size, token = words
            length = int(size) + 2
            if len(buffer) < at + length:
                buffer, at = self._more(buffer[at:], length), 0
            value: Any = buffer[at : at + length - 2]
            at += length
            if flags != b"0":
                value = self.serde.deserialize(key, value, int(flags))
            found[wanted[key]] = value, token

    def _more(self, start: bytes, size: int) -> bytes:
        """Return the start with what comes after it: ``size`` bytes at least."""
        chunks, missing = [start], size - len(start)
        while missing > 0:
            if not (chunk := self.sock.recv(_CHUNK)):
                raise MemcacheUnexpectedCloseError
            chunks.append(chunk)
            missing -= len(chunk)
        return b"".join(chunks)


class _Pool:
    """The connections of this process to one server, shared by its threads."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self._client = options | {"server": address, "serde": _PlainSerde()}
        self._max_idle = self._client.pop("max_pool_size")
        self._idle_timeout = self._client.pop("pool_idle_timeout")
        # Last in, first out. A deque's methods are atomic: no lock, and none for a fork to break.
        self._idle: deque[_Connection] = deque()
        self._pid = getpid()
        self.name = repr(address).encode()

    def run(self, command: Callable[..., _T], *args: Any) -> _T:
        """Return ``command(connection, *args)``.

        A connection that proves to be from before a restart says the same of all idle ones: they
        are dropped, and the command runs again on a new one. Never after a timeout.
        """
        connection = self._take()
        while True:
            used = connection or _Connection(default_noreply=False, **self._client)
            try:
                result = command(used, *args)
            except BaseException as error:  # a worker's SystemExit too: the reply is still to come
                used.close()
                if connection is None or not isinstance(error, _STALE):
                    raise
                self.disconnect()
                if command in _NOT_TWICE:
                    raise
                connection = None
            else:
                used.released = monotonic()
                if len(self._idle) < self._max_idle:
                    self._idle.append(used)
                else:
                    used.close()
                return result

    def _take(self) -> _Connection | None:
        # Not os.register_at_fork: a fork in C (uWSGI) calls no hooks, and where two processes read
        # one socket, each gets replies that are the other's.
        if self._pid != (pid := getpid()):
            self.disconnect()
            self._pid = pid
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        if monotonic() - connection.released < self._idle_timeout:
            return connection
        connection.close()
        self.disconnect()  # the others are older still
        return None

    def disconnect(self) -> None:
        """Close the idle connections. A busy one comes back to the pool when its command ends."""
        with suppress(IndexError):  # another thread was faster
            for _ in range(len(self._idle)):
                self._idle.popleft().close()


#: ``caches[alias]`` is one instance per thread; this is what the threads have in common.
_pools: dict[tuple[Address, tuple[Any, ...]], _Pool] = {}


@atexit.register
def _disconnect_all() -> None:
    for pool in list(_pools.values()):
        pool.disconnect()


def _at_key(command: Callable[..., Any]) -> Callable[..., Any]:
    return lambda servers, key, *args: servers.pool(key).run(command, key, *args)


class Servers:
    """What Django's backend takes for its client. Finds each key's server; keeps no other state."""

    def __init__(self, addresses: Iterable[Address], options: dict[str, Any]) -> None:
        own = tuple(options.values())
        self.pools = [_pools.setdefault((a, own), _Pool(a, options)) for a in addresses]
        self._only = self.pools[0] if len(self.pools) == 1 else None

    set, add, cas = _at_key(Client.set), _at_key(Client.add), _at_key(Client.cas)
    touch, delete = _at_key(Client.touch), _at_key(Client.delete)
    incr, decr = _at_key(Client.incr), _at_key(Client.decr)

    def gets(self, key: str) -> tuple[Any, bytes] | None:
        return self.pool(key).run(_Connection.fetch, (key,)).get(key)

    def get(self, key: str, default: Any) -> Any:
        return (self.gets(key) or (default,))[0]

    def get_multi(self, keys: Iterable[str]) -> dict[str, Any]:
        answers = self._run_all(_Connection.fetch, self._split(keys))
        return {key: value for found in answers for key, (value, _) in found.items()}

    def set_multi(self, values: Mapping[str, Any], expire: int) -> list[Any]:
        batches = {p: {k: values[k] for k in keys} for p, keys in self._split(values).items()}
        return [key for failed in self._run_all(Client.set_many, batches, expire) for key in failed]

    def delete_multi(self, keys: Iterable[str]) -> None:
        self._run_all(Client.delete_many, self._split(keys))

    def flush_all(self) -> None:
        self._run_all(Client.flush_all, dict.fromkeys(self.pools, 0))

    def pool(self, key: str) -> _Pool:
        if self._only is not None:
            return self._only
        # Rendezvous hashing as in pymemcache, whose hash in pure Python takes 10 µs per server.
        wire = key.encode()
        return max(self.pools, key=lambda pool: blake2b(pool.name + wire, digest_size=8).digest())

    def place(self, key: str) -> int:
        """Return the number of the server that a key belongs to."""
        return 0 if self._only is not None else self.pools.index(self.pool(key))

    def _split(self, keys: Iterable[str]) -> dict[_Pool, list[str]]:
        batches: dict[_Pool, list[str]] = {}
        for key in keys:
            batches.setdefault(self.pool(key), []).append(key)
        return batches

    def _run_all(self, command: Callable[..., _T], parts: Mapping[_Pool, Any], *a: Any) -> list[_T]:
        """Give each server its part, then raise the error of the first that failed."""
        results, errors = [], []
        for pool, part in parts.items():
            try:
                results.append(pool.run(command, part, *a))
            except (OSError, MemcacheError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results
