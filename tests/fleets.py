"""Processes of one site, as Fleet sees them: each has a hot tier of its own on a shared cache."""

import pytest
from django.core.cache.backends.locmem import LocMemCache
from servers import Memcached

from django_dynamo_failover import fleet
from django_dynamo_failover.breaker import Breaker
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.fleet import Fleet
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.metrics import Metrics

from .sites import KEYRING, NOW, Clock


class Process(Fleet):
    """One process of a site, at a time that only the test moves."""

    def __init__(self, cache, keyring=KEYRING, site=None):
        self.cache = cache
        self.clock = Clock()
        self.hot = HotTier(
            lambda: cache, keyring, Metrics(), lambda: Breaker(clock=self.clock), now=self.clock
        )
        super().__init__(self.hot, site=site, now=self.clock)

    @property
    def known(self):
        """What it has heard of."""
        return (self.orders.draining, self.orders.revalidated, sorted(self.orders.users))

    def poll(self, pending=0):
        """What the background thread does now and then."""
        self.look()
        self.tell(pending)


@pytest.fixture
def open_memcached(memcached):
    """``open_memcached(**params)``: the shared memcached, as a process opens it."""
    opened = []

    def open_memcached(**params):
        opened.append(MemcachedCache(memcached.address, params))
        return opened[-1]

    yield open_memcached
    for cache in opened:
        cache.disconnect()


@pytest.fixture(params=["memcached", "three memcacheds", "LocMemCache"])
def join(request):
    """``join()``: one more process of the site."""
    match request.param:
        case "memcached":
            open_cache = request.getfixturevalue("open_memcached")
        case "three memcacheds":
            three = request.getfixturevalue("three")
            open_cache = three.open_cache
        case _:

            def open_cache():
                return LocMemCache(request.node.nodeid, {})

    def join(**options):
        return Process(open_cache(), **options)

    yield join
    open_cache().clear()


class Three:
    """Three memcached servers as one cache."""

    def __init__(self, start):
        self.servers = [start(Memcached) for _ in range(3)]
        self.opened = []

    def open_cache(self):
        self.opened.append(MemcachedCache([server.address for server in self.servers], {}))
        return self.opened[-1]

    def join(self):
        return Process(self.open_cache())

    def server_of(self, key):
        return self.servers[self.opened[0].server_of(key)]


@pytest.fixture
def three(start):
    three = Three(start)
    yield three
    for cache in three.opened:
        cache.disconnect()


@pytest.fixture
def soon_forgotten(monkeypatch):
    monkeypatch.setattr(fleet, "SLOT_SECONDS", 1)


ISSUE = {
    "drain": lambda process: process.drain(True),
    "revalidate": Process.revalidate,
    "revoke": lambda process: process.revoke({"ann": NOW}),
}
KNOWN = {
    "drain": (True, 0, []),
    "revalidate": (False, NOW, []),
    "revoke": (False, 0, ["ann"]),
}
each_order = pytest.mark.parametrize("order", ISSUE)
