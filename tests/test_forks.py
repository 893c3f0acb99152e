"""Children of a fork with warm connections: none reads what another one asked for.

``FORK_READS`` in the environment says how many reads the children make together, of each tier.
"""

import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_dynamo_failover import memcached as connections
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_client import DynamoClient
from django_dynamo_failover.record import ColdItem

CHILDREN = 8
NAMES = [f"session-{number}" for number in range(64)]
READS = int(os.environ.get("FORK_READS", "4000"))

#: A race that should be seen at once is run again so often on a busy machine.
ATTEMPTS = 10


@pytest.fixture
def memcached_reader(memcached):
    cache = MemcachedCache(memcached.address, {"OPTIONS": {"timeout": 1, "connect_timeout": 1}})
    cache.set_many({name: name.encode() for name in NAMES})
    yield cache.get
    cache.disconnect()


@pytest.fixture
def dynamodb_reader(dynamodb, table):
    sessions = DynamoTable(
        table,
        Region("us-east-1", dynamodb.endpoint_url),
        connect_timeout=1,
        read_timeout=1,
        attempts=1,
        max_connections=10,
    )
    now = time.time()
    for name in NAMES:
        item = ColdItem(name, int(now) + 999, name.encode(), 1, "", now, "")
        sessions.put_new(item, now, time.monotonic() + 20)

    def read(name):
        item = sessions.read(name, time.monotonic() + 20).item
        return item.data if item else None

    yield read
    sessions.client._maker.client(time.monotonic() + 1).close()


def wrong_reads(read, count):
    """Read in 8 children of a process whose connections are warm; return how many went wrong."""
    with ThreadPoolExecutor(4) as pool:  # several connections
        assert list(pool.map(read, NAMES)) == [name.encode() for name in NAMES]
    pipes = []
    for child in range(CHILDREN):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
            pid = os.fork()
        if pid == 0:
            wrong = count  # if it ends in whatever other way
            try:
                wrong = _wrong_reads(read, child, count // CHILDREN)
            finally:
                os.write(writer, str(wrong).encode())
                os._exit(0)
        os.close(writer)
        pipes.append((pid, reader))
    total = 0
    for pid, reader in pipes:
        with open(reader) as pipe:  # noqa: PTH123
            total += int(pipe.read())
        os.waitpid(pid, 0)
    return total


def _wrong_reads(read, child, count):
    wrong = 0
    for number in range(count):
        name = NAMES[(number * CHILDREN + child) % len(NAMES)]
        try:
            wrong += read(name) != name.encode()
        except Exception:  # of whatever kind: nobody fails here, unless two read one connection
            wrong += 1
        if wrong >= 3:
            break  # seen enough; it may be a timeout each
    return wrong


@pytest.mark.parametrize("tier", ["memcached", "dynamodb"])
def test_no_child_reads_a_foreign_session(request, tier):
    assert wrong_reads(request.getfixturevalue(f"{tier}_reader"), READS) == 0


def test_children_on_their_parents_memcached_connections_would(memcached_reader, monkeypatch):
    monkeypatch.setattr(connections, "getpid", lambda: 0)
    for pool in connections._pools.values():
        monkeypatch.setattr(pool, "_pid", 0)
    assert any(wrong_reads(memcached_reader, 4_000) for _ in range(ATTEMPTS))


def test_children_with_their_parents_boto3_client_would(dynamodb_reader, monkeypatch):
    monkeypatch.setattr(DynamoClient, "_own_maker", lambda client: client._maker)
    assert any(wrong_reads(dynamodb_reader, 4_000) for _ in range(ATTEMPTS))
