"""Races between real processes on real servers, run call by call as they are written here.

G4: no race brings a session back after its logout. G6: no race loses a change.
"""

import random
import time
from collections import Counter

import pytest

from .configurations import LOGIN, hot_key
from .workers import interleave, start_workers

NUMBER = 1000


@pytest.fixture
def engine(make_engine, memcached, dynamodb, table):
    """A site whose processes write nothing to DynamoDB before they are told to."""
    return make_engine(memcached, dynamodb, table=table, NEW_SESSION_DELAY=3600, SHUTDOWN_TIMEOUT=0)


@pytest.fixture
def processes(engine):
    with start_workers(engine.settings, 4) as workers:
        yield workers


@pytest.fixture
def a(processes):
    return processes[0]


@pytest.fixture
def b(processes):
    return processes[1]


@pytest.fixture
def key(a):
    """A session that both tiers have."""
    key = a.do("open", {"cart": 1})
    assert a.do("write") == 0
    return key


@pytest.fixture
def assert_dead(engine, processes):
    """Fail if a process finds a session alive: now, when all have written, without memcached."""

    def assert_dead(*keys):
        arguments = [[key] for key in keys]
        nobody = [None] * len(keys)

        def look(when):
            for calls in [worker.begin("each", "load", arguments) for worker in processes]:
                assert calls.result() == nobody, when

        look("in memcached")
        for worker in processes:
            assert worker.do("write") == 0
        look("after all processes have written")
        engine.hot.flush()
        look("in DynamoDB")

    return assert_dead


class TestLogout:
    """At A something is under way; it goes on when B has logged the user out."""

    def test_during_a_save(self, a, b, key, assert_dead):
        with a.stopped("hot.cas", "change", key, {"cart": 2}) as save:
            b.do("logout", key)
        assert save.result() is None
        assert_dead(key)

    def test_during_a_save_of_a_session_that_memcached_has_lost(
        self, engine, a, b, key, assert_dead
    ):
        with a.stopped("hot.cas", "change", key, {"cart": 2}) as save:
            engine.hot.flush()
            b.do("logout", key)
            engine.hot.flush()
        assert save.result() is None
        assert_dead(key)

    def test_during_a_refill(self, engine, a, b, key, assert_dead):
        engine.hot.flush()
        with a.stopped("hot.add", "load", key) as load:
            b.do("logout", key)
        assert load.result() is None
        assert_dead(key)

    def test_during_a_refill_by_a_save(self, engine, a, b, key, assert_dead):
        with a.stopped("hot.cas", "change", key, {"cart": 2}) as save:
            engine.hot.flush()
            a.stop_next("hot.add")
        a.wait_for_stop(save)
        b.do("logout", key)
        a.run_free()
        assert save.result() == {"cart": 2}  # DynamoDB had it before the logout
        assert_dead(key)

    def test_while_a_change_is_pending(self, a, b, key, assert_dead):
        a.do("change", key, {"cart": 2})
        b.do("logout", key)
        assert_dead(key)

    def test_while_a_change_is_written(self, a, b, key, assert_dead):
        a.do("change", key, {"cart": 2})
        with a.stopped("cold.put_over", "write"):
            b.do("logout", key)
        assert_dead(key)

    def test_while_a_change_is_noted_as_written(self, a, b, key, assert_dead):
        a.do("change", key, {"cart": 2})
        with a.stopped("hot.cas", "write"):
            b.do("logout", key)
        assert_dead(key)

    def test_while_a_new_session_is_pending(self, a, b, assert_dead):
        key = a.do("open", {"cart": 1})
        b.do("logout", key)
        assert_dead(key)

    def test_while_a_new_session_is_written(self, a, b, assert_dead):
        key = a.do("open", {"cart": 1})
        with a.stopped("cold.put_new", "write"):
            b.do("logout", key)
        assert_dead(key)

    def test_during_a_login(self, a, b, key, assert_dead):
        with a.stopped("cold.put_over", "change", key, LOGIN) as login:
            b.do("logout", key)
        assert login.result() is None
        assert_dead(key)

    def test_during_a_login_that_has_been_written(self, a, b, key, assert_dead):
        with a.stopped("hot.cas", "change", key, LOGIN) as login:
            a.stop_next("hot.cas")  # in the background, which notes it
        assert login.result() == {"cart": 1, **LOGIN}
        a.wait_for_stop()
        b.do("logout", key)
        a.run_free()
        assert_dead(key)

    def test_of_a_session_that_gets_a_new_key(self, a, b, key, assert_dead):
        with a.stopped("cold.revoke", "log_in", key, "7") as login:
            b.do("logout", key)
        assert a.do("load", login.result()) == {"cart": 1, "_auth_user_id": "7"}
        assert_dead(key)

    @pytest.mark.parametrize("changed", [False, True], ids=["clean", "changed"])
    def test_during_a_renewal(self, engine, changed, assert_dead):
        engine.configure(WRITE_INTERVAL=1e-6)  # each load renews the lease
        with start_workers(engine.settings, 2) as (a, b):
            key = a.do("open", {"cart": 1})
            a.do("write")
            if changed:
                a.do("change", key, {"cart": 2})
            with a.stopped("hot.cas", "load", key):
                b.do("logout", key)
            assert a.do("load", key) is None
            assert b.do("load", key) is None
            assert_dead(key)

    def test_at_two_processes_at_once(self, a, b, key, assert_dead):
        with a.stopped("cold.revoke", "logout", key):
            b.do("logout", key)
        assert_dead(key)


class TestAThousandLogouts:
    SEED = 4

    #: What the processes do meanwhile, and how a session is when they begin.
    DEEDS = [
        ["change", {"cart": 2}],
        ["change", {"more": True}],
        ["change", LOGIN],
        ["load"],
        ["logout"],
    ]
    STATES = ["new", "clean", "clean and lost", "changed", "changed and lost"]

    def test_bring_no_session_back(self, engine, processes, assert_dead):
        shuffled = random.Random(self.SEED)
        dead, seen = [], Counter()
        for number in range(NUMBER):
            state = shuffled.choice(self.STATES)
            key = self.open_session(engine, processes, state)
            commands = [
                ["logout", key],
                *([name, key, *more] for name, *more in shuffled.choices(self.DEEDS, k=2)),
                ["write"],
            ]
            shuffled.shuffle(commands)
            results = interleave(list(zip(processes, commands, strict=True)), shuffled)
            seen[state, sum(result not in (None, 0) for result in results)] += 1
            for worker in processes:
                assert worker.do("load", key) is None, f"No. {number}: {commands}"
            dead.append(key)
        assert len(dead) == NUMBER
        print(f"0 of {NUMBER} came back; state, requests that were in time: {sorted(seen.items())}")
        assert_dead(*dead)

    def open_session(self, engine, processes, state):
        owner, other, *_ = processes
        key = owner.do("open", {"cart": 1})
        if state != "new":
            owner.do("write")
        if "changed" in state:
            other.do("change", key, {"cart": 1.5})
        if "lost" in state:
            assert engine.hot.delete(hot_key(key))
        return key


class TestTwoChangesAtOnce:
    @pytest.mark.parametrize("state", ["clean", "new", "lost"])
    def test_keep_both(self, engine, a, b, key, state):
        if state == "new":
            key = a.do("open", {"cart": 1})
        if state == "lost":
            engine.hot.flush()
        with a.stopped("hot.cas", "change", key, {"mine": 1}) as change:
            assert b.do("change", key, {"yours": 1}) == {"cart": 1, "yours": 1}
        assert change.result() == {"cart": 1, "mine": 1, "yours": 1}
        assert b.do("load", key) == {"cart": 1, "mine": 1, "yours": 1}
