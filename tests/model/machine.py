"""The rules that hypothesis plays, in any order."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from .actions import Machine, deliver
from .world import Ambush

#: How many rules a game has.
STEPS = 40

places = st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3])
backs = st.sampled_from([0, 0, 0, 1, 2])
AMBUSHES = ["set", "logout", "look", "answer", "log out everywhere"]
AMBUSHES += ["work", "kill", "evict", "freeze", "replicate"]
answers = st.sampled_from(["set", "set", "set", "pop", "login", "logout", "cycle"])


class Requests(Machine):
    """Requests that overlap, and time. The other games add what may go wrong to it."""

    @initialize()
    def somebody_is_logged_in(self) -> None:
        self.visit(self.process(0))
        self.happen("login", 0)
        self.world.pass_time(5)

    @invariant()
    def nothing_was_broken_meanwhile(self) -> None:
        if self.world.broken is not None:
            raise self.world.broken

    @rule(place=places)
    def new_visitor(self, place: int) -> None:
        self.visit(self.process(place))

    @rule(place=places, back=backs)
    def begin(self, place: int, back: int) -> None:
        request = self.load(self.process(place), self.a_session(back))
        if request is not None:
            self.open.append(request)

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 3), what=answers)
    def finish(self, number: int, what: str) -> None:
        self.answer(self.open.pop(number % len(self.open)), what)

    @rule(place=places, back=backs, what=answers)
    def request(self, place: int, back: int, what: str) -> None:
        self.happen(what, place, back)

    @rule(place=places, back=backs)
    def look(self, place: int, back: int) -> None:
        self.load(self.process(place), self.a_session(back))

    @rule(place=places)
    def stop(self, place: int) -> None:
        with self.ledger.stopping(self.process(place)):
            self.world.stop(self.process(place))

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0, 70.0, 400.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        began = self.world.clock.now
        self.world.pass_time(seconds)
        self.ledger.g3_loss_is_bounded(began)
        self.ledger.g3_dynamodb_forgets_nothing()


class Evictions(Requests):
    """A memcached that is short of memory."""

    @rule(place=places)
    def evict(self, place: int) -> None:
        self.happen("evict", place)


class Handovers(Evictions):
    """The processes of one site, of which some end."""

    sites = 1


class Races(Evictions):
    """The processes of one site, one in the middle of what another does."""

    sites = 1

    @rule(
        calls=st.integers(0, 7),
        what=st.sampled_from(AMBUSHES),
        place=places,
        back=backs,
    )
    def ambush(self, calls: int, what: str, place: int, back: int) -> None:
        """Let something happen in the middle of what happens next."""
        self.world.ambush = Ambush(calls, partial(self.happen, what, place, back))

    @rule(
        calls=st.integers(1, 6),
        what=st.sampled_from(["set", "logout", "look", "work"]),
        then=st.sampled_from(["look", "set"]),
        back=backs,
    )
    def race_to_refill(self, calls: int, what: str, then: str, back: int) -> None:
        """Let two processes need at the same time what memcached has dropped."""
        self.happen("evict", 0)
        self.world.ambush = Ambush(calls, partial(self.happen, what, 1, back))
        self.happen(then, 0, back)

    @rule(place=places)
    def work(self, place: int) -> None:
        self.process(place).work()


class FailOvers(Requests):
    """Users who are sent from one site to the other, and are faster than replication."""

    sites = 2

    @rule()
    def fail_over(self) -> None:
        self.here ^= 1

    @precondition(lambda self: self.world.table.under_way)
    @rule(number=st.integers(0, 3))
    def replication_arrives(self, number: int) -> None:
        self.deliver_replication(number)


class Outages(Evictions):
    """One site, of which memcached and regions fail."""

    sites = 1

    @rule(event=st.sampled_from(["lose memcached", "freeze", "cut memcached"]), place=places)
    def memcached_fails(self, event: str, place: int) -> None:
        self.happen(event, place)

    @precondition(lambda self: not all(site.socket.up for site in self.world.sites))
    @rule()
    def memcached_is_back(self) -> None:
        for site in self.world.sites:
            self.world.heal_memcached(site)

    @rule(place=places, regions=st.sampled_from([[0], [1], [0, 1]]))
    def dynamodb_cannot_be_reached(self, place: int, regions: list[int]) -> None:
        site = self.process(place).site
        self.world.cut_off(site, [site.replicas[number] for number in regions])

    @rule(region=st.integers(0, 1))
    def a_region_is_lost(self, region: int) -> None:
        self.world.lose_region(self.world.table.replicas[region])

    @precondition(lambda self: any(site.cut_off for site in self.world.sites))
    @rule()
    def dynamodb_is_back(self) -> None:
        self.world.heal_cold()

    @rule(fault=st.sampled_from(["late", "reply lost"]))
    def next_write_is_unlucky(self, fault: str) -> None:
        self.world.cold_fault = fault

    @precondition(lambda self: self.world.late)
    @rule(number=st.integers(0, 3))
    def late_write_arrives(self, number: int) -> None:
        deliver(self.world.late.pop(number % len(self.world.late)))


class Sites(Races, FailOvers, Outages):
    """Everything at once, and what operators do."""

    sites = 2

    @rule(place=places)
    def log_out_a_user(self, place: int) -> None:
        self.happen("log out everywhere", place)

    @rule(place=places, order=st.sampled_from(["drain", "stop draining", "revalidate"]))
    def order(self, place: int, order: str) -> None:
        self.happen(order, place)

    @rule(place=places)
    def kill(self, place: int) -> None:
        self.happen("kill", place)


def play(examples: int, game: type[Requests] = Sites, **options: Any) -> None:
    """Play a game so often; raise what the last of them has found broken."""
    package = logging.getLogger("django_dynamo_failover")
    level = package.level
    package.setLevel(logging.CRITICAL + 1)  # a thousand outages
    try:
        run_state_machine_as_test(
            game,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                **{"derandomize": True} | options,
            ),
        )
    finally:
        package.setLevel(level)
