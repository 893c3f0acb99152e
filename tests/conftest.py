"""Real servers and an engine on them.

=======================  =========================================================================
``memcached``            the shared memcached, flushed
``dynamodb``             the shared dynalite, its counters at zero and its faults off
``moto``                 the shared moto server: knows TTL, cannot fail
``redis``                the shared redis, flushed
``start(Server, …)``     a server of the test's own, to kill and restart; stopped after it
``table``                the name of a new table in ``dynamodb``
``engine``               the package configured for ``memcached``, ``dynamodb`` and ``table``
``make_engine(…)``       the same for other servers, regions, caches and options
``beaten``               set once a process has left the heartbeat of its site, right at its start
``join()``               one more process of a site, as ``Fleet`` sees it: see ``fleets``
``serve(…)``             web processes of the shop, and the ``operator`` beside them
``chief``                who looks at the health panel: see ``panels``
=======================  =========================================================================

A test whose server is not installed is skipped; with ``REQUIRE_SERVERS=1`` in the environment it
fails.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from servers import (
    Dynalite,
    Memcached,
    MotoServer,
    Redis,
    ServerProcess,
    boto3_client,
    create_table,
)

# No AWS configuration of this machine takes part, here and in the processes that tests start.
for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
    NO_PROXY="127.0.0.1,localhost",
)

REGION_NAMES = ["us-east-1", "us-west-2", "eu-west-1"]

ServerType = TypeVar("ServerType", bound=ServerProcess)
client = boto3_client


def require(server: type[Memcached | Dynalite | Redis | MotoServer]) -> None:
    """Skip the test, or fail it with REQUIRE_SERVERS=1, if this server is not installed."""
    if not server.available():
        message = f"{server.__name__} is not installed"
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(f"{message}, and REQUIRE_SERVERS=1", pytrace=False)
        pytest.skip(message)


def _started(server_type: type[ServerType]) -> Iterator[ServerType]:
    require(server_type)
    with server_type() as server:
        yield server


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[Memcached]:
    yield from _started(Memcached)


@pytest.fixture(scope="session")
def dynamodb_server() -> Iterator[Dynalite]:
    yield from _started(Dynalite)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    yield from _started(Redis)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    require(MotoServer)
    with MotoServer() as server:
        yield server


@pytest.fixture
def memcached(memcached_server: Memcached) -> Iterator[Memcached]:
    memcached_server.flush()
    yield memcached_server
    memcached_server.thaw()


@pytest.fixture
def dynamodb(dynamodb_server: Dynalite) -> Iterator[Dynalite]:
    dynamodb_server.heal()
    dynamodb_server.reset_requests()
    yield dynamodb_server
    dynamodb_server.thaw()


@pytest.fixture
def redis(redis_server: Redis) -> Iterator[Redis]:
    redis_server.flush()
    yield redis_server
    redis_server.thaw()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """``start(Dynalite, path=tmp_path)``: a running server that belongs to this test."""
    servers: list[ServerProcess] = []

    def start(server_type: type[ServerType], **options: Any) -> ServerType:
        require(server_type)
        server = server_type(**options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def table_name() -> str:
    """A name that no other test uses."""
    return f"sessions-{uuid.uuid4().hex}"


@pytest.fixture
def table(dynamodb: Dynalite, table_name: str) -> str:
    create_table(dynamodb.endpoint_url, table_name)
    dynamodb.reset_requests()
    return table_name


@dataclass
class Engine:
    """The package as Django is configured for it, and the servers below it."""

    settings: Any
    hot: Memcached | Redis | None
    regions: Sequence[Dynalite | MotoServer]
    table: str

    @property
    def cold(self) -> Dynalite | MotoServer:
        """The server of the first region."""
        return self.regions[0]

    def configure(self, **options: Any) -> None:
        """Change settings in DYNAMO_FAILOVER: ``engine.configure(WRITE_INTERVAL=5)``."""
        self.settings.DYNAMO_FAILOVER = {**self.settings.DYNAMO_FAILOVER, **options}

    @property
    def runtime(self) -> Any:
        from django_dynamo_failover import runtime

        return runtime.current()

    def restart(self) -> None:
        """Close the runtime and forget it, as the restart of a web process does."""
        from django_dynamo_failover import runtime

        runtime.reset()

    def store(self, session_key: str | None = None) -> Any:
        """A session, as the middleware makes one."""
        from django_dynamo_failover.sessions import SessionStore

        return SessionStore(session_key)

    def items(self, region: int = 0) -> dict[str, Mapping[str, Any]]:
        """What the table holds, by id. Counts as a Scan."""
        scan = boto3_client(self.regions[region].endpoint_url, REGION_NAMES[region]).scan(
            TableName=self.table, ConsistentRead=True
        )
        return {item["id"]["S"]: item for item in scan["Items"]}

    def put_item(self, item: Mapping[str, Any], region: int = 0) -> None:
        """Plant an item. Counts as a PutItem."""
        boto3_client(self.regions[region].endpoint_url, REGION_NAMES[region]).put_item(
            TableName=self.table, Item=item
        )


@pytest.fixture
def make_engine(
    settings: Any, table_name: str, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Engine]]:
    """Configure Django for an engine.

    ``make_engine(memcached, dynamodb)``; a list of DynamoDB servers makes them regions. Creates the
    table, unless its name is given. ``cache`` goes into the entry of CACHES, other keywords into
    DYNAMO_FAILOVER. A test whose servers are down at its end waits for SHUTDOWN_TIMEOUT, so that is
    short here.
    """

    from django.core.cache import caches

    from django_dynamo_failover import runtime

    engines: list[Engine] = []
    built: list[Any] = []  # the runtime of this process, and those that tests let play another one
    build = runtime.build

    def build_and_remember(config: Any) -> Any:
        built.append(build(config))
        return built[-1]

    monkeypatch.setattr(runtime, "build", build_and_remember)
    opened: list[Any] = []  # the caches of all threads: Django's own leave their sockets open
    open_cache = caches.create_connection

    def open_and_remember(alias: str) -> Any:
        opened.append(open_cache(alias))
        return opened[-1]

    monkeypatch.setattr(caches, "create_connection", open_and_remember)

    def make(
        hot: Memcached | Redis | None = None,
        cold: Dynalite | MotoServer | Sequence[Dynalite | MotoServer] = (),
        *,
        cache: Mapping[str, Any] | None = None,
        table: str | None = None,
        **options: Any,
    ) -> Engine:
        regions = [cold] if isinstance(cold, Dynalite | MotoServer) else list(cold)
        if table is None:
            for server, region in zip(regions, REGION_NAMES, strict=False):
                create_table(server.endpoint_url, table_name, region)
        if cache is None:
            cache = {
                Memcached: {"BACKEND": "django_dynamo_failover.cache.MemcachedCache"},
                Redis: {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
                type(None): {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            }[type(hot)]
        location = {Memcached: "address", Redis: "url"}.get(type(hot))
        settings.CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
            "sessions": {
                "LOCATION": getattr(hot, location) if location else table_name,
                **cache,
            },
        }
        settings.SESSION_ENGINE = "django_dynamo_failover.sessions"
        settings.SESSION_CACHE_ALIAS = "sessions"
        settings.DYNAMO_FAILOVER = {
            "TABLE": table or table_name,
            "REGIONS": [
                {"NAME": region, "ENDPOINT_URL": server.endpoint_url}
                for server, region in zip(regions, REGION_NAMES, strict=False)
            ],
            "SHUTDOWN_TIMEOUT": 1,
            **options,
        }
        for server in regions:
            server.reset_requests()
        engines.append(Engine(settings, hot, regions, table or table_name))
        return engines[-1]

    yield make
    for engine in engines:
        for server in [engine.hot, *engine.regions]:
            if isinstance(server, ServerProcess) and server.pid is not None:
                server.thaw()
                if isinstance(server, Dynalite):
                    server.heal()
    runtime.reset()
    for each in built:
        each.writer.close(0)
    for each in opened:
        each.close()


@pytest.fixture
def engine(
    make_engine: Callable[..., Engine], memcached: Memcached, dynamodb: Dynalite, table: str
) -> Engine:
    return make_engine(memcached, dynamodb, table=table)


@pytest.fixture
def beaten(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    from django_dynamo_failover.heartbeat import Heartbeat

    beaten = threading.Event()
    leave = Heartbeat._leave

    def leave_and_tell(self: Heartbeat, site: Any) -> None:
        leave(self, site)
        beaten.set()

    monkeypatch.setattr(Heartbeat, "_leave", leave_and_tell)
    monkeypatch.setattr("django_dynamo_failover.runtime.FIRST_REPORT_SECONDS", 0.01)
    return beaten


# At the end, as they need what is above.
from .fleets import join, open_memcached, soon_forgotten, three  # noqa: E402, F401
from .operating import environment, operator, serve, shop  # noqa: E402, F401
from .panels import chief, panel_servers, panel_site  # noqa: E402, F401
