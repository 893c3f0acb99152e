"""What requests do, what can happen to them, and what has to hold in the end."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import suppress

from django.contrib.sessions.backends.base import UpdateError
from hypothesis.stateful import RuleBasedStateMachine

from django_dynamo_failover.exceptions import HotUnavailable, SessionUnavailable
from django_dynamo_failover.fleet import Fleet
from django_dynamo_failover.sessions import SessionStore
from django_dynamo_failover.signals import session_conflict

from .ledger import USER, Ledger, marks
from .process import KEYRING, LEASE, Killed, Process
from .promises import ID_OF_USER, Session, View
from .world import World

MAX_SESSIONS = 5


class Request:
    """A request that has looked at its session and not answered yet."""

    def __init__(self, view: View, store: SessionStore) -> None:
        self.process, self.session, self.store = view.process, view.session, store


class Machine(RuleBasedStateMachine):
    """Sites; requests that overlap; and everything that can go wrong."""

    sites = 2

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.sites)
        self.ledger = Ledger(self.world)
        self.open: list[Request] = []
        self.here = 0
        self._numbers = itertools.count()
        self._charge = self.world.in_charge()
        self._charge.__enter__()
        session_conflict.connect(self._conflict)

    def _conflict(self, id: str, kept: str, **kwargs: object) -> None:
        self.ledger.conflict(id, kept)

    def teardown(self) -> None:
        try:
            if sys.exception() is None:
                self.settle()
        finally:
            session_conflict.disconnect(self._conflict)
            self._charge.__exit__(None, None, None)

    # -- who does what to which

    def process(self, place: int) -> Process:
        """0 and 1 are the processes of the site that the users are at, 2 and 3 the others.

        With one site there are no others.
        """
        return self.world.processes[(place ^ (2 * self.here)) % (2 * self.sites)]

    def idle(self, place: int) -> Process:
        """The same, or its neighbour if that one is in the middle of something."""
        process = self.process(place)
        if process in self.world.acting:
            process = self.world.processes[self.world.processes.index(process) ^ 1]
        return process

    def a_session(self, back: int) -> Session:
        """The newest session, or one that many before."""
        return self.ledger.sessions[-1 - back % len(self.ledger.sessions)]

    def new_mark(self) -> str:
        return f"c{next(self._numbers)}"

    # -- what requests do

    def visit(self, process: Process) -> None:
        """Begin an anonymous session."""
        if len(self.ledger.sessions) >= MAX_SESSIONS:
            return
        began = self.world.clock.now
        store, mark = SessionStore(), self.new_mark()
        try:
            with process.acting():
                store[mark] = 1
                store.save()
        except (SessionUnavailable, Killed):
            return
        self.ledger.created(store.session_key, process, frozenset([mark]), began)

    def load(self, process: Process, session: Session) -> Request | None:
        view = View(process, session)
        store = SessionStore(session.key)
        try:
            with process.acting():
                seen = marks(dict(store.items()))
        except SessionUnavailable:
            view.unavailable()
        except Killed:
            pass
        else:
            if store.session_key is not None:
                view.alive(seen)
                return Request(view, store)
            view.over()
        return None

    def answer(self, request: Request, what: str) -> None:
        """Do what a request came for, and answer."""
        if not request.process.alive or request.process in self.world.acting:
            return
        view = View(request.process, request.session)
        try:
            with request.process.acting():
                getattr(self, what)(request)
        except SessionUnavailable:
            pass
        except UpdateError:
            view.over()
        except Killed:
            pass

    def set(self, request: Request, *, removes: str | None = None) -> None:
        began, mark = self.world.clock.now, self.new_mark()
        session, store = request.session, request.store
        if removes is not None:
            session.removed[removes] = mark
            del store[removes]
        store[mark] = 1
        store.save()
        self.ledger.changed(session, request.process, mark, removes, through=False, began=began)

    def pop(self, request: Request) -> None:
        taken = [mark for mark in sorted(request.store.keys()) if not mark.startswith("_")]
        left = [mark for mark in taken if mark not in request.session.removed]
        self.set(request, removes=left[0] if left else None)

    def cycle(self, request: Request) -> Session | None:
        if len(self.ledger.sessions) >= MAX_SESSIONS:
            return None
        began = self.world.clock.now
        request.session.ending = True
        view = View(request.process, request.session)
        request.store.cycle_key()
        self.ledger.ended(request.session, request.process, told=view.cold_answers)
        key, seen = request.store.session_key, marks(dict(request.store.items()))
        old, request.session = (
            request.session,
            self.ledger.created(key, request.process, seen, began),
        )
        request.session.login = old.login if ID_OF_USER in seen else None
        request.session.may_be_logged_in = ID_OF_USER in seen
        request.session.ending = old.ending_everywhere
        request.session.ending_everywhere = old.ending_everywhere
        for change in request.session.changes:
            self.ledger.g2_login_is_durable(change)
        return request.session

    def login(self, request: Request) -> None:
        """Log the one user in that there is: what ``django.contrib.auth.login`` does."""
        session = self.cycle(request)
        if session is None:
            return
        began, mark = self.world.clock.now, self.new_mark()
        first = session.login is None
        session.may_be_logged_in = True
        request.store[ID_OF_USER] = USER
        request.store["_auth_user_hash"] = request.store[mark] = mark
        request.store.save()
        marks = [ID_OF_USER, "_auth_user_hash", mark] if first else [mark]
        for each in marks:
            self.ledger.changed(session, request.process, each, None, through=True, began=began)
        session.login = began if first else session.login

    def logout(self, request: Request) -> None:
        request.session.ending = True
        view = View(request.process, request.session)
        request.store.flush()
        self.ledger.ended(request.session, request.process, told=view.cold_answers)

    def log_out_everywhere(self, process: Process) -> None:
        """End all sessions that the user has anywhere: what ``revoke_user_sessions`` does."""
        before = self.world.clock.now
        theirs = [s for s in self.ledger.sessions if s.may_be_logged_in]
        for session in theirs:
            session.ending = session.ending_everywhere = True
        try:
            with process.acting():
                told = process.store.revoke_users(OWNERS, before, 0.0)
        except (SessionUnavailable, Killed):
            return
        for session in theirs:
            if session.login is not None and session.login < before:
                self.ledger.ended_everywhere(session, process, before, told=told)

    # -- what happens

    def happen(self, event: str, place: int, back: int = 0) -> None:
        """One of the things that can also happen in the middle of another."""
        process, site = self.idle(place), self.process(place).site
        if event in {"set", "pop", "login", "logout", "cycle"}:
            request = self.load(process, self.a_session(back))
            if request is not None:
                self.answer(request, event)
        elif event == "look":
            self.load(process, self.a_session(back))
        elif event == "answer":
            if self.open:
                self.answer(self.open.pop(back % len(self.open)), "set")
        elif event == "log out everywhere":
            self.log_out_everywhere(process)
        elif event in ORDERS:
            with suppress(HotUnavailable, Killed), process.acting():
                ORDERS[event](process.fleet)
        elif event == "work":
            self.process(place).work()
        elif event == "kill":
            with self.ledger.losing("killed"):
                self.world.kill(self.process(place))
        elif event == "evict":
            with self.ledger.losing("evicted"):
                self.world.evict(site)
        elif event == "lose memcached":
            with self.ledger.losing("memcached lost it"):
                self.world.restart_memcached(site)
        elif event == "freeze":
            self.world.freeze(site)
        elif event == "cut memcached":
            self.world.cut_memcached(site)
        elif event == "replicate":
            self.deliver_replication(back)

    def deliver_replication(self, number: int) -> None:
        under_way = self.world.table.under_way
        if under_way and not self.world.isolated:
            self.world.table.deliver(under_way[number % len(under_way)])

    # -- the end

    def settle(self) -> None:
        """Let all heal, and see that nothing that was answered is lost, and nothing came back."""
        world = self.world
        world.ambush = world.cold_fault = None
        if world.broken is not None:
            raise world.broken
        self.ledger.g6_nothing_is_lost()
        self.ledger.g3_dynamodb_forgets_nothing()
        self.everybody_looks()
        for site in world.sites:
            world.heal_memcached(site)
        world.heal_cold()
        while world.late:
            deliver(world.late.pop())
        world.pass_time(SETTLE, strides=8)
        self.ledger.g3_dynamodb_forgets_nothing()
        self.everybody_looks()
        world.pass_time(SETTLE, strides=8)
        self.ledger.g3_loss_is_bounded(world.clock.now - SETTLE)
        self.everybody_looks()
        world.pass_time(SETTLE, strides=8)
        self.everybody_looks()

    def everybody_looks(self) -> None:
        for session in self.ledger.sessions:
            requests = [self.load(process, session) for process in self.world.processes]
            del requests


SETTLE = LEASE + 100

ORDERS: dict[str, Callable[[Fleet], int]] = {
    "drain": lambda fleet: fleet.drain(True),
    "stop draining": lambda fleet: fleet.drain(False),
    "revalidate": Fleet.revalidate,
}
OWNERS = KEYRING.owners(USER)


def deliver(write: Callable[[], object]) -> None:
    with suppress(Exception):  # nobody waits for the answer any more
        write()
