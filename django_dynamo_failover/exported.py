"""Every metric that is exported, in the terms of neither Prometheus nor OpenTelemetry."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from .histogram import Histogram
from .metrics import COUNTERS
from .snapshot import Snapshot

#: "up_down_counter": a gauge whose values of several processes add up.
Kind = Literal["counter", "up_down_counter", "gauge", "histogram"]

#: The values of the metric's labels, then what is measured.
Sample = tuple[tuple[str, ...], float | Histogram]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a process. ``help`` is one sentence.

    ``name`` is without prefix, unit and suffix. ``unit`` is one of UCUM: "s" or, for what is
    counted, a word in braces.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    samples: Callable[[Snapshot], Iterable[Sample]]
    labels: tuple[str, ...] = ()


#: What the counters count that do not count sessions.
_UNITS = {
    "hot_errors": "{call}",
    "hot_unreadable": "{entry}",
    "forged_keys": "{key}",
    "old_keys": "{key}",
    "cold_reads": "{read}",
    "cold_writes": "{write}",
    "cold_errors": "{call}",
    "cold_throttled": "{call}",
    "cold_refused": "{call}",
    "cold_unreadable": "{item}",
    "renewed": "{lease}",
    "contended": "{save}",
    "merged": "{save}",
    "deletes_delayed": "{logout}",
    "oversize": "{save}",
    "unavailable": "{request}",
    "hot_lost": "{loss}",
    "lost_writes": "{change}",
}


def _counter(name: str) -> Callable[[Snapshot], Iterator[Sample]]:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        yield (), snapshot.counters.get(name, 0)  # a snapshot leaves out zeros

    return samples


def _one(read: Callable[[Snapshot], float]) -> Callable[[Snapshot], Iterator[Sample]]:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        yield (), read(snapshot)

    return samples


def _errors(snapshot: Snapshot) -> Iterator[Sample]:
    for key, number in snapshot.errors.items():
        tier, _, error = key.partition(" ")
        yield (tier, error), number


def _latencies(snapshot: Snapshot) -> Iterator[Sample]:
    for key, histogram in snapshot.latencies.items():
        tier, _, operation = key.partition(" ")
        yield (tier, operation), histogram


def _up(snapshot: Snapshot) -> Iterator[Sample]:
    for tier, up in snapshot.up.items():
        yield (tier,), float(up)


def _oldest(snapshot: Snapshot) -> float:
    # By the clock of its own machine, not of the one that answers.
    return max(0.0, snapshot.at - snapshot.oldest) if snapshot.oldest else 0.0


def _release(snapshot: Snapshot) -> Iterator[Sample]:
    yield (snapshot.version,), 1.0


#: Documented in ``docs/metrics.rst``.
METRICS = (
    *(
        Metric(name, "counter", _UNITS.get(name, "{session}"), sentence, _counter(name))
        for name, sentence in COUNTERS.items()
    ),
    Metric(
        "tier_errors",
        "counter",
        "{call}",
        "Calls to a tier that failed, by the class of the error.",
        _errors,
        ("tier", "error"),
    ),
    Metric(
        "tier_call_duration",
        "histogram",
        "s",
        "How long calls to a tier took.",
        _latencies,
        ("tier", "operation"),
    ),
    Metric(
        "tier_up",
        "gauge",
        "{tier}",
        "Whether a tier is thought to answer: 1 or 0.",
        _up,
        ("tier",),
    ),
    Metric(
        "pending_writes",
        "up_down_counter",
        "{change}",
        "Changes and logouts that DynamoDB has still to be told.",
        _one(lambda snapshot: snapshot.pending),
    ),
    Metric(
        "pending_logouts",
        "up_down_counter",
        "{logout}",
        "Logouts that no region of DynamoDB has been told of yet.",
        _one(lambda snapshot: snapshot.logouts),
    ),
    Metric(
        "oldest_pending",
        "gauge",
        "s",
        "For how long the oldest change has waited for DynamoDB, 0 if none does.",
        _one(_oldest),
    ),
    Metric(
        "draining",
        "gauge",
        "{process}",
        "Whether all is written through: 1 or 0.",
        _one(lambda snapshot: snapshot.draining),
    ),
    Metric(
        "start_time",
        "gauge",
        "s",
        "When the process first used a session, in seconds since the epoch.",
        _one(lambda snapshot: snapshot.started),
    ),
    Metric(
        "build_info",
        "gauge",
        "{process}",
        "The release of django_dynamo_failover that the process runs: always 1.",
        _release,
        ("version",),
    ),
)
