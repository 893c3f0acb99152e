"""What browsers were promised, and the guarantees as code.

Each change that a request makes puts a key of its own into the session, its *mark*; so what a
payload includes is read from its keys. A change may remove the mark of an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.sessions.serializers import JSONSerializer

from django_dynamo_failover.dynamo import to_item
from django_dynamo_failover.keys import label
from django_dynamo_failover.record import Record, decode_cold, decode_hot

from .dynamodb import Item, Replica
from .process import CODEC, KEYRING, LEASE, Process, Site
from .promises import Change, Marks, Session
from .world import World

#: A background thread that is late by this many seconds is not late.
SLACK = 60.0

USER = "7"
OWNER = "user:" + KEYRING.owners(USER)[0]

NONE: Marks = frozenset()


class Ledger:
    """Every session there was, what was answered for it, and where it is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions: list[Session] = []
        self._by_id: dict[str, Session] = {}
        self._marks_of_items: dict[bytes, Marks] = {}
        world.table.on_write = self._on_write

    # -- what was answered

    def created(self, key: str, process: Process, marks: Marks, began: float) -> Session:
        session = Session(key)
        self.sessions.append(session)
        self._by_id[session.id] = session
        for mark in sorted(marks):
            self.changed(session, process, mark, None, through=False, began=began)
        return session

    def changed(
        self,
        session: Session,
        process: Process,
        mark: str,
        removes: str | None,
        *,
        through: bool,
        began: float,
    ) -> None:
        in_hot = process.reaches_hot and process.site.disturbed_at < began
        now = self.world.clock.now
        change = Change(mark, removes, through, process, began, now, in_hot)
        session.changes.append(change)
        self._locate(session)
        if through:
            self.g2_login_is_durable(change)

    def ended(self, session: Session, process: Process, *, told: bool) -> None:
        """``told``: all regions answered, so that all of them have to know."""
        session.ended = self.world.clock.now
        session.ended_by = process
        session.buried = process.reaches_hot
        if told:
            session.revoked = session.ended
        self._locate(session)

    def ended_everywhere(
        self, session: Session, process: Process, before: float, *, told: bool
    ) -> None:
        if session.ended is None:
            session.logins_over = before
            self.ended(session, process, told=False)
            # Who had just started, or memcached has just lost, is not waited for: it hears of it
            # within two seconds.
            neighbours = [each for each in self.world.processes if each.site is process.site]
            session.buried = told and all(each.is_member for each in neighbours)

    # -- where it is

    def _on_write(self, id: str, loser: Item | None) -> None:
        if id == OWNER:
            for each in self.sessions:
                self._locate(each)
            return
        session = self._by_id.get(id.removeprefix("revoked:"))
        if session is None:
            return
        self._locate(session)
        if loser is not None and "data" in loser:
            # Two regions were written to within the replication lag. The later write wins, until
            # the site of the other one finds that gone and writes it again: either may be lost.
            loser_has, others_have = self._marks_of(loser), self._in_some_region(session)
            if loser_has - others_have:
                for change in session.changes:
                    if change.mark in loser_has ^ others_have:
                        change.excuse = "two regions were written to at the same time"

    def _locate(self, session: Session) -> None:
        now = self.world.clock.now
        held = [self._in_region(replica, session) for replica in self.world.table.replicas]
        for change in session.changes:
            if change.stored is None and any(change.mark in marks for marks in held):
                change.stored = now
            if change.known is None and all(change.mark in marks for marks in held):
                change.known = now
        told = (_is_revoked(replica, session) for replica in self.world.table.replicas)
        if session.revoked is None and session.ended is not None and all(told):
            session.revoked = now

    def _in_region(self, replica: Replica, session: Session) -> Marks:
        item = replica.item(session.id)
        return self._marks_of(item) if item else NONE

    def _in_some_region(self, session: Session) -> Marks:
        return NONE.union(*(self._in_region(r, session) for r in self.world.table.replicas))

    def _in_hot(self, site: Site, session: Session) -> Marks:
        entry = site.server.get("session:" + session.id)
        record = decode_hot(session.id, entry, KEYRING) if entry else None
        return _marks(session.key, record)

    def _pending(self, process: Process, session: Session) -> Marks:
        jobs = process.writer._jobs._jobs.values()
        apart = [job.action.args[-1] for job in jobs if job.key[:2] == ("write", session.id)]
        held = [pending.record for pending in apart if hasattr(pending, "record")]
        record = process.writer.pending(session.id)
        return NONE.union(*(_marks(session.key, each) for each in [record, *held]))

    def _marks_of(self, item: Item) -> Marks:
        found = to_item(item)
        if found.data not in self._marks_of_items:
            session = self._by_id[found.id]
            record = decode_cold(found, KEYRING, self.world.clock.now)
            self._marks_of_items[found.data] = _marks(session.key, record)
        return self._marks_of_items[found.data]

    def _somewhere(self, session: Session) -> Marks:
        """Return the marks that are in any tier of any site, or in any process's memory."""
        hot = [self._in_hot(site, session) for site in self.world.sites]
        pending = [self._pending(process, session) for process in self.world.processes]
        return self._in_some_region(session).union(*hot, *pending)

    # -- what may be lost

    @contextmanager
    def losing(self, reason: str) -> Iterator[None]:
        """Let something be lost. What was nowhere else by then need not come back."""
        self.g6_nothing_is_lost()
        yield
        for change in self._nowhere():
            # DynamoDB has it after WRITE_INTERVAL, so that one of two tiers may be lost then.
            assert change.stored is None, f"G3: {change} was in DynamoDB, and is not any more"
            change.excuse = f"{reason} before DynamoDB had it"

    @contextmanager
    def stopping(self, process: Process) -> Iterator[None]:
        """Let a process shut down. It brings everything to DynamoDB, if that answers."""
        answers = process.reaches_cold and self.world.cold_fault is None
        with self.losing(f"{process} stopped"):
            yield
        if answers and process.reaches_cold and process not in self.world.killed:
            self.g3_loss_is_bounded(self.world.clock.now, stopped=process)

    def conflict(self, id: str, kept: str) -> None:
        """Two sites had changed a session; unless they were merged one side's changes are lost."""
        process = self.world.acting[-1]
        for session in self.sessions:
            if label(session.id) != id:
                continue
            ours = self._in_hot(process.site, session) | self._pending(process, session)
            lost = ours ^ self._in_some_region(session)
            for change in session.changes:
                if change.mark in lost and kept != "merged":
                    change.excuse = f"a conflict, kept: {kept}"

    def _nowhere(self) -> list[Change]:
        return [
            change
            for session in self.sessions
            if not session.ending and not session.lost
            for found in [self._somewhere(session)]
            for change in session.changes
            if change.mark not in found and change.mark not in session.removed
            if not change.excuse
        ]

    # -- what must hold at any time

    def g2_login_is_durable(self, change: Change) -> None:
        """A login is in DynamoDB before the browser has its cookie."""
        assert change.stored is not None, f"G2: {change} is answered, and not durable"

    def g3_loss_is_bounded(self, since: float, *, stopped: Process | None = None) -> None:
        """Every change is in DynamoDB after WRITE_INTERVAL, if that has answered ``since``.

        At once if its process has stopped, or its site is being drained.
        """
        now = self.world.clock.now
        late = SLACK + (now - since) / 8
        for change in self._waiting():
            process = change.process
            if process is stopped:
                raise AssertionError(f"G3: {change} was not written at shutdown")
            answers = process.reaches_cold and process.site.connected_since <= since
            if process.alive and answers:
                assert now < change.answered + LEASE + late, f"G3: {change} is not written"

    def g3_dynamodb_forgets_nothing(self) -> None:
        """What DynamoDB has once had outlives the loss of memcached."""
        for session in self.sessions:
            if session.ending or session.lost:
                continue
            found = self._in_some_region(session)
            for change in session.changes:
                kept = change.mark in found or change.mark in session.removed or change.excuse
                assert change.stored is None or kept, f"G3: DynamoDB has lost {change}"

    def _waiting(self) -> Iterator[Change]:
        """Yield what DynamoDB has still to be told."""
        for session in self.sessions:
            for change in session.changes:
                done = session.ending or change.excuse or change.stored is not None
                if not done and change.mark not in session.removed:
                    yield change

    def g6_nothing_is_lost(self) -> None:
        """What was answered is in some tier of some site, or in some process's memory."""
        lost = self._nowhere()
        assert not lost, f"G6: {lost} nowhere to be found"


def _is_revoked(replica: Replica, session: Session) -> bool:
    if not session.logins_over:
        return replica.item("revoked:" + session.id) is not None
    user = replica.item(OWNER)
    return user is not None and float(user["before"]["N"]) >= session.logins_over


def marks(data: dict[str, Any]) -> Marks:
    """Return the marks of a session dict."""
    return frozenset(data)


def _marks(key: str, record: Record | None) -> Marks:
    if record is None:
        return NONE
    return marks(CODEC.loads(record.payload, key, JSONSerializer()))
