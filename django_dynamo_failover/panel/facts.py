"""What the panel knows: asked of each tier, of the other processes and of the other sites."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django_dynamo_failover import runtime
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_health import Clock, TableView, view
from django_dynamo_failover.dynamo_sites import Site, read_heartbeats, read_sites
from django_dynamo_failover.exceptions import (
    ColdUnavailable,
    HotUnavailable,
    Unreadable,
)
from django_dynamo_failover.fleet import Fleet, Member
from django_dynamo_failover.health import Finding
from django_dynamo_failover.health.configuration import system_checks
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.reasons import explain
from django_dynamo_failover.snapshot import Snapshot

from .asking import Question

#: A page waits so long for answers; what is known later is on the next one. In seconds.
PATIENCE_SECONDS = 0.6
#: One that has waited in vain for the session of its user has little time left.
SHORT_PATIENCE_SECONDS = 0.2

#: One call to DynamoDB takes no longer: a region that is frozen holds a thread.
_CALL_SECONDS = 2.5

#: The id of no session.
_NOBODY = "0" * 64
_NOTE = "session-panel"


@dataclass(frozen=True, slots=True)
class Reached:
    """How a server or region has answered: after so many seconds, or ``error`` says why not."""

    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """A table as its region describes it; ``error`` is why that is not known."""

    table: TableView | None = None
    ahead: float | None = None
    error: ColdUnavailable | None = None


@dataclass(frozen=True, slots=True)
class Fleets:
    """The processes of this site. ``complete``: every server of the cache has told of them.

    ``ended`` are the last snapshots of those that ended within an hour.
    """

    members: tuple[Member, ...]
    snapshots: tuple[Snapshot, ...]
    complete: bool
    ended: tuple[Snapshot, ...] = ()


@dataclass(frozen=True, slots=True)
class Sites:
    """The sites that share the table, as they were last heard of. ``error``: why that is unknown.

    Those of ``silent`` have noted themselves, and leave no heartbeat.
    """

    heard: tuple[Site, ...] = ()
    silent: tuple[Site, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, at one moment (epoch seconds). None where no answer has come in time.

    Args:
        own: the process that serves the page.
        servers: of the hot tier, in the order of LOCATION.
        regions: nearest first.
    """

    at: float
    run: runtime.Runtime
    own: Snapshot
    settings: tuple[Finding, ...]
    servers: Mapping[str, Reached | None]
    regions: Mapping[str, Reached | None]
    described: Mapping[str, Description | None]
    fleet: Fleets | None
    sites: Sites | None


class Lookout:
    """Asks for the facts, for all viewers of one process."""

    def __init__(self, run: runtime.Runtime) -> None:
        self._run = run
        tables = run.cold.tables
        notes = run.hot.note_on_each_server(_NOTE)
        self._settings = Question("settings", lambda: tuple(system_checks()), fresh=60, kept=600)
        self._servers = {
            _server(number, len(notes)): Question(
                f"hot {number}", partial(_reach_server, run.hot, note), fresh=1, kept=3
            )
            for number, note in enumerate(notes, 1)
        }
        self._regions = {
            table.name: Question(table.name, partial(_reach_region, table), fresh=1, kept=3)
            for table in tables
        }
        self._described = {
            table.name: Question(
                f"{table.name}: table", partial(_describe, table), fresh=30, kept=600
            )
            for table in tables
        }
        self._fleet = Question("processes", partial(_hear, run.fleet), fresh=1, kept=3)
        self._sites = Question("sites", partial(_look_for_sites, run), fresh=10, kept=30)
        self._questions: list[Question[Any]] = [
            *self._servers.values(),
            *self._regions.values(),
            *self._described.values(),
            self._settings,
            self._fleet,
            self._sites,
        ]

    def look(self, patience: float) -> Facts:
        """Return what is known ``patience`` seconds from now at the latest."""
        until = time.monotonic() + patience
        for question in self._questions:
            question.begin()
        return Facts(
            at=time.time(),
            run=self._run,
            own=self._run.reporter.snapshot(),
            settings=self._settings.answer(until) or (),
            servers={name: asked.answer(until) for name, asked in self._servers.items()},
            regions={name: asked.answer(until) for name, asked in self._regions.items()},
            described={name: asked.answer(until) for name, asked in self._described.items()},
            fleet=self._fleet.answer(until),
            sites=self._sites.answer(until),
        )


_lookout: tuple[runtime.Runtime, Lookout] | None = None


def look(patience: float = PATIENCE_SECONDS) -> Facts:
    """Return what is known of the site of this process, ``patience`` seconds from now at most.

    Raises ``ImproperlyConfigured``.
    """
    global _lookout
    run = runtime.current()
    if _lookout is None or _lookout[0] is not run:
        _lookout = run, Lookout(run)
    return _lookout[1].look(patience)


def _server(number: int, of: int) -> str:
    return "hot tier" if of == 1 else f"hot tier, server {number} of {of}"


def _reach_server(hot: HotTier, note: str) -> Reached:
    began = time.perf_counter()
    try:
        hot.read_note(note)
    except HotUnavailable as error:
        return Reached(error=str(error))
    return Reached(time.perf_counter() - began)


def _reach_region(table: DynamoTable) -> Reached:
    began = time.perf_counter()
    try:
        table.read(_NOBODY, time.monotonic() + _CALL_SECONDS)
    except (ColdUnavailable, Unreadable) as error:
        return Reached(error=explain(error))
    return Reached(time.perf_counter() - began)


def _describe(table: DynamoTable) -> Description:
    clock = Clock()
    try:
        seen = view(table, clock, time.monotonic() + _CALL_SECONDS)
    except ColdUnavailable as error:
        return Description(ahead=clock.ahead, error=error)
    return Description(seen, clock.ahead)


def _hear(fleet: Fleet) -> Fleets:
    with contextlib.suppress(HotUnavailable):
        fleet.look()  # what another process was told to do a moment ago
    members, snapshots = tuple(fleet.members()), tuple(fleet.snapshots())
    return Fleets(members, snapshots, fleet.sees_all, tuple(fleet.ended()))


def _look_for_sites(run: runtime.Runtime) -> Sites:
    """Ask the nearest region that is thought to answer."""
    up = run.cold.up
    error = "no region of DynamoDB answers"
    for table in run.cold.tables:
        if not up[table.name]:
            continue
        until = time.monotonic() + _CALL_SECONDS
        try:
            noted = read_sites(table, until)
            heard = read_heartbeats(table, [site.label for site in noted], until)
        except (ColdUnavailable, Unreadable) as failure:
            error = explain(failure)
            continue
        labels = {site.label for site in heard}
        return Sites(tuple(heard), tuple(site for site in noted if site.label not in labels))
    return Sites(error=error)
