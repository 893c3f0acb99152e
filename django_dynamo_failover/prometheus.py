"""``FailoverCollector``: what the processes tell of themselves, for ``prometheus_client``."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from . import runtime
from .histogram import BOUNDS, Histogram
from .metrics import COUNTERS
from .snapshot import Snapshot

PREFIX = "django_dynamo_failover_"

#: A snapshot is published every 5 seconds. An older one than this is of a process that is gone, or
#: hangs: in seconds.
STALE_SECONDS = 30.0

#: Which processes are told of: this one, those of this machine, those of the whole site.
Scope = Literal["process", "host", "site"]

#: The labels of every metric; ``process`` is the pid.
LABELS = ("site", "host", "process")

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

#: The values of the labels of its own, then what is measured.
_Sample = tuple[tuple[str, ...], float | Histogram]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: what it is called, and how a snapshot tells it.

    ``name`` is without ``PREFIX``, as it is in queries: that of a counter ends in ``_total``.
    ``labels`` are those it has besides ``LABELS``.
    """

    name: str
    family: type[_Family]
    help: str
    samples: Callable[[Snapshot], Iterable[_Sample]]
    labels: tuple[str, ...] = ()

    def empty(self) -> _Family:
        """Return its family without samples."""
        unit = "seconds" if self.name.endswith("_seconds") else ""
        return self.family(PREFIX + self.name, self.help, labels=LABELS + self.labels, unit=unit)


class FailoverCollector(Collector):
    """Tells of the processes of a ``scope``. Register it once a process.

    ``host``, the default, is for servers of several processes (gunicorn, uWSGI): any of them may
    answer a scrape. Each tells of itself in the hot tier every 5 seconds; a scrape reads that in
    one ``get_many``. While the hot tier does not answer it tells of its own process only.
    ``process`` asks nobody. ``site`` is for a site whose machines are not scraped one by one.
    """

    def __init__(self, scope: Scope = "host") -> None:
        if scope not in get_args(Scope):
            raise ValueError(f"no such scope: {scope!r}")
        self._scope = scope

    def describe(self) -> Iterator[_Family]:
        """Return all metrics without samples. Starts and asks nothing."""
        return (spec.empty() for spec in METRICS)

    def collect(self) -> Iterator[_Family]:
        """Return all metrics of the processes that are there."""
        snapshots = self._snapshots()
        for spec in METRICS:
            family = spec.empty()
            for snapshot in snapshots:
                labels = (snapshot.site or "", snapshot.host, str(snapshot.pid))
                for own_labels, value in spec.samples(snapshot):
                    _add(family, labels + own_labels, value)
            yield family

    def _snapshots(self) -> list[Snapshot]:
        run = runtime.current()
        # First, as it tells whether the hot tier answers.
        published = run.fleet.snapshots() if self._scope != "process" else []
        own = run.reporter.snapshot()
        others = [
            snapshot
            for snapshot in published
            if snapshot.at >= own.at - STALE_SECONDS
            and (self._scope == "site" or snapshot.host == own.host)
        ]
        # The newest of each pid, as one may be taken again, and the own is newer than published:
        # of a series that comes twice, Prometheus would drop one.
        found = {
            (snapshot.site, snapshot.host, snapshot.pid): snapshot
            for snapshot in [*sorted(others, key=lambda snapshot: snapshot.at), own]
        }
        return list(found.values())


def _add(family: _Family, labels: tuple[str, ...], value: float | Histogram) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, list)
        bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
        upto = itertools.accumulate(value[:-1])
        family.add_metric(labels, list(zip(bounds, upto, strict=True)), sum_value=value[-1])
    else:
        assert not isinstance(value, list)
        family.add_metric(labels, value)


def _counter(name: str) -> Callable[[Snapshot], Iterator[_Sample]]:
    def samples(snapshot: Snapshot) -> Iterator[_Sample]:
        yield (), snapshot.counters.get(name, 0)  # a snapshot leaves out zeros

    return samples


def _value(read: Callable[[Snapshot], float]) -> Callable[[Snapshot], Iterator[_Sample]]:
    def samples(snapshot: Snapshot) -> Iterator[_Sample]:
        yield (), read(snapshot)

    return samples


def _errors(snapshot: Snapshot) -> Iterator[_Sample]:
    for key, number in snapshot.errors.items():
        tier, _, error = key.partition(" ")
        yield (tier, error), number


def _latencies(snapshot: Snapshot) -> Iterator[_Sample]:
    for key, histogram in snapshot.latencies.items():
        tier, _, operation = key.partition(" ")
        yield (tier, operation), histogram


def _up(snapshot: Snapshot) -> Iterator[_Sample]:
    for tier, up in snapshot.up.items():
        yield (tier,), float(up)


def _oldest(snapshot: Snapshot) -> float:
    # By the clock of its own machine, not of the one that is scraped.
    return max(0.0, snapshot.at - snapshot.oldest) if snapshot.oldest else 0.0


def _release(snapshot: Snapshot) -> Iterator[_Sample]:
    yield (snapshot.version,), 1.0


#: Every metric. Documented in ``docs/metrics.rst``.
METRICS = (
    *(
        MetricSpec(f"{name}_total", CounterMetricFamily, help, _counter(name))
        for name, help in COUNTERS.items()
    ),
    MetricSpec(
        "tier_errors_total",
        CounterMetricFamily,
        "Calls to a tier that failed, by the class of the error.",
        _errors,
        ("tier", "error"),
    ),
    MetricSpec(
        "tier_call_duration_seconds",
        HistogramMetricFamily,
        "How long calls to a tier took.",
        _latencies,
        ("tier", "operation"),
    ),
    MetricSpec(
        "tier_up",
        GaugeMetricFamily,
        "Whether a tier is thought to answer: 1 or 0.",
        _up,
        ("tier",),
    ),
    MetricSpec(
        "pending_writes",
        GaugeMetricFamily,
        "Changes and logouts that DynamoDB has still to be told.",
        _value(lambda snapshot: snapshot.pending),
    ),
    MetricSpec(
        "pending_logouts",
        GaugeMetricFamily,
        "Logouts that no region of DynamoDB has been told of yet.",
        _value(lambda snapshot: snapshot.logouts),
    ),
    MetricSpec(
        "oldest_pending_seconds",
        GaugeMetricFamily,
        "For how long the oldest change has waited for DynamoDB, 0 if none does.",
        _value(_oldest),
    ),
    MetricSpec(
        "draining",
        GaugeMetricFamily,
        "Whether all is written through: 1 or 0.",
        _value(lambda snapshot: snapshot.draining),
    ),
    MetricSpec(
        "start_time_seconds",
        GaugeMetricFamily,
        "When the process first used a session, in seconds since the epoch.",
        _value(lambda snapshot: snapshot.started),
    ),
    MetricSpec(
        "build_info",
        GaugeMetricFamily,
        "The release of django_dynamo_failover that the process runs: always 1.",
        _release,
        ("version",),
    ),
)
