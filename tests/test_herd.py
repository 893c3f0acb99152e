"""Memcached is lost under load: nobody is logged out, and DynamoDB is asked once a session."""

import pytest
from servers import Memcached

from django_dynamo_failover import signals
from django_dynamo_failover.exceptions import ColdUnavailable, SessionUnavailable

from .configurations import quieten
from .herd import Herd
from .workers import PATIENT, PATIENT_CACHE

SESSIONS, THREADS = 500, 16
#: One for an anonymous session; the item and then the user's revocation for one with a login.
READS = SESSIONS * 3 // 2


@pytest.fixture
def hot(start):
    return start(Memcached)


@pytest.fixture
def crowd(make_engine, hot, dynamodb):
    """More threads than DynamoDB has answers for within the deadline."""
    make_engine(hot, dynamodb, BOTO_SESSION="tests.web.boto_session", DEADLINE=1.0)
    herd = Herd(100, 64)
    herd.warm_up()
    dynamodb.reset_requests()
    return herd


@pytest.fixture
def herd(make_engine, hot, dynamodb, monkeypatch):
    quieten(monkeypatch)  # a poll that finds nobody there while memcached restarts
    make_engine(
        hot, dynamodb, cache=PATIENT_CACHE, BOTO_SESSION="tests.web.boto_session", **PATIENT
    )
    herd = Herd(SESSIONS, THREADS)
    herd.warm_up()
    dynamodb.reset_requests()
    return herd


def test_each_session_is_read_once_and_nobody_is_logged_out(herd, hot, dynamodb):
    hot.restart()
    rush = herd.rush()
    assert rush.logged_out == rush.unavailable == 0
    assert rush.pages == 3 * SESSIONS
    # A few more: of two pages of one session at once, one may just miss the other's refill.
    assert READS <= dynamodb.requests()["BatchGetItem"] <= READS * 1.05


def test_a_slow_dynamodb_logs_nobody_out(herd, hot, dynamodb):
    dynamodb.latency(20)
    hot.restart()
    rush = herd.rush()
    assert rush.logged_out == rush.unavailable == 0
    assert READS <= dynamodb.requests()["BatchGetItem"] <= READS * 1.05


def test_a_throttled_dynamodb_is_asked_as_much_as_it_takes(herd, hot, dynamodb):
    dynamodb.throttle(200)
    hot.restart()
    rush = herd.rush()
    assert rush.logged_out == 0
    assert rush.unavailable == 0  # 16 in line are served long before the deadline
    reads = dynamodb.requests()["BatchGetItem"]
    assert READS <= reads <= READS * 1.05
    assert reads / rush.seconds >= 0.6 * 200  # 99 % in the benchmark
    assert dynamodb.throttled() < reads


def test_those_who_cannot_be_served_in_time_do_not_keep_the_others_from_it(crowd, hot, dynamodb):
    """If they failed at the end of the line, the breaker opened, and half the reads were lost."""
    down = []
    dynamodb.throttle(40)
    hot.restart()

    def note(sender, tier, **kwargs):
        down.append(tier)

    signals.tier_down.connect(note)
    rush = crowd.rush()
    assert rush.logged_out == 0
    assert rush.unavailable > 0
    assert dynamodb.requests()["BatchGetItem"] / rush.seconds >= 0.6 * 40
    assert down.count("us-east-1") <= 2


def test_a_read_that_fails_half_way_is_one_request_the_next_time(
    make_engine, hot, dynamodb, monkeypatch
):
    """Else a crowd at a throttled table reads the same items again and again, and none gets in."""
    engine = make_engine(hot, dynamodb, BOTO_SESSION="tests.web.boto_session")
    herd = Herd(2, 1)
    hot.restart()

    def fail(owner):
        raise ColdUnavailable("throttled")

    with monkeypatch.context() as patch:
        patch.setattr(engine.runtime.cold, "read_user", fail)
        with pytest.raises(SessionUnavailable):
            engine.store(herd.keys[1]).load()
    dynamodb.reset_requests()
    assert engine.store(herd.keys[1])["number"] == 1
    assert dynamodb.requests()["BatchGetItem"] == 1
