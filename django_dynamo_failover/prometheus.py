"""``FailoverCollector``: what the processes tell of themselves, for ``prometheus_client``."""

import itertools
from collections.abc import Iterator
from typing import Literal, get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from . import runtime
from .exceptions import HotUnavailable, ValueTooLarge
from .exported import METRICS, Kind, Metric
from .histogram import BOUNDS, Histogram
from .runtime import Runtime
from .snapshot import Snapshot

PREFIX = "django_dynamo_failover_"

#: The labels that every metric has; ``process`` is the pid.
LABELS = ("site", "host", "process")

#: Snapshots are published every 5 seconds. One older than this, in seconds, is of a process that
#: is gone or hangs.
STALE_SECONDS = 30.0

#: Which processes are told of: this one, those of this machine, those of the whole site.
Scope = Literal["process", "host", "site"]

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_FAMILIES: dict[Kind, type[_Family]] = {
    "counter": CounterMetricFamily,
    "up_down_counter": GaugeMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}

_BUCKETS = [*map(floatToGoString, BOUNDS), "+Inf"]


class FailoverCollector(Collector):
    """Tells of the processes of a ``scope``. Register it once a process.

    ``host``, the default, is for servers of several processes (gunicorn, uWSGI), any of which may
    answer a scrape. Each process tells of itself in the hot tier every 5 seconds, and when it is
    scraped; a scrape reads that in one ``get_many``, and tells of its own process alone while the
    hot tier does not answer. ``process`` asks nobody. ``site`` is for machines that are not
    scraped one by one.
    """

    def __init__(self, scope: Scope = "host") -> None:
        if scope not in get_args(Scope):
            raise ValueError(f"no such scope: {scope!r}")
        self._scope = scope

    def describe(self) -> Iterator[_Family]:
        """Return all metrics without samples. Starts and asks nothing."""
        return map(family_of, METRICS)

    def collect(self) -> Iterator[_Family]:
        """Return all metrics of the processes that are there."""
        snapshots = self._snapshots()
        for metric in METRICS:
            family = family_of(metric)
            for snapshot in snapshots:
                labels = (snapshot.site or "", snapshot.host, str(snapshot.pid))
                for own_labels, value in metric.samples(snapshot):
                    _add(family, labels + own_labels, value)
            yield family

    def _snapshots(self) -> list[Snapshot]:
        run = runtime.current()
        if self._scope == "process":
            return [run.reporter.snapshot()]
        own = _shown(run)
        others = [
            snapshot
            for snapshot in run.fleet.snapshots()
            if snapshot.at >= own.at - STALE_SECONDS
            and (self._scope == "site" or snapshot.host == own.host)
        ]
        # One of each pid, which may be taken again: of a series that comes twice, Prometheus
        # would drop one. The newest counts, and the own, which is newer than what is published.
        found = {
            (snapshot.site, snapshot.host, snapshot.pid): snapshot
            for snapshot in [*sorted(others, key=lambda snapshot: snapshot.at), own]
        }
        return list(found.values())


def _shown(run: Runtime) -> Snapshot:
    """Return a snapshot of this process that the others can see.

    Whichever of them answers the next scrape must not tell of less: Prometheus would take that
    for a counter that began anew, and add all of it.
    """
    own = run.reporter.snapshot()
    try:
        run.fleet.publish(own)
    except (HotUnavailable, ValueTooLarge):
        return run.reporter.snapshot()  # which knows that the hot tier does not answer
    return own


def family_of(metric: Metric) -> _Family:
    """Return a metric without samples, by the conventions of Prometheus."""
    return _FAMILIES[metric.kind](
        PREFIX + metric.name,
        metric.help,
        labels=LABELS + metric.labels,
        unit="seconds" if metric.unit == "s" else "",
    )


def _add(family: _Family, labels: tuple[str, ...], value: float | Histogram) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, list)
        upto = itertools.accumulate(value[:-1])
        family.add_metric(labels, list(zip(_BUCKETS, upto, strict=True)), sum_value=value[-1])
    else:
        assert not isinstance(value, list)
        family.add_metric(labels, value)
