"""The dashboard, the alert rules and the page about metrics against what is exported."""

import itertools
import json
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from django.http import HttpResponse
from django.test import RequestFactory
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS

from django_dynamo_failover import conf, prometheus
from django_dynamo_failover.exported import METRICS
from django_dynamo_failover.histogram import new_histogram
from django_dynamo_failover.opentelemetry import INSTRUMENTS
from django_dynamo_failover.prometheus import LABELS, PREFIX
from django_dynamo_failover.snapshot import Snapshot

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "metrics.rst").read_text()
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
[GROUP] = yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
RULES = GROUP["rules"]

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])

# What else may stand in an expression.
FUNCTIONS = {"absent", "count", "histogram_quantile", "increase", "max", "min", "rate", "sum"}
FUNCTIONS |= {"time"}
WORDS = {"by", "offset"}


def exported():
    """The labels of each series, by its name."""
    snapshot = Snapshot(
        id="",
        host="web-1",
        pid=1,
        site="east",
        version="1",
        started=1,
        at=2,
        latencies={"hot read": new_histogram()},
        errors={"hot TimeoutError": 1},
        up={"hot": True},
    )
    found = {}
    for metric in METRICS:
        family = prometheus.family_of(metric)
        for labels, value in metric.samples(snapshot):
            prometheus._add(family, ("east", "web-1", "1", *labels), value)
        found |= {sample.name: set(sample.labels) for sample in family.samples}
    return found


EXPORTED = exported()


class Expression:
    """What a PromQL expression is made of, as far as it is used here."""

    def __init__(self, text):
        self.text = re.sub(r'"[^"]*"', '""', text)
        self.grouped = [
            set(re.findall(r"\w+", group)) for group in re.findall(r"by \(([^)]*)\)", self.text)
        ]
        bare = re.sub(r"by \([^)]*\)|\[[^]]*\]|offset \w+", " ", self.text)
        #: The labels that are matched, by the name of the series.
        self.matched = {}
        for name, matchers in re.findall(r"(\w+)\s*\{([^}]*)\}", bare):
            labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
            self.matched.setdefault(name, set()).update(labels)
        words = re.findall(r"(?<![\w.$])[a-zA-Z_]\w*", re.sub(r"\{[^}]*\}", " ", bare))
        self.series = set(words) - FUNCTIONS - WORDS

    @property
    def labels(self):
        """The labels that the result has: those of the outermost aggregation."""
        return self.grouped[0] if self.grouped else set()

    def check(self):
        """Fail if something in it is not exported."""
        assert self.series
        assert self.series <= EXPORTED.keys()
        for name, labels in self.matched.items():
            assert labels <= EXPORTED[name]
        for labels in self.grouped:
            assert all(labels <= EXPORTED[name] for name in self.series)
        assert self.text.count("(") == self.text.count(")")


def expressions_of(panel):
    return [(Expression(target["expr"]), target) for target in panel["targets"]]


# --- The dashboard ------------------------------------------------------------------------------


@each_panel
def test_a_panel_shows_what_is_exported(panel):
    for expression, target in expressions_of(panel):
        expression.check()
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= expression.labels


@each_panel
def test_a_panel_shows_the_chosen_sites_and_hosts_from_the_chosen_source(panel):
    for _, target in expressions_of(panel):
        series = target["expr"].count(PREFIX)
        assert target["expr"].count('site=~"$site",host=~"$host"') == series
        assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"


@each_panel
def test_counters_are_shown_as_rates_and_gauges_as_they_are(panel):
    for expression, target in expressions_of(panel):
        for name in expression.series:
            counts = name.endswith(("_total", "_bucket"))
            assert bool(re.search(rf"(rate|increase)\({name}\b", target["expr"])) == counts


def test_the_variables_of_the_dashboard_can_be_chosen():
    assert VARIABLES.keys() == {"datasource", "site", "host"}
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for name in ("site", "host"):
        query = VARIABLES[name]["query"]["query"]
        [(selector, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", query)
        expression = Expression(selector)
        expression.check()
        assert label == name
        assert all(label in EXPORTED[series] for series in expression.series)
        # A site without a name has an empty label, which "All" must not leave out.
        assert VARIABLES[name]["allValue"] == ".*"


def test_the_rows_are_there_in_the_order_of_what_matters():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Would a failover go well?",
        "Page hits and restores",
        "Latency",
        "Errors",
        "What DynamoDB lacks",
        "Sessions",
    ]


def test_no_two_panels_are_at_the_same_place():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for one, other in itertools.combinations(DASHBOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_every_counter_has_a_place_on_the_dashboard():
    shown = set().union(*(e.series for panel in PANELS for e, _ in expressions_of(panel)))
    counters = {name for name in EXPORTED if name.endswith("_total")}
    assert counters <= shown


# --- The alert rules ----------------------------------------------------------------------------


@each_rule
def test_a_rule_asks_for_what_is_exported(rule):
    Expression(rule["expr"]).check()


@each_rule
def test_a_rule_says_what_is_wrong_where_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    for text in rule["annotations"].values():
        assert text.endswith(".")
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= Expression(rule["expr"]).labels


@each_rule
def test_a_rule_about_a_counter_asks_how_much_it_grew(rule):
    for name in Expression(rule["expr"]).series:
        counts = name.endswith("_total")
        assert bool(re.search(rf"increase\({name}\b", rule["expr"])) == counts


def test_no_two_rules_have_the_same_name():
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))


def test_a_backup_is_late_a_minute_after_the_write_interval():
    [rule] = [rule for rule in RULES if rule["alert"] == "SessionBackupLate"]
    seconds = conf.Config().write_interval + 60
    assert rule["expr"].endswith(f"{PREFIX}oldest_pending_seconds) > {seconds}")
    [panel] = [panel for panel in PANELS if panel["title"].startswith("Age of the oldest change t")]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == seconds


@pytest.mark.parametrize(
    "text",
    [
        f"rate({PREFIX}no_such_total[5m])",
        f"sum by (region) ({PREFIX}tier_up)",
        f'{PREFIX}saves_total{{tier="hot"}}',
        f"{PREFIX}tier_call_duration_seconds",
        f"sum by (tier) ({PREFIX}tier_up",
        "saves_total",
        "1 > 0",
    ],
)
def test_the_reader_of_expressions_finds_what_is_wrong(text):
    with pytest.raises(AssertionError):
        Expression(text).check()


# --- The page -----------------------------------------------------------------------------------


def documented():
    """The labels and the help of each documented metric, by its name."""
    counters = re.findall(r"^``(\w+)`` +([A-Z].*)$", PAGE, re.MULTILINE)
    others = re.findall(r"^``(\w+)``(, of each .*)?\n    (.*)$", PAGE, re.MULTILINE)
    return {name: (set(), help) for name, help in counters} | {
        name: (set(re.findall(r"``(\w+)``", labels)), help) for name, labels, help in others
    }


def test_each_metric_is_documented_and_no_other():
    told = {}
    for metric in METRICS:
        family = prometheus.family_of(metric)
        name = f"{family.name}_total" if family.type == "counter" else family.name
        told[name.removeprefix(PREFIX)] = (set(metric.labels), metric.help)
    assert documented() == told


def test_each_label_is_documented():
    for label in {*LABELS, *(label for metric in METRICS for label in metric.labels)}:
        assert f"``{label}``" in PAGE


def test_each_instrument_that_prometheus_has_not_is_documented():
    for metric in set(INSTRUMENTS) - set(METRICS):
        assert f"``{metric.name}``" in PAGE


def snippet(first_line):
    """The example on the page that begins so, as it was run."""
    block = PAGE.partition(f"::\n\n    {first_line}\n")[2]
    lines = itertools.takewhile(lambda line: not line or line[0] == " ", block.splitlines())
    names = {}
    exec(f"{first_line}\n{textwrap.dedent(chr(10).join(lines))}", names)  # noqa: S102
    return names


def test_the_view_on_the_page_answers_a_scrape(engine):
    view = snippet("from django.http import HttpResponse")["metrics"]
    plain = view(RequestFactory().get("/metrics"))
    assert isinstance(plain, HttpResponse)
    assert plain["Content-Type"].startswith("text/plain")
    assert f"{PREFIX}saves_total{{" in plain.content.decode()
    rich = view(RequestFactory().get("/metrics", headers={"Accept": OPENMETRICS}))
    assert rich["Content-Type"].startswith("application/openmetrics-text")
    assert rich.content.endswith(b"# EOF\n")


def test_the_addresses_on_the_page_are_those_of_two_checks(engine):
    lenient, strict = snippet("from django.urls import path")["urlpatterns"]
    checks = [
        list(pattern.callback.view_class(**pattern.callback.view_initkwargs).get_checks())
        for pattern in (lenient, strict)
    ]
    assert [[check.strict for check in found] for found in checks] == [[False], [True]]


def test_the_set_up_of_opentelemetry_on_the_page_runs():
    assert snippet("from opentelemetry.metrics import get_meter")["instrument"]
