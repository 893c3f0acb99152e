"""The plug-in for django-health-check, in its own view."""

import asyncio
import json
import re
import time
from dataclasses import replace

import pytest
from django.test import AsyncRequestFactory
from health_check.views import HealthCheckView
from servers import Memcached

from django_dynamo_failover.health_check import SessionTiers


@pytest.fixture
def site(make_engine, memcached, dynamodb, table):
    """A site that does nothing by itself."""
    return make_engine(memcached, dynamodb, table=table, BACKGROUND=False)


def answer(*, strict=False):
    """What the view of django-health-check answers: its status, and what it says of us."""
    check = ("django_dynamo_failover.health_check.SessionTiers", {"strict": strict})
    view = HealthCheckView.as_view(checks=[check])
    response = asyncio.run(view(AsyncRequestFactory().get("/health?format=json")))
    [said] = json.loads(response.content).values()
    return response.status_code, said


def cut_off(breaker):
    """Let a tier be thought to be down."""
    for _ in range(2):
        breaker.failure()


def lose_memcached(site):
    for shard in site.runtime.hot._cache._shards:
        cut_off(shard.breaker)


def lose_dynamodb(site):
    for region in site.runtime.cold._regions:
        cut_off(region.breaker)


def leave_a_change(site, age):
    """Leave a change pending that was made so many seconds ago."""
    session = site.store()
    session["cart"] = ["tea"]
    session.save()
    [(id, pending)] = site.runtime.writer._pending.items()
    record = replace(pending.record, dirty_since=time.time() - age)
    site.runtime.writer._pending[id] = replace(pending, record=record)


both = pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])


@both
def test_a_site_with_both_tiers_is_well(site, strict):
    assert answer(strict=strict) == (200, "OK")


@both
def test_without_any_tier_it_is_not(site, strict):
    lose_memcached(site)
    lose_dynamodb(site)
    assert answer(strict=strict) == (
        500,
        "Unavailable: Neither the hot tier nor DynamoDB answers.",
    )


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lose_memcached, "Warning: The hot tier does not answer, or not all of it."),
        (lose_dynamodb, "Warning: DynamoDB answers in no region."),
    ],
)
def test_a_machine_stays_in_the_load_balancer_while_one_tier_answers(site, lose, said):
    lose(site)
    assert answer() == (200, "OK")
    assert answer(strict=True) == (500, said)


def test_a_real_outage_is_noticed(site, memcached, dynamodb):
    site.configure(READ_TIMEOUT=0.2)
    memcached.freeze()
    dynamodb.freeze()
    assert answer() == (200, "OK")  # nobody has asked them yet
    site.runtime.writer.run_due()
    for _ in range(2):
        with pytest.raises(Exception, match="no region answers"):
            site.runtime.cold.read("nobody")
    assert answer()[0] == 500


def test_one_server_of_several_is_enough(make_engine, start, dynamodb):
    """Only strictly looked at it is missed."""
    servers = [start(Memcached) for _ in range(2)]
    location = [server.address for server in servers]
    backend = "django_dynamo_failover.cache.MemcachedCache"
    cache = {"BACKEND": backend, "LOCATION": location}
    site = make_engine(servers[0], dynamodb, cache=cache, BACKGROUND=False)
    lose_dynamodb(site)
    first, second = site.runtime.hot._cache._shards
    cut_off(first.breaker)
    assert answer() == (200, "OK")
    assert "not all of it" in answer(strict=True)[1]
    cut_off(second.breaker)
    assert answer()[0] == 500


def test_a_change_that_dynamodb_should_have_had_is_missed(site):
    """Not within the minute after WRITE_INTERVAL: it is being written."""
    leave_a_change(site, 910)
    assert answer(strict=True) == (200, "OK")
    site.runtime.writer._pending.clear()
    leave_a_change(site, 970)
    assert answer() == (200, "OK")
    status, said = answer(strict=True)
    assert status == 500
    assert re.fullmatch(r"Warning: DynamoDB has lacked a change for 9[789]\d seconds\.", said)


def test_a_site_without_regions_misses_none(make_engine, memcached):
    make_engine(memcached, BACKGROUND=False)
    assert answer(strict=True) == (200, "OK")


def test_it_asks_nobody(site, memcached, dynamodb):
    answer(strict=True)  # starts the runtime
    before = memcached.commands()
    dynamodb.reset_requests()
    for strict in (False, True):
        answer(strict=strict)
    assert memcached.commands() - before == {}
    assert not dynamodb.requests()


def test_it_is_told_apart_from_others_by_how_strict_it_is():
    assert repr(SessionTiers()) == "SessionTiers(strict=False)"
    assert repr(SessionTiers(strict=True)) == "SessionTiers(strict=True)"
