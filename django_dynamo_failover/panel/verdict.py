"""Whether a failover right now would log anyone out, and if so why: from what is known."""

from collections.abc import Iterator
from dataclasses import replace

from django_dynamo_failover.dynamo_sites import Site
from django_dynamo_failover.health import Finding, Report
from django_dynamo_failover.health.region import clock_of, described, no_table
from django_dynamo_failover.health.sites import agree, compared, named, ourselves, shown
from django_dynamo_failover.heartbeat import KEPT_SECONDS

from .facts import Description, Facts, Reached
from .numbers import Numbers
from .words import duration, some

#: A site tells of itself every minute.
SILENT_SECONDS = 180.0
#: One that is silent for longer is no news any more.
_GONE_SECONDS = 86_400.0

#: Of findings, the worst first.
LEVELS = ("error", "warning", "unknown", "ok")

#: Warnings of a health check that a failover does not depend upon.
_ADVICE = ("region.ttl", "region.recovery", "sites.label")


def judge(
    facts: Facts, numbers: Numbers, *, session_lost: bool = False
) -> tuple[Report, list[Finding]]:
    """Return what is found, the worst first; and what else is worth doing.

    ``session_lost``: no tier could answer for the session of whoever looks.

    An error is what would log users out in a failover, or does not serve them now. A tier that is
    down is a warning: that is what the other one is for.
    """
    found = [_weighed(finding) for finding in facts.settings]
    if not facts.regions:
        found.append(_no_regions())
    found += _served(facts, session_lost=session_lost)
    found += _reachable(facts, numbers)
    for region, description in facts.described.items():
        found += _table(region, description, list(facts.regions))
    found += _processes(facts)
    found += _sessions(facts, numbers)
    found += _sites(facts)
    advice = [finding for finding in found if finding.id in _ADVICE and finding.level == "warning"]
    found = [finding for finding in found if finding not in advice]
    found.sort(key=lambda finding: LEVELS.index(finding.level))
    return Report(tuple(found), any(map(_answers, facts.regions.values())), 0.0), advice


def _weighed(finding: Finding) -> Finding:
    # What becomes of sessions that are elsewhere is not known here.
    return replace(finding, level="error") if finding.subject == "SESSION_ENGINE" else finding


def _no_regions() -> Finding:
    message = "REGIONS is empty: there is nothing to fail over to"
    remedy = 'Set DYNAMO_FAILOVER["REGIONS"] to a list of AWS regions, the nearest first.'
    return Finding("settings", "error", "settings", message, remedy)


def _served(facts: Facts, *, session_lost: bool) -> Iterator[Finding]:
    hot_up = [*map(_answers, facts.servers.values())]
    if not session_lost and (all(hot_up) or any(map(_answers, facts.regions.values()))):
        return
    some_of_them = " for some of them" if any(hot_up) else ""
    yield Finding(
        "sessions.served",
        "error",
        "sessions",
        f"neither tier answers{some_of_them}: users get a 503, and are logged in again once one of"
        " the two does",
        "Look at the network of this machine, then after the hot tier.",
    )


def _reachable(facts: Facts, numbers: Numbers) -> Iterator[Finding]:
    hot_down = [name for name, reached in facts.servers.items() if not _answers(reached)]
    cold_down = [name for name, reached in facts.regions.items() if not _answers(reached)]
    all_cold_down = len(cold_down) == len(facts.regions)
    for name in hot_down:
        message = f"does not answer ({_reason(facts.servers[name])})"
        remedy = (
            "Look after the cache that SESSION_CACHE_ALIAS names; its servers are counted in the"
            " order of LOCATION."
        )
        if not all_cold_down:
            message += ": its sessions come from DynamoDB"
            remedy += " Nobody is logged out meanwhile."
        yield Finding("hot.reachable", "warning", name, message, remedy)
    for name in cold_down:
        message = _reason(facts.regions[name])
        if all_cold_down:
            message += (
                ": logins get a 503, and what this site has changed since would be missing after"
                f" a failover: {some(numbers.pending, 'change')} so far"
            )
        else:
            message += ": other regions are asked instead"
        yield Finding(
            "region.reachable",
            "warning",
            name,
            message,
            "Look at the network, and at what AWS says of itself.",
        )


def _table(region: str, known: Description | None, regions: list[str]) -> Iterator[Finding]:
    if known is None:
        return  # that it does not answer is said
    if known.table is not None:
        yield from described(region, known.table, regions)
    elif known.error is not None:
        yield from (f for f in no_table(region, known.error) if f.id == "region.table")
    yield from clock_of(region, known.ahead)


def _processes(facts: Facts) -> Iterator[Finding]:
    if facts.fleet is None or not facts.fleet.complete:
        yield Finding(
            "processes.heard",
            "unknown",
            "processes",
            "cannot all be heard of while a server of the hot tier does not answer",
        )
    elif not facts.fleet.members and facts.regions:
        yield Finding(
            "processes.heard",
            "warning",
            "processes",
            "none tells of itself in the hot tier",
            "Look whether they use the cache that SESSION_CACHE_ALIAS names, and keep what is"
            " stored there.",
        )


def _sessions(facts: Facts, numbers: Numbers) -> Iterator[Finding]:
    if numbers.oldest > facts.run.config.late_after:
        yield Finding(
            "sessions.backlog",
            "warning",
            "sessions",
            f"the oldest of {some(numbers.pending, 'change')} waits for DynamoDB since"
            f" {duration(numbers.oldest)}, which is longer than WRITE_INTERVAL",
            "Look whether DynamoDB answers and has capacity. A failover would lose these changes.",
        )
    if oversize := numbers.hour.get("oversize", 0):
        yield Finding(
            "sessions.oversize",
            "warning",
            "sessions",
            f"{some(oversize, 'save')} of sessions too large for a tier in the last hour",
            "Store less in them: what DynamoDB does not hold is lost in a failover. The log names"
            " them; see OVERSIZE.",
        )
    if lost := numbers.hour.get("lost_writes", 0):
        yield Finding(
            "sessions.lost",
            "warning",
            "sessions",
            f"{some(lost, 'change')} of ended processes did not reach DynamoDB in the last hour",
            "They are in the hot tier only. Does DynamoDB answer, and within SHUTDOWN_TIMEOUT?",
        )


def _sites(facts: Facts) -> Iterator[Finding]:
    own = facts.run.config.site
    yield named(own)
    if facts.sites is None:
        return
    if facts.sites.error:
        message = f"cannot be asked about: {facts.sites.error}"
        yield Finding("sites.heard", "unknown", "other sites", message)
        return
    fingerprints = facts.run.keyring.fingerprints
    for site in (*facts.sites.heard, *facts.sites.silent):
        if site.label != own and facts.at - site.seen <= KEPT_SECONDS:
            yield compared(site, fingerprints)
    for site in facts.sites.heard:
        ago = facts.at - site.seen
        if site.label != own:
            yield from _heard(site, ago)
        elif ago <= SILENT_SECONDS and not agree(site.fingerprints, fingerprints):
            yield ourselves(site)


def _heard(site: Site, ago: float) -> Iterator[Finding]:
    # Not of one that has left no heartbeat at all: it may have no background threads.
    if SILENT_SECONDS < ago < _GONE_SECONDS:
        yield Finding(
            "sites.heard",
            "warning",
            f"site {shown(site.label)}",
            f"was last heard of {duration(ago)} ago",
            "Look whether it is up, whether DynamoDB answers there, and how far its table lags"
            " behind.",
        )


def _answers(reached: Reached | None) -> bool:
    return reached is not None and not reached.error


def _reason(reached: Reached | None) -> str:
    return reached.error if reached is not None else "no answer in time"
