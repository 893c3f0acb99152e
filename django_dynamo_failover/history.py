"""The last hour of a process, minute by minute, and what happened in it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from .histogram import Histogram, added, count, since
from .metrics import Metrics

MINUTES = 60
_MOST_EVENTS = 50

EventKind = Literal["down", "up", "lost", "drain on", "drain off", "revalidate"]


@dataclass(frozen=True, slots=True)
class Minute:
    """What was counted in one minute. ``at`` is in minutes since the epoch.

    ``hot`` and ``cold`` are histograms of the calls to each tier, [] for none.
    """

    at: int
    counts: Mapping[str, int]
    hot: Histogram
    cold: Histogram


@dataclass(frozen=True, slots=True)
class Event:
    """Something that an operator wants to see beside the numbers. ``at`` is in epoch seconds.

    ``subject`` is "hot", the name of a region, or "" for the whole site.
    """

    at: float
    kind: EventKind
    subject: str = ""


class History:
    """Puts what ``metrics`` has counted since it last looked into the minute that it is now."""

    def __init__(self, metrics: Metrics, *, now: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._now = now
        self._lock = threading.Lock()
        self._counts: Mapping[str, int] = {}
        self._latencies: Mapping[str, Histogram] = {}
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self._events: deque[Event] = deque(maxlen=_MOST_EVENTS)

    @property
    def minutes(self) -> tuple[Minute, ...]:
        """The minutes in which something was counted, of the last hour."""
        first = int(self._now() // 60) - MINUTES
        return tuple(minute for minute in self._minutes.copy() if minute.at > first)

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened in the last hour."""
        first = self._now() - MINUTES * 60
        return tuple(event for event in self._events.copy() if event.at > first)

    def happened(self, kind: EventKind, subject: str = "") -> None:
        """Note an event of now."""
        self._events.append(Event(self._now(), kind, subject))

    def look(self) -> None:
        """Note what was counted since the last look."""
        with self._lock:
            counts, latencies = self._metrics.snapshot(), self._metrics.latencies()
            before = self._counts
            new = {name: number - before.get(name, 0) for name, number in counts.items()}
            new = {name: number for name, number in new.items() if number}
            calls = {
                call: since(histogram, self._latencies.get(call))
                for call, histogram in latencies.items()
            }
            calls = {call: histogram for call, histogram in calls.items() if count(histogram)}
            self._counts, self._latencies = counts, latencies
            if new or calls:
                self._add(new, calls)

    def _add(self, counts: Mapping[str, int], calls: Mapping[str, Histogram]) -> None:
        hot = [histogram for call, histogram in calls.items() if call.startswith("hot ")]
        cold = [histogram for call, histogram in calls.items() if not call.startswith("hot ")]
        new = Minute(
            at=int(self._now() // 60),
            counts=counts,
            hot=added(hot) if hot else [],
            cold=added(cold) if cold else [],
        )
        if self._minutes and self._minutes[-1].at == new.at:
            # In its place: there is no moment in which somebody could read neither.
            self._minutes[-1] = together([self._minutes[-1], new])
        else:
            self._minutes.append(new)


def together(minutes: list[Minute]) -> Minute:
    """Return one minute of all that was counted in several, which are of the same time."""
    counts: dict[str, int] = {}
    for minute in minutes:
        for name, number in minute.counts.items():
            counts[name] = counts.get(name, 0) + number
    hot = [minute.hot for minute in minutes if minute.hot]
    cold = [minute.cold for minute in minutes if minute.cold]
    return Minute(minutes[0].at, counts, added(hot) if hot else [], added(cold) if cold else [])
