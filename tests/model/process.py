"""A site, its processes, and their way to the tiers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django_dynamo_failover import runtime
from django_dynamo_failover.adopting import Adopter
from django_dynamo_failover.breaker import Breaker
from django_dynamo_failover.cold import ColdTier, GuardedRegion
from django_dynamo_failover.conf import Config, Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.fleet import Fleet
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.keys import Keyring
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.payload import PayloadCodec
from django_dynamo_failover.readiness import Readiness
from django_dynamo_failover.reconcile import Reconciler
from django_dynamo_failover.reporter import Reporter
from django_dynamo_failover.store import TieredStore
from django_dynamo_failover.writer import Writer

from .dynamodb import Replica
from .memcached import Cache, Memcached, Socket

if TYPE_CHECKING:
    from .world import World

KEYRING = Keyring(["secret"])
CODEC = PayloadCodec(KEYRING, encrypt=False)
LEASE = 900.0
REGIONS = ["east", "west"]

#: How long a call to a tier takes, so that no two writes have the same time.
LATENCY = 0.001

#: DynamoDB replicates within about a second.
REPLICATION = 1.0

CONFIG = Config(regions=tuple(map(Region, REGIONS)), write_interval=LEASE)


class Killed(BaseException):
    """The process is no more. Nothing that runs in it may catch this."""


class Clock:
    """A time that stands still until something takes time."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    __call__ = monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Patience(threading.Condition):
    """A condition in a world without threads: to wait for it is to let time pass."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        self._world.clock.sleep(timeout or 0.0)
        self._world.replicate()
        return True


class Site:
    """A datacenter: a memcached, processes, and a region of DynamoDB that is nearest."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.server = Memcached(world.clock)
        self.socket = Socket(self.server)
        #: The regions, nearest first, and which of them cannot be reached from here.
        replicas = world.table.replicas
        self.replicas = replicas[number:] + replicas[:number]
        self.cut_off: set[Replica] = set()
        #: When an entry of its memcached was last lost, or could last not be reached.
        self.disturbed_at = 0.0
        #: Since when all regions can be reached from here.
        self.connected_since = 0.0

    def __repr__(self) -> str:
        return f"site {self.number}"


class Line:
    """The way from one process to one region, in place of a ``DynamoClient``."""

    throttles = 0

    def __init__(self, process: Process, replica: Replica) -> None:
        self._process = process
        self._replica = replica

    def call(
        self, operation: str, ask: Callable[[Any], Any], until: float, attempts: int | None = None
    ) -> Any:
        world = self._process.world
        world.crossing(self._process)
        if self._replica in self._process.site.cut_off:
            raise ColdUnavailable(f"{operation}: cut off")
        fault = None
        if operation != "BatchGetItem":
            fault, world.cold_fault = world.cold_fault, None
        if fault == "late":
            world.late.append(partial(ask, self._replica))
            raise ColdUnavailable(f"{operation}: timed out")
        try:
            answer = ask(self._replica)
        finally:
            if fault == "reply lost":
                raise ColdUnavailable(f"{operation}: no reply")
        world.crossing(self._process)
        return answer


class Process:
    """One process of a site: the parts of ``runtime.build``, at the world's time."""

    def __init__(self, world: World, site: Site, name: str) -> None:
        self.world, self.site, self.name = world, site, name
        self.alive = True
        clock = world.clock
        self.metrics = Metrics()
        hot_breakers: list[Breaker] = []

        def make_hot_breaker() -> Breaker:
            hot_breakers.append(Breaker(clock=clock))
            return hot_breakers[-1]

        cache: Any = Cache(site.socket, partial(world.crossing, self))
        self.hot = HotTier(lambda: cache, KEYRING, self.metrics, make_hot_breaker, now=clock)
        self.cold = ColdTier(
            [
                GuardedRegion(self._table(replica), Breaker(threshold=2, clock=clock))
                for replica in site.replicas
            ],
            self.metrics,
            deadline=CONFIG.deadline,
            now=clock,
            monotonic=clock,
        )
        self.reconciler = Reconciler(
            self.hot, self.cold, KEYRING, self.metrics, lease=LEASE, now=clock
        )
        adopter = Adopter(self.cold, self.reconciler, KEYRING, self.metrics, lease=LEASE, now=clock)
        self.fleet = Fleet(self.hot, now=clock)
        self.writer = Writer(
            self.reconciler,
            self.hot,
            self.cold,
            self.fleet,
            self.metrics,
            background=True,
            threads=0,
            now=clock,
            monotonic=clock,
        )
        self.writer._jobs._changed = Patience(world)
        reporter = Reporter(
            None, self.hot, self.cold, self.fleet, self.writer, self.metrics, now=clock
        )
        breakers = [("hot", breaker) for breaker in hot_breakers]
        breakers += [(region.table.name, region.breaker) for region in self.cold._regions]
        for tier, breaker in breakers:
            breaker.on_change = partial(runtime._changed, tier, self.writer, reporter)
        self.store = TieredStore(
            CONFIG,
            self.hot,
            self.cold,
            self.reconciler,
            adopter,
            self.fleet,
            self.writer,
            self.metrics,
            now=clock,
        )
        self.runtime = runtime.Runtime(
            config=CONFIG,
            keyring=KEYRING,
            codec=CODEC,
            store=self.store,
            hot=self.hot,
            cold=self.cold,
            fleet=self.fleet,
            writer=self.writer,
            metrics=self.metrics,
            reporter=reporter,
            readiness=Readiness(self.hot, self.cold, self.fleet, self.writer, monotonic=clock),
            old_engine=None,
            pid=os.getpid(),
        )
        self.writer.start()

    def __repr__(self) -> str:
        return self.name

    def _table(self, replica: Replica) -> DynamoTable:
        table = DynamoTable(
            CONFIG.table,
            Region(replica.name),
            connect_timeout=CONFIG.connect_timeout,
            read_timeout=CONFIG.read_timeout,
            attempts=1,
            max_connections=1,
        )
        table.client = Line(self, replica)  # type: ignore[assignment]
        return table

    @property
    def reaches_hot(self) -> bool:
        """Whether memcached answers, and the process knows it."""
        return self.site.socket.up and self.hot.is_up

    @property
    def reaches_cold(self) -> bool:
        """Whether all regions answer, and the process knows it."""
        breakers = [region.breaker for region in self.cold._regions]
        return not self.site.cut_off and all(breaker.closed for breaker in breakers)

    @property
    def is_member(self) -> bool:
        """Whether the other processes of the site can know of this one."""
        slot = self.fleet._slot
        return slot is not None and self.site.server.get(slot) is not None

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Be the process that runs: its runtime is the current one."""
        before, runtime._current = runtime._current, self.runtime
        self.world.acting.append(self)
        try:
            yield
        finally:
            self.world.acting.pop()
            runtime._current = before

    def work(self) -> None:
        """Do what the background threads have to do by now."""
        try:
            with self.acting():
                # Its poll would wait for whatever of its own it is in the middle of.
                if self not in self.world.acting[:-1]:
                    self.writer._polls.run_due(0.0)
                self.writer._jobs.run_due(0.0)
        except Killed:
            pass

    def stop(self) -> None:
        """Shut down as a deploy does."""
        try:
            with self.acting():
                self.writer.close(CONFIG.shutdown_timeout)
        except Killed:
            pass
        self.alive = False

    def next_due(self) -> float:
        """When the next vital job is due."""
        jobs = self.writer._jobs._jobs.values()
        return min((job.due for job in jobs if job.vital), default=float("inf"))
