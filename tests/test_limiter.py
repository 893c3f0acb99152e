"""How many calls at a time, and who waits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_dynamo_failover.limiter import Limiter

from .configurations import eventually
from .sites import Clock

WAIT = 5


@pytest.fixture
def clock():
    return Clock()


def test_so_many_go_at_once_and_the_next_waits(clock):
    limiter = Limiter(2, clock=clock)
    assert limiter.enter(clock.now + WAIT)
    assert limiter.enter(clock.now + WAIT)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(limiter.enter, clock.now + WAIT)
        eventually(lambda: limiter._line)
        assert not third.done()
        limiter.leave(0.01, throttled=False)
        assert third.result(WAIT)


def test_who_comes_first_is_served_first(clock):
    limiter = Limiter(1, clock=clock)
    limiter.enter(clock.now + WAIT)
    order = []

    def work(number):
        assert limiter.enter(clock.now + WAIT)
        order.append(number)
        limiter.leave(0, throttled=False)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        eventually(lambda: len(limiter._line) == len(threads))
    limiter.leave(0, throttled=False)
    for thread in threads:
        thread.join(WAIT)
    assert order == [0, 1, 2, 3, 4]


def test_nobody_waits_longer_than_he_said():
    limiter = Limiter(1)
    assert limiter.enter(time.monotonic() + WAIT)
    began = time.monotonic()
    assert not limiter.enter(began + 0.1)
    assert time.monotonic() - began < 1
    limiter.leave(0.01, throttled=False)
    assert limiter.enter(time.monotonic() + WAIT)  # he does not stand in line any more


def test_who_would_wait_in_vain_is_told_at_once(clock):
    limiter = Limiter(1, clock=clock)
    for _ in range(50):
        limiter.enter(clock.now + 10)
        limiter.leave(2.0, throttled=False)
    limiter.enter(clock.now + 10)
    began = time.monotonic()
    assert not limiter.enter(clock.now + 1.5)
    assert time.monotonic() - began < 0.5


def test_who_would_have_his_turn_at_the_last_moment_is_told_at_once(clock):
    limiter = Limiter(1, clock=clock)
    for _ in range(50):
        limiter.enter(clock.now + 10)
        limiter.leave(0.1, throttled=False)
    limiter.enter(clock.now + 10)
    began = time.monotonic()
    assert not limiter.enter(clock.now + 0.12)
    assert time.monotonic() - began < 0.08


def test_nobody_gets_his_turn_at_the_last_moment():
    """The line went on slower than it looked: the rest of the time would not do for a call."""
    limiter = Limiter(1)
    for _ in range(50):
        limiter.enter(time.monotonic() + 10)
        limiter.leave(0.02, throttled=False)
    limiter.enter(time.monotonic() + 10)
    until = time.monotonic() + 0.2
    assert not limiter.enter(until)
    assert time.monotonic() < until - 0.02


def test_who_made_no_call_lets_the_next_one_in_and_says_nothing_of_the_service(clock):
    limiter = Limiter(4, clock=clock)
    throttle(limiter, clock, 6, takes=0.5)
    before = limiter._limit, limiter._takes
    limiter.enter(clock.now + 10)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(limiter.enter, clock.now + WAIT)
        eventually(lambda: limiter._line)
        limiter.step_out()
        assert second.result(WAIT)
    assert (limiter._limit, limiter._takes) == before


def throttle(limiter, clock, times, takes=0.01):
    for _ in range(times):
        clock.tick()
        limiter.enter(clock.now + 10)
        limiter.leave(takes, throttled=True)


def count(limiter, clock):
    """How many may go at once."""
    number = 0
    while limiter.enter(clock.now):
        number += 1
    for _ in range(number):
        limiter._inside -= 1
    return number


def test_throttling_halves_the_limit_down_to_one(clock):
    limiter = Limiter(16, clock=clock)
    seen = []
    for _ in range(6):
        throttle(limiter, clock, 1)
        seen.append(count(limiter, clock))
    assert seen == [8, 4, 2, 1, 1, 1]


def test_many_that_are_throttled_together_halve_it_once(clock):
    limiter = Limiter(16, clock=clock)
    throttle(limiter, clock, 1, takes=1.0)
    for _ in range(8):
        limiter.enter(clock.now + 10)
    for _ in range(8):
        limiter.leave(1.0, throttled=True)
    assert count(limiter, clock) == 8


def test_without_throttling_the_limit_comes_back(clock):
    limiter = Limiter(16, clock=clock)
    throttle(limiter, clock, 6)
    for _ in range(200):
        limiter.enter(clock.now + 10)
        limiter.leave(0.01, throttled=False)
    assert count(limiter, clock) == 16


def test_threads_in_a_crowd_never_exceed_it():
    limiter = Limiter(3)
    lock = threading.Lock()
    inside = 0
    most = 0

    def work(_):
        nonlocal inside, most
        assert limiter.enter(time.monotonic() + 30)
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.0005)
        with lock:
            inside -= 1
        limiter.leave(0.0005, throttled=False)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(500)))
    assert most == 3
    assert limiter._inside == 0
    assert not limiter._line
