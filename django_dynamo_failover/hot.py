"""The hot tier: sessions in a Django cache, and notes that the processes of a site share.

With ``guarded`` the only module that talks to a Django cache. Nothing here decides what a state
means; ``store`` does. A failure is never disguised as a miss.
"""

import contextlib
import enum
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django.core.cache.backends.base import BaseCache

from .breaker import Breaker
from .exceptions import HotUnavailable, Unreadable
from .guarded import GuardedCache
from .keys import TAG_BYTES, Keyring, label
from .metrics import Metrics
from .record import Record, decode_hot, encode_hot, encode_tombstone

logger = logging.getLogger(__name__)

_PREFIX = "session:"

#: Stands where a session is known to be too large for this cache: reads as a miss, but ``add``
#: does not fill it.
_HOLE = b""
_HOLE_SECONDS = 60

#: Of so many reads one is timed, and stands for all: a page hit is to pay less than 1 µs for it.
_TIMED = 16


class State(enum.Enum):
    """What the hot tier holds under an id."""

    MISS = enum.auto()
    LIVE = enum.auto()
    TOMBSTONE = enum.auto()
    UNREADABLE = enum.auto()


@dataclass(frozen=True, slots=True)
class HotAnswer:
    """A state, and if LIVE the record with the token that ``swap`` takes."""

    state: State
    record: Record | None = None
    token: Any = None


class HotTier:
    """Sessions in the cache that ``get_cache`` returns (one instance per thread, as in Django).

    With ``gets`` and ``cas`` (``cache.MemcachedCache``) a tombstone takes the place of the
    entry and a swap is atomic. On any other cache a swap is get-then-set, and the tombstone is
    a key of its own beside the entry, so that a save that raced with the logout still loses.

    After an outage of a server, its entries from before it are distrusted (``trusts``): they may
    have missed changes and logouts. ``make_breaker`` makes the breaker of one server.
    """

    def __init__(
        self,
        get_cache: Callable[[], BaseCache],
        keyring: Keyring,
        metrics: Metrics,
        make_breaker: Callable[[], Breaker] = Breaker,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cache = GuardedCache(get_cache, metrics, make_breaker, now=now)
        self._keyring = keyring
        self._metrics = metrics
        self._now = now
        self._reads = itertools.count()
        self.atomic = self._cache.swaps
        self._access: _CasAccess | _PlainAccess = _CasAccess() if self.atomic else _PlainAccess()

    def get(self, id: str) -> HotAnswer:
        """Return what is held under an id, in one round trip. Raises ``HotUnavailable``."""
        timed = not next(self._reads) % _TIMED
        began = perf_counter() if timed else 0.0
        try:
            value, token = self._cache.call(self._access.read, _PREFIX + id)
            if timed:
                self._metrics.took("hot read", perf_counter() - began, _TIMED)
            if value is None or value == _HOLE:
                return _MISS
            record = decode_hot(id, value, self._keyring)
        except Unreadable as error:
            self._metrics.count("hot_unreadable")
            # Without the traceback, which would show nothing but the way to here.
            logger.error(  # noqa: TRY400
                "Session %s: %s; refused, and left as it is.", label(id), error
            )
            return _UNREADABLE
        if record is None:
            return _TOMBSTONE
        return HotAnswer(State.LIVE, record, token)

    def add(self, record: Record) -> bool:
        """Store a record where nothing is held; tell whether that was so.

        Raises ``HotUnavailable``, ``ValueTooLarge``.
        """
        return self._write(self._access.add, record)

    def swap(self, record: Record, token: Any) -> bool:
        """Store a record in place of the entry that came with ``token``; tell whether it did.

        Raises ``HotUnavailable``, ``ValueTooLarge``.
        """
        return self._write(self._access.swap, record, token)

    def dig(self, id: str, token: Any) -> bool:
        """Put a hole in place of the entry that came with ``token``, or with None of a miss.

        A hole sends readers to DynamoDB. Raises ``HotUnavailable``.
        """
        key = _PREFIX + id
        if token is None:
            return self._cache.call(self._access.add, key, _HOLE, _HOLE_SECONDS)
        return self._cache.call(self._access.swap, key, _HOLE, token, _HOLE_SECONDS)

    def bury(self, id: str, seconds: float) -> None:
        """Put a tombstone, whatever is held. Raises ``HotUnavailable``.

        Tries also while the tier is thought to be down: a frozen memcached takes the tombstone
        from its socket when it thaws, before it serves the session to anyone.
        """
        tombstone = encode_tombstone(id, self._keyring)
        key = _PREFIX + id
        self._cache.call(self._access.bury, key, tombstone, math.ceil(seconds), insist=True)

    @property
    def is_up(self) -> bool:
        """Whether every server is thought to answer."""
        return self._cache.is_up

    @property
    def is_down(self) -> bool:
        """Whether no server is thought to answer."""
        return self._cache.is_down

    def trusts(self, record: Record) -> bool:
        """Tell whether its server was there ever since a record last agreed with DynamoDB."""
        return record.agreed_at >= self._cache.trusted_after(_PREFIX + record.id)

    def probe(self) -> None:
        """Ask each server that is thought to be down whether it answers, if that is due."""
        self._cache.probe()

    def check_tokens(self) -> bool:
        """Look whether each server still has its site token; tell if one lost its contents."""
        return self._cache.check_tokens()

    def distrust(self, before: float) -> None:
        """Trust no record that last agreed with DynamoDB before this time."""
        self._cache.distrust(before)

    def note_on_each_server(self, name: str) -> list[str]:
        """Return for each server the name of a note that it holds: the same in all processes."""
        return self._cache.key_on_each_server(name)

    def read_note(self, name: str) -> tuple[bytes | None, Any]:
        """Return a note, None if there is none, with the token that ``write_note`` takes.

        Raises ``HotUnavailable``.
        """
        try:
            entry, token = self._cache.call(self._access.read, name)
            return None if entry is None else self._open_note(name, entry), token
        except Unreadable:  # somebody else's: notes are told again
            self.drop_note(name)
            return None, None

    def write_note(self, name: str, note: bytes, token: Any, seconds: int | None) -> bool:
        """Store a note in place of what came with ``token``; tell whether it did.

        ``token`` is None where there was none. ``seconds`` is how long it is kept, None for good.
        Raises ``HotUnavailable``, ``ValueTooLarge``.
        """
        entry = self._keyring.sign_hot(name, note) + note
        if token is None:
            return self._cache.call(self._access.add, name, entry, seconds)
        return self._cache.call(self._access.swap, name, entry, token, seconds)

    def put_note(self, name: str, note: bytes, seconds: int) -> None:
        """Store a note whatever is held, for so long. Raises ``HotUnavailable``."""
        entry = self._keyring.sign_hot(name, note) + note
        self._cache.call(_set, name, entry, seconds)

    def read_notes(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the notes that there are, in one round trip to each server.

        Those of a server that does not answer are left out.
        """
        try:
            entries = self._cache.get_many(names)
            return {name: self._open_note(name, entry) for name, entry in entries.items()}
        except Unreadable:
            pass
        # One by one, which drops what is not ours and hides none of the others.
        notes: dict[str, bytes] = {}
        for name in names:
            with contextlib.suppress(HotUnavailable):
                note, _ = self.read_note(name)
                if note is not None:
                    notes[name] = note
        return notes

    def drop_note(self, name: str) -> None:
        """Delete a note. Raises ``HotUnavailable``."""
        self._cache.call(_delete, name)

    def _open_note(self, name: str, entry: Any) -> bytes:
        if not isinstance(entry, bytes):
            raise Unreadable("not a note")
        tag, note = entry[:TAG_BYTES], entry[TAG_BYTES:]
        if not self._keyring.verify_hot(name, note, tag):
            raise Unreadable("note fails authentication")
        return note

    def _write(self, operation: Callable[..., bool], record: Record, *token: Any) -> bool:
        entry = encode_hot(record, self._keyring)
        began = perf_counter()
        done = self._cache.call(
            operation, _PREFIX + record.id, entry, *token, self._timeout(record)
        )
        self._metrics.took("hot write", perf_counter() - began)
        return done

    def _timeout(self, record: Record) -> int:
        # At least a second: 0 would mean "delete" and a negative one is undefined.
        return max(1, math.ceil(record.expires - self._now()))


def _delete(cache: BaseCache, key: str) -> bool:
    return cache.delete(key)


def _set(cache: BaseCache, key: str, entry: bytes, timeout: int) -> None:
    cache.set(key, entry, timeout)


class _CasAccess:
    """Raw entries of a cache with compare-and-swap."""

    def read(self, cache: Any, key: str) -> tuple[Any, Any]:
        return cache.gets(key) or (None, None)

    def add(self, cache: Any, key: str, entry: bytes, timeout: int | None) -> bool:
        return bool(cache.add(key, entry, timeout))

    def swap(self, cache: Any, key: str, entry: bytes, token: Any, timeout: int | None) -> bool:
        return bool(cache.cas(key, entry, token, timeout))

    def bury(self, cache: Any, key: str, tombstone: bytes, timeout: int) -> None:
        cache.set(key, tombstone, timeout)


class _PlainAccess:
    """Raw entries of any other cache. The token is the entry itself."""

    def read(self, cache: BaseCache, key: str) -> tuple[Any, Any]:
        grave = key + ":ended"
        found = cache.get_many([key, grave])
        value = found.get(grave) or found.get(key)
        return value, value

    def add(self, cache: BaseCache, key: str, entry: bytes, timeout: int | None) -> bool:
        return cache.add(key, entry, timeout) and self._outlived(cache, key)

    def swap(
        self, cache: BaseCache, key: str, entry: bytes, token: Any, timeout: int | None
    ) -> bool:
        value, _ = self.read(cache, key)
        if value != token:
            return False
        cache.set(key, entry, timeout)
        return self._outlived(cache, key)

    def bury(self, cache: BaseCache, key: str, tombstone: bytes, timeout: int) -> None:
        cache.set(key + ":ended", tombstone, timeout)
        if cache.get(key + ":ended") is None:
            # Django's memcached backends drop writes without a word while a server is down.
            raise HotUnavailable("the tombstone is not there")
        cache.delete(key)

    def _outlived(self, cache: BaseCache, key: str) -> bool:
        # A logout puts its tombstone first and deletes the entry then. One that came between
        # our look and our write is seen here, and the entry must not outlive its tombstone.
        if cache.get(key + ":ended") is None:
            return True
        cache.delete(key)
        return False


_MISS = HotAnswer(State.MISS)
_TOMBSTONE = HotAnswer(State.TOMBSTONE)
_UNREADABLE = HotAnswer(State.UNREADABLE)
