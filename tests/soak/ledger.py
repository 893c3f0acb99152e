"""What each session was told, and whether it is so.

An answer of 200 to a change means: it is there later, unless G3 lets it go. A 503 or a broken
connection means: it may be there, or not.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.soak.outages import STRAY, Outages


@dataclass(frozen=True)
class Broken:
    """A guarantee that did not hold. ``at``: seconds since the beginning."""

    guarantee: str
    at: float
    site: str
    session: str
    acknowledged: str
    found: str
    #: All that was tried with the session.
    history: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as a line to print."""
        return (
            f"{self.guarantee} at {self.at:.1f} s, {self.site}, session {self.session}: "
            f"{self.acknowledged}; {self.found}"
        )


@dataclass(slots=True)
class Change:
    """One try to change a slot. ``answered`` None: nobody said that it was done."""

    value: object
    site: str
    sent: float
    durable: bool
    answered: float | None = None
    pid: int = 0


@dataclass(slots=True)
class Session:
    """One session, from the login on. One user at a time has it."""

    cookie: str
    home: str
    login: float
    #: When a site was last seen to have it in its memcached.
    seen: dict[str, float] = field(default_factory=dict)
    slots: dict[str, list[Change]] = field(default_factory=dict)
    #: Whether somebody tried to log out: it may be over.
    doubtful: bool = False
    logout: float | None = None
    logout_site: str = ""

    @property
    def label(self) -> str:
        """What logs call it."""
        return hashlib.sha256(self.cookie.encode()).hexdigest()[:8]


class Ledger:
    """All sessions of a run. Safe among threads as long as each session has one user."""

    def __init__(self, outages: Outages, user: str, began: float) -> None:
        self.outages = outages
        self.user = user
        self.began = began
        self.sessions: list[Session] = []
        self.broken: list[Broken] = []
        self.counts: Counter[str] = Counter()
        self._numbers = 0
        self._lock = threading.Lock()

    # -- What is told

    def log_in(self, cookie: str, site: str) -> Session:
        """Note an acknowledged login."""
        now = self.outages.clock()
        session = Session(cookie, site, now, {site: now})
        with self._lock:
            self.sessions.append(session)
            self.counts["logins"] += 1
        return session

    def number(self) -> int:
        """Return a number that no other change has."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def change(
        self, session: Session, slot: str, value: object, site: str, *, durable: bool = False
    ) -> Change:
        """Note that a change is about to be asked for. ``durable``: DynamoDB has it at once."""
        change = Change(value, site, self.outages.clock(), durable)
        session.slots.setdefault(slot, []).append(change)
        return change

    def acknowledge(self, change: Change, pid: int = 0) -> None:
        """Note that it was answered 200, by this process."""
        change.pid = pid
        change.answered = self.outages.clock()
        self.count("acknowledged changes")

    def log_out(self, session: Session, site: str) -> None:
        """Note an acknowledged logout."""
        session.logout = self.outages.clock()
        session.logout_site = site
        self.count("logouts")

    def count(self, name: str) -> None:
        """Count something for the report."""
        with self._lock:
            self.counts[name] += 1

    # -- What is found

    def found(
        self,
        session: Session,
        state: Mapping[str, Any],
        site: str,
        *,
        asked: float,
        moved: float = float("-inf"),
    ) -> None:
        """Hold what a site says of a live session against what it was told.

        ``asked``: when the request began; ``moved``: when the user last came here without a plan.
        """
        if state["user"] != self.user:
            self.lost_login(session, site, f"the site says user {state['user']}")
            return
        fresh = not self.outages.may_be_stale(site, asked) and (
            moved < asked - self.outages.interval - STRAY
        )
        for slot, changes in session.slots.items():
            found = state["slots"].get(slot)
            if found in _allowed(changes):
                continue
            elsewhere = any(change.site != site for change in changes)
            untold = elsewhere and self.outages.cold_down(asked, self.outages.clock())
            if (
                fresh
                and not untold
                and found
                not in (
                    *_allowed(changes, self._may_be_lost),
                    *_allowed(changes, partial(self._may_be_orphaned, session)),
                )
            ):
                told = f"{slot} = {_last(changes)} was acknowledged"
                self.break_("own change not seen", session, site, told, f"found {found}")
            else:
                self.count("stale reads that the guarantees allow")
        session.seen[site] = self.outages.clock()

    def found_at_the_end(self, session: Session, state: Mapping[str, Any], site: str) -> None:
        """Hold what DynamoDB has of a live session, when all is quiet, against what it was told."""
        if session.doubtful:
            return
        if state["user"] != self.user:
            self.lost_login(session, site, f"DynamoDB has user {state['user']}")
            return
        self.count("sessions found logged in")
        for slot, changes in session.slots.items():
            found = state["slots"].get(slot)
            if found in _allowed(changes):
                self.count("changes found")
            elif found in _allowed(changes, self._may_be_lost):
                self.count("changes lost within G3")
            elif found in _allowed(changes, partial(self._may_be_orphaned, session)):
                self.count("changes orphaned: no process was left to write them")
            elif self._met_another(changes, found):
                self.count("changes that lost to an earlier one of the same key")
            else:
                told = f"{slot} = {_last(changes)} was acknowledged"
                self.count("changes lost")
                self.break_("G3", session, site, told, f"found {found}")

    def found_after_logout(self, session: Session, state: Mapping[str, Any], site: str) -> None:
        """Hold what a site says of a session that is over against its logout (G4)."""
        assert session.logout is not None
        if state["user"] is None:
            self.count("logouts found final")
            return
        now = self.outages.clock()
        here = site == session.logout_site
        if now <= self.outages.known_everywhere(session.logout) and (
            not here or self.outages.hot_down(site, session.logout, now)
        ):
            self.count("logouts within their lease")
        elif self.outages.may_be_revived(session.logout_site, session.logout):
            self.count("logouts undone by a double loss")
        else:
            told = f"logout at {session.logout_site}, {now - session.logout:.1f} s ago"
            self.break_("G4", session, site, told, f"it is served to {state['user']}")

    def lost_login(self, session: Session, site: str, found: str) -> None:
        """Note that a live session was found logged out, unless a logout was tried."""
        if not session.doubtful:
            self.count("users logged out")
            self.break_("G1", session, site, f"login at {self._at(session.login)}", found)

    def break_(
        self, guarantee: str, session: Session | None, site: str, acknowledged: str, found: str
    ) -> None:
        """Note that a guarantee did not hold."""
        label = session.label if session else "-"
        now = round(self.outages.clock() - self.began, 2)
        with self._lock:
            self.broken.append(
                Broken(guarantee, now, site, label, acknowledged, found, self._history(session))
            )

    def _may_be_lost(self, change: Change, answered: float) -> bool:
        return self.outages.may_be_lost(change.site, change.pid, answered)

    def _may_be_orphaned(self, session: Session, change: Change, answered: float) -> bool:
        seen = session.seen.get(change.site)
        return self.outages.may_be_orphaned(change.site, change.pid, answered, seen)

    def _met_another(self, changes: list[Change], found: object) -> bool:
        """Tell whether what was found is a change that the last one need not have known of.

        So it is with one of the other site, or of a process of this one that saw memcached down
        while another did not. Of two such versions of a session the later one stands, and its
        last change may have been to another key.
        """
        last = next((change for change in reversed(changes) if change.answered is not None), None)
        if last is None or last.durable:
            return False
        return any(
            change.value == found
            and self.outages.known_everywhere(change.sent) + self.outages.interval >= last.sent
            and (
                change.site != last.site
                or self.outages.hot_down(last.site, change.sent, last.sent + self.outages.interval)
            )
            for change in changes
        )

    def _history(self, session: Session | None) -> tuple[str, ...]:
        changes = [
            (change.sent, slot, change)
            for slot, changes in (session.slots if session else {}).items()
            for change in changes
        ]
        return tuple(
            f"{self._at(sent)}: {slot} = {change.value} at {change.site}, "
            + ("no answer" if change.answered is None else f"answered by {change.pid}")
            for sent, slot, change in sorted(changes, key=lambda each: each[0])
        )

    def _at(self, moment: float) -> str:
        return f"{moment - self.began:.1f} s"


def _allowed(
    changes: list[Change], may_be_gone: Callable[[Change, float], bool] | None = None
) -> list[object]:
    """Return what a slot may hold.

    That is the last acknowledged value, or one of a later try, or of one whose request may have
    gone on in secret; and where the last one may be gone, also what was there before it.
    """
    allowed: list[object] = []
    for change in reversed(changes):
        allowed.append(change.value)
        if change.answered is None:
            continue
        if may_be_gone and not change.durable and may_be_gone(change, change.answered):
            continue
        stray = (
            earlier.value
            for earlier in changes
            if earlier.answered is None and change.sent - STRAY <= earlier.sent <= change.sent
        )
        return [*allowed, *stray]
    return [*allowed, None]


def _last(changes: list[Change]) -> object:
    return next((each.value for each in reversed(changes) if each.answered is not None), None)
