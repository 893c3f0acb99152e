"""The Prometheus collector, as a scrape finds it."""

import math
import os
import re
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from prometheus_client import CollectorRegistry, exposition, parser
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser

from django_dynamo_failover import __version__, histogram, runtime
from django_dynamo_failover.exported import METRICS
from django_dynamo_failover.metrics import COUNTERS
from django_dynamo_failover.prometheus import LABELS, PREFIX, FailoverCollector, family_of

from .panels import free_slots
from .web import until
from .workers import start_workers

OTHER_PID = 4711

#: The shop with an address for Prometheus. Nothing but a scrape publishes what a process counts.
SCRAPED = """
from prometheus_client import CollectorRegistry, make_wsgi_app
from django_dynamo_failover import runtime
from django_dynamo_failover.prometheus import FailoverCollector
from shop.wsgi import application as shop

runtime.FIRST_REPORT_SECONDS = 3600
registry = CollectorRegistry()
registry.register(FailoverCollector())
metrics = make_wsgi_app(registry)

def application(environ, start_response):
    app = metrics if environ["PATH_INFO"] == "/metrics" else shop
    return app(environ, start_response)
"""


class Scrape:
    """What a scrape finds: ``value("saves_total", process=…)``."""

    def __init__(self, text, parse=parser.text_string_to_metric_families):
        self.families = list(parse(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name, **labels):
        [sample] = self.find(name, **labels)
        return sample.value

    def find(self, name, **labels):
        return [
            sample
            for sample in self.samples
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        ]

    @property
    def processes(self):
        """The pids, each as often as it is told of."""
        return sorted(int(sample.labels["process"]) for sample in self.find("build_info"))


def scrape(scope="host"):
    registry = CollectorRegistry()
    registry.register(FailoverCollector(scope))
    return Scrape(exposition.generate_latest(registry).decode())


@pytest.fixture
def this(engine):
    """The runtime of this process, which does nothing by itself."""
    engine.configure(SITE="east", BACKGROUND=False)
    engine.restart()
    return engine.runtime


@pytest.fixture
def publish(this):
    """``publish(pid=…)``: one more process publishes its snapshot, changed like this."""

    slots = free_slots()

    def publish(**changes):
        other = runtime.build(runtime.config())
        other.metrics.count("saves", 7)
        other.fleet._slot = next(slots)  # not at random, as tell() does
        other.fleet.publish(replace(other.reporter.snapshot(), **{"pid": OTHER_PID, **changes}))
        return other

    return publish


# --- What is told of a process ------------------------------------------------------------------


def test_each_metric_is_there_from_the_first_scrape_on(this):
    names = {family.name for family in scrape("process").families}
    assert {PREFIX + name.removesuffix("_total") for name in COUNTERS} < names
    assert {family_of(metric).name for metric in METRICS} == names


def test_counters_count(this):
    this.metrics.count("saves", 3)
    found = scrape("process")
    assert found.value("saves_total") == 3
    assert found.value("created_total") == 0


def test_a_process_is_named_by_its_site_host_and_pid(this):
    [sample] = scrape("process").find("saves_total")
    assert sample.labels == {
        "site": "east",
        "host": socket.gethostname(),
        "process": str(this.pid),
    }


def test_a_site_without_a_name_has_an_empty_label(engine):
    assert scrape("process").value("saves_total", site="") == 0


def test_errors_are_counted_by_tier_and_class(this):
    this.metrics.failed("hot", "TimeoutError")
    for _ in range(2):
        this.metrics.failed("us-east-1", "not ready yet")
    found = scrape("process")
    assert found.value("tier_errors_total", tier="hot", error="TimeoutError") == 1
    assert found.value("tier_errors_total", tier="us-east-1", error="not ready yet") == 2


def test_latencies_are_a_histogram_of_each_tier_and_operation(this):
    for seconds in (0.0001, 0.0002, 0.03, 60):
        this.metrics.took("us-east-1 write", seconds)
    found = scrape("process")
    name = "tier_call_duration_seconds"
    where = {"tier": "us-east-1", "operation": "write"}
    buckets = {
        float(sample.labels["le"]): sample.value for sample in found.find(f"{name}_bucket", **where)
    }
    assert list(buckets) == [*histogram.BOUNDS, math.inf]
    assert [buckets[bound] for bound in (0.00005, 0.0001, 0.00025, 0.025, 0.05, 5)] == [
        0,
        1,
        2,
        2,
        3,
        3,
    ]
    assert buckets[math.inf] == found.value(f"{name}_count", **where) == 4
    assert found.value(f"{name}_sum", **where) == pytest.approx(60.0303)


def test_page_hits_are_in_it(this, engine):
    session = engine.store()
    session["cart"] = ["tea"]
    session.save()
    assert engine.store(session.session_key)["cart"] == ["tea"]
    found = scrape("process")
    assert found.value("hot_hits_total") == 1
    assert found.value("created_total") == 1
    assert found.value("tier_call_duration_seconds_count", tier="hot", operation="read") >= 1


def test_a_tier_that_does_not_answer_is_not_up(this):
    [region] = this.cold._regions
    assert scrape("process").value("tier_up", tier="us-east-1") == 1
    for _ in range(2):
        region.breaker.failure()
    found = scrape("process")
    assert found.value("tier_up", tier="us-east-1") == 0
    assert found.value("tier_up", tier="hot") == 1


def test_what_dynamodb_lacks_is_told_with_its_age(engine):
    engine.configure(NEW_SESSION_DELAY=900)
    found = scrape("process")
    assert found.value("pending_writes") == found.value("oldest_pending_seconds") == 0
    session = engine.store()
    session["cart"] = ["tea"]
    session.save()
    found = scrape("process")
    assert found.value("pending_writes") == 1
    assert found.value("pending_logouts") == 0
    assert 0 < found.value("oldest_pending_seconds") < 60


def test_a_change_of_a_moment_ago_has_no_negative_age(publish):
    """The clock of the machine was put back, say."""
    publish(at=time.time(), oldest=time.time() + 5)
    assert scrape().value("oldest_pending_seconds", process=str(OTHER_PID)) == 0


def test_draining_is_told(this):
    assert scrape("process").value("draining") == 0
    this.fleet.drain(True)
    assert scrape("process").value("draining") == 1


def test_the_release_and_the_start_are_told(this):
    found = scrape("process")
    assert found.value("build_info", version=__version__) == 1
    assert found.value("start_time_seconds") == pytest.approx(this.reporter.snapshot().started)


# --- Which processes ----------------------------------------------------------------------------


def test_every_process_of_the_machine_is_told_of_by_any(this, publish):
    """So that no counter jumps with the worker that a scrape happens to reach."""
    publish()
    found = scrape()
    assert found.processes == sorted([this.pid, OTHER_PID])
    assert found.value("saves_total", process=str(OTHER_PID)) == 7
    assert found.value("saves_total", process=str(this.pid)) == 0


def test_a_process_is_told_of_from_its_first_seconds_until_it_ends(engine):
    with start_workers(engine.settings, 1) as [worker]:
        worker.do("open", {"cart": 1})
        pid = worker._process.pid
        found = until(lambda: (found := scrape()).find("build_info", process=str(pid)) and found)
        assert found.value("created_total", process=str(pid)) == 1
    assert scrape().processes == [os.getpid()]


def test_what_a_process_lost_at_its_end_is_told_of_once_it_is_gone(engine, dynamodb):
    engine.configure(NEW_SESSION_DELAY=900, SHUTDOWN_TIMEOUT=0.5)
    with start_workers(engine.settings, 1) as [worker]:
        worker.do("open", {"cart": 1})
        dynamodb.freeze()
        pid = worker._process.pid
    assert scrape().value("lost_writes_total", process=str(pid)) == 1
    assert [member.pid for member in engine.runtime.fleet.members()] == [os.getpid()]


def test_the_own_process_is_told_of_as_it_is_now(this):
    this.fleet.tell(0)
    this.reporter.report()
    this.metrics.count("saves", 3)
    found = scrape()
    assert found.processes == [this.pid]
    assert found.value("saves_total") == 3


def test_what_one_process_has_told_of_itself_another_tells_too(this):
    """Less would be a counter that began anew, to Prometheus, which would add all of it."""
    this.fleet.tell(0)
    this.reporter.report()
    this.metrics.count("saves", 3)
    assert scrape().value("saves_total") == 3
    [seen] = runtime.build(runtime.config()).fleet.snapshots()
    assert seen.counters["saves"] == 3


def test_no_counter_of_a_worker_ever_falls_whichever_worker_answers(serve, shop):
    folder = Path(shop["PYTHONPATH"].split(os.pathsep)[0])
    (folder / "scraped.py").write_text(SCRAPED)
    web = serve(application="scraped:application", workers=3)
    told = Counter()

    def tell_of_all():
        requests.get(f"{web.url}/status.json", cookies={"sessionid": "a" * 32}, timeout=5)
        found = Scrape(requests.get(f"{web.url}/metrics", timeout=5).text)
        for sample in found.find("forged_keys_total"):
            assert sample.value >= told[sample.labels["process"]]
            told[sample.labels["process"]] = sample.value
        return len(found.processes) == 3

    until(tell_of_all)
    for _ in range(50):
        assert tell_of_all()
    assert any(told.values())


def test_processes_of_other_machines_are_told_of_for_the_whole_site_only(this, publish):
    publish(host="web-2")
    assert scrape("host").processes == [this.pid]
    assert scrape("site").processes == sorted([this.pid, OTHER_PID])
    assert scrape("site").value("saves_total", host="web-2") == 7


def test_the_scope_of_one_process_asks_nobody(this, publish, memcached):
    publish()
    before = memcached.commands()
    assert scrape("process").processes == [this.pid]
    assert memcached.commands() - before == {}


def test_a_process_that_is_gone_is_left_out(this, publish):
    at = time.time()
    publish(pid=1, at=at - 31)
    publish(pid=2, at=at - 25)
    for scope in ("host", "site"):
        assert scrape(scope).processes == sorted([2, this.pid])


def test_a_pid_that_was_taken_again_is_told_of_once(this, publish):
    """Prometheus drops one of two series with the same labels, and says so in its log."""
    at = time.time()
    publish(pid=1, at=at - 5, counters={"saves": 1})
    publish(pid=1, at=at - 20, counters={"saves": 100})
    publish(pid=2, at=at - 20, counters={"saves": 100})
    publish(pid=2, at=at - 5, counters={"saves": 2})
    publish(pid=this.pid, counters={"saves": 100})
    found = scrape()
    assert found.processes == sorted([1, 2, this.pid])
    assert found.value("saves_total", process="1") == 1
    assert found.value("saves_total", process="2") == 2
    assert found.value("saves_total", process=str(this.pid)) == 0


def test_what_only_a_newer_release_counts_is_left_out(this, publish):
    publish(counters={"saves": 2, "moods": 3}, version="99.0")
    found = scrape()
    assert found.value("saves_total", process=str(OTHER_PID)) == 2
    assert {family_of(metric).name for metric in METRICS} == {
        family.name for family in found.families
    }


def test_while_the_hot_tier_is_down_the_own_process_is_told_of(this, publish, memcached):
    publish()
    memcached.freeze()
    found = scrape()
    assert found.processes == [this.pid]
    assert found.value("tier_up", tier="hot") == 0


def test_a_scope_that_there_is_not_is_refused_at_once():
    with pytest.raises(ValueError, match="'machine'"):
        FailoverCollector("machine")


# --- The conventions ----------------------------------------------------------------------------


def test_to_register_starts_and_asks_nothing(this, monkeypatch):
    monkeypatch.setattr(runtime, "current", None)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(FailoverCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(FailoverCollector())


def test_openmetrics_is_well_formed_too(this, publish):
    publish()
    this.metrics.failed("hot", "TimeoutError")
    this.metrics.took("hot read", 0.001)
    registry = CollectorRegistry()
    registry.register(FailoverCollector())
    text = openmetrics.generate_latest(registry).decode()
    found = Scrape(text, openmetrics_parser.text_string_to_metric_families)
    assert found.processes == sorted([this.pid, OTHER_PID])
    units = {family.name: family.unit for family in found.families if family.unit}
    assert units == dict.fromkeys(units, "seconds")
    assert len(units) == len([metric for metric in METRICS if metric.unit == "s"])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_wants_it(metric):
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert not re.search(r"_(total|count|sum|bucket|created|seconds|minutes)\b", metric.name)
    assert re.fullmatch(r"[A-Z][^.]*\.", metric.help)
    assert not set(metric.labels) & {*LABELS, "le"}


def test_no_metric_is_there_twice():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
