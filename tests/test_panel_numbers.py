"""What several processes tell, added up."""

import pytest

from django_dynamo_failover.history import Event, Minute
from django_dynamo_failover.panel.facts import Description, Fleets
from django_dynamo_failover.panel.numbers import READ_PRICE, WRITE_PRICE, add_up

from .panels import facts, histogram, member, snapshot, table

NOW = 1_800_000_000.0
MINUTE = int(NOW // 60)


def site(*snapshots, members=None, ended=(), **fields):
    """A site of these processes; the first of them is the one that asks."""
    members = [member(each) for each in snapshots] if members is None else members
    fleet = Fleets(tuple(members), snapshots, complete=True, ended=ended)
    return facts(at=NOW, own=snapshots[0], fleet=fleet, **fields)


def process(number=1, **fields):
    return snapshot(number, at=fields.pop("at", NOW), **fields)


def counted(at=MINUTE, hot=(), **counts):
    return Minute(at, counts, hot, [])


def test_the_last_hour_of_all_processes_adds_up():
    one = process(1, minutes=(counted(hot_hits=5), counted(MINUTE - 3, hot_hits=7, restored=1)))
    other = process(2, minutes=(counted(hot_hits=10), counted(MINUTE - 60, hot_hits=99)))
    numbers = add_up(site(one, other))
    assert numbers.hour == {"hot_hits": 22, "restored": 1}
    assert len(numbers.minutes) == 60
    assert numbers.minutes[-1] == counted(hot_hits=15, hot=[])
    assert numbers.minutes[-4].counts == {"hot_hits": 7, "restored": 1}
    assert numbers.minutes[-2].counts == {}


def test_latencies_and_errors_add_up():
    one = process(1, latencies={"hot read": histogram(0.001)}, errors={"hot OSError": 2})
    other = process(
        2, latencies={"hot read": histogram(0.1), "us-east-1 read": histogram(1)}, errors={}
    )
    numbers = add_up(site(one, other))
    assert numbers.calls == {
        "hot read": histogram(0.001, 0.1),
        "us-east-1 read": histogram(1),
    }
    assert numbers.errors == {"hot OSError": 2}


def test_the_backlog_is_that_of_all_and_as_old_as_the_oldest():
    one = process(1, pending=2, oldest=NOW - 100, logouts=1)
    other = process(2, pending=3, oldest=NOW - 300)
    numbers = add_up(site(one, other))
    assert (numbers.pending, numbers.logouts, numbers.oldest) == (5, 1, 300)


def test_what_a_process_told_last_counts():
    one, other = process(1), process(2, pending=50, oldest=NOW - 300)
    members = [member(one, pending=9), member(other, pending=0, oldest=0.0, drained=True)]
    numbers = add_up(site(one, other, members=members))
    # Of the own process nobody knows better than itself.
    assert (numbers.pending, numbers.oldest) == (0, 0.0)
    assert [each.drained for each in numbers.processes] == [False, True]


def test_a_process_that_is_not_heard_of_is_stale_and_has_no_backlog():
    gone = process(2, at=NOW - 16, pending=50, oldest=NOW - 300)
    numbers = add_up(site(process(1), gone, members=[member(process(1))]))
    assert [each.stale for each in numbers.processes] == [False, True]
    assert (numbers.pending, numbers.oldest) == (0, 0.0)


def test_a_process_whose_clock_is_behind_is_not_stale_and_its_backlog_counts():
    late = process(2, at=NOW - 60, pending=50)
    numbers = add_up(site(process(1), late))
    assert [each.stale for each in numbers.processes] == [False, False]
    assert numbers.pending == 50


def test_its_hour_still_counts():
    gone = process(2, at=NOW - 60, minutes=(counted(hot_hits=5),))
    assert add_up(site(process(1), gone)).hour == {"hot_hits": 5}


def test_a_process_that_has_ended_is_not_missed_but_its_hour_counts():
    event = Event(NOW - 1800, "down", "hot")
    ended = process(
        2,
        at=NOW - 1500,
        pending=3,
        minutes=(counted(MINUTE - 40, hot_hits=5),),
        events=(event,),
        latencies={"hot read": histogram(0.001)},
        errors={"hot OSError": 2},
    )
    numbers = add_up(site(process(1), ended=(ended,)))
    assert [each.snapshot.pid for each in numbers.processes] == [1001]
    assert (numbers.hour, numbers.events) == ({"hot_hits": 5}, (event,))
    assert (numbers.calls, numbers.errors, numbers.pending) == ({}, {}, 0)


def test_one_that_is_missed_counts_once():
    """It has ended in order, but gave changes up."""
    gone = process(2, at=NOW - 60, minutes=(counted(lost_writes=5),))
    numbers = add_up(site(process(1), gone, members=[member(process(1))], ended=(gone,)))
    assert [each.stale for each in numbers.processes] == [False, True]
    assert numbers.hour == {"lost_writes": 5}


def test_the_cost_after_a_deployment_is_by_the_whole_hour():
    new = process(1, started=NOW - 60)
    ended = process(2, at=NOW - 60, minutes=(counted(MINUTE - 9, cold_writes=1_000),))
    cost = add_up(site(new, ended=(ended,))).cost
    assert cost is not None
    assert cost.ours == pytest.approx(730_000 / 1e6 * WRITE_PRICE)


def test_a_process_that_has_begun_just_now_is_there():
    new = member(process(2), pending=4)
    numbers = add_up(site(process(1), members=[member(process(1)), new]))
    assert [each.snapshot.pid for each in numbers.processes] == [1001, 1002]
    assert numbers.pending == 4
    assert not numbers.processes[1].stale


@pytest.mark.parametrize("fleet", [None, Fleets((), (), complete=False)])
def test_where_nobody_is_heard_of_this_process_stands_alone(fleet):
    own = process(1, pending=3, oldest=NOW - 50)
    numbers = add_up(facts(at=NOW, own=own, fleet=fleet))
    (only,) = numbers.processes
    assert only.own
    assert numbers.pending == 3


def test_writes_that_the_interval_saved():
    one = process(1, minutes=(counted(saves=100, cold_writes=8),))
    assert add_up(site(one)).writes_saved == 92
    assert add_up(site(process(1, minutes=(counted(saves=1, cold_writes=8),)))).writes_saved == 0


def test_the_cost_of_a_month_follows_from_the_hour():
    counts = counted(hot_hits=990, hot_misses=10, cold_writes=20, cold_reads=10)
    cost = add_up(site(process(1, minutes=(counts,)))).cost
    month = 730 / 1e6
    # An item of 500 bytes is one unit; a read is of two items.
    assert cost.ours == pytest.approx(month * (20 * WRITE_PRICE + 10 * 2 * READ_PRICE))
    assert cost.every_hit == pytest.approx(month * 1000 * WRITE_PRICE)


def test_a_large_item_and_a_second_region_cost_more():
    counts = counted(hot_hits=1000, cold_writes=20)
    one = process(1, minutes=(counts,))
    small = add_up(site(one)).cost
    described = {"us-east-1": Description(table(items=10, bytes=25_000)), "us-west-2": None}
    large = add_up(site(one, described=described, regions=described)).cost
    assert large.ours == pytest.approx(small.ours * 3 * 2)


def test_from_a_few_minutes_no_cost_is_foretold():
    assert add_up(site(process(1, started=NOW - 299))).cost is None
    half_an_hour = add_up(site(process(1, started=NOW - 1800, minutes=(counted(hot_hits=1),))))
    assert half_an_hour.cost.every_hit == pytest.approx(2 * 730 / 1e6 * WRITE_PRICE)
