"""What a site costs on a normal day: leases that run out and writes that fall due, all the time.

A ``WRITE_INTERVAL`` of four seconds makes it a busy day. DynamoDB takes 20 ms to answer.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.dynamo import DynamoTable

from .configurations import BOTO_SESSION, write_pending

WRITE_INTERVAL = 4.0
INTERVALS = 2
USERS = 40
THREADS = 2


def in_request():
    return not threading.current_thread().name.startswith("django-dynamo-failover")


@pytest.fixture
def calls(monkeypatch):
    """The calls to the tiers: a counter of those in requests, and one of those behind them."""
    counters = {True: Counter(), False: Counter()}

    def count(owner, name):
        call = getattr(owner, name)

        def counted(*arguments, **options):
            counters[in_request()][name] += 1
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    for name in ("gets", "add", "cas", "set"):
        count(MemcachedCache, name)
    for name in ("read", "put_new", "put_over", "revoke"):
        count(DynamoTable, name)
    return counters


def test_no_page_waits_for_dynamodb(make_engine, memcached, dynamodb, table, calls):
    engine = make_engine(
        memcached, dynamodb, table=table, WRITE_INTERVAL=WRITE_INTERVAL, BOTO_SESSION=BOTO_SESSION
    )
    sessions = [engine.store() for _ in range(USERS)]
    for session in sessions:
        session["count"] = 0
        session.save()
    write_pending()
    keys = [session.session_key for session in sessions]
    dynamodb.latency(20)
    dynamodb.reset_requests()
    for counter in calls.values():
        counter.clear()
    ends = time.monotonic() + INTERVALS * WRITE_INTERVAL

    def serve(keys):
        """Serve each user in turn; every third page changes the session."""
        pages = Counter()
        while time.monotonic() < ends:
            for key in keys:
                session = engine.store(key)
                assert "count" in session
                pages["read"] += 1
                if pages["read"] % 3 == 0:
                    session["count"] += 1
                    session.save()
                    pages["changed"] += 1
            time.sleep(0.02)  # leaves a processor to the background
        return pages

    with ThreadPoolExecutor(THREADS) as pool:
        shares = [keys[number::THREADS] for number in range(THREADS)]
        pages = sum(pool.map(serve, shares), Counter())
    sent = dynamodb.requests()
    request, background = calls[True], calls[False]

    print(f"{pages}; in requests {request}; behind them {background}; to DynamoDB {sent}")
    assert set(request) == {"gets", "cas"}, "a page has waited for DynamoDB"
    # A page whose entry the background thread has just swapped looks once more.
    again = request["cas"] - pages["changed"]
    assert 0 <= again <= background["cas"]
    assert request["gets"] == pages["read"] + again
    # One write an interval, and one read in the last third of each lease.
    assert USERS <= sent["PutItem"] <= USERS * (INTERVALS + 1)
    assert USERS <= sent["BatchGetItem"] <= USERS * (INTERVALS * 1.5 + 1)
    assert set(sent) == {"PutItem", "BatchGetItem"}
