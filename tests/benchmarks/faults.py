"""The table of faults, with default settings, and what pages cost while a breaker is open.

    PYTHONPATH=.:testproject python -m tests.benchmarks.faults

Prints what docs/faults.rst shows. Takes some minutes: what is down is asked again after seconds.
"""

import contextlib
import logging
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import django
from servers import create_table

RUNS = 5
CALLS = 1_000


def set_up(folder):
    """Set up the shop with a database of its own, and the user."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SHOP_DATABASE": str(Path(folder) / "shop.sqlite3"),
        "SHOP_DEBUG": "0",
    }
    django.setup()
    logging.disable()
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    settings.ALLOWED_HOSTS = ["*"]
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",  # what a login takes is of no interest
        "shop.pins.PinHasher",
    ]
    call_command("migrate", verbosity=0)
    from tests.web import PASSWORD, USER

    get_user_model().objects.create_superuser(USER, password=PASSWORD)


@contextlib.contextmanager
def engine(site, location, regions):
    """Configure the engine, with defaults and an empty table; yield its runtime."""
    from django.test import override_settings

    from django_dynamo_failover import runtime

    table = f"sessions-{uuid.uuid4().hex}"
    create_table(site.dynamodb.endpoint_url, table)
    site.memcached.flush()
    caches = {
        "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "sessions": {
            "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
            "LOCATION": location,
        },
    }
    options = {"TABLE": table, "REGIONS": regions, "SHUTDOWN_TIMEOUT": 0.5}
    with override_settings(CACHES=caches, DYNAMO_FAILOVER=options):
        run = runtime.current()
        run.cold.wait(10)  # for its clients: that is measured elsewhere
        yield run


def print_table(site):
    from tests.faults import CELLS, FAULTS, LEFT_OUT, TIERS, Cell, live_through

    print(".. csv-table::")
    print(
        '    :header: "Tier", "Fault", "Pages", "Changes", "Logins", "Logouts",'
        ' "Slowest (s)", "Waited", "Back (s)"'
    )
    print()
    for tier in TIERS:
        for fault in FAULTS:
            cell = Cell(tier, fault)
            if cell in CELLS:
                with engine(site, site.memcached_proxy.address, site.regions):
                    outcome = live_through(site, cell)
                figures = [f"{outcome.slowest:.2f}", f"{outcome.waited}", f"{outcome.recovery:.1f}"]
                words = [tier, fault, *outcome.answers.values(), *figures]
            else:
                words = [tier, fault, LEFT_OUT[cell], *6 * [""]]
            print("    " + ",".join(f'"{word}"' for word in words), flush=True)
    print()


def p99(ask):
    """Return what 99 of 100 calls take at most, in microseconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1e6)
    return sorted(times)[CALLS * 99 // 100]


def report(what, runs):
    usual, broken = (statistics.median(run[side] for run in runs) for side in (0, 1))
    print(f"{what}: p99 {usual:.0f} µs and {broken:.0f} µs, a factor of {broken / usual:.2f}")


def measure_dynamodb_down(site):
    """Pages through all of Django, with DynamoDB healthy and with its breakers open."""
    from django.urls import reverse

    from tests.faults import REGIONS, Cell
    from tests.web import Visitor, until

    with engine(site, site.memcached.address, site.regions) as run:
        visitor = Visitor()
        visitor.enter()
        run.writer.flush(5)
        runs = []
        for _ in range(RUNS):
            healthy = p99(lambda: visitor.get(reverse("status-json")))
            site.fail(Cell(REGIONS, "black hole"))
            until(lambda: Visitor().enter() and run.cold.is_down, within=30)
            runs.append((healthy, p99(lambda: visitor.get(reverse("status-json")))))
            site.heal(Cell(REGIONS, "black hole"))
            until(lambda: run.cold.is_up, within=40)
    report("Pages, DynamoDB healthy and black hole", runs)


def measure_memcached_down(site):
    """Loads of a session with memcached's breaker open, and the read of DynamoDB that is in it."""
    from django_dynamo_failover.keys import storage_id
    from django_dynamo_failover.payload import login_of
    from django_dynamo_failover.sessions import SessionStore
    from tests.faults import MEMCACHED, Cell
    from tests.web import Visitor, until

    regions = [{"NAME": "us-east-1", "ENDPOINT_URL": site.dynamodb.endpoint_url}]
    with engine(site, site.memcached_proxy.address, regions) as run:
        visitor = Visitor()
        visitor.enter()
        run.writer.flush(5)
        id = storage_id(visitor.cookie)
        owner = login_of(run.store.load(id).record.payload).owner
        site.fail(Cell(MEMCACHED, "black hole"))
        until(lambda: visitor.user and not run.store._hot.is_up)
        runs = [
            (
                p99(lambda: run.cold.read(id, owner)),
                p99(lambda: SessionStore(visitor.cookie).load()),
            )
            for _ in range(RUNS)
        ]
        site.heal(Cell(MEMCACHED, "black hole"))
    report("Reads of DynamoDB, and loads of a session with memcached a black hole", runs)


def main():
    with tempfile.TemporaryDirectory() as folder:
        set_up(folder)
        from tests.faults import Site

        with Site() as site:
            print_table(site)
            measure_dynamodb_down(site)
            measure_memcached_down(site)


if __name__ == "__main__":
    main()
