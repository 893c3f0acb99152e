"""The last hour as lines, and what happened in it."""

import re

import pytest

from django_dynamo_failover.history import Event, Minute
from django_dynamo_failover.panel.charts import HEIGHT, WIDTH, _nice, _path, charts, marks
from django_dynamo_failover.panel.numbers import Numbers

from .panels import histogram

NOW = 1_800_000_000.0
FIRST = int(NOW // 60) - 59


def hour(**by_minute):
    """An hour in which ``minute_7={"restored": 12}`` was counted at its seventh minute."""
    counts = {int(name.removeprefix("minute_")): value for name, value in by_minute.items()}
    return tuple(Minute(FIRST + n, counts.get(n, {}), [], []) for n in range(60))


def numbers(minutes, events=()):
    return Numbers((), minutes, {}, events, {}, {}, 0, 0, 0.0, None)


def texts(events, minutes=None):
    return [mark.text for mark in marks(numbers(minutes or hour(), events))]


def points(path):
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def chart(minutes, id):
    return next(chart for chart in charts(minutes) if chart.id == id)


def test_a_line_has_a_point_for_each_minute_within_the_area():
    (line,) = chart(hour(minute_0={"hot_hits": 10}, minute_59={"hot_hits": 50}), "hits").lines
    drawn = points(line.path)
    assert len(drawn) == 60
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in drawn)
    assert drawn[59][1] < drawn[0][1] < drawn[1][1]  # more is further up
    assert line.path.count("M") == 1


def test_the_top_is_a_round_number_that_nothing_exceeds():
    made = chart(hour(minute_3={"hot_hits": 3_400}), "hits")
    assert made.top == "5,000"


@pytest.mark.parametrize(
    ("value", "nice"), [(0, 1), (1, 1), (1.1, 2), (2, 2), (4.9, 5), (6, 10), (101, 200)]
)
def test_nice_numbers(value, nice):
    assert _nice(value) == nice


def test_a_minute_without_calls_leaves_a_gap_in_the_latency():
    minutes = list(hour())
    for number in (5, 6, 20):
        minutes[number] = Minute(FIRST + number, {}, histogram(0.002, 0.004), [])
    made = chart(minutes, "hot")
    assert [line.name for line in made.lines] == ["p50", "p99"]
    for line in made.lines:
        assert len(points(line.path)) == 3
        assert line.path.count("M") == 2
        assert line.path.endswith("h0")  # a point alone is visible too
    assert chart(minutes, "cold").lines[0].path == ""


def test_both_kinds_of_errors_of_dynamodb_count():
    minutes = hour(minute_1={"cold_errors": 1, "cold_throttled": 1}, minute_2={"hot_errors": 2})
    hot, cold = chart(minutes, "errors").lines
    assert points(cold.path)[1][1] == points(hot.path)[2][1]


def test_a_path_of_nothing_is_empty():
    assert _path([None, None], 1.0) == ""


def test_what_all_processes_saw_is_marked_once_where_it_happened():
    at = NOW - 600
    seen = tuple(Event(at + n, "down", "hot") for n in range(3))
    (mark,) = marks(numbers(hour(), seen))
    assert mark.text == "The hot tier stopped answering"
    assert mark.at == at
    assert 0.8 * WIDTH < mark.x < 0.85 * WIDTH


def test_what_happens_stands_at_what_was_counted_in_its_minute():
    minutes = hour(minute_58={"hot_errors": 1}, minute_59={"hot_errors": 1})
    counted = points(chart(minutes, "errors").lines[0].path)
    events = [Event((FIRST + n) * 60.0 + 59, "down", "hot") for n in (58, 59)]
    drawn = [mark.x for mark in marks(numbers(minutes, events))]
    assert drawn == [counted[59][0], counted[58][0]]
    assert max(drawn) < WIDTH  # also at the end of the present minute


def test_events_are_told_the_last_one_first():
    events = (
        Event(NOW - 500, "down", "us-east-1"),
        Event(NOW - 400, "up", "us-east-1"),
        Event(NOW - 300, "lost", "hot"),
        Event(NOW - 200, "drain on"),
        Event(NOW - 100, "drain off"),
        Event(NOW - 50, "revalidate"),
        Event(NOW - 7200, "drain on"),  # longer ago
    )
    assert texts(events) == [
        "All sessions are revalidated",
        "Draining ended",
        "Draining began",
        "The hot tier lost its contents",
        "us-east-1 answers again",
        "us-east-1 stopped answering",
    ]


def test_the_users_of_another_site_are_a_failover():
    minutes = hour(
        minute_20={"hot_hits": 100},
        minute_21={"hot_hits": 100, "restored": 90},
        minute_22={"hot_hits": 100, "restored": 60},
        minute_23={"hot_hits": 100, "restored": 2},
    )
    (text,) = texts([], minutes)
    assert text == "Failover: 90 sessions of another site came within a minute"


@pytest.mark.parametrize(
    "minute",
    [{"hot_hits": 10, "restored": 9}, {"hot_hits": 1_000, "restored": 100}],
    ids=["too few", "not many of all"],
)
def test_some_restored_sessions_are_no_failover(minute):
    assert texts([], hour(minute_21=minute)) == []


def test_sessions_that_this_site_itself_had_lost_are_no_failover():
    minutes = hour(minute_21={"restored": 90})
    lost = Event((FIRST + 19) * 60.0, "lost", "hot")
    assert texts([lost], minutes) == ["The hot tier lost its contents"]
