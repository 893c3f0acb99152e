"""What was broken when, and what the guarantees let pass because of it. Times are monotonic."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: How long after an outage a process may still take its server for down: after repeated ones a
#: breaker probes each 15 seconds, with 20 % of jitter. In seconds.
GRACE = 20.0

#: How long a request that has broken off may go on in the web process, in seconds.
STRAY = 10.0

#: How much later than promised a busy machine may be, in seconds.
SLACK = 4.0


@dataclass
class Outage:
    """A fault while it lasts and ever after. ``ended`` None: it goes on."""

    name: str
    target: str
    touches: frozenset[str]
    began: float
    ended: float | None = None


def hot(site: str) -> str:
    """Return the name of a site's hot tier among what an outage touches."""
    return f"hot {site}"


def web(site: str) -> str:
    """Return the name of a site's web processes among what an outage touches."""
    return f"web {site}"


@dataclass
class Outages:
    """The history of a run. ``regions`` are the names of all of them."""

    regions: Sequence[str]
    interval: float
    clock: Callable[[], float] = time.monotonic
    all: list[Outage] = field(default_factory=list)
    _emptied: dict[str, list[float]] = field(default_factory=dict)
    _killed: dict[int, float] = field(default_factory=dict)
    _killings: dict[str, list[float]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    # -- What happens

    @contextmanager
    def happening(self, name: str, target: str, touches: frozenset[str]) -> Iterator[None]:
        """Note an outage around what makes and ends it."""
        outage = Outage(name, target, touches, self.clock())
        with self._lock:
            self.all.append(outage)
        try:
            yield
        finally:
            outage.ended = self.clock()

    def emptied(self, site: str) -> None:
        """Note that a hot tier loses its contents about now."""
        self._emptied.setdefault(site, []).append(self.clock())

    def killed(self, site: str, pids: Sequence[int], at: float | None = None) -> None:
        """Note that processes are killed, and what they had in memory with them."""
        now = self.clock() if at is None else at
        self._killings.setdefault(site, []).append(now)
        self._killed.update(dict.fromkeys(pids, now))

    # -- What follows from it

    def harmed(self, what: str, since: float, until: float) -> bool:
        """Tell whether something was touched by an outage at any time between these two."""
        with self._lock:
            return any(
                what in outage.touches
                and outage.began <= until
                and (outage.ended is None or outage.ended >= since)
                for outage in self.all
            )

    def hot_down(self, site: str, since: float, until: float) -> bool:
        """Tell whether processes of a site may have taken its memcached for down."""
        return self.harmed(hot(site), since - GRACE, until)

    def web_down(self, site: str, since: float, until: float) -> bool:
        """Tell whether a connection to a site may have broken."""
        return self.harmed(web(site), since - SLACK, until)

    def cold_down(self, since: float, until: float) -> bool:
        """Tell whether no region may have answered."""
        return any(
            began <= until and ended + GRACE >= since for began, ended in self._without_regions()
        )

    def unavailable(
        self, site: str, since: float, until: float, *, seen: float | None, through: bool
    ) -> str | None:
        """Return why a request may be answered 503; None if it may not.

        ``seen``: when this site had the session in its memcached; ``through``: the request wants
        to write DynamoDB.
        """
        if not self.cold_down(since, until):
            # A new process has no client of DynamoDB yet: to make one takes it a while.
            begins = (through or seen is None) and self.web_down(site, since, until)
            return "a worker that has just begun" if begins else None
        if through:
            return "DynamoDB down: a change that must be durable"
        if self.hot_down(site, since, until):
            return "both tiers down"
        if seen is None or self.hot_down(site, seen, until):
            return "DynamoDB down: not in this memcached"
        return None

    def may_be_stale(self, site: str, since: float) -> bool:
        """Tell whether a site may serve an older version of a session, up to one lease."""
        return self.hot_down(site, since - self.interval, self.clock())

    def may_be_lost(self, site: str, pid: int, answered: float) -> bool:
        """Tell whether an acknowledged change may be gone (G3).

        So it is when its process was killed and the memcached of its site lost its contents,
        both before DynamoDB had to have it.
        """
        due = self.known_everywhere(answered)
        return self._died(pid, answered, due) and any(
            answered - SLACK <= at <= due for at in self._emptied.get(site, [])
        )

    def may_be_orphaned(self, site: str, pid: int, answered: float, seen: float | None) -> bool:
        """Tell whether a change may have reached memcached alone.

        Its process was gone before it was due, and from then on only a use of the session at this
        site brings it to DynamoDB. ``seen``: when it was last used there.
        """
        due = self.known_everywhere(answered)
        if not self._died(pid, answered, due):
            return False
        return (
            seen is None
            or seen < due
            or any(answered <= at <= seen for at in self._emptied.get(site, []))
        )

    def may_be_revived(self, site: str, answered: float) -> bool:
        """Tell whether a logout may be undone: DynamoDB was down, and then who had to tell it."""
        if not self.cold_down(answered - SLACK, answered):
            return False
        due = self.known_everywhere(answered)
        return any(answered - SLACK <= at <= due for at in self._killings.get(site, []))

    def known_everywhere(self, answered: float) -> float:
        """Return when DynamoDB and all sites know of a change or a logout (G3, G4)."""
        due = answered + self.interval + SLACK
        for began, ended in sorted(self._without_regions()):
            if began <= due and ended + GRACE >= answered:
                due = max(due, ended + GRACE + self.interval)
        return due

    def _died(self, pid: int, since: float, until: float) -> bool:
        return since - SLACK <= self._killed.get(pid, float("inf")) <= until

    def _without_regions(self) -> list[tuple[float, float]]:
        """Return from when until when no region was whole."""
        now = self.clock()
        times: list[tuple[float, float]] = [(float("-inf"), float("inf"))]
        with self._lock:
            outages = list(self.all)
        for region in self.regions:
            broken = [
                (outage.began, now if outage.ended is None else outage.ended)
                for outage in outages
                if region in outage.touches
            ]
            times = [
                (max(began, other), min(ended, another))
                for began, ended in times
                # A process may find the second one down before the first one is back for it.
                for other, another in broken
                if began <= another + GRACE and other <= ended + GRACE
            ]
        return times
