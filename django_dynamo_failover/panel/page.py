"""The page as the template shows it: rows and words, made of facts and numbers."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from django_dynamo_failover.dynamo_sites import Site
from django_dynamo_failover.health import Report
from django_dynamo_failover.health.sites import agree
from django_dynamo_failover.heartbeat import KEPT_SECONDS
from django_dynamo_failover.histogram import added, quantile
from django_dynamo_failover.history import Minute

from .charts import HEIGHT, WIDTH, charts, marks
from .facts import Facts, Reached
from .numbers import Numbers, Process, add_up
from .verdict import SILENT_SECONDS, judge
from .words import NOTHING, dollars, duration, latency, size, some

VERDICTS = {"ready": "Failover ready", "degraded": "Degraded", "not ready": "Not ready"}

_SUMMARIES = {
    "ready": "A failover right now logs nobody out.",
    "degraded": "A failover right now logs nobody out, but something needs you.",
    "not ready": "A failover right now logs users out, or they are not served.",
}

#: What the last hour is told by: counters, and what to call them.
_SESSIONS = {
    "hot_hits": "Page hits served by the hot tier",
    "restored": "Restored from DynamoDB",
    "ended": "Found ended in DynamoDB",
    "deleted": "Logged out",
    "forged_keys": "Made-up cookies refused",
    "merged": "Saves merged with concurrent ones",
    "conflicts": "Changed by two sites",
    "oversize": "Too large for a tier",
    "trusted": "Served past their lease, as DynamoDB did not answer",
    "unavailable": "Answered without a session, as no tier answered",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A tier, or a region: what its columns say. ``well`` is whether it answers."""

    name: str
    well: bool
    state: str
    now: str
    p50: str
    p99: str
    breaker: str
    errors: Sequence[str]
    table: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site that shares the table."""

    label: str
    own: bool
    heard: str
    stale: bool
    key: str


def page(facts: Facts, *, session_lost: bool) -> dict[str, Any]:
    """Return the context of the sections. For ``session_lost`` see ``judge``."""
    numbers = add_up(facts)
    report, advice = judge(facts, numbers, session_lost=session_lost)
    problems = [finding for finding in report.findings if finding.level in ("error", "warning")]
    unknown = [finding for finding in report.findings if finding.level == "unknown"]
    return {
        "session_lost": session_lost,
        "at": _time(facts.at),
        "verdict": report.verdict,
        "headline": VERDICTS[report.verdict],
        "summary": _SUMMARIES[report.verdict],
        "problems": problems,
        "asides": [("advice", "Worth doing", advice), ("unknown", "Not known", unknown)],
        "draining": facts.run.fleet.draining,
        "drained": sum(process.drained for process in numbers.processes),
        "interval": duration(facts.run.config.write_interval),
        "numbers": numbers,
        "alive": sum(not process.stale for process in numbers.processes),
        "oldest": duration(numbers.oldest) if numbers.oldest else NOTHING,
        "tiers": [*_servers(facts, numbers), *_regions(facts, numbers)],
        "sessions": [(text, f"{numbers.hour.get(n, 0):,}") for n, text in _SESSIONS.items()],
        "cost": numbers.cost
        and {
            "ours": dollars(numbers.cost.ours),
            "every_hit": dollars(numbers.cost.every_hit),
        },
        "charts": charts(numbers.minutes),
        "chart_size": (WIDTH, HEIGHT),
        "marks": [(mark.x, _time(mark.at), mark.text) for mark in marks(numbers)],
        "minutes": [_minute(minute) for minute in reversed(numbers.minutes)],
        "processes": [_process(process, facts.at) for process in numbers.processes],
        "sites": _sites(facts),
    }


def wrong(message: str) -> dict[str, Any]:
    """Return the context of the sections where the settings are wrong."""
    return {
        "at": _time(time.time()),
        "headline": VERDICTS["not ready"],
        "misconfigured": message,
    }


def summary(report: Report) -> str:
    """Return a verdict with what it rests upon: "Degraded: 1 warning"."""
    parts = [
        some(number, level) for level in ("error", "warning") if (number := report.count(level))
    ]
    return ": ".join([VERDICTS[report.verdict], *([", ".join(parts)] if parts else [])])


def _servers(facts: Facts, numbers: Numbers) -> list[Row]:
    if len(facts.servers) == 1:
        return [_row(name, "hot", reached, numbers) for name, reached in facts.servers.items()]
    # The processes tell of the whole tier: its servers have nothing but an answer of now.
    up = sum(reached is not None and not reached.error for reached in facts.servers.values())
    whole = Reached(error=f"{up} of {len(facts.servers)} answer")
    if up == len(facts.servers):
        whole = Reached(statistics.median(r.seconds for r in facts.servers.values() if r))
    nothing = replace(numbers, calls={}, errors={}, processes=())
    return [
        _row("hot tier", "hot", whole, numbers),
        *(_row(name, "", reached, nothing) for name, reached in facts.servers.items()),
    ]


def _regions(facts: Facts, numbers: Numbers) -> list[Row]:
    rows = []
    for name, reached in facts.regions.items():
        known = facts.described[name]
        table = known.table if known is not None else None
        columns = []
        if table is not None:
            columns = [
                ("TTL", _on(table.ttl)),
                ("Point-in-time recovery", _on(table.recovery)),
                ("Replicas", ", ".join(table.replicas or ()) or NOTHING),
                ("Items", f"{table.items:,}" if table.items is not None else NOTHING),
                ("Size", size(table.bytes) if table.bytes is not None else NOTHING),
            ]
        rows.append(_row(name, name, reached, numbers, columns))
    return rows


def _row(
    name: str,
    tier: str,
    reached: Reached | None,
    numbers: Numbers,
    table: Sequence[tuple[str, str]] = (),
) -> Row:
    calls = added(h for call, h in numbers.calls.items() if call.startswith(f"{tier} "))
    alive = [process.snapshot for process in numbers.processes if not process.stale]
    open_at = sum(not snapshot.up.get(tier, True) for snapshot in alive)
    errors = {
        name.removeprefix(f"{tier} "): number
        for name, number in numbers.errors.items()
        if name.startswith(f"{tier} ")
    }
    state = "no answer in time" if reached is None else reached.error or "answers"
    well = reached is not None and not reached.error
    return Row(
        name=name[:1].upper() + name[1:] if name.startswith("hot tier") else name,
        well=well,
        state=state,
        now=latency(reached.seconds) if reached is not None and well else NOTHING,
        p50=latency(quantile(calls, 0.5)),
        p99=latency(quantile(calls, 0.99)),
        breaker=_breaker(open_at, len(alive)),
        errors=[f"{error} {number:,}" for error, number in sorted(errors.items())]
        or ["none" if alive else NOTHING],
        table=table,
    )


def _breaker(open_at: int, processes: int) -> str:
    if not processes:
        return NOTHING
    return f"open in {open_at} of {processes}" if open_at else "closed"


def _process(process: Process, now: float) -> dict[str, Any]:
    snapshot = process.snapshot
    return {
        "host": snapshot.host,
        "pid": snapshot.pid,
        "site": snapshot.site or NOTHING,
        "version": snapshot.version or NOTHING,
        "up": duration(now - snapshot.started),
        "hits": f"{snapshot.counters.get('hot_hits', 0):,}",
        "pending": f"{process.pending:,}",
        "oldest": duration(process.oldest) if process.oldest else NOTHING,
        "heard": "this one" if process.own else f"{duration(process.heard)} ago",
        "stale": process.stale,
        "drained": process.drained,
    }


def _sites(facts: Facts) -> list[SiteRow] | None:
    """Return the sites, None where they cannot be asked about."""
    if facts.sites is None or facts.sites.error:
        return None
    rows = [_site(site, facts, beats=True) for site in facts.sites.heard]
    rows += [_site(site, facts, beats=False) for site in facts.sites.silent]
    return sorted((row for row in rows if row is not None), key=lambda row: row.label)


def _site(site: Site, facts: Facts, *, beats: bool) -> SiteRow | None:
    ago = max(0.0, facts.at - site.seen)
    if ago > KEPT_SECONDS:
        return None
    same = agree(site.fingerprints, facts.run.keyring.fingerprints)
    return SiteRow(
        label=site.label,
        own=site.label == facts.run.config.site,
        heard=f"{duration(ago)} ago" + ("" if beats else ", at a health check"),
        stale=ago > SILENT_SECONDS,
        key="the same" if same else "another one",
    )


def _minute(minute: Minute) -> tuple[str, ...]:
    counts = minute.counts
    errors = sum(counts.get(name, 0) for name in ("hot_errors", "cold_errors", "cold_throttled"))
    return (
        _time(minute.at * 60.0)[:5],
        f"{counts.get('hot_hits', 0):,}",
        f"{counts.get('restored', 0):,}",
        *(
            latency(quantile(histogram, 0.99)) if histogram else NOTHING
            for histogram in (minute.hot, minute.cold)
        ),
        f"{errors:,}",
    )


def _on(value: bool | None) -> str:
    return "unknown" if value is None else "on" if value else "off"


def _time(at: float) -> str:
    return timezone.localtime(datetime.fromtimestamp(at, UTC)).strftime("%H:%M:%S")
