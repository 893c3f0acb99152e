"""The budget of capacity units, on a clock of its own."""

import pytest

from django_dynamo_failover.budget import Budget


class Clock:
    """A clock that stands still but for sleep."""

    def __init__(self):
        self.now = 1000.0
        self.stopped = False

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += 0 if self.stopped else seconds
        return self.stopped


@pytest.fixture
def clock():
    return Clock()


def spend(budget, *costs):
    for cost in costs:
        budget.settle(budget.reserve(), cost)


def test_requests_are_spread_over_time(clock):
    budget = Budget(200, 1, clock.sleep, clock)
    spend(budget, *[1] * 401)
    assert clock.now - 1000 == pytest.approx(2)


def test_a_request_that_cost_more_than_it_was_charged_delays_the_next(clock):
    budget = Budget(10, 1, clock.sleep, clock)
    spend(budget, 50, 50)
    assert clock.now - 1000 == pytest.approx(5)


def test_a_request_that_cost_less_than_it_was_charged_lets_the_next_go_earlier(clock):
    budget = Budget(10, 100, clock.sleep, clock)
    spend(budget, 1, 1)
    assert clock.now - 1000 == pytest.approx(0.1)


def test_a_request_is_charged_what_the_last_one_cost(clock):
    budget = Budget(10, 1, clock.sleep, clock)
    assert budget.reserve() == 1
    budget.settle(1, 32)
    assert budget.reserve() == 32


def test_requests_that_are_under_way_are_paid_for(clock):
    budget = Budget(10, 5, clock.sleep, clock)
    for _ in range(3):
        budget.reserve()
    assert clock.now - 1000 == pytest.approx(1)


def test_an_idle_time_is_not_made_up_for(clock):
    budget = Budget(10, 1, clock.sleep, clock)
    spend(budget, 1)
    clock.now += 3600
    spend(budget, *[1] * 12)
    assert clock.now - 4600 == pytest.approx(1.1, abs=0.11)


def test_nothing_waits_once_waiting_is_pointless(clock):
    budget = Budget(10, 1, clock.sleep, clock)
    spend(budget, 100)
    clock.stopped = True
    budget.reserve()
    assert clock.now == 1000


def test_without_a_rate_nothing_waits(clock):
    budget = Budget(None, 1, clock.sleep, clock)
    spend(budget, *[100] * 10)
    assert clock.now == 1000
