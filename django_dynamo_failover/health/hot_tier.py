"""The hot tier of this site: does each server answer, keep what it is given, and swap?"""

import secrets
import statistics
import time
from collections.abc import Iterator

from django_dynamo_failover.exceptions import HotUnavailable
from django_dynamo_failover.hot import HotTier

from .canary import MakeCanary, check_in_hot_tier
from .report import Finding

_ROUND_TRIPS = 5
_NOTE_SECONDS = 60


def check_hot_tier(hot: HotTier, make_canary: MakeCanary) -> Iterator[Finding]:
    """Look at each server by a note of its own, which nobody else reads; then store a session."""
    complete = True
    names = hot.note_on_each_server(f"session-health-{secrets.token_hex(8)}")
    for number, name in enumerate(names, 1):
        subject = "hot tier" if len(names) == 1 else f"hot tier, server {number} of {len(names)}"
        try:
            yield from _check_server(hot, name, subject)
        except HotUnavailable as error:
            complete = False
            yield Finding(
                "hot.reachable",
                "error",
                subject,
                f"does not answer ({error}), so that pages read DynamoDB",
                "Look after the cache that SESSION_CACHE_ALIAS names; its servers are counted in"
                " the order of LOCATION.",
            )
    if not hot.atomic:
        yield Finding(
            "hot.swap",
            "warning",
            "hot tier",
            "has no compare-and-swap: of two saves at the same time one may be lost",
            "Use django_dynamo_failover.cache.MemcachedCache.",
        )
    if complete:
        yield check_in_hot_tier(hot, make_canary())


def _check_server(hot: HotTier, name: str, subject: str) -> Iterator[Finding]:
    hot.read_note(name)  # connects, which the next ones need not
    took = statistics.median(_timed_read(hot, name) for _ in range(_ROUND_TRIPS))
    yield Finding("hot.reachable", "ok", subject, f"answers in {took * 1000:.2f} ms")
    first, second, third = (secrets.token_bytes(16) for _ in range(3))
    hot.write_note(name, first, None, _NOTE_SECONDS)
    kept, token = hot.read_note(name)
    swapped = hot.write_note(name, second, token, _NOTE_SECONDS)
    swapped_twice = hot.write_note(name, third, token, _NOTE_SECONDS)
    swapped_to, _ = hot.read_note(name)
    hot.drop_note(name)
    left, _ = hot.read_note(name)
    if (kept, left) != (first, None):
        yield Finding(
            "hot.keeps",
            "error",
            subject,
            "does not keep what it is given" if kept != first else "does not delete what it is to",
            "Look at its size, its evictions, and the BACKEND of the cache.",
        )
        return
    yield Finding("hot.keeps", "ok", subject, "keeps what it is given")
    if not swapped or swapped_twice or swapped_to != second:
        yield Finding(
            "hot.swap",
            "error",
            subject,
            "replaces what somebody else has changed: changes and logouts may be lost",
            "Use django_dynamo_failover.cache.MemcachedCache, on a memcached without a proxy.",
        )
    elif hot.atomic:
        yield Finding("hot.swap", "ok", subject, "has compare-and-swap")


def _timed_read(hot: HotTier, name: str) -> float:
    began = time.perf_counter()
    hot.read_note(name)
    return time.perf_counter() - began
