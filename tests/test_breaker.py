"""A service that is down costs one probe, not one timeout per request."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_dynamo_failover import breaker as breaker_module
from django_dynamo_failover.breaker import Breaker

from .sites import Clock, threads_in_a_hurry


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def make(clock, told, monkeypatch):
    """``make(threshold=…)``: a breaker without jitter, on a clock that stands still."""
    monkeypatch.setattr(breaker_module.random, "uniform", lambda low, high: (low + high) / 2)

    def make(**options):
        return Breaker(clock=clock, on_change=told.append, **options)

    return make


def test_a_new_breaker_lets_calls_through(make, told):
    breaker = make()
    assert breaker.closed
    assert breaker.allow()
    assert not breaker.success()
    assert told == []


def test_so_many_failures_in_a_row_open_it(make, told):
    breaker = make(threshold=3)
    breaker.failure()
    breaker.failure()
    assert breaker.closed
    assert breaker.allow()
    breaker.failure()
    assert not breaker.closed
    assert not breaker.allow()
    assert told == [False]


def test_failures_with_a_success_among_them_do_not_open_it(make):
    breaker = make(threshold=2)
    for _ in range(5):
        breaker.failure()
        assert breaker.closed
        breaker.success()


def test_after_the_wait_one_call_goes_through_as_the_probe(make, clock):
    breaker = make(first_wait=1.0)
    breaker.failure()
    clock.now += 0.9
    assert not breaker.allow()
    clock.now += 0.2
    assert breaker.allow()
    assert not breaker.allow()
    assert not breaker.closed


def test_a_probe_that_succeeds_closes_it(make, clock, told):
    breaker = make()
    breaker.failure()
    clock.now += 5
    assert breaker.allow()
    assert breaker.success()
    assert breaker.closed
    assert all(breaker.allow() for _ in range(3))
    assert told == [False, True]


def test_each_failed_probe_doubles_the_wait_up_to_the_longest(make, clock, told):
    breaker = make(first_wait=1.0, longest_wait=6.0)
    breaker.failure()
    waits = []
    for _ in range(5):
        opened = clock.now
        while not breaker.allow():
            clock.now += 0.25
        waits.append(clock.now - opened)
        breaker.failure()
    assert waits == [1.0, 2.0, 4.0, 6.0, 6.0]
    assert told == [False]


def test_the_first_success_after_an_outage_is_known_as_that(make, clock):
    breaker = make(threshold=2)
    breaker.failure()
    assert not breaker.success()
    breaker.failure()
    breaker.failure()
    clock.now += 60
    assert breaker.allow()
    assert breaker.success()
    assert not breaker.success()


def test_it_starts_over_after_a_recovery(make, clock, told):
    breaker = make(threshold=2)
    for _ in range(2):
        breaker.failure()
    for _ in range(3):
        clock.now += 60
        assert breaker.allow()
        breaker.failure()
    clock.now += 60
    assert breaker.allow()
    breaker.success()
    breaker.failure()
    assert breaker.closed
    breaker.failure()
    clock.now += 1.1
    assert breaker.allow()
    assert told == [False, True, False]


def test_calls_from_before_it_opened_do_not_put_the_probe_off(make, clock):
    breaker = make()
    for _ in range(10):
        breaker.failure()
    clock.now += 1.1
    assert breaker.allow()


def test_calls_that_fail_after_the_probe_did_not_put_the_next_probe_off(make, clock):
    breaker = make(first_wait=1.0)
    breaker.failure()
    clock.tick(1)
    assert breaker.allow()
    for _ in range(10):
        breaker.failure()
    clock.tick(2)
    assert breaker.allow()


def test_a_call_from_before_it_opened_that_succeeds_closes_it(make, told):
    breaker = make()
    breaker.failure()
    breaker.success()
    assert breaker.closed
    assert told == [False, True]


def test_a_probe_that_never_reports_back_is_given_up(make, clock):
    breaker = make(probe_timeout=10.0)
    breaker.failure()
    clock.now += 1.1
    assert breaker.allow()
    clock.now += 9.9
    assert not breaker.allow()
    clock.now += 0.2
    assert breaker.allow()


def test_processes_do_not_probe_in_step(clock):
    due = set()
    for _ in range(50):
        breaker = Breaker(first_wait=10.0, clock=clock)
        breaker.failure()
        start = clock.now
        while not breaker.allow():
            clock.now += 0.125
        due.add(clock.now - start)
    assert min(due) >= 8.0
    assert max(due) <= 12.125
    assert len(due) > 5


def test_nobody_needs_to_be_told(clock):
    breaker = Breaker(clock=clock)
    breaker.failure()
    breaker.success()
    assert breaker.closed


def test_who_is_told_may_ask_the_breaker(clock):
    seen = []
    breaker = Breaker(clock=clock, on_change=lambda up: seen.append((up, breaker.allow())))
    breaker.failure()
    breaker.success()
    assert seen == [(False, False), (True, True)]


def test_of_many_threads_one_is_the_probe(make, clock):
    threads = 16
    start = threading.Barrier(threads)
    breaker = make()
    breaker.failure()

    def ask():
        start.wait()
        return breaker.allow()

    with threads_in_a_hurry(), ThreadPoolExecutor(threads) as pool:
        for _ in range(50):
            clock.now += 60
            assert sum(pool.map(lambda _: ask(), range(threads))) == 1
            breaker.failure()


def test_of_many_threads_that_fail_one_opens_it(make, told):
    threads = 16
    start = threading.Barrier(threads)
    breaker = make(threshold=8)

    def fail():
        start.wait()
        breaker.failure()

    with threads_in_a_hurry(), ThreadPoolExecutor(threads) as pool:
        for number in range(1, 51):
            list(pool.map(lambda _: fail(), range(threads)))
            assert told == [False, True] * (number - 1) + [False]
            breaker.success()


def test_probed_apart_no_caller_waits_for_a_probe():
    clock = Clock()
    breaker = Breaker(probed_apart=True, clock=clock)
    breaker.failure()
    clock.tick(60)
    assert not breaker.allow()
    assert breaker.allow_probe()
    assert not breaker.allow_probe()
    breaker.success()
    assert breaker.allow()
