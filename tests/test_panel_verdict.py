"""The verdict: whether a failover right now would log anyone out, and if so why."""

from dataclasses import replace

import pytest

from django_dynamo_failover.dynamo_sites import Site
from django_dynamo_failover.exceptions import ColdMisconfigured, ColdUnavailable
from django_dynamo_failover.health import Finding
from django_dynamo_failover.history import Minute
from django_dynamo_failover.panel.facts import Description, Fleets, Reached, Sites
from django_dynamo_failover.panel.numbers import add_up
from django_dynamo_failover.panel.verdict import judge

from .panels import facts, snapshot, table
from .sites import KEYRING

NOW = 1_800_000_000.0
DOWN = Reached(error="TimeoutError")


def verdict(**fields):
    """Return the verdict on a site that is well but for these fields, and what is wrong there."""
    known = facts(at=NOW, **fields)
    report, _ = judge(known, add_up(known))
    wrong = [(f.id, f.level) for f in report.findings if f.level in ("error", "warning")]
    return report.verdict, wrong


def message(id, **fields):
    known = facts(at=NOW, **fields)
    report, _ = judge(known, add_up(known))
    return next(f"{f.subject}: {f.message}. {f.remedy}" for f in report.findings if f.id == id)


def own(**fields):
    return snapshot(at=NOW, **fields)


def test_a_site_that_is_well_is_ready():
    assert verdict() == ("ready", [])


@pytest.mark.parametrize("reached", [DOWN, None], ids=["refuses", "says nothing"])
def test_a_hot_tier_that_is_down_degrades(reached):
    fields = {"servers": {"hot tier": reached}, "fleet": None}
    assert verdict(**fields) == ("degraded", [("hot.reachable", "warning")])


@pytest.mark.parametrize("reached", [DOWN, None], ids=["refuses", "says nothing"])
def test_dynamodb_that_is_down_degrades(reached):
    fields = {"regions": {"us-east-1": reached}, "sites": Sites(error="down")}
    assert verdict(**fields) == ("degraded", [("region.reachable", "warning")])
    said = message("region.reachable", own=own(pending=3, oldest=NOW - 5), **fields)
    assert "logins get a 503" in said
    assert "3 changes so far" in said


def test_one_region_of_two_that_is_down_degrades():
    regions = {"us-east-1": DOWN, "us-west-2": Reached(0.08)}
    replicas = {
        name: Description(table(replicas=dict.fromkeys(regions, "ACTIVE"))) for name in regions
    }
    assert verdict(regions=regions, described=replicas) == (
        "degraded",
        [("region.reachable", "warning")],
    )
    assert "other regions are asked" in message("region.reachable", regions=regions)


def test_without_any_tier_a_site_is_not_ready():
    found, wrong = verdict(servers={"hot tier": DOWN}, regions={"us-east-1": DOWN}, fleet=None)
    assert found == "not ready"
    assert wrong[0] == ("sessions.served", "error")  # the worst first


def test_whoever_looks_without_a_session_proves_the_same():
    known = facts(at=NOW)
    report, _ = judge(known, add_up(known), session_lost=True)
    assert report.verdict == "not ready"


def test_one_server_of_the_hot_tier_is_not_all_of_it():
    servers = {"hot tier, server 1 of 2": DOWN, "hot tier, server 2 of 2": Reached(0.001)}
    assert verdict(servers=servers) == ("degraded", [("hot.reachable", "warning")])


def test_whose_server_is_down_is_not_served_without_dynamodb():
    servers = {"hot tier, server 1 of 2": DOWN, "hot tier, server 2 of 2": Reached(0.001)}
    fields = {"servers": servers, "regions": {"us-east-1": DOWN}}
    found, wrong = verdict(**fields)
    assert (found, wrong[0]) == ("not ready", ("sessions.served", "error"))
    assert "for some of them" in message("sessions.served", **fields)


def test_a_site_without_regions_is_not_ready():
    fields = {"regions": {}, "described": {}, "sites": None}
    assert verdict(**fields) == ("not ready", [("settings", "error")])


def test_what_the_system_checks_find_counts():
    wrong = Finding("settings", "warning", "W003", "is so", "do this")
    assert verdict(settings=(wrong,)) == ("degraded", [("settings", "warning")])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "DELETING"}, ("not ready", [("region.table", "error")])),
        ({"unfit": "it has another key. Make one."}, ("not ready", [("region.key", "error")])),
        ({"status": None, "unfit": None, "replicas": None}, ("ready", [])),
    ],
)
def test_a_table_that_holds_no_sessions_is_not_ready(changes, expected):
    assert verdict(described={"us-east-1": Description(table(**changes))}) == expected


def test_a_table_that_is_not_there():
    missing = ColdMisconfigured("DescribeTable: ResourceNotFoundException")
    assert verdict(described={"us-east-1": Description(error=missing)}) == (
        "not ready",
        [("region.table", "error")],
    )


def test_a_description_that_did_not_come_is_no_finding_of_its_own():
    late = ColdUnavailable("DescribeTable: ReadTimeoutError")
    assert verdict(described={"us-east-1": Description(error=late)}) == ("ready", [])
    assert verdict(described={"us-east-1": None}) == ("ready", [])


def test_regions_that_do_not_replicate_degrade():
    both = {"us-east-1": Reached(0.01), "us-west-2": Reached(0.08)}
    described = {name: Description(table()) for name in both}
    assert verdict(regions=both, described=described) == (
        "degraded",
        [("region.replicas", "warning")] * 2,
    )


def test_a_clock_that_is_wrong():
    assert verdict(described={"us-east-1": Description(table(), ahead=-90.0)}) == (
        "not ready",
        [("region.clock", "error")],
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"described": {"us-east-1": Description(table(ttl=False))}},
        {"described": {"us-east-1": Description(table(recovery=False))}},
        {"config": {"site": None}},
    ],
    ids=["TTL", "recovery", "no name"],
)
def test_what_a_failover_does_not_depend_on_is_only_advice(fields):
    if "config" in fields:
        known = facts(at=NOW)
        known.run.config = replace(known.run.config, **fields["config"])
    else:
        known = facts(at=NOW, **fields)
    report, advice = judge(known, add_up(known))
    assert report.verdict == "ready"
    assert len(advice) == 1
    assert advice[0] not in report.findings


def test_processes_that_cannot_be_heard_are_unknown():
    known = facts(at=NOW, fleet=Fleets((), (), complete=False))
    report, _ = judge(known, add_up(known))
    assert report.verdict == "ready"
    assert [f.level for f in report.findings if f.id == "processes.heard"] == ["unknown"]


def test_a_hot_tier_in_which_no_process_tells_of_itself_degrades():
    fleet = Fleets((), (), complete=True)
    assert verdict(fleet=fleet) == ("degraded", [("processes.heard", "warning")])


@pytest.mark.parametrize(("age", "late"), [(900, False), (955, False), (965, True)])
def test_a_change_that_waits_too_long_degrades(age, late):
    found, _ = verdict(own=own(pending=1, oldest=NOW - age))
    assert (found == "degraded") is late


@pytest.mark.parametrize(
    ("counter", "id"), [("oversize", "sessions.oversize"), ("lost_writes", "sessions.lost")]
)
def test_what_only_the_hot_tier_has_degrades(counter, id):
    minutes = (Minute(int(NOW // 60) - 30, {counter: 2}, [], []),)
    assert verdict(own=own(minutes=minutes)) == ("degraded", [(id, "warning")])
    minutes = (Minute(int(NOW // 60) - 61, {counter: 2}, [], []),)
    assert verdict(own=own(minutes=minutes)) == ("ready", [])


def other(ago=20.0, fingerprints=KEYRING.fingerprints):
    return Site("west", tuple(fingerprints), NOW - ago)


@pytest.mark.parametrize("kind", ["heard", "silent"])
def test_another_site_with_another_key_is_not_ready(kind):
    sites = Sites(**{kind: (other(fingerprints=["f00"]),)})
    assert verdict(sites=sites) == ("not ready", [("sites.secret-key", "error")])
    assert verdict(sites=Sites(**{kind: (other(),)})) == ("ready", [])


@pytest.mark.parametrize(
    ("ago", "expected"), [(179, "ready"), (200, "degraded"), (90_000, "ready")]
)
def test_another_site_that_falls_silent_degrades_for_a_day(ago, expected):
    assert verdict(sites=Sites((other(ago),)))[0] == expected


def test_another_site_that_is_forgotten_is_not_compared():
    gone = other(28 * 86_400 + 1, fingerprints=["f00"])
    assert verdict(sites=Sites(silent=(gone,))) == ("ready", [])


def test_a_site_that_leaves_no_heartbeat_has_not_fallen_silent():
    assert verdict(sites=Sites(silent=(other(9_000),))) == ("ready", [])


def test_two_sites_of_one_name_with_different_keys_are_not_ready():
    sites = Sites((Site("east", ("f00",), NOW - 50),))
    assert verdict(sites=sites) == ("not ready", [("sites.secret-key", "error")])


def test_what_this_site_left_before_its_key_was_changed_is_no_matter():
    sites = Sites((Site("east", ("f00",), NOW - 9_000),))
    assert verdict(sites=sites) == ("ready", [])


def test_sessions_that_are_elsewhere_are_not_judged():
    elsewhere = Finding("settings", "warning", "SESSION_ENGINE", "names another engine", "Set it.")
    assert verdict(settings=(elsewhere,)) == ("not ready", [("settings", "error")])


def test_sites_that_cannot_be_asked_about_are_unknown():
    assert verdict(sites=Sites(error="cannot be reached")) == ("ready", [])
    assert "cannot be reached" in message("sites.heard", sites=Sites(error="cannot be reached"))
