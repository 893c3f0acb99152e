"""What counting and timing add to a page hit, and whether threads that count wait for each other.

    PYTHONPATH=.:testproject python -m tests.benchmarks.metrics

Page hits on a real memcached, with Metrics and with one that does nothing and asks no clock, in
turns; the medians over the runs are compared. Then counting alone, in one thread and in several.
"""

import contextlib
import statistics
import threading
import time
from itertools import repeat
from unittest import mock

from servers import Dynalite, Memcached

from tests.benchmarks import configure

HITS = 5_000
RUNS = 40
COUNTS = 200_000
THREADS = (1, 2, 4, 16)


class Silent:
    """Metrics that does nothing."""

    def count(self, name, number=1):
        pass

    def took(self, call, seconds, number=1):
        pass


@contextlib.contextmanager
def silence():
    """A block in which nothing is counted, and a page hit asks no clock for it."""
    from django_dynamo_failover import hot, runtime

    run = runtime.current()
    with (
        mock.patch.object(run.store, "_metrics", Silent()),
        mock.patch.object(run.hot, "_metrics", Silent()),
        mock.patch.object(hot, "perf_counter", repeat(0.0).__next__),
    ):
        yield


def hit(key):
    """Return how long a page hit took on average, in microseconds: not each of them is timed."""
    from django_dynamo_failover.sessions import SessionStore

    began = time.perf_counter()
    for _ in range(HITS):
        SessionStore(key).load()
    return (time.perf_counter() - began) / HITS * 1e6


def compare_page_hits(key):
    hit(key)  # warms up
    results = {"counted": [], "silent": []}
    for run in range(RUNS):
        for name in sorted(results, reverse=bool(run % 2)):
            if name == "counted":
                results[name].append(hit(key))
                continue
            with silence():
                results[name].append(hit(key))
    counted, silent = (statistics.median(results[name]) for name in ("counted", "silent"))
    added = statistics.median(
        one - other for one, other in zip(results["counted"], results["silent"], strict=True)
    )
    print(f"a page hit: {silent:.1f} µs, counted and timed {counted:.1f} µs")
    print(f"added in a pair of runs: {added:+.2f} µs (median of {RUNS}), {added / silent:+.1%}")


def note(metrics, times):
    """Do so often what a page hit does."""
    for _ in range(times):
        began = time.perf_counter()
        metrics.count("hot_hits")
        metrics.took("hot read", time.perf_counter() - began)


def cost_in(threads):
    """Return how many nanoseconds of one CPU it takes in so many threads at once."""
    from django_dynamo_failover.metrics import Metrics

    metrics = Metrics()
    share = COUNTS // threads
    start = threading.Barrier(threads + 1)

    def work():
        start.wait()
        note(metrics, share)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    assert metrics.snapshot()["hot_hits"] == share * threads
    return took / (share * threads) * 1e9


def compare_threads():
    results = {threads: [] for threads in THREADS}
    for _ in range(7):
        for threads in THREADS:
            results[threads].append(cost_in(threads))
    for threads, costs in results.items():
        print(f"count, took and two clocks, {threads:2} threads: {min(costs):4.0f} ns each")


def main():
    with Memcached() as memcached, Dynalite() as dynamodb:
        configure(memcached, dynamodb)
        from django_dynamo_failover import runtime
        from django_dynamo_failover.sessions import SessionStore

        session = SessionStore()
        session["cart"] = {f"product {number}": number for number in range(20)}
        session.save()
        assert runtime.current().writer.flush(30) == 0
        compare_page_hits(session.session_key)
        runtime.reset()
    compare_threads()


if __name__ == "__main__":
    main()
