"""What this process tells of itself: made, kept as a history, and published in the hot tier."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

from . import __version__
from .cold import ColdTier
from .exceptions import HotUnavailable, ValueTooLarge
from .fleet import Fleet
from .history import EventKind, History
from .hot import HotTier
from .metrics import Metrics
from .snapshot import Snapshot
from .writer import Writer

#: How often a process tells of itself, in seconds.
REPORT_SECONDS = 5.0


class Reporter:
    """The snapshots of one process."""

    def __init__(
        self,
        site: str | None,
        hot: HotTier,
        cold: ColdTier,
        fleet: Fleet,
        writer: Writer,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._hot = hot
        self._cold = cold
        self._fleet = fleet
        self._writer = writer
        self._metrics = metrics
        self._now = now
        self._started = now()
        self._history = History(metrics, now=now)
        self._lock = threading.Lock()
        self._known: tuple[int, bool, float] | None = None

    def report(self) -> float:
        """Publish a snapshot; return after how many seconds to do it again."""
        with contextlib.suppress(HotUnavailable, ValueTooLarge):
            self._fleet.publish(self.snapshot())
        return REPORT_SECONDS

    def snapshot(self) -> Snapshot:
        """Return what there is to tell now."""
        with self._lock:
            self._history.look()
            counters = self._metrics.snapshot()
            self._notice(counters["hot_lost"])
        return Snapshot(
            id=self._fleet.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            site=self._site,
            version=__version__,
            started=self._started,
            at=self._now(),
            counters={name: number for name, number in counters.items() if number},
            latencies=self._metrics.latencies(),
            errors=self._metrics.errors(),
            up={"hot": self._hot.is_up, **self._cold.up},
            pending=self._writer.pending_count,
            oldest=self._writer.oldest,
            logouts=self._writer.untold,
            draining=self._fleet.draining,
            minutes=self._history.minutes,
            events=self._history.events,
        )

    def tier_changed(self, tier: str, *, up: bool) -> None:
        """Note that a tier stopped to answer, or answers again."""
        self._history.happened("up" if up else "down", tier)

    def _notice(self, lost: int) -> None:
        """Note what else has happened since the last look."""
        draining, revalidated = self._fleet.draining, self._fleet.orders.revalidated
        before, self._known = self._known, (lost, draining, revalidated)
        if before is None:
            return  # what stood when this process began is no event
        if lost > before[0]:
            self._history.happened("lost", "hot")
        if draining != before[1]:
            kind: EventKind = "drain on" if draining else "drain off"
            self._history.happened(kind)
        if revalidated > before[2]:
            self._history.happened("revalidate")
