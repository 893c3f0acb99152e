"""Counts of all threads, at next to no cost."""

import gc
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

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
    """The snapshot then holds the last reference to what the thread has counted."""
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

    for shard in list(metrics._live):
        shard.counts = Copied(shard.counts)
    del shard
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


def test_a_count_costs_less_than_a_microsecond(metrics):
    metrics.count("saves")
    counts = 10_000

    def cost():
        began = time.perf_counter()
        for _ in range(counts):
            metrics.count("saves")
        return (time.perf_counter() - began) / counts

    assert min(cost() for _ in range(10)) < 1e-6


def test_every_counter_is_described_in_a_sentence():
    assert all(text[0].isupper() and text.endswith(".") for text in COUNTERS.values())
