"""``instrument``: what this process tells of itself, for an OpenTelemetry ``Meter``."""

from collections.abc import Callable, Iterator
from functools import partial

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from . import histogram, runtime
from .exported import METRICS, Metric, Sample
from .histogram import Histogram
from .snapshot import Snapshot

NAMESPACE = "django_dynamo_failover."


def instrument(meter: Meter) -> None:
    """Let a meter observe this process. Call it once a process, after the fork if there is one.

    Nothing is observed before the process has used a session, and no tier is asked. OpenTelemetry
    has no histogram that is observed: of the latencies there are ``tier_calls``, how many, and
    ``tier_call_time``, how many seconds they took.
    """
    create = {
        "counter": meter.create_observable_counter,
        "up_down_counter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    for metric in INSTRUMENTS:
        observe = partial(_observe, metric)
        create[metric.kind](NAMESPACE + metric.name, [observe], metric.unit, metric.help)


def _observe(metric: Metric, _: CallbackOptions) -> Iterator[Observation]:
    run = runtime.running()
    if run is None:
        return
    for labels, value in metric.samples(run.reporter.snapshot()):
        assert not isinstance(value, list)
        yield Observation(value, dict(zip(metric.labels, labels, strict=True)))


def _of_calls(read: Callable[[Histogram], float], snapshot: Snapshot) -> Iterator[Sample]:
    for key, seen in snapshot.latencies.items():
        tier, _, operation = key.partition(" ")
        yield (tier, operation), read(seen)


#: Those of ``METRICS`` that can be observed, and what can of the histogram.
INSTRUMENTS = (
    *(metric for metric in METRICS if metric.kind != "histogram"),
    Metric(
        "tier_calls",
        "counter",
        "{call}",
        "Calls to a tier.",
        partial(_of_calls, histogram.count),
        ("tier", "operation"),
    ),
    Metric(
        "tier_call_time",
        "counter",
        "s",
        "How long calls to a tier took, all together.",
        partial(_of_calls, lambda seen: seen[-1]),
        ("tier", "operation"),
    ),
)
