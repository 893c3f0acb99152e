"""OpenTelemetry instruments, as a reader of the SDK collects them."""

import re

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, Sum

from django_dynamo_failover import __version__, exported, opentelemetry, runtime
from django_dynamo_failover.opentelemetry import INSTRUMENTS, NAMESPACE


class Meter:
    """A meter of the SDK that observes this process: ``value("saves", tier=…)``."""

    def __init__(self):
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        opentelemetry.instrument(self.provider.get_meter("tests"))

    def collect(self):
        """Return all metrics by their names without the namespace."""
        data = self._reader.get_metrics_data()
        return {
            metric.name.removeprefix(NAMESPACE): metric
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def value(self, name, **attributes):
        points = self.collect()[name].data.data_points
        [point] = [point for point in points if attributes.items() <= point.attributes.items()]
        return point.value


@pytest.fixture
def meter():
    meter = Meter()
    yield meter
    meter.provider.shutdown()


@pytest.fixture
def run(engine):
    """The runtime of this process, which does nothing by itself."""
    engine.configure(BACKGROUND=False)
    return engine.runtime


def test_each_counter_counts(run, meter):
    for number, name in enumerate(exported.COUNTERS, start=1):
        run.metrics.count(name, number)
    assert [meter.value(name) for name in exported.COUNTERS] == list(
        range(1, len(exported.COUNTERS) + 1)
    )


def test_a_process_that_has_used_no_session_is_not_observed_and_starts_nothing(engine, meter):
    assert meter.collect() == {}
    assert runtime.running() is None
    engine.store("no session of ours").load()
    assert meter.value("forged_keys") == 1


def test_a_process_that_has_started_anew_is_observed_anew(engine, run, meter):
    run.metrics.count("saves", 3)
    assert meter.value("saves") == 3
    engine.restart()
    engine.runtime.metrics.count("saves")
    assert meter.value("saves") == 1


def test_errors_and_tiers_have_attributes(run, meter):
    run.metrics.failed("us-east-1", "not ready yet")
    run.metrics.took("hot read", 0.25)
    run.metrics.took("hot read", 0.5)
    assert meter.value("tier_errors", tier="us-east-1", error="not ready yet") == 1
    assert meter.value("tier_up", tier="hot") == meter.value("tier_up", tier="us-east-1") == 1
    assert meter.value("tier_calls", tier="hot", operation="read") >= 2
    assert 0.75 <= meter.value("tier_call_time", tier="hot", operation="read") < 2
    assert meter.value("build_info", version=__version__) == 1


def test_what_dynamodb_lacks_is_observed(engine, run, meter):
    assert meter.value("pending_writes") == meter.value("oldest_pending") == 0
    session = engine.store()
    session["cart"] = ["tea"]
    session.save()
    assert meter.value("pending_writes") == 1
    assert 0 < meter.value("oldest_pending") < 60


def test_no_tier_is_asked(run, meter, memcached, dynamodb):
    before = memcached.commands()
    dynamodb.reset_requests()
    assert meter.collect()
    assert memcached.commands() - before == {}
    assert not dynamodb.requests()


def test_instruments_are_what_they_measure(run, meter):
    run.metrics.failed("hot", "TimeoutError")
    run.metrics.took("hot read", 0.001)
    collected = meter.collect()
    assert collected.keys() == {metric.name for metric in INSTRUMENTS}
    for metric in INSTRUMENTS:
        found = collected[metric.name]
        assert (found.unit, found.description) == (metric.unit, metric.help)
        assert isinstance(found.data, Gauge if metric.kind == "gauge" else Sum)
        assert getattr(found.data, "is_monotonic", False) == (metric.kind == "counter")


@pytest.mark.parametrize("metric", INSTRUMENTS, ids=lambda metric: metric.name)
def test_an_instrument_is_named_as_opentelemetry_wants_it(metric):
    """No unit and no "total" in the name: an exporter for Prometheus adds them."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert not re.search(r"total|seconds", metric.name)
    assert re.fullmatch(r"s|\{[a-z]+\}", metric.unit)


def test_each_unit_is_of_a_counter():
    assert exported._UNITS.keys() < exported.COUNTERS.keys()


def test_only_what_adds_up_over_processes_is_a_sum():
    assert [m.name for m in INSTRUMENTS if m.kind == "up_down_counter"] == [
        "pending_writes",
        "pending_logouts",
    ]
