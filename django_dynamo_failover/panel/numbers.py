"""What the processes of a site tell, added up: processes, the last hour, the backlog, the cost."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django_dynamo_failover.fleet import SLOT_SECONDS, Member
from django_dynamo_failover.histogram import Histogram, added
from django_dynamo_failover.history import MINUTES, Event, Minute, together
from django_dynamo_failover.snapshot import Snapshot

from .facts import Facts

#: A process that has not been heard of for so long is stale. It tells of itself every 5 seconds.
STALE_SECONDS = 15.0

#: From a shorter time nothing is foretold.
_LEAST_SECONDS = 300.0
_MONTH_SECONDS = 730 * 3600

#: What a million requests of one unit cost on demand in us-east-1, in dollars (list, 2026).
WRITE_PRICE = 0.625
READ_PRICE = 0.125


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was last heard of, ``heard`` seconds ago; ``oldest`` is how long it has had
    a change that DynamoDB lacks."""

    snapshot: Snapshot
    pending: int
    logouts: int
    oldest: float
    heard: float
    drained: bool
    own: bool

    @property
    def stale(self) -> bool:
        """Whether it seems to be gone."""
        return self.heard > STALE_SECONDS


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars a month, by the last hour: of this engine, and of one that writes at each hit."""

    ours: float
    every_hit: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """All processes together.

    Args:
        minutes: the last hour, the present minute last, also of processes that have ended.
        hour: what was counted in it.
        events: what happened in it, as each process saw it.
        calls: histograms since the processes began: "hot read", "us-east-1 write".
        errors: by tier and class, since the processes began.
        oldest: how old the DynamoDB copy of a changed session is at most, in seconds.
        cost: None as long as there is too little to go by.
    """

    processes: tuple[Process, ...]
    minutes: tuple[Minute, ...]
    hour: Mapping[str, int]
    events: tuple[Event, ...]
    calls: Mapping[str, Histogram]
    errors: Mapping[str, int]
    pending: int
    logouts: int
    oldest: float
    cost: Cost | None

    @property
    def writes_saved(self) -> int:
        """How many saves of the last hour made no write to DynamoDB."""
        return max(0, self.hour.get("saves", 0) - self.hour.get("cold_writes", 0))


def add_up(facts: Facts) -> Numbers:
    """Return the numbers of all processes that are known, of one if no other is."""
    processes = _processes(facts)
    snapshots = [process.snapshot for process in processes]
    everyone = [*snapshots, *_ended(facts, snapshots)]
    minutes = _minutes(everyone, facts.at)
    hour: Counter[str] = Counter()
    for minute in minutes:
        hour.update(minute.counts)
    errors: Counter[str] = Counter()
    for snapshot in snapshots:
        errors.update(snapshot.errors)
    alive = [process for process in processes if not process.stale]
    return Numbers(
        processes=tuple(processes),
        minutes=minutes,
        hour=hour,
        events=tuple(event for snapshot in everyone for event in snapshot.events),
        calls=_calls(snapshots),
        errors=errors,
        pending=sum(process.pending for process in alive),
        logouts=sum(process.logouts for process in alive),
        oldest=max((process.oldest for process in alive), default=0.0),
        cost=_cost(facts, hour, min(snapshot.started for snapshot in everyone)),
    )


def _ended(facts: Facts, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Return the last snapshots of processes that are neither there nor missed."""
    known = {snapshot.id for snapshot in snapshots}
    ended = facts.fleet.ended if facts.fleet is not None else ()
    return [snapshot for snapshot in ended if snapshot.id not in known]


def _processes(facts: Facts) -> list[Process]:
    members: Mapping[str, Member] = {}
    snapshots = {}
    if facts.fleet is not None:
        members = {member.id: member for member in facts.fleet.members}
        snapshots = {snapshot.id: snapshot for snapshot in facts.fleet.snapshots}
    snapshots[facts.own.id] = facts.own
    for member in members.values():
        if member.id not in snapshots:  # it has begun just now
            snapshots[member.id] = Snapshot(
                member.id, member.host, member.pid, member.site, "", facts.at, facts.at
            )
    return [
        _process(snapshot, members.get(snapshot.id), facts)
        for snapshot in sorted(snapshots.values(), key=lambda s: (s.host, s.pid, s.started))
    ]


def _process(snapshot: Snapshot, member: Member | None, facts: Facts) -> Process:
    own = snapshot.id == facts.own.id
    # Its slot, which is told anew more often, is newer than its snapshot.
    newest = member if member is not None and not own else snapshot
    heard = 0.0 if own else max(0.0, facts.at - snapshot.at)
    if member is not None:
        heard = min(heard, SLOT_SECONDS)  # or its slot were empty; its clock may be behind
    return Process(
        snapshot=snapshot,
        pending=newest.pending,
        logouts=newest.logouts,
        oldest=_age(snapshot) if newest.oldest else 0.0,
        heard=heard,
        drained=member is not None and member.drained,
        own=own,
    )


def _age(snapshot: Snapshot) -> float:
    """Return for how long the oldest change has waited, by the clock of its own machine."""
    return max(0.0, snapshot.at - snapshot.oldest) if snapshot.oldest else 0.0


def _minutes(snapshots: Iterable[Snapshot], at: float) -> tuple[Minute, ...]:
    now = int(at // 60)
    told: dict[int, list[Minute]] = {}
    for snapshot in snapshots:
        for minute in snapshot.minutes:
            told.setdefault(minute.at, []).append(minute)
    return tuple(
        together(told[number]) if number in told else Minute(number, {}, [], [])
        for number in range(now - MINUTES + 1, now + 1)
    )


def _calls(snapshots: Iterable[Snapshot]) -> dict[str, Histogram]:
    told: dict[str, list[Histogram]] = {}
    for snapshot in snapshots:
        for call, histogram in snapshot.latencies.items():
            told.setdefault(call, []).append(histogram)
    return {call: added(histograms) for call, histograms in told.items()}


def _cost(facts: Facts, hour: Mapping[str, int], began: float) -> Cost | None:
    seconds = min(facts.at - began, 3600.0)
    if seconds < _LEAST_SECONDS or not facts.regions:
        return None
    months = _MONTH_SECONDS / seconds / 1e6
    size = _item_bytes(facts)
    # Each region of a global table is written to; a read asks for the item and its revocation.
    write = WRITE_PRICE * len(facts.regions) * math.ceil(size / 1024) * months
    read = READ_PRICE * (math.ceil(size / 4096) + 1) * months
    hits = hour.get("hot_hits", 0) + hour.get("hot_misses", 0)
    return Cost(
        ours=hour.get("cold_writes", 0) * write + hour.get("cold_reads", 0) * read,
        every_hit=hits * write,
    )


def _item_bytes(facts: Facts) -> float:
    """Return how large an item is on average, 1 KB where that is not known."""
    for description in facts.described.values():
        table = description.table if description is not None else None
        if table is not None and table.items and table.bytes:
            return table.bytes / table.items
    return 1024.0
