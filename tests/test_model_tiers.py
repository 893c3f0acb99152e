"""The tiers of the model answer as the real ones do."""

import copy
import itertools
import random
import time
from types import SimpleNamespace

import pytest

from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.exceptions import ConditionFailed
from django_dynamo_failover.record import ColdItem

from .model.dynamodb import GlobalTable
from .model.memcached import Cache, Memcached, Socket
from .sites import NOW, Clock, connect

SEEDS = range(20)
COMMANDS = ["gets", "get", "get_many", "add", "set", "cas", "delete"]


@pytest.mark.parametrize("seed", SEEDS)
def test_memcached(seed, memcached):
    dice = random.Random(seed)
    real = MemcachedCache(memcached.address, {"KEY_PREFIX": "model"})
    model = Cache(Socket(Memcached(Clock())), lambda: None)
    tokens = {}

    def run(cache, command, key, value, timeout):
        if command == "gets":
            found, tokens[cache, key] = cache.gets(key) or (None, b"0")
            return found
        if command == "cas":
            return cache.cas(key, value, tokens.get((cache, key), b"0"), timeout)
        arguments = {"get_many": (["a", "b"],), "add": (key, value, timeout)}
        arguments["set"] = arguments["add"]
        return getattr(cache, command)(*arguments.get(command, (key,)))

    try:
        for number in range(60):
            value, timeout = b"%d" % number, dice.choice([None, 100])
            command, key = dice.choice(COMMANDS), dice.choice("ab")
            answers = [run(cache, command, key, value, timeout) for cache in (real, model)]
            assert answers[0] == answers[1], command
    finally:
        real.disconnect()


class Near:
    """A client that is in the region itself."""

    def __init__(self, replica):
        self.replica = replica

    def call(self, operation, ask, until, attempts=None):
        return ask(self.replica)


@pytest.mark.parametrize("seed", SEEDS)
def test_dynamodb(seed, dynamodb_server, table):
    dice = random.Random(seed)
    real = copy.copy(connect(dynamodb_server))
    real.table = table
    clock = Clock()
    options = {"connect_timeout": 1, "read_timeout": 1, "attempts": 1, "max_connections": 1}
    model = DynamoTable(table, Region("model"), **options)
    model.client = Near(GlobalTable(clock, ["model"]).replicas[0])
    numbers = itertools.count()

    def item():
        return ColdItem(
            id=dice.choice("ab"),
            expires=int(NOW) + dice.choice([-100, 100]),
            data=b"data",
            version=dice.randint(1, 4),
            site=dice.choice(["east", "west"]),
            modified=clock.now,
            nonce=str(next(numbers)),
        )

    for _ in range(40):
        ask = operation(dice, item())
        assert answer(ask, real) == answer(ask, model)


def operation(dice, item):
    """One of the things that are asked of a table."""
    until = time.monotonic() + 5
    base, site = dice.randint(1, 4), dice.choice(["east", "west", ""])
    before = NOW + dice.randint(0, 3)
    operations = [
        lambda table: table.put_new(item, NOW, until),
        lambda table: table.put_over(item, base, site, until),
        lambda table: table.put_over(item, base, site, until),
        lambda table: table.read(item.id, until, "owner"),
        lambda table: table.read_user("owner", until),
        lambda table: table.revoke_user("owner", before, int(NOW), until),
        lambda table: table.revoke("b", int(NOW), until),
    ]
    return dice.choice(operations)


def answer(ask, table):
    try:
        return ask(table)
    except ConditionFailed:
        return "condition failed"


def test_of_two_writes_the_later_wins_wherever_it_comes_first():
    clock = Clock()
    table = GlobalTable(clock, ["east", "west"])
    east, west = table.replicas
    for replica, name in [(east, "first"), (west, "second")]:
        clock.tick()
        put = SimpleNamespace(item={"id": {"S": "a"}, "name": {"S": name}})
        replica.batch_write_item(RequestItems={"t": [{"PutRequest": {"Item": put.item}}]})
    assert east.item("a") != west.item("a")
    for replication in list(table.under_way):
        table.deliver(replication)
    assert east.item("a") == west.item("a") == put.item


def test_a_frozen_server_does_what_it_was_told_once_it_thaws():
    socket = Socket(Memcached(Clock()))
    cache = Cache(socket, lambda: None)
    socket.frozen = True
    for write in [lambda: cache.add("a", b"1"), lambda: cache.set("a", b"2")]:
        with pytest.raises(TimeoutError):
            write()
    socket.thaw()
    assert cache.get("a") == b"2"
