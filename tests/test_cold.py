"""The regions, nearest first: real tables, of which a test can make one fail."""

import copy
import dataclasses
import logging
import time

import pytest

from django_dynamo_failover.breaker import Breaker
from django_dynamo_failover.cold import ColdTier, GuardedRegion
from django_dynamo_failover.dynamo import MAX_ITEM_BYTES
from django_dynamo_failover.exceptions import (
    ColdMisconfigured,
    ColdUnavailable,
    ConditionFailed,
    Unreadable,
    ValueTooLarge,
)
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.record import ColdAnswer, ColdItem

from .conftest import create_table
from .sites import ID, NOW, Clock, connect

ITEM = ColdItem(
    id=ID,
    expires=int(NOW) + 100,
    data=b"data",
    version=5,
    site="here",
    modified=NOW,
    nonce="nonce",
)
ABSENT = ColdAnswer(item=None, revoked=False)
REVOKED = ColdAnswer(item=None, revoked=True)
FOUND = ColdAnswer(item=ITEM, revoked=False)


class Client:
    throttles = 0

    """A client that fails while it is told to, and takes some time for it."""

    def __init__(self, client):
        self.client = client
        self.error = None
        self.takes = lambda: None
        self.deadlines = []
        self.warm = client.warm
        self.pause = client.pause

    def call(self, operation, ask, until):
        self.deadlines.append(until)
        self.takes()
        if self.error is not None:
            raise self.error
        return self.client.call(operation, ask, until)


@pytest.fixture(scope="module")
def connected(dynamodb_server):
    return connect(dynamodb_server)


class Regions:
    """A cold tier and what it stands on."""

    def __init__(self, tables):
        self.clock = Clock()
        self.metrics = Metrics()
        self.tables = tables
        self.clients = [table.client for table in tables]
        self.breakers = [Breaker(threshold=2, clock=self.clock) for _ in tables]
        self.cold = self.tier(time.monotonic)

    def tier(self, monotonic):
        return ColdTier(
            [GuardedRegion(*pair) for pair in zip(self.tables, self.breakers, strict=True)],
            self.metrics,
            deadline=2.5,
            now=self.clock,
            monotonic=monotonic,
        )

    def asked(self):
        return [len(client.deadlines) for client in self.clients]

    def counts(self):
        return {name: number for name, number in self.metrics.snapshot().items() if number}


@pytest.fixture
def regions(dynamodb, connected, table_name):
    """Two regions, nothing of which replicates."""
    tables = []
    for name in ["near", "far"]:
        table = copy.copy(connected)
        table.name, table.table = name, f"{table_name}-{name}"
        table.client = Client(connected.client)
        create_table(dynamodb.endpoint_url, table.table)
        tables.append(table)
    return Regions(tables)


@pytest.fixture
def cold(regions):
    return regions.cold


@pytest.fixture
def near(regions):
    return regions.clients[0]


@pytest.fixture
def far(regions):
    return regions.clients[1]


@pytest.fixture
def put(regions):
    """``put("far")``: an item that this region has."""

    def put(name):
        table = next(table for table in regions.tables if table.name == name)
        table.put_new(ITEM, NOW, time.monotonic() + 5)
        table.client.deadlines.clear()

    return put


def test_without_regions_there_is_no_cold_tier(cold):
    assert cold.exists
    assert not ColdTier([], Metrics(), deadline=1).exists


def test_warming_starts_the_client_of_each_region(regions):
    warmed = []
    for number, client in enumerate(regions.clients):
        client.warm = lambda number=number: warmed.append(number)
    regions.cold.warm()
    assert warmed == [0, 1]


# --- Reading ----------------------------------------------------------------------------------


def test_what_the_nearest_region_holds_is_the_answer(regions, cold, put):
    put("near")
    assert cold.read(ID) == FOUND
    assert regions.asked() == [1, 0]
    assert regions.counts() == {"cold_reads": 1}


def test_what_has_not_replicated_yet_is_found_in_another_region(regions, cold, put):
    put("far")
    assert cold.read(ID) == FOUND
    assert regions.counts() == {"cold_reads": 2}


def test_no_item_is_believed_when_every_region_says_so(regions, cold):
    assert cold.read(ID) == ABSENT
    assert regions.asked() == [1, 1]


def test_no_item_says_whether_every_region_has_been_asked(cold, near, far):
    near.error = ColdUnavailable("down")
    assert cold.read(ID) == dataclasses.replace(ABSENT, complete=False)
    near.error, far.error = None, ColdUnavailable("down")
    assert cold.read(ID) == dataclasses.replace(ABSENT, complete=False)


def test_a_revocation_is_final_wherever_it_is_found_first(regions, cold, put):
    regions.tables[0].revoke(ID, int(NOW) + 100, time.monotonic() + 5)
    put("far")
    assert cold.read(ID) == REVOKED


def test_a_revocation_that_has_not_replicated_yet_is_found(regions, cold):
    regions.tables[1].revoke(ID, int(NOW) + 100, time.monotonic() + 5)
    assert cold.read(ID) == REVOKED


def test_when_the_nearest_region_is_down_another_one_answers(regions, cold, near, put):
    put("far")
    near.error = ColdUnavailable("down")
    assert cold.read(ID) == FOUND
    assert regions.counts() == {"cold_reads": 2, "cold_errors": 1}


def test_no_answer_is_never_taken_for_no_item(cold, near, far):
    near.error = far.error = ColdUnavailable("down")
    with pytest.raises(ColdUnavailable):
        cold.read(ID)


# --- Writing ----------------------------------------------------------------------------------

WRITES = {
    "put_new": lambda cold: cold.put_new(dataclasses.replace(ITEM, id="another")),
    "put_over": lambda cold: cold.put_over(dataclasses.replace(ITEM, version=6), 5, "here"),
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@each_write
def test_a_write_goes_to_the_nearest_region_alone(regions, cold, put, write):
    put("near")
    put("far")
    write(cold)
    assert regions.asked() == [1, 0]
    assert regions.counts() == {"cold_writes": 1}


@each_write
def test_a_write_goes_to_another_region_when_the_nearest_is_down(regions, cold, near, put, write):
    put("near")
    put("far")
    near.error = ColdUnavailable("down")
    write(cold)
    assert regions.asked() == [1, 1]
    assert regions.counts() == {"cold_writes": 2, "cold_errors": 1}


@each_write
def test_a_write_that_no_region_took_is_not_taken_for_done(cold, near, far, put, write):
    near.error = far.error = ColdUnavailable("down")
    with pytest.raises(ColdUnavailable):
        write(cold)


def test_a_logout_is_told_to_every_region(regions, cold, put):
    """Another one may answer next, before the logout has replicated."""
    put("near")
    put("far")
    assert cold.revoke(ID, int(NOW) + 100) is True
    for table in regions.tables:
        assert table.read(ID, time.monotonic() + 5) == REVOKED
    assert regions.counts() == {"cold_writes": 2}


@pytest.mark.parametrize("down", [0, 1])
def test_a_logout_that_not_every_region_has_heard_of_is_not_done(regions, cold, down):
    regions.clients[down].error = ColdUnavailable("down")
    assert cold.revoke(ID, int(NOW) + 100) is False
    assert regions.tables[1 - down].read(ID, time.monotonic() + 5) == REVOKED
    regions.clients[down].error = None
    assert cold.revoke(ID, int(NOW) + 100) is True


def test_a_logout_that_no_region_has_heard_of_is_not_taken_for_done(cold, near, far):
    near.error = far.error = ColdUnavailable("down")
    with pytest.raises(ColdUnavailable):
        cold.revoke(ID, int(NOW) + 100)


def test_what_was_written_is_read(cold):
    cold.put_new(ITEM)
    assert cold.read(ID) == FOUND
    cold.revoke(ID, int(NOW) + 100)
    assert cold.read(ID) == REVOKED


def test_a_failed_condition_is_an_answer_and_no_reason_to_ask_another_region(regions, cold, put):
    put("near")
    with pytest.raises(ConditionFailed):
        cold.put_new(ITEM)
    with pytest.raises(ConditionFailed):
        cold.put_over(ITEM, 5, "here")
    assert regions.asked() == [2, 0]


def test_an_item_that_is_too_large_is_so_in_every_region(regions, cold):
    with pytest.raises(ValueTooLarge):
        cold.put_new(dataclasses.replace(ITEM, data=bytes(MAX_ITEM_BYTES)))
    assert regions.asked() == [0, 0]


def test_a_new_session_replaces_one_that_has_expired_by_now(regions, cold, put):
    put("near")
    regions.clock.now = ITEM.expires + 1.0
    newer = dataclasses.replace(ITEM, nonce="another", expires=ITEM.expires + 100)
    cold.put_new(newer)
    assert cold.read(ID).item == newer


# --- Breakers ---------------------------------------------------------------------------------


def test_a_region_that_keeps_failing_is_not_asked(regions, cold, near):
    near.error = ColdUnavailable("down")
    for _ in range(5):
        cold.read(ID)
    assert regions.asked() == [2, 5]


def test_a_region_that_is_back_is_asked_again(regions, cold, near, put):
    put("near")
    near.error = ColdUnavailable("down")
    for _ in range(2):
        assert cold.read(ID).item is None
    near.error = None
    assert cold.read(ID).item is None
    regions.clock.now += 2
    assert cold.read(ID) == FOUND
    assert cold.read(ID) == FOUND
    assert regions.breakers[0].closed


def test_it_is_down_when_no_region_is_thought_to_answer(regions, cold, near, far):
    assert not cold.is_down
    near.error = ColdUnavailable("down")
    for _ in range(3):
        cold.read(ID)
    assert not cold.is_down
    far.error = ColdUnavailable("down")
    for _ in range(3):
        with pytest.raises(ColdUnavailable):
            cold.read(ID)
    assert cold.is_down
    far.error = None
    regions.clock.now += 2
    cold.read(ID)
    assert not cold.is_down


@pytest.mark.parametrize(
    "error", [ConditionFailed("x"), ValueTooLarge("x"), Unreadable("x"), RuntimeError("a bug")]
)
def test_an_answer_that_nobody_hoped_for_is_no_outage(regions, cold, near, error):
    near.error = error
    for _ in range(5):
        with pytest.raises(type(error)):
            cold.read(ID)
    assert regions.breakers[0].closed
    assert regions.counts() == {"cold_reads": 5}


def test_a_failed_condition_shows_that_a_region_is_back(regions, cold, near, put):
    put("near")
    near.error = ColdUnavailable("down")
    for _ in range(2):
        cold.read(ID)
    near.error = None
    regions.clock.now += 2
    with pytest.raises(ConditionFailed):
        cold.put_new(ITEM)
    assert regions.breakers[0].closed


def test_a_region_that_is_not_asked_costs_neither_count_nor_log(regions, cold, near, caplog):
    near.error = ColdUnavailable("down")
    for _ in range(5):
        cold.read(ID)
    assert regions.counts() == {"cold_reads": 7, "cold_errors": 2}
    assert len(caplog.records) == 2


# --- Deadlines --------------------------------------------------------------------------------


@each_write
def test_all_regions_share_one_deadline(regions, near, far, put, write):
    put("near")
    put("far")
    monotonic = Clock(time.monotonic())
    near.takes = lambda: setattr(monotonic, "now", monotonic.now + 1)
    near.error = ColdUnavailable("slow")
    began = monotonic.now
    cold = regions.tier(monotonic)
    write(cold)
    cold.read(ID)
    assert (near.deadlines[0], far.deadlines[0]) == (began + 1.25, began + 2.5)
    assert (near.deadlines[1], far.deadlines[1]) == (began + 2.25, began + 3.5)


def test_a_region_is_not_blamed_for_the_time_that_another_one_took(regions, near, far, put):
    """Else a region that hangs takes the healthy ones down with it, one after the other."""
    put("far")
    began = time.monotonic()
    monotonic = Clock(began)
    cold = regions.tier(monotonic)
    near.error = ColdUnavailable("hangs")

    def hang():
        monotonic.now += 2.5

    def run_out():
        if monotonic.now >= far.deadlines[-1]:  # as the client does by the real clock
            raise ColdUnavailable("the deadline has passed")

    near.takes, far.takes = hang, run_out
    for _ in range(2):
        with pytest.raises(ColdUnavailable):
            cold.read(ID)
    assert not regions.breakers[0].closed
    assert regions.breakers[1].closed
    assert cold.read(ID) == FOUND


# --- What the log says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "level"),
    [(ColdUnavailable("slow"), logging.WARNING), (ColdMisconfigured("no table"), logging.ERROR)],
)
def test_the_log_tells_an_outage_from_a_mistake(regions, cold, near, caplog, error, level):
    near.error = error
    cold.read(ID)
    [record] = caplog.records
    assert record.levelno == level
    assert record.getMessage() == f"DynamoDB in near: {error}"


# --- The line -------------------------------------------------------------------------------


def test_who_is_turned_away_by_an_open_breaker_tells_nothing_of_the_region(regions, cold):
    """Else the line took a region that is throttled for one that answers at once."""
    for region in cold._regions:
        region.reads._takes, region.reads._limit = 0.5, 2.0
        for _ in range(2):
            region.breaker.failure()
    with pytest.raises(ColdUnavailable):
        cold.read(ID)
    for region in cold._regions:
        line = region.reads
        assert (line._takes, line._limit, line._inside) == (0.5, 2.0, 0)
