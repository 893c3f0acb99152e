"""Memcached is lost under load: how DynamoDB takes the crowd, and what users see of it.

    PYTHONPATH=.:testproject python -m tests.benchmarks.herd

For a DynamoDB at full speed, slowed to 20 ms, and throttled at 200 reads/s.
"""

import logging

from servers import Dynalite, Memcached

from tests.benchmarks import configure

SESSIONS = 10_000
THREADS = 16


def main():
    from tests.herd import Herd

    with Memcached() as memcached, Dynalite() as dynamodb:
        configure(memcached, dynamodb)
        logging.disable()
        from django_dynamo_failover import runtime

        herd = Herd(SESSIONS, THREADS)
        print(f"{SESSIONS} sessions, half of them with a login, {THREADS} threads")
        for name, fault in {
            "full speed": lambda: None,
            "20 ms": lambda: dynamodb.latency(20),
            "200 reads/s": lambda: dynamodb.throttle(200),
            "200 reads/s, 20 ms": lambda: (dynamodb.throttle(200), dynamodb.latency(20)),
        }.items():
            runtime.reset()
            herd.warm_up()
            fault()
            dynamodb.reset_requests()
            memcached.restart()
            result = herd.rush()
            reads, throttled = dynamodb.requests()["BatchGetItem"], dynamodb.throttled()
            print(
                f"{name}: all back after {result.seconds:.1f} s, {result.logged_out} logged out,"
                f" {result.unavailable} answers 503, slowest {result.slowest:.2f} s,"
                f" {reads} reads ({reads / result.seconds:.0f}/s), {throttled} throttled",
                flush=True,
            )
            dynamodb.heal()
        runtime.reset()


if __name__ == "__main__":
    main()
