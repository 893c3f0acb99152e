"""``revalidatesessions_dynamo`` beside real web processes: users come back to a datacenter."""

import json

import pytest
from servers import Memcached

from django_dynamo_failover.management.base import no_cold_tier, no_hot_tier

from .operating import Operator, open_till, wake_all
from .web import Till, until

REVALIDATE = "revalidatesessions"
TOLD = "{} processes have answered: no session is served before it has agreed with DynamoDB anew."


@pytest.fixture
def west(serve, start):
    """Another site on the same table."""
    return serve(start(Memcached))


def hits(till, number=8):
    """What the next hits see, whichever process answers; one for each state seen."""
    seen = []
    for _ in range(number):
        items = till.items
        if items not in seen:
            seen.append(items)
    return seen


class TestFailBack:
    def test_what_was_changed_elsewhere_is_seen_at_the_first_hit(self, serve, west, operator):
        east = serve(workers=3)
        tills = [open_till(east.url) for _ in range(3)]
        wake_all(east, tills[0], operator)
        for till in tills:
            till.url = west.url
            till.change("mug")
        west.end()  # which stores it
        for till in tills:
            till.url = east.url
            assert hits(till) == [{}]  # the lease is not over

        lines = operator.run(REVALIDATE)
        assert lines == [TOLD.format(3)]
        for till in tills:
            assert hits(till) == [{"mug": 1}]

    def test_a_process_that_starts_later_believes_no_older_entry(self, serve, west, operator):
        east = serve()
        till = open_till(east.url)
        till.url = west.url
        till.change("mug")
        west.end()
        east.end()
        lines = operator.run(REVALIDATE)
        assert lines == [TOLD.format(0)]
        till.url = serve().url
        assert hits(till) == [{"mug": 1}]

    def test_what_ended_elsewhere_has_ended(self, serve, west, operator):
        east = serve(workers=2)
        till = open_till(east.url)
        thief = Till(east.url)
        thief._http.cookies.update(till._http.cookies)
        wake_all(east, till, operator)
        till.logout(west.url)
        assert hits(thief) == [{}]

        operator.run(REVALIDATE)
        assert {thief.status(east.url)["user"] for _ in range(4)} == {None}

    def test_what_dynamodb_does_not_have_yet_is_kept(self, serve, operator):
        east = serve(application="hasty:application", workers=2)
        tills = [open_till(east.url, "mug", "espresso", "mug") for _ in range(4)]
        assert all(cart != {"mug": 2, "espresso": 1} for cart in operator.carts(tills))
        operator.run(REVALIDATE)
        for till in tills:
            assert hits(till, 4) == [{"mug": 2, "espresso": 1}]
        operator.run("drainsessions", "on")
        assert operator.carts(tills) == [{"mug": 2, "espresso": 1}] * 4

    def test_while_dynamodb_is_down_nobody_is_logged_out(self, serve, operator, dynamodb):
        east = serve(application="hasty:application")
        till = open_till(east.url, "mug")
        until(lambda: operator.members)
        dynamodb.fail("*", "AccessDeniedException", times=None)
        assert operator.run(REVALIDATE) == [TOLD.format(1)]
        assert hits(till, 3) == [{"mug": 1}]

    def test_without_a_background_thread_the_next_hit_is_fresh(self, operator, monkeypatch):
        """Nobody waits for a process that has rested, so it is to hear of it before all else."""
        operator.engine.configure(BACKGROUND=False)
        monkeypatch.setattr("django_dynamo_failover.writer.POLL_SECONDS", 0)
        session = operator.engine.store()
        session.save()
        operator.engine.runtime.writer.flush(5)
        operator.engine.store(session.session_key).load()
        reads = operator.engine.runtime.metrics.snapshot()["cold_reads"]
        operator.onlooker.fleet.revalidate()
        operator.engine.store(session.session_key).load()
        assert operator.engine.runtime.metrics.snapshot()["cold_reads"] == reads + 1


class TestExitStatus:
    def test_a_process_that_has_not_answered_in_time(self, serve, operator):
        east = serve(workers=2)
        wake_all(east, open_till(east.url), operator)
        status, message = operator.fail(REVALIDATE, timeout=0)
        assert status == 1
        assert message.startswith("0 of 2 processes have answered after 0 seconds.")
        report = json.loads("\n".join(operator.run(REVALIDATE, json=True)))
        assert report == {"processes": 2, "answered": 2}

    def test_json_tells_how_many_are_missing(self, operator):
        operator.onlooker.fleet.tell(0)
        status, _ = operator.fail(REVALIDATE, timeout=0, json=True)
        assert status == 1
        assert json.loads(operator.out.getvalue()) == {"processes": 1, "answered": 0}

    def test_no_hot_tier(self, make_engine, start, dynamodb, table):
        hot = start(Memcached)
        operator = Operator(make_engine(hot, dynamodb, table=table))
        hot.kill()
        assert operator.fail(REVALIDATE) == (2, str(no_hot_tier()))

    def test_no_cold_tier(self, make_engine, memcached):
        operator = Operator(make_engine(memcached))
        assert operator.fail(REVALIDATE) == (1, str(no_cold_tier()))
