"""Keyed jobs, each at its time: in the calling thread on a clock that stands, and on threads."""

import logging
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from django_dynamo_failover.scheduler import Scheduler

from .configurations import eventually
from .sites import NOW, Clock, threads_in_a_hurry

WAIT = 5  # seconds for what should happen at once


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def inline(clock):
    return Scheduler(threads=0, clock=clock)


@pytest.fixture
def make():
    """``make(threads)``: a scheduler with threads of its own, on the real clock."""
    schedulers = []

    def make(threads):
        schedulers.append(Scheduler(threads=threads))
        return schedulers[-1]

    yield make
    for scheduler in schedulers:
        scheduler.close()
        for thread in scheduler._threads:
            thread.join(WAIT)
            assert not thread.is_alive()


@pytest.fixture
def busy():
    """Threads take turns as often as they can."""
    with threads_in_a_hurry():
        yield


@pytest.fixture
def ran():
    return []


class Job:
    """A job that takes until ``go``; ``begun`` while it runs."""

    def __init__(self, again=None):
        self.again = again
        self.begun = threading.Event()
        self.go = threading.Event()
        self.done = threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.go.wait(WAIT)
        self.done.set()
        return self.again


def fail():
    raise ValueError("a bug")


# --- When a job runs --------------------------------------------------------------------------


def test_a_job_runs_when_it_is_due_and_once(inline, clock, ran):
    inline.put("a", 5, lambda: ran.append("a"))
    inline.run_due(1)
    clock.now += 4.9
    inline.run_due(1)
    assert ran == []
    clock.now += 0.1
    inline.run_due(1)
    inline.run_due(1)
    assert ran == ["a"]


def test_jobs_run_in_the_order_in_which_they_are_due(inline, clock, ran):
    for key, delay in [("c", 3), ("a", 1), ("d", 3), ("b", 2)]:
        inline.put(key, delay, lambda key=key: ran.append(key))
    clock.now += 3
    inline.run_due(1)
    assert ran == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("first", "second"), [(5, 9), (9, 5), (5, 5)])
def test_a_job_that_is_put_again_runs_once_and_at_the_earlier_time(
    inline, clock, ran, first, second
):
    inline.put("a", first, lambda: ran.append(clock.now))
    inline.put("a", second, lambda: ran.append(clock.now))
    for _ in range(10):
        clock.now += 1
        inline.run_due(1)
    assert ran == [NOW + 5]


def test_a_job_runs_again_after_as_long_as_it_says(inline, clock, ran):
    delays = [2, 3, None]

    def job():
        ran.append(clock.now)
        return delays.pop(0)

    inline.put("a", 1, job)
    for _ in range(20):
        clock.now += 1
        inline.run_due(1)
    assert ran == [NOW + 1, NOW + 3, NOW + 6]


def test_a_job_that_is_cancelled_does_not_run(inline, ran):
    inline.put("a", 0, lambda: ran.append("a"))
    inline.put("b", 0, lambda: ran.append("b"))
    inline.cancel("a")
    inline.cancel("unknown")
    inline.run_due(1)
    assert ran == ["b"]


def test_a_job_that_was_cancelled_can_be_put_anew_for_later(inline, clock, ran):
    inline.put("a", 1, lambda: ran.append("first"))
    inline.cancel("a")
    inline.put("a", 2, lambda: ran.append("second"))
    clock.now += 1.5
    inline.run_due(1)
    assert ran == []
    clock.now += 1
    inline.run_due(1)
    assert ran == ["second"]


def test_a_job_is_known_until_it_has_run(inline, ran):
    inline.put("a", 0, lambda: ran.append("a" in inline))
    assert "a" in inline
    assert "b" not in inline
    inline.run_due(1)
    assert ran == [True]
    assert "a" not in inline
    assert "a" not in inline


def test_hurry_makes_the_vital_jobs_due_and_no_others(inline, ran):
    inline.put("poll", 100, lambda: ran.append("poll"))
    inline.put("write", 100, lambda: ran.append("write"), vital=True)
    inline.put("write 2", 900, lambda: ran.append("write 2"), vital=True)
    inline.hurry()
    inline.run_due(1)
    assert sorted(ran) == ["write", "write 2"]
    assert "poll" in inline


def test_a_job_may_put_jobs(inline, ran):
    inline.put("a", 0, lambda: inline.put("b", 0, lambda: ran.append("b")))
    inline.run_due(1)
    assert ran == ["b"]


def test_a_job_that_raises_is_logged_and_stops_nothing(inline, ran, caplog):
    inline.put("a", 0, fail)
    inline.put("b", 0, lambda: ran.append("b"))
    inline.run_due(1)
    assert ran == ["b"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is ValueError
    inline.put("a", 0, lambda: ran.append("a"))  # nor does it block its key
    inline.run_due(1)
    assert ran == ["b", "a"]


def test_in_a_request_no_job_is_started_when_its_budget_is_spent(inline, clock, ran):
    for key in "abcd":
        inline.put(key, 0, lambda key=key: ran.append((key, clock.tick(0.02))))
    inline.run_due(0.05)
    assert len(ran) == 3
    inline.run_due(0.05)
    assert len(ran) == 4


# --- Threads ----------------------------------------------------------------------------------


def test_no_thread_starts_before_there_is_a_job(make):
    scheduler = make(2)
    assert scheduler._threads == []
    scheduler.cancel("a")
    scheduler.hurry()
    job = Job()
    scheduler.put("a", 0, job)
    assert job.begun.wait(WAIT)
    job.go.set()


def test_the_threads_are_daemons_and_say_whose_they_are(make):
    scheduler = make(1)
    threads = []
    scheduler.put("a", 0, lambda: threads.append(threading.current_thread()))
    eventually(lambda: threads)
    assert threads[0].daemon
    assert threads[0].name.startswith("django-dynamo-failover")


def test_as_many_jobs_run_at_once_as_there_may_be_threads(make):
    scheduler = make(3)
    jobs = [Job() for _ in range(5)]
    for number, job in enumerate(jobs):
        scheduler.put(number, 0, job)
    for job in jobs[:3]:
        assert job.begun.wait(WAIT)
    assert not any(job.begun.wait(0.01) for job in jobs[3:])
    jobs[1].go.set()
    assert jobs[3].begun.wait(WAIT)
    assert len(scheduler._threads) == 3
    for job in jobs:
        job.go.set()
        assert job.done.wait(WAIT)


def test_one_thread_does_for_jobs_that_come_one_after_the_other(make):
    scheduler = make(4)
    for number in range(20):
        done = threading.Event()
        scheduler.put(number, 0, done.set)
        assert done.wait(WAIT)
        eventually(lambda: scheduler._idle)
    assert len(scheduler._threads) == 1


def test_a_thread_that_waits_for_a_later_job_takes_an_earlier_one(make):
    scheduler = make(1)
    scheduler.put("later", 60, fail)
    eventually(lambda: scheduler._idle)
    done = threading.Event()
    scheduler.put("sooner", 0, done.set)
    assert done.wait(WAIT)


def test_a_waiting_thread_wakes_up_when_its_job_is_due(make):
    scheduler = make(1)
    done = threading.Event()
    began = time.monotonic()
    scheduler.put("a", 0.02, done.set)
    assert done.wait(WAIT)
    assert time.monotonic() - began >= 0.02


def test_a_waiting_thread_hears_of_a_hurry(make):
    scheduler = make(1)
    done = threading.Event()
    scheduler.put("a", 60, done.set, vital=True)
    eventually(lambda: scheduler._idle)
    scheduler.hurry()
    assert done.wait(WAIT)


def test_a_long_job_does_not_hold_up_one_that_becomes_due_meanwhile(make):
    scheduler = make(2)
    long, poll = Job(), threading.Event()
    scheduler.put("poll", 0.05, poll.set)
    eventually(lambda: scheduler._idle)
    scheduler.put("long", 0, long)
    assert long.begun.wait(WAIT)
    was_run = poll.wait(1)
    long.go.set()
    assert was_run


def test_a_thread_survives_a_job_that_raises(make):
    scheduler = make(1)
    scheduler.put("a", 0, fail)
    done = threading.Event()
    scheduler.put("b", 0, done.set)
    assert done.wait(WAIT)


@pytest.mark.parametrize("delay", [1e10, float("inf")])
def test_a_thread_survives_a_job_that_never_becomes_due(make, delay):
    """Longer than a lock can wait, and a setting may say so: threading.TIMEOUT_MAX."""
    scheduler = make(1)
    scheduler.put("never", delay, fail)
    eventually(lambda: scheduler._idle)
    done = threading.Event()
    scheduler.put("now", 0, done.set)
    assert done.wait(1)


def test_a_job_is_not_run_again_while_it_runs_but_after(make):
    scheduler = make(4)
    first, second = Job(), Job()
    scheduler.put("a", 0, first)
    assert first.begun.wait(WAIT)
    scheduler.put("a", 0, second)
    assert "a" in scheduler
    assert not second.begun.wait(0.05)
    first.go.set()
    assert second.begun.wait(WAIT)
    second.go.set()


def test_a_running_job_cannot_be_cancelled_but_its_successor_can(make, ran):
    scheduler = make(2)
    job, done = Job(), threading.Event()
    scheduler.put("a", 0, job)
    assert job.begun.wait(WAIT)
    scheduler.put("a", 0, lambda: ran.append("a"))
    scheduler.cancel("a")
    job.go.set()
    assert job.done.wait(WAIT)
    scheduler.put("a", 0, done.set)
    assert done.wait(WAIT)
    assert ran == []


def test_a_job_that_wants_to_run_again_does_not_take_the_place_of_a_newer(inline, clock, ran):
    """Else an old write is noted once more, and the new one never."""

    def old():
        ran.append("old")
        inline.put("a", 0.5, lambda: ran.append("new"))
        return 1.0

    inline.put("a", 0, old)
    inline.run_due(1)
    clock.tick(0.5)
    inline.run_due(1)
    assert ran == ["old", "new"]
    clock.tick(10)
    inline.run_due(1)
    assert ran == ["old", "new"]


def test_of_two_jobs_of_a_key_the_newer_runs_at_the_earlier_time(inline, clock, ran):
    inline.put("a", 1, lambda: ran.append("old"))
    inline.put("a", 9, lambda: ran.append("new"))
    clock.tick(1)
    inline.run_due(1)
    clock.tick(9)
    inline.run_due(1)
    assert ran == ["new"]


def test_under_load_no_job_is_lost_and_none_runs_twice_at_once(make, busy):
    scheduler = make(4)
    keys, rounds = 5, 400
    running, asked, seen = Counter(), Counter(), Counter()
    overlaps = []

    def job(key):
        running[key] += 1
        if running[key] > 1:
            overlaps.append(key)
        seen[key] = asked[key]
        running[key] -= 1

    def ask(key):
        for _ in range(rounds):
            asked[key] += 1
            scheduler.put(key, 0, lambda: job(key))

    threads = [threading.Thread(target=ask, args=(key,)) for key in range(keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    eventually(lambda: all(seen[key] == rounds for key in range(keys)))
    assert overlaps == []
    assert len(scheduler._threads) <= 4


# --- Drain ------------------------------------------------------------------------------------


def test_drain_runs_what_is_vital_now_and_tells_that_nothing_is_left(inline, ran):
    inline.put("write", 900, lambda: ran.append("write"), vital=True)
    inline.put("renew", 900, lambda: ran.append("renew"))
    assert inline.drain(1) == 0
    assert ran == ["write"]
    assert "renew" in inline


def test_drain_waits_for_a_job_that_is_running(make):
    scheduler = make(1)
    job, left = Job(), []
    scheduler.put("a", 0, job, vital=True)
    assert job.begun.wait(WAIT)
    drainer = threading.Thread(target=lambda: left.append(scheduler.drain(WAIT)))
    drainer.start()
    drainer.join(0.05)
    assert drainer.is_alive()
    job.go.set()
    drainer.join(WAIT)
    assert left == [0]


def test_drain_gives_up_in_time_and_tells_what_is_left(make):
    scheduler = make(1)
    job = Job()
    scheduler.put("running", 0, job, vital=True)
    assert job.begun.wait(WAIT)
    scheduler.put("failing", 0, lambda: 60, vital=True)
    scheduler.put("not vital", 60, fail)
    began = time.monotonic()
    assert scheduler.drain(0.2) == 2
    assert 0.2 <= time.monotonic() - began < 1
    job.go.set()


def test_drain_tries_again_soon_what_failed(make):
    scheduler = make(2)
    answers = [60, 60, None]
    scheduler.put("a", 60, lambda: answers.pop(0), vital=True)
    began = time.monotonic()
    assert scheduler.drain(WAIT) == 0
    assert answers == []
    assert time.monotonic() - began < 2


def test_drain_lets_the_threads_help(make):
    scheduler = make(3)
    jobs = [Job() for _ in range(4)]
    for number, job in enumerate(jobs):
        scheduler.put(number, 60, job, vital=True)
    left = []
    drainer = threading.Thread(target=lambda: left.append(scheduler.drain(WAIT)))
    drainer.start()
    for job in jobs:
        assert job.begun.wait(WAIT)  # all four at once: three threads and the drainer
    for job in jobs:
        job.go.set()
    drainer.join(WAIT)
    assert left == [0]


def test_what_is_put_while_draining_is_drained_too(inline, ran):
    inline.put("a", 0, lambda: inline.put("b", 0, lambda: ran.append("b"), vital=True), vital=True)
    assert inline.drain(1) == 0
    assert ran == ["b"]


def test_after_a_drain_delays_are_what_they_say_again(inline, clock, ran):
    assert inline.drain(1) == 0
    inline.put("a", 900, lambda: ran.append("a"), vital=True)
    clock.now += 899
    inline.run_due(1)
    assert ran == []


def test_a_drain_without_time_counts_what_is_left(inline):
    inline.put("a", 900, fail, vital=True)
    inline.put("b", 900, fail)
    assert inline.drain(0) == 1


def test_a_job_that_wants_to_run_again_is_never_out_of_sight(make, busy):
    """What is neither running nor waiting for an instant is lost if drain looks just then."""
    scheduler = make(2)
    scheduler.put("a", 0, lambda: 0.0, vital=True)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert scheduler.drain(0) == 1


def test_a_vital_job_that_raises_is_not_taken_for_done(make):
    scheduler = make(1)
    scheduler.put("a", 60, fail, vital=True)
    assert scheduler.drain(0.3) == 1


def test_drain_does_the_work_where_no_thread_can_start_any_more(make, ran, monkeypatch):
    def start(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    scheduler = make(2)
    scheduler.put("a", 60, lambda: ran.append("a"), vital=True)
    assert scheduler.drain(1) == 0
    assert ran == ["a"]


AT_EXIT = """
import atexit
from django_dynamo_failover.scheduler import Scheduler

scheduler = Scheduler(threads=2)
ran = []
atexit.register(lambda: print(scheduler.drain(5), sorted(ran)))
for name in "abc":
    scheduler.put(name, 60, lambda name=name: ran.append(name), vital=True)
scheduler.put("later", 60, lambda: ran.append("later"))
"""


def test_what_is_vital_is_done_when_the_process_ends():
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT], check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("0 ['a', 'b', 'c']\n", "")


# --- Close ------------------------------------------------------------------------------------


def test_close_forgets_the_jobs_and_ends_the_threads(make, ran):
    scheduler = make(2)
    scheduler.put("a", 0.05, lambda: ran.append("a"), vital=True)
    eventually(lambda: scheduler._idle)
    scheduler.close()
    for thread in scheduler._threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert "a" not in scheduler
    assert ran == []


def test_a_job_that_runs_during_close_is_not_run_again(make):
    scheduler = make(1)
    job = Job(again=0.0)
    scheduler.put("a", 0, job)
    assert job.begun.wait(WAIT)
    scheduler.close()
    job.begun.clear()
    job.go.set()
    scheduler._threads[0].join(WAIT)
    assert not job.begun.is_set()
    assert "a" not in scheduler


def test_nothing_starts_after_close(make, ran):
    scheduler = make(1)
    scheduler.close()
    scheduler.put("a", 0, lambda: ran.append("a"))
    assert scheduler._threads == []
    assert ran == []
