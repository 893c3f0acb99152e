"""What was answered for a session, and what whoever looks at it has to see."""

from __future__ import annotations

from dataclasses import dataclass, field

from django_dynamo_failover.keys import storage_id

from .process import LEASE, Process

ID_OF_USER = "_auth_user_id"

Marks = frozenset[str]


@dataclass(eq=False)
class Change:
    """A change that was answered for."""

    mark: str
    removes: str | None
    through: bool
    process: Process
    began: float
    answered: float
    #: Its site's memcached took it.
    in_hot: bool
    #: Since when one region has it, and all of them.
    stored: float | None = None
    known: float | None = None
    #: Why it need not be there any more.
    excuse: str = ""

    def __repr__(self) -> str:
        return f"{self.mark} of {self.process}"


@dataclass(eq=False)
class Session:
    """One session key, and all that was answered for it."""

    key: str
    changes: list[Change] = field(default_factory=list)
    #: Marks that a request has removed or may have removed, and by which mark.
    removed: dict[str, str] = field(default_factory=dict)
    #: A logout has begun: from now on it may be over.
    ending: bool = False
    ended: float | None = None
    ended_by: Process | None = None
    #: Memcached took the tombstone.
    buried: bool = False
    #: Since when all regions know that it is revoked.
    revoked: float | None = None

    #: When its user logged in, and whether somebody tried.
    login: float | None = None
    may_be_logged_in: bool = False
    #: The user is being logged out everywhere. From before when logins are over then.
    ending_everywhere: bool = False
    logins_over: float = 0.0

    def __post_init__(self) -> None:
        self.id = storage_id(self.key)

    @property
    def lost(self) -> bool:
        """Whether its very first version may be gone."""
        return bool(self.changes[0].excuse)


class View:
    """A request looks at a session: what it has to see, by what was answered before it began."""

    def __init__(self, process: Process, session: Session) -> None:
        self.process, self.session = process, session
        self.world, self.site = process.world, process.site
        self.began = self.world.clock.now
        self.changes = list(session.changes)
        self.ended = session.ended
        self._undisturbed = self._calm()
        self._revalidated = process.fleet.orders.revalidated

    def _calm(self) -> bool:
        return self.world.cold_fault is None and self.process.reaches_cold

    @property
    def cold_answers(self) -> bool:
        """Whether DynamoDB answered the process all the while."""
        connected = self.site.connected_since <= self.began
        return self._undisturbed and connected and self._calm()

    def kept_in_hot(self, change: Change) -> bool:
        """Whether memcached has held a change ever since it took it."""
        return (
            change.in_hot
            and change.process.site is self.site
            and self.site.disturbed_at < change.began
            and self.process.reaches_hot
        )

    # -- what it sees

    def alive(self, seen: Marks) -> None:
        """The session, with these marks."""
        self._g4_logout_is_final(seen)
        for change in self.changes:
            if change.removes and change.mark in seen:
                assert change.removes not in seen, f"G6: {change} came, and half of it did not"
            if change.mark in seen or change.excuse or change.mark in self.session.removed:
                continue
            assert not self.kept_in_hot(change), f"G6: {self.process} lost {change}"
            assert not self._is_stale_without(change), f"G5: {self.process} serves without {change}"

    def over(self) -> None:
        """There is no such session."""
        session = self.session
        if session.ending or session.lost:
            return
        first = session.changes[0]
        # A new session is on its way to DynamoDB for NEW_SESSION_DELAY; until then only its own
        # site's memcached and the process that made it know of it.
        on_its_way = first.known is None and not self.kept_in_hot(first)
        if on_its_way and first.process is not self.process:
            return
        # It had not been replicated when the region that has it could not be reached any more.
        if on_its_way and not self.cold_answers:
            return
        raise AssertionError(f"G1: {self.process} has ended a session that nobody ended")

    def unavailable(self) -> None:
        """No tier can answer."""
        assert not (self.process.reaches_hot and self.cold_answers), (
            f"G1: {self.process} answers 503 while all is well"
        )

    # -- what it must not see

    def _is_stale_without(self, change: Change) -> bool:
        # Where DynamoDB does not answer the entry is believed, or else the user were logged out.
        if change.known is None or not self.cold_answers:
            return False
        return change.known <= max(self.began - LEASE, self._revalidated)

    def _g4_logout_is_final(self, seen: Marks) -> None:
        session = self.session
        if self.ended is None:
            return
        if session.logins_over and ID_OF_USER not in seen:
            return  # a version from before the login, in which nobody is logged in
        assert session.ended_by is not None
        # Where DynamoDB does not answer the entry is believed (G1).
        out_of_lease = session.revoked is not None and (
            session.revoked + LEASE <= self.began and self.cold_answers
        )
        if out_of_lease:
            raise AssertionError(f"G4: {self.process} serves what was ended a lease ago")
        if session.ended_by.site is not self.site:
            return
        if not session.buried:
            # Memcached did not answer to the logout. Who reaches it may serve its entry.
            assert self.process is not session.ended_by, f"G4: {self.process} forgot its logout"
            return
        # Memcached has lost the tombstone, or does not answer; and a region was not told at once,
        # or DynamoDB does not answer either: what processes remember is believed then (G1).
        tombstone_lost = self.site.disturbed_at >= self.ended or not self.process.reaches_hot
        only_tombstone = session.revoked is None or session.revoked > self.ended
        cold_failed = self.site.connected_since > self.ended or not self.cold_answers
        if tombstone_lost and (only_tombstone or cold_failed):
            return
        raise AssertionError(f"G4: {self.process} brings back what was ended")
