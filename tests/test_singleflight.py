"""One call for all threads that want the same thing at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from django_dynamo_failover.singleflight import SingleFlight

from .configurations import eventually
from .sites import threads_in_a_hurry


class Call:
    """A call that takes until ``go``."""

    def __init__(self, result):
        self.result = result
        self.times = 0
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.times += 1
        self.begun.set()
        assert self.go.wait(10)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def flights():
    return SingleFlight()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as pool:
        yield pool


def joined(flights, key):
    """How many threads wait for the call under way."""
    flight = flights._flights.get(key)
    return len(flight._condition._waiters) if flight else 0


def test_a_call_alone_returns_its_result(flights):
    assert flights.run("a", lambda: 1) == 1
    assert flights.run("a", lambda: 2) == 2


def test_who_comes_meanwhile_gets_the_result_of_the_call_under_way(flights, pool):
    call = Call("result")
    first = pool.submit(flights.run, "a", call)
    call.begun.wait(10)
    others = [pool.submit(flights.run, "a", call) for _ in range(10)]
    eventually(lambda: joined(flights, "a") == 10)
    call.go.set()
    assert [future.result(10) for future in [first, *others]] == ["result"] * 11
    assert call.times == 1


def test_who_comes_meanwhile_gets_the_error_of_the_call_under_way(flights, pool):
    call = Call(ValueError("no"))
    first = pool.submit(flights.run, "a", call)
    call.begun.wait(10)
    other = pool.submit(flights.run, "a", lambda: "another result")
    eventually(lambda: joined(flights, "a") == 1)
    call.go.set()
    assert first.exception(10) is other.exception(10) is call.result


def test_none_is_a_result(flights, pool):
    call = Call(None)
    first = pool.submit(flights.run, "a", call)
    call.begun.wait(10)
    other = pool.submit(flights.run, "a", lambda: "another result")
    eventually(lambda: joined(flights, "a") == 1)
    call.go.set()
    assert first.result(10) is other.result(10) is None


def test_calls_for_different_keys_do_not_wait_for_each_other(flights, pool):
    call = Call("a")
    first = pool.submit(flights.run, "a", call)
    call.begun.wait(10)
    assert flights.run("b", lambda: "b") == "b"
    call.go.set()
    assert first.result(10) == "a"


def test_an_error_is_not_remembered(flights):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        flights.run("a", fail)
    assert flights.run("a", lambda: 1) == 1


def test_a_worker_that_is_told_to_exit_leaves_nobody_waiting(flights):
    def exit():
        raise SystemExit

    with pytest.raises(SystemExit):
        flights.run("a", exit)
    assert flights.run("a", lambda: 1) == 1


def test_after_forget_nobody_joins_the_call_under_way(flights, pool):
    old, new = Call("old"), Call("new")
    first = pool.submit(flights.run, "a", old)
    old.begun.wait(10)
    flights.forget("a")
    second = pool.submit(flights.run, "a", new)
    new.begun.wait(10)
    old.go.set()
    assert first.result(10) == "old"
    third = pool.submit(flights.run, "a", lambda: "newer")  # the end of the old call parts nobody
    eventually(lambda: joined(flights, "a") == 1)
    new.go.set()
    assert second.result(10) == third.result(10) == "new"


def test_who_had_joined_before_forget_gets_the_result_still(flights, pool):
    call = Call("old")
    first = pool.submit(flights.run, "a", call)
    call.begun.wait(10)
    other = pool.submit(flights.run, "a", lambda: "new")
    eventually(lambda: joined(flights, "a") == 1)
    flights.forget("a")
    call.go.set()
    assert first.result(10) == other.result(10) == "old"


def test_a_key_without_a_call_can_be_forgotten(flights):
    flights.forget("a")


def test_nothing_is_kept_of_a_call_that_is_over(flights, pool):
    wait([pool.submit(flights.run, number, lambda: 1) for number in range(100)])
    assert flights._flights == {}


def test_no_two_calls_for_a_key_ever_run_at_once(flights, pool):
    running, most = [0] * 3, [0] * 3

    def call(key):
        running[key] += 1
        most[key] = max(most[key], running[key])
        running[key] -= 1
        return key

    with threads_in_a_hurry():
        futures = [
            pool.submit(flights.run, number % 3, lambda key=number % 3: call(key))
            for number in range(2_000)
        ]
        assert [future.result(10) for future in futures] == [n % 3 for n in range(2_000)]
    assert most == [1, 1, 1]
