"""Do active users wait for DynamoDB? Page hits with DynamoDB at full speed, and slowed to 20 ms.

    PYTHONPATH=.:testproject python -m tests.benchmarks.page_hits

Every third page changes the session, and a lease of two seconds keeps renewals and writes going.
Runs of both kinds take turns; the medians over the runs are compared.
"""

import statistics
import time

from servers import Dynalite, Memcached

from tests.benchmarks import configure

HITS = 20_000
RUNS = 5
USERS = 50
WRITE_INTERVAL = 2.0
SLOW_MS = 20


def open_sessions():
    from django_dynamo_failover import runtime
    from django_dynamo_failover.sessions import SessionStore

    keys = []
    for _ in range(USERS):
        session = SessionStore()
        session["cart"] = {f"product {number}": number for number in range(20)}
        session["hits"] = 0
        session.save()
        keys.append(session.session_key)
    assert runtime.current().writer.flush(30) == 0
    return keys


def serve(keys):
    """Return how long each of the page hits took, in microseconds, sorted."""
    from django_dynamo_failover.sessions import SessionStore

    times = []
    for number in range(HITS):
        began = time.perf_counter()
        session = SessionStore(keys[number % len(keys)])
        hits = session["hits"]
        if number % 3 == 0:
            session["hits"] = hits + 1
            session.save()
        times.append((time.perf_counter() - began) * 1e6)
        if number % 10 == 0:
            time.sleep(0.001)  # a process that is always busy would starve its own background
    return sorted(times)


def main():
    from django_dynamo_failover import runtime

    with Memcached() as memcached, Dynalite() as dynamodb:
        configure(memcached, dynamodb, WRITE_INTERVAL=WRITE_INTERVAL)
        keys = open_sessions()
        serve(keys)  # warms up
        results = {0: [], SLOW_MS: []}
        for run in range(RUNS):
            for latency in sorted(results, reverse=bool(run % 2)):
                dynamodb.latency(latency)
                dynamodb.reset_requests()
                times = serve(keys)
                p50, p99 = times[HITS // 2], times[HITS * 99 // 100]
                results[latency].append((p50, p99))
                sent = dict(dynamodb.requests())
                assert min(sent["PutItem"], sent["BatchGetItem"]) >= USERS, "too quiet a run"
                print(f"DynamoDB +{latency:2} ms: p50 {p50:4.0f} µs, p99 {p99:5.0f} µs, {sent}")
        for name, index in (("p50", 0), ("p99", 1)):
            fast, slow = (
                statistics.median(run[index] for run in results[latency]) for latency in results
            )
            print(f"{name}: {fast:.0f} µs, slowed {slow:.0f} µs: {slow / fast - 1:+.1%}")
        dynamodb.latency(0)
        runtime.reset()


if __name__ == "__main__":
    main()
