"""The last hour of a process, at a time that only the test moves."""

import threading

import pytest

from django_dynamo_failover.histogram import count
from django_dynamo_failover.history import MINUTES, Event, History, Minute, together
from django_dynamo_failover.metrics import Metrics

from .sites import NOW, Clock, threads_in_a_hurry

FIRST = int(NOW // 60)


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def clock():
    assert NOW % 60 == 0  # a minute begins
    return Clock()


@pytest.fixture
def history(metrics, clock):
    return History(metrics, now=clock)


def counted(history):
    return [(minute.at - FIRST, dict(minute.counts)) for minute in history.minutes]


def test_a_minute_has_what_was_counted_in_it(history, metrics, clock):
    for number in range(3):
        metrics.count("saves", number + 1)
        clock.tick(30)
        history.look()
        clock.tick(30)
    assert counted(history) == [(0, {"saves": 1}), (1, {"saves": 2}), (2, {"saves": 3})]


def test_two_looks_in_one_minute_add_up(history, metrics, clock):
    for name in ("saves", "hot_hits", "saves"):
        metrics.count(name)
        metrics.took("hot read", 0.001)
        metrics.took("us-east-1 read", 0.01)
        history.look()
        clock.tick(10)
    [minute] = history.minutes
    assert minute.counts == {"saves": 2, "hot_hits": 1}
    assert (count(minute.hot), count(minute.cold)) == (3, 3)
    assert (minute.hot[-1], minute.cold[-1]) == (0.003, 0.03)


def test_what_was_counted_is_in_one_minute_only(history, metrics, clock):
    metrics.count("saves", 5)
    metrics.took("hot write", 0.001)
    for _ in range(5):
        history.look()
        clock.tick(40)
    metrics.count("saves")
    history.look()
    assert counted(history) == [(0, {"saves": 5}), (3, {"saves": 1})]
    assert [count(minute.hot) for minute in history.minutes] == [1, 0]


def test_of_a_minute_without_anything_there_is_nothing(history, metrics, clock):
    history.look()
    assert history.minutes == ()
    metrics.count("saves")
    history.look()
    clock.tick(600)
    history.look()
    metrics.count("saves", 2)
    history.look()
    assert counted(history) == [(0, {"saves": 1}), (10, {"saves": 2})]


def test_the_tiers_are_told_apart(history, metrics):
    metrics.took("hot read", 0.001)
    metrics.took("hot write", 0.001)
    metrics.took("us-east-1 read", 0.01)
    metrics.took("us-west-2 write", 0.02)
    metrics.took("us-west-2 write", 0.02)
    history.look()
    [minute] = history.minutes
    assert (count(minute.hot), count(minute.cold)) == (2, 3)


def test_a_tier_that_was_not_asked_has_no_histogram(history, metrics, clock):
    metrics.took("hot read", 0.001)
    metrics.took("us-east-1 read", 0.001)
    history.look()
    clock.tick(60)
    metrics.took("hot read", 0.001)
    history.look()
    clock.tick(60)
    metrics.count("saves")
    history.look()
    assert [bool(minute.hot) for minute in history.minutes] == [True, True, False]
    assert [bool(minute.cold) for minute in history.minutes] == [True, False, False]


def test_an_hour_is_kept(history, metrics, clock):
    for number in range(2 * MINUTES):
        metrics.count("saves", number + 1)
        history.look()
        clock.tick(60)
    clock.tick(-60)
    assert [minute.at - FIRST for minute in history.minutes] == list(range(MINUTES, 2 * MINUTES))
    clock.tick(59 * 60)
    assert counted(history) == [(2 * MINUTES - 1, {"saves": 2 * MINUTES})]
    clock.tick(60)
    assert history.minutes == ()


def test_what_was_counted_before_the_first_look_is_of_its_minute(metrics, clock):
    metrics.count("saves", 7)
    history = History(metrics, now=clock)
    history.look()
    assert counted(history) == [(0, {"saves": 7})]


@pytest.mark.parametrize("first", range(8))
def test_threads_that_end_are_no_news(history, metrics, first):
    """The sum of floats depends on their order, and that changes when a thread ends."""
    counted = threading.Barrier(9)

    def work(seconds, go):
        metrics.took("hot read", seconds)
        counted.wait()
        go.wait()

    go = [threading.Event() for _ in range(8)]
    threads = [threading.Thread(target=work, args=[10**-n / 3, go[n]]) for n in range(8)]
    for thread in threads:
        thread.start()
    counted.wait()
    history.look()
    before = metrics.latencies()
    for number in range(8):
        go[(first + number) % 8].set()
        threads[(first + number) % 8].join()
    history.look()
    assert metrics.latencies() == before
    [minute] = history.minutes
    assert count(minute.hot) == 8


def test_a_minute_is_there_at_every_moment(history, metrics):
    """Somebody looks at a page while the background thread takes the next look."""
    metrics.count("saves")
    history.look()
    done = threading.Event()

    def look():
        for _ in range(2000):
            metrics.count("saves")
            history.look()
        done.set()

    seen = []
    with threads_in_a_hurry():
        thread = threading.Thread(target=look)
        thread.start()
        while not done.is_set():
            seen.append(sum(minute.counts["saves"] for minute in history.minutes))
        thread.join()
    assert seen == sorted(seen)
    assert min(seen) >= 1


def test_looks_of_two_threads_count_nothing_twice(history, metrics):
    metrics.count("saves", 1000)
    start = threading.Barrier(4)

    def look():
        start.wait()
        history.look()

    with threads_in_a_hurry():
        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counted(history) == [(0, {"saves": 1000})]


def test_a_clock_that_is_put_back_loses_nothing(history, metrics, clock):
    for seconds in (0, 60, -60, 60):
        clock.tick(seconds)
        metrics.count("saves")
        history.look()
    assert sum(minute.counts["saves"] for minute in history.minutes) == 4


def test_minutes_of_several_processes_make_one():
    one, other = Minute(7, {"saves": 1}, [], []), Minute(7, {"saves": 2, "created": 1}, [], [])
    assert together([one, other]) == Minute(7, {"saves": 3, "created": 1}, [], [])
    assert together([one]) == one


def test_events_are_kept_for_an_hour(history, clock):
    history.happened("down", "hot")
    clock.tick(30 * 60)
    history.happened("drain on")
    assert history.events == (Event(NOW, "down", "hot"), Event(NOW + 1800, "drain on"))
    clock.tick(30 * 60)
    assert history.events == (Event(NOW + 1800, "drain on"),)
    clock.tick(30 * 60)
    assert history.events == ()


def test_of_many_events_the_latest_are_kept(history, clock):
    """A tier may go up and down all the time."""
    for _ in range(1000):
        clock.tick(1)
        history.happened("down", "hot")
    assert len(history.events) == 50
    assert history.events[-1].at == clock.now
