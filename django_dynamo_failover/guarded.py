"""A Django cache of which each server has a breaker of its own, and is watched for its contents."""

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.core.cache.backends.base import BaseCache

from .breaker import Breaker
from .exceptions import HotUnavailable, Unreadable, ValueTooLarge
from .metrics import Metrics

_T = TypeVar("_T")

_TOKEN_NAME = "session-site-token"  # noqa: S105
_TOKEN_LENGTH = 22


class _Shard:
    """What is known of one server of the cache. It fails, and loses its contents, by itself."""

    def __init__(self, breaker: Breaker, token_key: str) -> None:
        self.breaker = breaker
        self.token_key = token_key
        self.token: str | None = None
        self.trusted_after = 0.0


class GuardedCache:
    """The cache that ``get_cache`` returns (one instance per thread, as in Django).

    ``make_breaker`` makes the breaker of one server. A cache that does not tell its servers apart
    counts as one.
    """

    def __init__(
        self,
        get_cache: Callable[[], BaseCache],
        metrics: Metrics,
        make_breaker: Callable[[], Breaker],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._get_cache = get_cache
        self._metrics = metrics
        self._now = now
        cache: Any = get_cache()
        #: Whether a value can be replaced only if nobody else has.
        self.swaps = hasattr(cache, "gets") and hasattr(cache, "cas")
        self._shards = [_Shard(make_breaker(), key) for key in self.key_on_each_server(_TOKEN_NAME)]

    @property
    def is_up(self) -> bool:
        """Whether every server is thought to answer."""
        return all(shard.breaker.closed for shard in self._shards)

    @property
    def is_down(self) -> bool:
        """Whether no server is thought to answer."""
        return not any(shard.breaker.closed for shard in self._shards)

    def trusted_after(self, key: str) -> float:
        """Return since when the server of a key has been there without a break."""
        return self._shard(key).trusted_after

    def distrust(self, before: float) -> None:
        """Take all servers for new at this time."""
        for shard in self._shards:
            shard.trusted_after = max(shard.trusted_after, before)

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what the servers that answer hold under these keys, in one call to each.

        Raises ``Unreadable``.
        """
        found: dict[str, Any] = {}
        by_shard: dict[_Shard, list[str]] = {}
        for key in keys:
            by_shard.setdefault(self._shard(key), []).append(key)
        for group in by_shard.values():
            with contextlib.suppress(HotUnavailable):
                found |= self.call(_get_many, group[0], group)
        return found

    def key_on_each_server(self, name: str) -> list[str]:
        """Return for each server a key that belongs to it: the same in all processes."""
        cache: Any = self._get_cache()
        keys: dict[int, str] = {}
        number = 0
        while len(keys) < getattr(cache, "server_count", 1):
            key = f"{name}:{number}"
            keys.setdefault(cache.server_of(key) if hasattr(cache, "server_of") else 0, key)
            number += 1
        return [keys[server] for server in sorted(keys)]

    def probe(self) -> None:
        """Ask each server that is thought to be down whether it answers, if that is due."""
        for shard in self._shards:
            if not shard.breaker.closed and shard.breaker.allow_probe():
                with contextlib.suppress(HotUnavailable):
                    self._ask(shard, _read_token, shard.token_key)

    def check_tokens(self) -> bool:
        """Look whether each server still has its site token; tell if one lost its contents."""
        lost = False
        for shard in self._shards:
            with contextlib.suppress(HotUnavailable):  # counted, and its breaker tells
                token = self.call(_read_token, shard.token_key)
                lost |= shard.token is not None and shard.token != token
                shard.token = token
        return lost

    def call(self, operation: Callable[..., _T], key: str, *args: Any, insist: bool = False) -> _T:
        """Return ``operation(cache, key, *args)``, of the server of this key.

        ``insist``: also while that is thought to be down. Raises ``HotUnavailable``,
        ``ValueTooLarge``, ``Unreadable``.
        """
        shard = self._shard(key)
        if not shard.breaker.allow() and not insist:
            raise HotUnavailable("not asked: it was down a moment ago")
        return self._ask(shard, operation, key, *args)

    def _ask(self, shard: _Shard, operation: Callable[..., _T], key: str, *args: Any) -> _T:
        try:
            result = operation(self._get_cache(), key, *args)
        except Unreadable:
            self._answered(shard)
            raise
        except Exception as error:
            # Any cache may be set, so any error may come.
            if "too large" in str(error):
                self._answered(shard)
                raise ValueTooLarge("the cache refuses the value for its size") from error
            self._metrics.count("hot_errors")
            self._metrics.failed("hot", type(error).__name__)
            shard.breaker.failure()
            raise HotUnavailable(type(error).__name__) from error
        self._answered(shard)
        return result

    def _shard(self, key: str) -> _Shard:
        if len(self._shards) == 1:
            return self._shards[0]
        cache: Any = self._get_cache()
        number: int = cache.server_of(key)
        return self._shards[number]

    def _answered(self, shard: _Shard) -> None:
        if shard.breaker.success():
            shard.trusted_after = self._now()


def _get_many(cache: BaseCache, _: str, keys: list[str]) -> dict[str, Any]:
    return cache.get_many(keys)


def _read_token(cache: BaseCache, key: str) -> str:
    try:
        value = cache.get(key)
    except Unreadable:
        value = b""  # whatever was planted there
    if not _is_token(value):
        new = secrets.token_urlsafe(16)
        # Another process may be doing the same; whoever is first names the server.
        if value is not None:
            cache.set(key, new, None)
        else:
            cache.add(key, new, None)
        value = cache.get(key)
    if not _is_token(value):
        raise HotUnavailable("the cache does not keep what it is given")
    return str(value)


def _is_token(value: object) -> bool:
    return isinstance(value, str) and len(value) == _TOKEN_LENGTH
