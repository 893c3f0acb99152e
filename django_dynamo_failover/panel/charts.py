"""The last hour as lines to draw, and what happened in it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django_dynamo_failover.histogram import Histogram, quantile
from django_dynamo_failover.history import MINUTES, Event, EventKind, Minute

from .numbers import Numbers
from .words import latency, some

#: The drawing area, in units of the SVG. Its width and height follow the page.
WIDTH, HEIGHT = 600, 100
_STEP = WIDTH / MINUTES
_EDGE = 2.0  # so that no line is cut in half at the top or the bottom

#: So many sessions in a minute, and this part of all, mean that the users of another site came.
_LEAST_ARRIVALS = 10
_ARRIVING_PART = 0.2
#: They have come for another reason if this site has lost something so many minutes before.
_AFTERMATH_MINUTES = 15

_HAPPENED: dict[EventKind, str] = {
    "down": "{} stopped answering",
    "up": "{} answers again",
    "lost": "The hot tier lost its contents",
    "drain on": "Draining began",
    "drain off": "Draining ended",
    "revalidate": "All sessions are revalidated",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. ``kind`` is its class in the style sheet; ``path`` is SVG."""

    name: str
    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same hour and scale. ``top`` is what its upper edge stands for."""

    id: str
    title: str
    top: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: ``x`` is where in the charts, ``at`` in epoch seconds."""

    at: float
    x: float
    text: str


def charts(minutes: Sequence[Minute]) -> list[Chart]:
    """Return the charts of an hour."""
    return [
        _counts("hits", "Page hits served by the hot tier, a minute", minutes, {"": ["hot_hits"]}),
        _counts("restores", "Restored from DynamoDB, a minute", minutes, {"": ["restored"]}),
        _latencies("hot", "Hot tier: time of a call", [minute.hot for minute in minutes]),
        _latencies("cold", "DynamoDB: time of a call", [minute.cold for minute in minutes]),
        _counts(
            "errors",
            "Errors, a minute",
            minutes,
            {"hot tier": ["hot_errors"], "DynamoDB": ["cold_errors", "cold_throttled"]},
        ),
    ]


def marks(numbers: Numbers) -> list[Mark]:
    """Return what happened in the hour, each once for the whole site, the last one first."""
    first = numbers.minutes[0].at
    happened: dict[tuple[EventKind, str, int], list[Event]] = {}
    for event in numbers.events:
        minute = int(event.at // 60)
        if minute >= first and event.kind in _HAPPENED:
            happened.setdefault((event.kind, event.subject, minute), []).append(event)
    found = [_mark(events, first) for events in happened.values()]
    troubled = {minute for _, _, minute in happened}
    found += _arrivals(numbers.minutes, troubled)
    return sorted(found, key=lambda mark: -mark.at)


def _mark(events: Sequence[Event], first: int) -> Mark:
    at = min(event.at for event in events)
    subject = events[0].subject
    text = _HAPPENED[events[0].kind].format("The hot tier" if subject == "hot" else subject)
    return Mark(at, _x(int(at // 60) - first), text)  # at what was counted in that minute


def _arrivals(minutes: Sequence[Minute], troubled: set[int]) -> Iterator[Mark]:
    """Yield a mark where the sessions of another site began to come."""
    arriving = False
    for number, minute in enumerate(minutes):
        restored, hits = minute.counts.get("restored", 0), minute.counts.get("hot_hits", 0)
        before = arriving
        arriving = restored >= _LEAST_ARRIVALS and restored > _ARRIVING_PART * (restored + hits)
        recently = range(minute.at - _AFTERMATH_MINUTES, minute.at + 1)
        if arriving and not before and troubled.isdisjoint(recently):
            text = f"Failover: {some(restored, 'session')} of another site came within a minute"
            yield Mark(minute.at * 60.0, _x(number), text)


def _counts(
    id: str, title: str, minutes: Sequence[Minute], names: dict[str, Sequence[str]]
) -> Chart:
    rows = [
        [sum(minute.counts.get(counter, 0) for counter in counters) for minute in minutes]
        for counters in names.values()
    ]
    top = _nice(max(map(max, rows)))
    kinds = ["one", "two"]
    lines = (
        Line(name, kind, _path(row, top))
        for name, kind, row in zip(names, kinds, rows, strict=False)
    )
    return Chart(id, title, f"{top:,.0f}", tuple(lines))


def _latencies(id: str, title: str, histograms: Sequence[Histogram]) -> Chart:
    parts = {"p50": 0.5, "p99": 0.99}
    rows = [[quantile(h, part) if h else None for h in histograms] for part in parts.values()]
    longest = max((value for row in rows for value in row if value is not None), default=0.001)
    top = _nice(longest, least=0.0)
    lines = (
        Line(name, kind, _path(row, top))
        for name, kind, row in zip(parts, ("one", "two"), rows, strict=True)
    )
    return Chart(id, title, latency(top), tuple(lines))


def _nice(value: float, least: float = 1.0) -> float:
    """Return the next higher number of 1, 2 or 5 with zeros."""
    if value <= least:
        return least or 0.001
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)


def _path(row: Sequence[float | None], top: float) -> str:
    """Return the line through these values as SVG, with gaps where there is none."""
    path = ""
    pen = "M"
    for number, value in enumerate(row):
        if value is None:
            pen = "M"
            continue
        y = HEIGHT - _EDGE - (HEIGHT - 2 * _EDGE) * min(value / top, 1)
        path += f"{pen}{_x(number):g} {y:.4g}"
        if pen == "M" and (number + 1 == len(row) or row[number + 1] is None):
            path += "h0"  # a point with no neighbour: round ends make it visible
        pen = "L"
    return path


def _x(minute: int) -> float:
    return round(_STEP * (minute + 0.5), 1)
