"""Counts of all threads, at next to no cost."""

import gc
import os
import threading
import time
import timeit
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_dynamo_failover.histogram import BOUNDS, count, observe
from django_dynamo_failover.metrics import COUNTERS, Metrics


@pytest.fixture
def metrics():
    return Metrics()


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_all_counters_are_there_from_the_start(metrics):
    assert metrics.snapshot() == dict.fromkeys(COUNTERS, 0)


def test_a_count_adds_one_or_more(metrics):
    metrics.count("saves")
    metrics.count("saves", 4)
    metrics.count("created")
    assert metrics.snapshot() == {**dict.fromkeys(COUNTERS, 0), "saves": 5, "created": 1}


def test_a_snapshot_stays_as_it_is(metrics):
    before = metrics.snapshot()
    metrics.count("saves")
    assert before["saves"] == 0
    before["saves"] = 99
    assert metrics.snapshot()["saves"] == 1


def test_two_instances_count_apart(metrics):
    metrics.count("saves")
    assert Metrics().snapshot()["saves"] == 0


def test_the_counts_of_all_threads_add_up(metrics):
    threads, counts = 8, 5_000
    start = threading.Barrier(threads)

    def count():
        start.wait()
        for _ in range(counts):
            metrics.count("saves")

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(count)
        pool.shutdown()
        assert metrics.snapshot()["saves"] == threads * counts


def test_the_counts_of_a_thread_that_lives_are_seen(metrics):
    counted, go = threading.Event(), threading.Event()

    def work():
        metrics.count("saves")
        counted.set()
        go.wait()

    thread = threading.Thread(target=work)
    thread.start()
    counted.wait()
    assert metrics.snapshot()["saves"] == 1
    go.set()
    thread.join()


def test_the_counts_of_a_thread_stay_when_it_ends(metrics):
    metrics.count("saves")
    for _ in range(20):
        in_thread(lambda: metrics.count("saves", 2))
    gc.collect()
    assert metrics.snapshot()["saves"] == 41
    assert len(metrics._live) == 1  # what is kept of a thread does not pile up


def test_no_count_is_lost_or_doubled_while_snapshots_are_taken(metrics):
    rounds, threads = 50, 4
    done = threading.Event()
    seen = []

    def watch():
        while not done.is_set():
            seen.append(metrics.snapshot()["saves"])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for _ in range(rounds):
        workers = [threading.Thread(target=metrics.count, args=("saves",)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(10)
            assert not worker.is_alive(), "a thread hangs"
    done.set()
    watcher.join(10)
    assert not watcher.is_alive(), "a snapshot hangs"
    assert metrics.snapshot()["saves"] == rounds * threads
    assert seen == sorted(seen)


def test_a_thread_that_ends_during_a_snapshot_does_not_stop_it(metrics):
    go = threading.Event()
    threads = []
    for _ in range(3):
        counted = threading.Event()

        def work(counted=counted):
            metrics.count("saves")
            counted.set()
            go.wait()

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        counted.wait()

    class Copied(Counter):
        def copy(self):
            go.set()
            for thread in threads:
                thread.join()
            return Counter(self)

    for shard in metrics._live.values():
        shard.counts = Copied(shard.counts)
    snapshots = []
    snapshot = threading.Thread(target=lambda: snapshots.append(metrics.snapshot()), daemon=True)
    snapshot.start()
    snapshot.join(2)
    assert not snapshot.is_alive(), "the snapshot hangs"
    assert snapshots[0]["saves"] == metrics.snapshot()["saves"] == 3


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_starts_also_in_the_middle_of_a_snapshot(metrics):
    """Python drops what the parent's other threads had, as the first thing that a child does."""
    counted, locked, go = threading.Event(), threading.Event(), threading.Event()

    def count():
        metrics.count("saves")
        counted.set()
        go.wait()

    def take_a_snapshot():
        with metrics._lock:
            locked.set()
            go.wait()

    threads = [threading.Thread(target=count), threading.Thread(target=take_a_snapshot)]
    for thread in threads:
        thread.start()
    counted.wait()
    locked.wait()
    child = os.fork()
    if child == 0:
        os._exit(0)
    deadline = time.monotonic() + 5
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.001)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    go.set()
    for thread in threads:
        thread.join()
    assert ended == (child, 0), "the child hangs"


def test_a_shard_that_is_collected_by_who_holds_the_lock_does_not_hang(metrics):
    """Those of greenlets are in cycles: to collect one may be anybody's turn."""
    held = []

    def count_and_hold():
        metrics.count("saves")
        metrics.took("hot read", 0.1)
        held.append(metrics._local.shard)

    in_thread(count_and_hold)

    def collect():
        with metrics._lock:
            held.clear()

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    collector.join(2)
    assert not collector.is_alive(), "it hangs"
    assert metrics.snapshot()["saves"] == count_of(metrics, "hot read") == 1


def seconds_of(statement, metrics):
    """Return what it takes to run a statement once, as it is in a loop on an idle machine."""
    rounds = timeit.repeat(statement, globals={"metrics": metrics}, number=10_000, repeat=10)
    return min(rounds) / 10_000


def test_a_count_costs_less_than_a_microsecond(metrics):
    assert seconds_of("metrics.count('saves')", metrics) < 1e-6


# --- How long calls took ----------------------------------------------------------------------


def count_of(metrics, call):
    return count(metrics.latencies()[call])


def test_of_what_was_not_called_there_is_nothing(metrics):
    assert metrics.latencies() == {}


def test_calls_are_counted_by_what_was_called(metrics):
    metrics.took("us-east-1 read", 0.02)
    for seconds in (0.001, 0.002, 9):
        metrics.took("hot read", seconds)
    latencies = metrics.latencies()
    assert list(latencies) == ["hot read", "us-east-1 read"]
    assert [count(histogram) for histogram in latencies.values()] == [3, 1]
    assert latencies["hot read"][-1] == 9.003
    assert latencies["hot read"][len(BOUNDS)] == 1


def test_latencies_stay_as_they_are(metrics):
    metrics.took("hot read", 0.001)
    before = metrics.latencies()
    metrics.took("hot read", 0.001)
    metrics.took("hot write", 0.001)
    assert list(before) == ["hot read"]
    assert count(before["hot read"]) == 1
    observe(before["hot read"], 1)
    assert count_of(metrics, "hot read") == 2


def test_the_calls_of_all_threads_add_up(metrics):
    threads, calls = 8, 2_000
    start = threading.Barrier(threads)

    def call():
        start.wait()
        for _ in range(calls):
            metrics.took("hot read", 0.25)

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(call)
        pool.shutdown()
        assert count_of(metrics, "hot read") == threads * calls
    assert metrics.latencies()["hot read"][-1] == threads * calls / 4


def test_the_calls_of_a_thread_stay_when_it_ends(metrics):
    metrics.took("hot read", 0.5)
    for _ in range(20):
        in_thread(lambda: metrics.took("hot read", 0.5))
    in_thread(lambda: metrics.took("hot write", 0.5))
    gc.collect()
    assert len(metrics._live) <= 2  # what is kept of a thread does not pile up, if nobody looks
    assert (count_of(metrics, "hot read"), count_of(metrics, "hot write")) == (21, 1)
    assert metrics.latencies()["hot read"][-1] == 10.5
    assert len(metrics._live) == 1


def test_what_is_read_while_threads_come_and_go_never_gets_less(metrics):
    """To who watches the numbers less is a restart."""
    done = threading.Event()
    seen = []

    def watch():
        while not done.is_set():
            histogram = metrics.latencies().get("hot read", [0, 0.0])
            seen.append((count(histogram), histogram[-1]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for number in range(100):
        workers = [
            threading.Thread(target=metrics.took, args=("hot read", 0.1 / (number + worker + 1)))
            for worker in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(10)
    done.set()
    watcher.join(10)
    assert not watcher.is_alive(), "a look hangs"
    assert count_of(metrics, "hot read") == 400
    assert [sums for _, sums in seen] == sorted(sums for _, sums in seen)
    assert [counts for counts, _ in seen] == sorted(counts for counts, _ in seen)


def test_what_a_page_hit_notes_costs_less_than_a_microsecond(metrics):
    hit = "metrics.count('hot_hits'); metrics.took('hot read', 0.0003)"
    assert seconds_of(hit, metrics) < 1e-6


# --- Errors -----------------------------------------------------------------------------------


def test_errors_are_counted_by_tier_and_class(metrics):
    for error in ("TimeoutError", "TimeoutError", "OSError"):
        metrics.failed("hot", error)
    metrics.failed("us-east-1", "TimeoutError")
    assert metrics.errors() == {
        "hot TimeoutError": 2,
        "hot OSError": 1,
        "us-east-1 TimeoutError": 1,
    }


def test_more_than_50_classes_of_errors_are_counted_as_one(metrics):
    """Some server may answer anything."""
    for number in range(200):
        metrics.failed("us-east-1", f"Error{number}")
    metrics.failed("us-east-1", "Error7")
    metrics.failed("hot", "OSError")
    errors = metrics.errors()
    assert sum(errors.values()) == 202
    assert errors["us-east-1 Error7"] == 2
    assert errors["us-east-1 other"] == 150
    assert errors["hot other"] == 1
    assert len(errors) == 52


def test_errors_of_all_threads_add_up(metrics):
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2_000):
            pool.submit(metrics.failed, "hot", "OSError")
    errors = metrics.errors()
    assert errors == {"hot OSError": 2_000}
    errors.clear()
    assert metrics.errors() == {"hot OSError": 2_000}


def test_every_counter_is_described_in_a_sentence():
    assert all(text[0].isupper() and text.endswith(".") for text in COUNTERS.values())
