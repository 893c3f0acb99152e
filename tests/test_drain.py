"""``drainsessions_dynamo`` beside real web processes: before a planned failover."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from servers import Memcached, boto3_client

from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.management.base import no_cold_tier, no_hot_tier
from django_dynamo_failover.management.commands import drainsessions_dynamo
from django_dynamo_failover.writer import Writer

from .operating import Operator, open_till, wake_all, workers_of
from .web import until

DRAIN = "drainsessions"
DRAINED = "Drained. Every change is written through until: drainsessions_dynamo off"
PRODUCTS = {"mug": 1, "espresso": 1}
SESSIONS = 1_000


def replace_workers(web):
    """Let gunicorn start new workers, and wait until the old ones are gone."""
    old, number = workers_of(web), web.workers
    web.send(signal.SIGHUP)
    until(lambda: len(workers_of(web)) == number and not workers_of(web) & old)


def all_items(engine):
    """The ids in the table, of however many pages."""
    pages = boto3_client(engine.cold.endpoint_url).get_paginator("scan")
    found = pages.paginate(TableName=engine.table, ProjectionExpression="id")
    return {item["id"]["S"] for page in found for item in page["Items"]}


def each_change_is_stored_at_once(operator, tills, sku):
    for till in tills:
        had = operator.carts([till])[0].get(sku, 0)
        till.change(sku)
        assert operator.carts([till])[0].get(sku) == had + 1


class TestOn:
    def test_all_that_is_pending_is_stored_and_from_then_on_each_change(self, serve, operator):
        web = serve(workers=3)
        tills = [open_till(web.url, "mug", "espresso") for _ in range(6)]
        wake_all(web, tills[0], operator)
        assert operator.carts(tills) != [PRODUCTS] * 6

        lines = operator.run(DRAIN, "on")
        assert operator.carts(tills) == [PRODUCTS] * 6
        assert lines[-2:] == ["3 of 3 processes have answered; pending: 0", DRAINED]
        each_change_is_stored_at_once(operator, tills, "mug")

    def test_new_workers_write_through_from_their_first_request_on(self, serve, operator):
        web = serve(application="hasty:application", workers=2)
        tills = [open_till(web.url) for _ in range(4)]
        operator.run(DRAIN, "on")
        replace_workers(web)
        each_change_is_stored_at_once(operator, tills, "mug")

    def test_it_survives_the_loss_of_the_hot_tier(self, serve, operator, memcached):
        web = serve(application="hasty:application")
        tills = [open_till(web.url) for _ in range(2)]
        operator.run(DRAIN, "on")
        memcached.flush()
        each_change_is_stored_at_once(operator, tills, "mug")
        until(lambda: ":1:session-orders:0" in memcached.keys())  # noqa: SIM118
        replace_workers(web)
        each_change_is_stored_at_once(operator, tills, "mug")

    def test_it_ends_with_off(self, serve, operator):
        web = serve(application="hasty:application", workers=2)
        till = open_till(web.url)
        operator.run(DRAIN, "on")
        assert operator.run(DRAIN, "off")[-1] == "Changes are written in the background again."
        for _ in range(6):
            till.change("mug")
        assert operator.carts([till]) != [{"mug": 6}]
        assert till.items == {"mug": 6}

    def test_what_was_pending_in_a_process_that_ended_is_no_matter(self, serve, operator):
        web, other = (serve(application="hasty:application") for _ in range(2))
        tills = [open_till(each.url, "mug") for each in (web, other)]
        other.end(signal.SIGTERM)
        lines = operator.run(DRAIN, "on")
        assert lines[-1] == DRAINED
        assert operator.carts(tills) == [{"mug": 1}] * 2

    def test_a_killed_process_is_waited_for_until_its_slot_is_over(self, serve, operator):
        web, other = (serve(application="hasty:application") for _ in range(2))
        open_till(web.url)
        open_till(other.url)
        until(lambda: len(operator.members) == 2)
        other.kill()
        began = time.monotonic()
        lines = operator.run(DRAIN, "on")
        assert lines[-1] == DRAINED
        assert lines[-2].startswith("1 of 1 ")
        assert time.monotonic() - began < 5  # the slots of hasty processes live for 2 s


class TestStatus:
    def test_it_names_the_processes_and_what_they_hold(self, serve, operator):
        web = serve(workers=2, application="hasty:application")
        till = open_till(web.url)
        wake_all(web, till, operator)
        operator.run(DRAIN, "on")

        lines = operator.run(DRAIN, "status")
        assert lines[0] == "Draining is on."
        assert sorted(lines[1:]) == sorted(
            f"{socket.gethostname()} {pid} (here): pending 0, drained" for pid in workers_of(web)
        )
        report = json.loads("\n".join(operator.run(DRAIN, "status", json=True)))
        assert (report["draining"], report["pending"], len(report["processes"])) == (True, 0, 2)
        assert {process["pid"] for process in report["processes"]} == workers_of(web)
        assert report["processes"][0].keys() == {"host", "pid", "site", "pending", "drained"}

        report = json.loads("\n".join(operator.run(DRAIN, "off", json=True)))
        assert not report["draining"]
        for _ in range(4):
            till.change("mug")
        until(lambda: sum(each.pending for each in operator.members))
        lines = operator.run(DRAIN, "status")
        assert lines[0] == "Draining is off."
        assert any(line.endswith(": pending 1") for line in lines)


class TestDynamoDBFrozen:
    def test_it_ends_in_time_and_no_page_fails(self, serve, operator, dynamodb):
        web = serve(application="hasty:application")
        till = open_till(web.url, "mug")
        until(lambda: operator.members)
        dynamodb.freeze()
        for timeout in (0, 1):
            began = time.monotonic()
            status, message = operator.fail(DRAIN, "on", timeout=timeout)
            assert time.monotonic() - began < timeout + 1
            assert status == 1
            assert message.startswith(f"Not done after {timeout} seconds")
        for _ in range(3):
            till.change("mug")
        assert till.items == {"mug": 4}

        dynamodb.thaw()
        assert operator.run(DRAIN, "on")[-1] == DRAINED
        assert operator.carts([till]) == [{"mug": 4}]


class TestNobodyThere:
    def test_no_hot_tier(self, make_engine, start, dynamodb, table):
        hot = start(Memcached)
        operator = Operator(make_engine(hot, dynamodb, table=table))
        hot.kill()
        for action in ("on", "off", "status"):
            status, message = operator.fail(DRAIN, action)
            assert (status, message) == (2, str(no_hot_tier()))

    @pytest.mark.parametrize("action", ["on", "off", "status"])
    def test_no_process(self, operator, monkeypatch, action):
        monkeypatch.setattr(drainsessions_dynamo, "SLOT_SECONDS", 0.5)
        status, message = operator.fail(DRAIN, action)
        assert status == 2
        assert message.startswith("No process of this site tells of itself")

    def test_an_order_to_nobody_stands(self, operator, serve):
        """Drain, then start the site: not one change is to be lost."""
        assert operator.fail(DRAIN, "on", timeout=0)[0] == 2
        web = serve()
        each_change_is_stored_at_once(operator, [open_till(web.url)], "mug")

    @pytest.mark.parametrize("action", ["on", "off", "status"])
    def test_no_cold_tier(self, make_engine, memcached, action):
        status, message = Operator(make_engine(memcached)).fail(DRAIN, action)
        assert (status, message) == (1, str(no_cold_tier()))


def test_without_a_background_thread_the_next_request_hears_of_it(operator, monkeypatch):
    """Nobody waits for a process that has rested, so it is to hear of it before all else."""
    operator.engine.configure(BACKGROUND=False)
    monkeypatch.setattr("django_dynamo_failover.writer.POLL_SECONDS", 0)
    session = operator.engine.store()
    session["number"] = 1
    session.save()
    operator.onlooker.fleet.drain(True)
    session = operator.engine.store(session.session_key)
    session["number"] += 1
    session.save()
    assert operator.stored(session.session_key) == {"number": 2}


def test_a_process_that_starts_writes_all_through_from_the_beginning(operator, monkeypatch):
    """Not only once its background thread has looked, and not by that thread."""

    def write_later(*args):
        raise AssertionError("it is left to the background thread")

    monkeypatch.setattr(Writer, "_poll", lambda writer: None)
    monkeypatch.setattr(Writer, "write_later", write_later)
    operator.onlooker.fleet.drain(True)
    session = operator.engine.store()
    for number in (1, 2):  # a new session, and a change
        session["number"] = number
        session.save()
        assert operator.stored(session.session_key) == {"number": number}


MANY = """
import sys
from django.conf import settings
settings.DYNAMO_FAILOVER["NEW_SESSION_DELAY"] = 600
from django_dynamo_failover.sessions import SessionStore
for number in range({number}):
    session = SessionStore()
    session["number"] = number
    session["text"] = "x" * 500
    session.save()
    print(session.session_key)
print("", flush=True)
sys.stdin.read()
"""


@contextmanager
def process_with(number, environment):
    """A process with so many sessions that DynamoDB does not have; gives their keys."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import django; django.setup()\n" + MANY.format(number=number)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield [line.strip() for line in iter(process.stdout.readline, "\n")]
        process.kill()


def test_a_process_with_very_much_pending(operator, environment):
    with process_with(SESSIONS, environment) as keys:
        assert len(keys) == SESSIONS
        until(lambda: sum(each.pending for each in operator.members) == SESSIONS)
        assert not [id for id in all_items(operator.engine) if len(id) == 64]
        began = time.monotonic()
        lines = operator.run(DRAIN, "on")
        took = time.monotonic() - began
        print(f"{SESSIONS} sessions are in DynamoDB after {took:.1f} s")
        counts = [int(line.rpartition(" ")[2]) for line in lines[:-1]]
        assert counts == sorted(counts, reverse=True)
        stored = all_items(operator.engine)
    assert {storage_id(key) for key in keys} <= stored
    for number in range(0, SESSIONS, 97):
        assert operator.stored(keys[number])["number"] == number
