"""Counters and latencies of one process: no lock, and less than a microsecond a page hit."""

import itertools
import threading
import weakref
from collections import Counter, deque

from .histogram import Histogram, added, new_histogram, observe

#: Every counter and what it counts.
COUNTERS = {
    "hot_hits": "Sessions served by the hot tier.",
    "hot_misses": "Sessions that the hot tier did not hold.",
    "hot_errors": "Calls to the hot tier that failed.",
    "hot_unreadable": "Hot entries refused: corrupt, forged or of an unknown format.",
    "forged_keys": "Session keys refused before any store was asked.",
    "old_keys": "Session keys without a MAC, let through because FALLBACK_ENGINE is set.",
    "moved": "Sessions moved over from FALLBACK_ENGINE.",
    "cold_reads": "Reads sent to DynamoDB.",
    "cold_writes": "Writes sent to DynamoDB.",
    "cold_errors": "Calls to DynamoDB that failed.",
    "cold_throttled": "Calls to DynamoDB that failed as the table had no capacity left.",
    "cold_refused": "Calls to DynamoDB that were not made, as too many were waiting.",
    "cold_unreadable": "DynamoDB items refused: corrupt, forged or of an unknown format.",
    "restored": "Sessions brought back from DynamoDB.",
    "renewed": "Leases renewed.",
    "trusted": "Sessions served past their lease because DynamoDB could not answer.",
    "saves": "Sessions saved.",
    "created": "Sessions created.",
    "contended": "Saves that lost more than a few races in a row with other ones.",
    "merged": "Saves merged with a concurrent one.",
    "conflicts": "Sessions that two sites had both changed.",
    "ended": "Sessions found deleted, revoked or expired in DynamoDB.",
    "deleted": "Sessions deleted.",
    "deletes_delayed": "Logouts that DynamoDB learns of later, because it could not answer.",
    "oversize": "Saves of a session that is too large for one of the tiers.",
    "unavailable": "Requests that had to do without their session because no tier could answer.",
    "hot_lost": "Times the hot tier was found to have lost its contents.",
    "lost_writes": "Pending changes given up at exit because DynamoDB could not answer.",
}


#: More classes of errors than this are counted as one: some server may answer anything.
_MOST_ERRORS = 50


class _Shard:
    """The counts of one thread."""

    __slots__ = ("__weakref__", "counts", "latencies")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTERS, 0)  # a Counter would take twice as long
        self.latencies: dict[str, Histogram] = {}

    def twin(self) -> "_Shard":
        """Return one that counts the same."""
        twin = _Shard()
        twin.counts, twin.latencies = self.counts, self.latencies
        return twin


class Metrics:
    """Counts per thread and adds up on demand, so that page hits contend for nothing."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._live: dict[int, _Shard] = {}
        self._over: deque[int] = deque()  # those whose threads have ended
        self._ended = _Shard()
        self._errors: Counter[str] = Counter()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of ``COUNTERS``."""
        try:
            counts = self._local.counts
        except AttributeError:
            counts = self._new_shard().counts
        counts[name] += number

    def took(self, call: str, seconds: float, number: int = 1) -> None:
        """Note how long a call took: "hot read", "hot write" or the same of a region.

        It stands for ``number`` of them, where not each is timed.
        """
        try:
            histogram = self._local.latencies[call]
        except (AttributeError, KeyError):
            histogram = self._new_histogram(call)
        observe(histogram, seconds, number)

    def failed(self, tier: str, error: str) -> None:
        """Count an error of "hot" or of a region, by its class."""
        name = f"{tier} {error}"
        with self._lock:
            if name not in self._errors and len(self._errors) >= _MOST_ERRORS:
                name = f"{tier} other"
            self._errors[name] += 1

    def snapshot(self) -> dict[str, int]:
        """Return all counters of this process."""
        total: Counter[str] = Counter()
        for shard in self._shards():
            # A plain copy: the thread of the shard may be adding a name right now.
            total.update(shard.counts.copy())
        return {name: total[name] for name in COUNTERS}

    def latencies(self) -> dict[str, Histogram]:
        """Return the histograms of this process, by what was called."""
        found: dict[str, list[Histogram]] = {}
        for shard in self._shards():
            for call, histogram in shard.latencies.copy().items():
                found.setdefault(call, []).append(histogram.copy())
        return {call: added(histograms) for call, histograms in sorted(found.items())}

    def errors(self) -> dict[str, int]:
        """Return how many errors there were, by tier and class: ``{"hot TimeoutError": 3}``."""
        with self._lock:
            return dict(self._errors)

    def _shards(self) -> list[_Shard]:
        with self._lock:
            self._fold()
            ended = _Shard()
            ended.counts = self._ended.counts.copy()
            ended.latencies = {call: h.copy() for call, h in self._ended.latencies.items()}
            return [ended, *self._live.values()]

    def _new_histogram(self, call: str) -> Histogram:
        shard = getattr(self._local, "shard", None) or self._new_shard()
        histogram = shard.latencies[call] = new_histogram()
        return histogram

    def _new_shard(self) -> _Shard:
        shard = self._local.shard = _Shard()
        # Once more by themselves: a page hit finds them by one look-up the less.
        self._local.counts, self._local.latencies = shard.counts, shard.latencies
        number = next(self._numbers)
        with self._lock:
            self._fold()
            self._live[number] = shard.twin()
        # A shard dies with its thread; its counts stay. No lock here: whoever holds it may be
        # the one to collect the garbage, or was another thread of the parent at a fork.
        weakref.finalize(shard, self._over.append, number).atexit = False
        return shard

    def _fold(self) -> None:
        """Put together what the threads have counted that have ended. The lock is held."""
        while self._over:
            shard = self._live.pop(self._over.popleft())
            for name, number in shard.counts.items():
                self._ended.counts[name] += number
            for call, histogram in shard.latencies.items():
                so_far = self._ended.latencies.get(call)
                self._ended.latencies[call] = added([so_far, histogram] if so_far else [histogram])
