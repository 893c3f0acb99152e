"""What may be broken, and how each fault is made and ended."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from signal import SIGHUP, SIGKILL

from tests.soak.outages import Outages, hot, web
from tests.soak.sites import REGIONS, SITES, Site, World
from tests.soak.traffic import Traffic

BOTH = "both regions"


@dataclass
class Stage:
    """What faults work on."""

    world: World
    outages: Outages
    traffic: Traffic
    #: What a fault touches is its own until it ends, also if that takes longer than planned.
    locks: dict[str, threading.Lock] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it may hit, how long, and a context manager that makes and ends it."""

    name: str
    scope: str
    shortest: float
    longest: float
    make: Callable[[Stage, str], AbstractContextManager[None]]
    harmless: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """What it may hit."""
        return {"region": REGIONS, "regions": (BOTH,)}.get(self.scope, tuple(SITES))

    def occupies(self, target: str) -> frozenset[str]:
        """Return what no other fault may touch meanwhile."""
        return {
            "hot": frozenset({hot(target)}),
            "region": frozenset({target}),
            "regions": frozenset(REGIONS),
            "tiers": frozenset({hot(target), *REGIONS}),
            "web": frozenset({web(target)}),
            "traffic": frozenset({"traffic"}),
            "site": frozenset({"traffic", hot(target), web(target)}),
        }[self.scope]

    def touches(self, target: str) -> frozenset[str]:
        """Return what it breaks."""
        return frozenset() if self.harmless else self.occupies(target)


KINDS: dict[str, Kind] = {}


def _kind(
    name: str, scope: str, shortest: float, longest: float, *, harmless: bool = False
) -> Callable[[Callable[[Stage, str], Iterator[None]]], Callable[[Stage, str], Iterator[None]]]:
    def register(
        make: Callable[[Stage, str], Iterator[None]],
    ) -> Callable[[Stage, str], Iterator[None]]:
        KINDS[name] = Kind(name, scope, shortest, longest, contextmanager(make), harmless)
        return make

    return register


# -- memcached


@_kind("memcached killed", "hot", 3, 6)
def _memcached_killed(stage: Stage, target: str) -> Iterator[None]:
    stage.outages.emptied(target)
    memcached = stage.world.sites[target].memcached
    memcached.kill()
    yield
    memcached.start()


@_kind("memcached restarted", "hot", 0.5, 1)
def _memcached_restarted(stage: Stage, target: str) -> Iterator[None]:
    stage.outages.emptied(target)
    stage.world.sites[target].memcached.restart()
    yield


@_kind("memcached frozen", "hot", 3, 6)
def _memcached_frozen(stage: Stage, target: str) -> Iterator[None]:
    memcached = stage.world.sites[target].memcached
    memcached.freeze()
    yield
    memcached.thaw()


@_kind("memcached refuses", "hot", 3, 6)
def _memcached_refuses(stage: Stage, target: str) -> Iterator[None]:
    proxy = stage.world.sites[target].proxy
    proxy.refuse()
    yield
    proxy.heal()


@_kind("memcached in a black hole", "hot", 3, 6)
def _memcached_swallowed(stage: Stage, target: str) -> Iterator[None]:
    proxy = stage.world.sites[target].proxy
    proxy.swallow()
    yield
    proxy.heal()


@_kind("memcached cut off", "hot", 0.5, 1)
def _memcached_cut(stage: Stage, target: str) -> Iterator[None]:
    stage.world.sites[target].proxy.cut()
    yield


@_kind("memcached slow", "hot", 3, 5, harmless=True)
def _memcached_slow(stage: Stage, target: str) -> Iterator[None]:
    proxy = stage.world.sites[target].proxy
    proxy.delay(0.03)
    yield
    proxy.heal()


# -- DynamoDB


@_kind("region refuses", "region", 3, 6)
def _region_refuses(stage: Stage, target: str) -> Iterator[None]:
    proxy = stage.world.regions[target]
    proxy.refuse()
    yield
    proxy.heal()


@_kind("region in a black hole", "region", 3, 6)
def _region_swallowed(stage: Stage, target: str) -> Iterator[None]:
    proxy = stage.world.regions[target]
    proxy.swallow()
    yield
    proxy.heal()


@_kind("region slow", "region", 3, 6, harmless=True)
def _region_slow(stage: Stage, target: str) -> Iterator[None]:
    proxy = stage.world.regions[target]
    proxy.delay(0.15)
    yield
    proxy.heal()


def _answers(answer: str, status: int = 400, *, after: bool = False) -> Callable[..., object]:
    def make(stage: Stage, target: str) -> Iterator[None]:
        dynamodb = stage.world.dynamodb
        for region in REGIONS if target == BOTH else [target]:
            dynamodb.fail("*", answer, status=status, times=None, after=after, region=region)
        yield
        for region in REGIONS if target == BOTH else [target]:
            dynamodb.heal(region)

    return make


_kind("region throttled", "region", 3, 6)(_answers("ThrottlingException"))
_kind("region fails", "region", 3, 6)(_answers("InternalServerError", 500))
_kind("region loses replies", "region", 3, 5)(_answers("drop", after=True))
_kind("all throttled", "regions", 3, 5)(_answers("ThrottlingException"))


@_kind("all refuse", "regions", 3, 5)
def _all_refuse(stage: Stage, _: str) -> Iterator[None]:
    for proxy in stage.world.regions.values():
        proxy.refuse()
    yield
    for proxy in stage.world.regions.values():
        proxy.heal()


@_kind("all in a black hole", "regions", 3, 5)
def _all_swallowed(stage: Stage, _: str) -> Iterator[None]:
    for proxy in stage.world.regions.values():
        proxy.swallow()
    yield
    for proxy in stage.world.regions.values():
        proxy.heal()


@_kind("DynamoDB killed", "regions", 2, 4)
def _dynamodb_killed(stage: Stage, _: str) -> Iterator[None]:
    stage.world.dynamodb.kill()
    yield
    stage.world.dynamodb.start()


@_kind("both tiers down", "tiers", 3, 4)
def _both_tiers(stage: Stage, target: str) -> Iterator[None]:
    proxies = [stage.world.sites[target].proxy, *stage.world.regions.values()]
    for proxy in proxies:
        proxy.refuse()
    yield
    for proxy in proxies:
        proxy.heal()


# -- Web processes and sites


@_kind("one worker killed", "web", 1, 1)
def _worker_killed(stage: Stage, target: str) -> Iterator[None]:
    _kill(stage, stage.world.sites[target], 1)
    yield


@_kind("all workers killed", "web", 1, 1)
def _workers_killed(stage: Stage, target: str) -> Iterator[None]:
    _kill(stage, stage.world.sites[target], None)
    yield


@_kind("workers replaced", "web", 7, 7)
def _workers_replaced(stage: Stage, target: str) -> Iterator[None]:
    site, began = stage.world.sites[target], time.monotonic()
    old = site.workers
    site.web.send(SIGHUP)
    yield
    if stage.outages.cold_down(began, time.monotonic()):
        # What they held could not be written while they ended: as good as killed.
        stage.outages.killed(target, old, began)


@_kind("users move", "traffic", 6, 9, harmless=True)
def _users_move(stage: Stage, target: str) -> Iterator[None]:
    stage.traffic.leave(target)
    yield
    stage.traffic.come_back(target)


@_kind("users move by plan", "traffic", 6, 9, harmless=True)
def _users_move_by_plan(stage: Stage, target: str) -> Iterator[None]:
    left = stage.world.sites[target]
    taken = stage.world.other(left)
    drained = _succeeds(left, "drainsessions_dynamo", "on", "--timeout=6")
    fresh = _succeeds(taken, "revalidatesessions_dynamo", "--timeout=6")
    stage.traffic.leave(target, by_plan=drained and fresh)
    yield
    drained = _succeeds(taken, "drainsessions_dynamo", "on", "--timeout=6")
    fresh = _succeeds(left, "revalidatesessions_dynamo", "--timeout=6")
    stage.traffic.come_back(target, by_plan=drained and fresh)
    for site in (left, taken):
        _succeeds(site, "drainsessions_dynamo", "off", "--timeout=6")


@_kind("site lost", "site", 6, 9)
def _site_lost(stage: Stage, target: str) -> Iterator[None]:
    site = stage.world.sites[target]
    stage.traffic.leave(target)
    stage.outages.killed(target, site.workers)
    stage.outages.emptied(target)
    site.web.kill()
    site.memcached.kill()
    yield
    site.memcached.start()
    site.web.start()
    stage.traffic.come_back(target)


@_kind("site cut off", "site", 6, 9)
def _site_cut_off(stage: Stage, target: str) -> Iterator[None]:
    site = stage.world.sites[target]
    stage.traffic.leave(target)
    site.web.freeze()
    site.memcached.freeze()
    yield
    site.memcached.thaw()
    site.web.thaw()
    stage.traffic.come_back(target)


def _kill(stage: Stage, site: Site, number: int | None) -> None:
    pids = site.workers[:number]
    stage.outages.killed(site.name, pids)
    for pid in pids:
        os.kill(pid, SIGKILL)


def _succeeds(site: Site, *words: str) -> bool:
    return site.command(*words).returncode == 0
