"""A site put together by hand from its parts, at a time that only the test moves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from servers import Dynalite

from django_dynamo_failover.breaker import Breaker
from django_dynamo_failover.cold import ColdTier, GuardedRegion
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.fleet import Fleet
from django_dynamo_failover.hot import HotTier, State
from django_dynamo_failover.keys import Keyring, storage_id
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.reconcile import Outcome, Reconciler
from django_dynamo_failover.record import Record, new_record

from .configurations import boto_session

NOW = 1_800_000_000.0
KEYRING = Keyring(["secret"])
ID = storage_id("a session")
LIFETIME = 10_000  # seconds
LEASE = 900

_CACHE_METHODS = ["gets", "get", "get_many", "cas", "add", "set"]


class Clock:
    """A time that stands still until a test moves it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = 1) -> float:
        """Let some time pass; return the time it is then."""
        self.now += seconds
        return self.now


@contextmanager
def threads_in_a_hurry() -> Iterator[None]:
    """Let threads take turns as often as they can, for the races that are rare otherwise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def connect(dynamodb: Dynalite) -> DynamoTable:
    """A client, for copies of this table with names of their own: it takes 0.1 s to make."""
    return DynamoTable(
        "no-table",
        Region("us-east-1", dynamodb.endpoint_url),
        connect_timeout=0.5,
        read_timeout=2.0,
        attempts=2,
        max_connections=10,
        make_session=boto_session,
    )


class Site:
    """A hot tier of its own, over a table that it shares with the other sites of a test."""

    def __init__(self, cache: Any, table: DynamoTable, clock: Clock) -> None:
        self.cache = cache
        self.table = table
        self.clock = clock
        self.metrics = Metrics()
        self.hot = HotTier(
            lambda: self.cache, KEYRING, self.metrics, lambda: Breaker(clock=clock), now=clock
        )
        self.fleet = Fleet(self.hot, now=clock)
        #: Lets many failures pass, unless a test opens it.
        self.cold_breaker = Breaker(threshold=1000, clock=clock)
        region = GuardedRegion(table, self.cold_breaker)
        self.cold = ColdTier([region], self.metrics, deadline=5, now=clock)
        self.reconciler = Reconciler(
            self.hot, self.cold, KEYRING, self.metrics, lease=LEASE, now=clock
        )

    def new(self, payload: bytes = b"first", id: str = ID) -> Record:
        """A session that the hot tier holds, and DynamoDB does not."""
        record = new_record(id, payload, NOW + LIFETIME, self.clock.tick())
        assert self.hot.add(record)
        return record

    def open(self, payload: bytes = b"first", id: str = ID) -> Record:
        """A session that both tiers hold."""
        now = self.clock.tick()
        record = new_record(id, payload, NOW + LIFETIME, now)
        assert self.write(record) is Outcome.WRITTEN
        assert self.hot.add(record.agreed(now))
        return record.agreed(now)

    def save(self, payload: bytes, id: str = ID) -> Record:
        """A change that waits to be written to DynamoDB."""
        answer = self.hot.get(id)
        assert answer.record is not None
        record = answer.record.changed(payload, NOW + LIFETIME, self.clock.tick())
        assert self.hot.swap(record, answer.token)
        return record

    def save_through(self, payload: bytes) -> Record:
        """A change that is in DynamoDB before the response, and noted in the hot tier later."""
        record = self.save(payload)
        assert self.write(record) is Outcome.WRITTEN
        return record

    def write(self, record: Record) -> Outcome:
        """Write a version that the hot tier has ordered."""
        return self.reconciler.write(record, ordered=True).outcome

    def refill(self) -> None:
        """What a request does that finds nothing in the hot tier."""
        record = self.reconciler.read(ID)
        assert record is not None
        assert self.hot.add(record.reborn())

    def lose(self) -> None:
        """Let the hot tier forget everything."""
        self.cache.clear()

    def renew(self) -> Record | None:
        answer = self.hot.get(ID)
        assert answer.state is State.LIVE
        return self.reconciler.renew(answer)

    def logout(self) -> None:
        self.hot.bury(ID, 60)
        self.cold.revoke(ID, int(NOW) + 2 * LIFETIME)

    def held(self, id: str = ID) -> Record:
        """What the hot tier holds."""
        answer = self.hot.get(id)
        assert answer.record is not None, answer.state
        return answer.record

    def payload_stored(self, id: str = ID) -> bytes | None:
        """What DynamoDB holds, None if the session is over."""
        record = self.reconciler.read(id)
        return None if record is None else record.payload

    def counts(self, *names: str) -> list[int]:
        counts = self.metrics.snapshot()
        return [counts[name] for name in names]

    def go_down(self) -> None:
        """Let the cache fail until ``come_back``."""

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError

        for method in _CACHE_METHODS:
            setattr(self.cache, method, fail)

    def come_back(self) -> None:
        for method in _CACHE_METHODS:
            delattr(self.cache, method)
