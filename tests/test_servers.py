"""The servers that the other tests and the demo stand on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, HTTPClientError
from servers import HOST, Dynalite, FaultProxy, Memcached, boto3_client, create_table

ORPHANS = """
import os, signal
from servers import {server}
server = {server}().start()
server.freeze()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def put(server, table, name):
    boto3_client(server.endpoint_url).put_item(TableName=table, Item={"id": {"S": name}})


def stored(server, table):
    scan = boto3_client(server.endpoint_url).scan(TableName=table)
    return sorted(item["id"]["S"] for item in scan["Items"])


def test_memcached_counts_its_commands(memcached):
    before = memcached.commands()
    memcached.set("a", b"1\r\nEND\r\n")
    assert memcached.get("a") == b"1\r\nEND\r\n"
    assert memcached.get("nope") is None
    assert memcached.delete("a")
    assert not memcached.delete("a")
    assert memcached.commands() - before == Counter(get=2, set=1, delete=2)


def test_memcached_lists_its_keys(memcached):
    memcached.set(":1:b c".replace(" ", "%"), b"")
    memcached.set("a", b"x" * 100_000)
    assert memcached.keys() == [":1:b%c", "a"]
    memcached.flush()
    assert memcached.keys() == []


def test_a_restarted_memcached_has_its_old_address_and_is_empty(start):
    memcached = start(Memcached)
    memcached.set("a", b"1")
    address, pid = memcached.address, memcached.pid
    memcached.restart()
    assert memcached.address == address
    assert memcached.pid != pid
    assert memcached.get("a") is None


def test_a_frozen_memcached_goes_on_where_it_was(start):
    memcached = start(Memcached)
    memcached.set("a", b"1")
    memcached.freeze()
    memcached.timeout = 0.2
    with pytest.raises(TimeoutError):
        memcached.get("a")
    memcached.thaw()
    assert memcached.get("a") == b"1"


def test_dynalite_counts_requests_by_operation(dynamodb, table):
    put(dynamodb, table, "a")
    put(dynamodb, table, "b")
    assert stored(dynamodb, table) == ["a", "b"]
    assert dynamodb.requests() == Counter(PutItem=2, Scan=1)
    dynamodb.reset_requests()
    assert dynamodb.requests() == Counter()


def test_dynalite_with_a_path_survives_a_kill(start, table_name, tmp_path):
    dynamodb = start(Dynalite, path=tmp_path)
    create_table(dynamodb.endpoint_url, table_name)
    put(dynamodb, table_name, "a")
    dynamodb.restart()
    assert stored(dynamodb, table_name) == ["a"]


def test_dynalite_answers_with_an_error_as_often_as_it_was_told(dynamodb, table):
    dynamodb.fail("PutItem", "ThrottlingException", times=2)  # the client tries twice
    with pytest.raises(ClientError, match="ThrottlingException"):
        put(dynamodb, table, "a")
    put(dynamodb, table, "b")
    assert stored(dynamodb, table) == ["b"]


def test_dynalite_fails_in_one_region_only(dynamodb, table):
    dynamodb.fail("PutItem", "ThrottlingException", times=None, region="us-west-2")
    west = boto3_client(dynamodb.endpoint_url, "us-west-2")
    put(dynamodb, table, "a")
    with pytest.raises(ClientError, match="ThrottlingException"):
        west.put_item(TableName=table, Item={"id": {"S": "b"}})
    dynamodb.heal("us-east-1")
    with pytest.raises(ClientError, match="ThrottlingException"):
        west.put_item(TableName=table, Item={"id": {"S": "b"}})
    dynamodb.heal("us-west-2")
    west.put_item(TableName=table, Item={"id": {"S": "c"}})
    assert stored(dynamodb, table) == ["a", "c"]


@pytest.mark.parametrize("after", [False, True])
def test_dynalite_loses_a_request_or_its_reply(dynamodb, table, after):
    dynamodb.fail("PutItem", "drop", times=None, after=after)
    with pytest.raises(HTTPClientError):
        put(dynamodb, table, "a")
    dynamodb.heal()
    assert stored(dynamodb, table) == (["a"] if after else [])


def test_dynalite_leaves_a_batch_undone(dynamodb, table):
    dynamodb.fail("*", "unprocessed")
    batch = {table: [{"PutRequest": {"Item": {"id": {"S": "a"}}}}]}
    answer = boto3_client(dynamodb.endpoint_url).batch_write_item(RequestItems=batch)
    assert answer["UnprocessedItems"] == batch
    assert stored(dynamodb, table) == []


def test_dynalite_is_as_slow_as_it_was_told(dynamodb, table):
    dynamodb.latency(50)
    began = time.monotonic()
    put(dynamodb, table, "a")
    assert time.monotonic() - began >= 0.05


def test_moto_counts_requests_by_operation(moto, table_name):
    create_table(moto.endpoint_url, table_name)
    moto.reset_requests()
    put(moto, table_name, "a")
    assert stored(moto, table_name) == ["a"]
    assert moto.requests() == Counter(PutItem=1, Scan=1)


def test_redis_forgets_at_a_flush(redis):
    assert redis._ask("SET a 1") == b"+OK\r\n"
    redis.flush()
    assert redis._ask("GET a") == b"$-1\r\n"


@pytest.mark.parametrize("server", [Memcached, Dynalite])
def test_a_server_dies_with_the_process_that_started_it(server, request):
    request.getfixturevalue("memcached" if server is Memcached else "dynamodb")  # or skip
    result = subprocess.run(
        [sys.executable, "-c", ORPHANS.format(server=server.__name__)],
        cwd=Path(__file__).parent.parent / "testproject",
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while is_alive(int(result.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


ERROR = b"SERVER_ERROR out of memory\r\n"


@pytest.fixture
def proxy(memcached):
    memcached.set("a", b"1")
    with FaultProxy(memcached.port, delay=0.2, reply=ERROR) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy):
    with socket.create_connection((HOST, proxy.port), timeout=0.5) as connection:
        yield connection


def ask(connection):
    connection.sendall(b"get a\r\n")
    return connection.recv(100)


ANSWER = b"VALUE a 0 1\r\n1\r\nEND\r\n"


def test_a_proxy_passes_on_what_comes(connection):
    assert ask(connection) == ANSWER
    assert ask(connection) == ANSWER


def test_a_proxy_refuses(proxy, connection):
    ask(connection)
    proxy.set("refuse")
    assert ask(connection) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port))
    proxy.set("pass")
    with socket.create_connection((HOST, proxy.port), timeout=0.5) as new:
        assert ask(new) == ANSWER


def test_a_proxy_is_a_black_hole(proxy, connection, memcached):
    proxy.set("black hole")
    before = memcached.commands()
    with pytest.raises(TimeoutError):
        ask(connection)
    assert memcached.commands() == before


def test_a_proxy_freezes(proxy, connection, memcached):
    proxy.set("freeze")
    connection.sendall(b"set a 0 0 1\r\n2\r\n")
    with pytest.raises(TimeoutError):
        connection.recv(100)
    assert memcached.get("a") == b"1"
    proxy.set("pass")
    assert connection.recv(100) == b"STORED\r\n"
    assert memcached.get("a") == b"2"


def test_a_proxy_resets(proxy, connection):
    proxy.set("reset")
    with pytest.raises(ConnectionResetError):
        ask(connection)


def test_a_proxy_is_slow(proxy, connection):
    proxy.set("slow")
    began = time.monotonic()
    assert ask(connection) == ANSWER
    assert time.monotonic() - began >= 0.2


def test_a_proxy_answers_with_an_error(proxy, connection):
    proxy.set("error")
    assert ask(connection) == ERROR
    proxy.set("pass")
    assert ask(connection) == ANSWER


def test_dynalite_serves_so_many_reads_a_second(dynamodb, table):
    dynamodb.throttle(50)
    client = boto3_client(dynamodb.endpoint_url)
    refused = 0
    began = time.monotonic()
    while (took := time.monotonic() - began) < 1:
        try:
            client.get_item(TableName=table, Key={"id": {"S": "a"}})
        except client.exceptions.ProvisionedThroughputExceededException:
            refused += 1
    assert 1 <= dynamodb.requests()["GetItem"] <= 50 * (took + 0.1) + 1
    assert dynamodb.throttled() >= max(1, refused)  # the client tries twice
    put(dynamodb, table, "a")
    dynamodb.heal()
    before = dynamodb.throttled()
    for _ in range(100):
        client.get_item(TableName=table, Key={"id": {"S": "a"}})
    assert dynamodb.throttled() == before
