"""What the contract of session behaviour runs over: caches, regions, options and outages.

Plus what all tests of the engine need: a later time, a condition to wait for, what is pending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
import botocore.session
import pytest
import time_machine
from asgiref.sync import async_to_sync
from botocore.loaders import create_loader
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.serializers import JSONSerializer
from django.core.cache import caches
from servers import Memcached, free_port

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import SessionUnavailable
from django_dynamo_failover.keys import storage_id

from .conftest import REGION_NAMES, Engine, client

OURS = "django_dynamo_failover.cache.MemcachedCache"
STOCK = "django.core.cache.backends.memcached.PyMemcacheCache"
REDIS = "django.core.cache.backends.redis.RedisCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"

LOGIN = {"_auth_user_id": "7", "_auth_user_backend": "a.Backend", "_auth_user_hash": "f00"}

loader = cache(create_loader)


BOTO_SESSION = f"{__name__}.boto_session"


def boto_session() -> boto3.Session:
    """A session whose clients share one parsed model of DynamoDB: to parse it takes 90 ms."""
    session = botocore.session.get_session()
    session.register_component("data_loader", loader())
    return boto3.Session(botocore_session=session)


@dataclass(frozen=True)
class Configuration:
    """What an engine stands on, which of it is down, and so what it must answer otherwise."""

    name: str
    cache: str = OURS
    regions: int = 1
    down: tuple[str, ...] = ()  # "hot", "cold", "nearest region"
    asynchronous: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def is_durable(self) -> bool:
        """Whether DynamoDB takes writes.

        Where it is down a change of the login or the expiry raises ``SessionUnavailable``, for
        the browser would have a cookie that only one tier knows (G2), and so does ``cycle_key``,
        for an outage could leave neither of the two sessions. All other changes are saved.
        """
        return "cold" not in self.down

    @property
    def has_proof(self) -> bool:
        """Whether it can be known that a session is over which the hot tier does not hold.

        With DynamoDB down it cannot: ``SessionUnavailable``, and the session key stays (G1).
        """
        return "cold" not in self.down

    @property
    def has_every_region(self) -> bool:
        """Whether a missing item proves that a session is over which DynamoDB has had.

        With a region down it does not, for that one may have it: ``SessionUnavailable`` (G1).
        """
        return self.has_proof and "nearest region" not in self.down

    @property
    def survives_loss_of_hot(self) -> bool:
        """Whether a session outlives the contents of the hot tier.

        With DynamoDB down it does in the memory of the process that changed it (G3).
        """
        return self.regions > 0

    @property
    def is_atomic(self) -> bool:
        """Whether something orders concurrent saves: compare-and-swap, or DynamoDB alone."""
        return self.cache == OURS or "hot" in self.down


def closed_by_gc(configuration: Configuration) -> Any:
    """A cache of Django's own has a connection per thread, which is closed when the thread ends."""
    ignore = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    return pytest.param(configuration, marks=ignore)


CONFIGURATIONS = [
    Configuration("both tiers up"),
    Configuration("both tiers up, async", asynchronous=True),
    Configuration("no background thread", options={"BACKGROUND": False}),
    Configuration("encrypted", options={"ENCRYPT": True}),
    closed_by_gc(Configuration("stock PyMemcacheCache", STOCK)),
    closed_by_gc(Configuration("RedisCache", REDIS)),
    Configuration("LocMemCache", LOCMEM),
    Configuration("two regions", regions=2),
    Configuration("nearest region down", regions=2, down=("nearest region",)),
    Configuration("hot down", down=("hot",)),
    Configuration("hot down, async", down=("hot",), asynchronous=True),
    Configuration("hot and nearest region down", regions=2, down=("hot", "nearest region")),
    Configuration("cold down", down=("cold",)),
    Configuration("cold down, no background thread", down=("cold",), options={"BACKGROUND": False}),
    Configuration("cold down, LocMemCache", LOCMEM, down=("cold",)),
    Configuration("hot only", regions=0),
]


class Async:
    """A session, used through the async twin of every method that has one."""

    def __init__(self, session: Any) -> None:
        object.__setattr__(self, "session", session)

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self.session, f"a{name}", None)
        return async_to_sync(twin) if twin else getattr(self.session, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.session, name, value)

    def __getitem__(self, key: str) -> Any:
        return dict(self.items())[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __contains__(self, key: str) -> bool:
        return bool(self.has_key(key))


@dataclass
class Site:
    """An engine in one configuration, as a web site would use it."""

    expected: Configuration
    engine: Engine

    def session(self, session_key: str | None = None) -> Any:
        """A session, as a request has it. It is loaded at first use."""
        session = self.engine.store(session_key)
        return Async(session) if self.expected.asynchronous else session

    def new(self, **data: Any) -> Any:
        """A session that an earlier request has saved."""
        session = self.session()
        session.update(data)
        session.save()
        return self.session(session.session_key)

    def data(self, session_key: str) -> dict[str, Any]:
        """What the next request sees."""
        session = self.session(session_key)
        data = dict(session.items())
        assert session.session_key == session_key, "the session is over"
        return data

    def data_elsewhere(self, session_key: str) -> dict[str, Any]:
        """What another process sees, which knows nothing of the pending changes of this one."""
        other = runtime.build(runtime.config())
        try:
            held = other.store.load(storage_id(session_key))
        finally:
            other.writer.close(0)
        assert held is not None, "the session is over"
        return other.codec.loads(held.record.payload, session_key, JSONSerializer())

    def assert_over(self, session_key: str, *, is_proven: bool | None = None) -> None:
        """A request finds no session, and its cookie goes; it stays where there is no proof.

        ``is_proven``: by default where the configuration has proof; a tombstone is one anywhere.
        """
        session = self.session(session_key)
        if self.expected.has_proof if is_proven is None else is_proven:
            assert session.load() == {}
            assert session.session_key is None
            assert not self.session().exists(session_key)
        else:
            with pytest.raises(SessionUnavailable):
                session.load()
            assert session.session_key == session_key

    def save_durably(self, session: Any) -> None:
        """Save a change that must be in DynamoDB before the response."""
        if self.expected.is_durable:
            session.save()
        else:
            with pytest.raises(SessionUnavailable):
                session.save()

    def save_without_hot_entry(self, session: Any) -> None:
        """Save a session that both tiers have lost."""
        with pytest.raises(UpdateError if self.expected.has_every_region else SessionUnavailable):
            session.save()

    def write_pending(self) -> None:
        """Let DynamoDB have what it does not have yet, where it is up."""
        if self.expected.is_durable:
            write_pending()

    def lose_hot(self) -> None:
        """Empty the hot tier, if it is up."""
        if "hot" not in self.expected.down:
            caches["sessions"].clear()

    def lose_cold(self, session_key: str) -> None:
        """Take the item of a session away, as nothing but a person would."""
        if self.engine.regions:
            client(self.engine.cold.endpoint_url, REGION_NAMES[0]).delete_item(
                TableName=self.engine.table, Key={"id": {"S": storage_id(session_key)}}
            )


def later(seconds: float) -> Any:
    """A block in which it is that much later, but for ``time.monotonic`` and the servers."""
    return time_machine.travel(time.time() + seconds, tick=True)


def quieten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the background thread do nothing of itself for the time of a test."""
    monkeypatch.setattr("django_dynamo_failover.writer.POLL_SECONDS", 3600)
    monkeypatch.setattr("django_dynamo_failover.runtime.FIRST_REPORT_SECONDS", 3600)


def write_pending() -> None:
    """Let the writer do at once what it has put off."""
    writer = runtime.current().writer
    if writer.pending_count:
        writer.flush(5)
    assert writer.pending_count == 0


def hot_key(session_key: str) -> str:
    """The key of a session in memcached."""
    return f":1:session:{storage_id(session_key)}"


def eventually(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def open_site(
    expected: Configuration, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Site:
    """Return a site in a configuration. A server that was killed is a port with nobody there."""
    quieten(monkeypatch)
    make_engine = request.getfixturevalue("make_engine")
    hot: Any = None
    if "hot" in expected.down:
        hot = Memcached()
    elif expected.cache in (OURS, STOCK, REDIS):
        hot = request.getfixturevalue("redis" if expected.cache == REDIS else "memcached")
    options: dict[str, Any] = {"BOTO_SESSION": BOTO_SESSION, **expected.options}
    if not expected.regions:
        return Site(expected, make_engine(hot, cache={"BACKEND": expected.cache}, **options))
    # One server in the place of several regions: a global table without any lag.
    engine = make_engine(
        hot,
        [request.getfixturevalue("dynamodb")] * expected.regions,
        cache={"BACKEND": expected.cache},
        table=request.getfixturevalue("table"),
        **options,
    )
    dead = {"NAME": REGION_NAMES[0], "ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    if "cold" in expected.down:
        engine.configure(REGIONS=[dead])
    if expected.down:
        engine.configure(SHUTDOWN_TIMEOUT=0)  # nothing comes back
    if "nearest region" in expected.down:
        engine.configure(REGIONS=[dead, *engine.settings.DYNAMO_FAILOVER["REGIONS"][1:]])
    return Site(expected, engine)


def close_site() -> None:
    """End the engine's threads, and close what connections stock caches left open in ours."""
    runtime.reset()
    for thread in threading.enumerate():
        if thread.name.startswith("django-dynamo-failover"):
            thread.join(5)
    caches.close_all()
