"""Each fault of each tier on real servers: what users get, how late, and what is left of it."""

import csv
import re
from functools import partial
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse
from servers import Dynalite, Memcached

from django_dynamo_failover import runtime, writer
from django_dynamo_failover.breaker import Breaker

from .conftest import require
from .faults import (
    BOTH,
    CELLS,
    FAULTS,
    LEFT_OUT,
    MEMCACHED,
    REGIONS,
    TIERS,
    Cell,
    Site,
    live_through,
)
from .web import PASSWORD, USER, Visitor, until

pytestmark = pytest.mark.django_db

#: Seconds. Shorter than the defaults, so that all cells together take less than a minute.
HOT_TIMEOUT, CONNECT_TIMEOUT, READ_TIMEOUT, DEADLINE = 0.25, 0.25, 0.4, 1.0


@pytest.fixture(scope="module")
def site():
    require(Memcached)
    require(Dynalite)
    with Site() as site:
        yield site


@pytest.fixture
def shop(site, make_engine, settings, monkeypatch):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        "shop.pins.PinHasher",
    ]
    get_user_model().objects.create_superuser(USER, password=PASSWORD)
    # What is down is asked again ten times as often, for the time that these tests take.
    monkeypatch.setattr(runtime, "Breaker", partial(Breaker, first_wait=0.1, longest_wait=0.5))
    monkeypatch.setattr(writer, "_PROBE_SECONDS", 0.05)
    monkeypatch.setattr(writer, "_RETRY_SECONDS", 0.1)
    site.memcached.flush()
    return make_engine(
        site.memcached,
        site.dynamodb,
        cache={
            "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
            "LOCATION": site.memcached_proxy.address,
            "OPTIONS": {"timeout": HOT_TIMEOUT, "connect_timeout": HOT_TIMEOUT},
        },
        REGIONS=site.regions,
        CONNECT_TIMEOUT=CONNECT_TIMEOUT,
        READ_TIMEOUT=READ_TIMEOUT,
        DEADLINE=DEADLINE,
        SHUTDOWN_TIMEOUT=0.1,
        BOTO_SESSION="tests.web.boto_session",
    )


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_nobody_is_hurt(site, shop, cell):
    outcome = live_through(site, cell)

    assert outcome.answers == cell.answers
    assert outcome.slowest <= DEADLINE + 0.5
    assert outcome.waited <= 3
    assert outcome.recovery <= 3


@pytest.mark.parametrize("tier", [MEMCACHED, REGIONS, BOTH])
def test_nobody_waits_for_what_is_known_to_be_down(site, shop, tier):
    visitor = Visitor()
    visitor.enter()
    shop.runtime.writer.flush(5)
    broken = Cell(tier, "black hole")
    site.fail(broken)
    try:
        run = shop.runtime
        breakers = {MEMCACHED: (False, True), REGIONS: (True, False), BOTH: (False, False)}[tier]

        def are_open():
            visitor.get(reverse("status-json"))
            if tier != MEMCACHED:
                Visitor().enter()
            return (run.store._hot.is_up, run.cold.is_up) == breakers and (
                tier == MEMCACHED or run.cold.is_down
            )

        until(are_open)
        waits = []
        for _ in range(200):
            visitor.slowest = 0.0
            visitor.get(reverse("status-json"))
            waits.append(visitor.slowest)
    finally:
        site.heal(broken)

    # A busy machine may take its time for one or two of them.
    assert sorted(waits)[-3] < READ_TIMEOUT


def test_each_cell_of_the_table_is_there_or_left_out_for_a_reason():
    assert {*CELLS, *LEFT_OUT} == {Cell(tier, fault) for tier in TIERS for fault in FAULTS}
    assert not {*CELLS} & {*LEFT_OUT}


def documented():
    """The rows of the table: by cell what users get, or why there is no such cell."""
    text = (Path(__file__).parent.parent / "docs" / "faults.rst").read_text()
    rows = csv.reader(line.strip() for line in text.splitlines() if re.match(r'    "[^:]', line))
    return {Cell(*row[:2]): row[2:] for row in rows}


def test_each_cell_is_documented_and_no_other():
    assert documented().keys() == {*CELLS, *LEFT_OUT}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_documented_is_what_is_guaranteed(cell):
    *answers, slowest, waited, recovery = documented()[cell]
    assert answers == list(cell.answers.values())
    assert float(slowest) <= 2.5 + 0.5
    assert int(waited) <= 3
    assert float(recovery) <= 20


@pytest.mark.parametrize("cell", LEFT_OUT, ids=str)
def test_why_a_cell_is_left_out_is_documented(cell):
    assert documented()[cell] == [LEFT_OUT[cell]] + 6 * [""]
