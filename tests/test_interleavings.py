"""Races between real processes on real servers, run call by call as they are written here.

G4: no race brings a session back after its logout. G6: no race loses a change.
"""

import random
from contextlib import contextmanager
from functools import partial

import pytest
from servers import Memcached

from .configurations import LOGIN, hot_key
from .workers import PATIENT, PATIENT_CACHE, interleave, start_workers

NUMBER = 1000


@pytest.fixture
def engine(make_engine, memcached, dynamodb, table):
    """A site whose processes write nothing to DynamoDB before they are told to."""
    return make_engine(
        memcached,
        dynamodb,
        table=table,
        cache=PATIENT_CACHE,
        NEW_SESSION_DELAY=3600,
        SHUTDOWN_TIMEOUT=0,
        **PATIENT,
    )


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

    def test_a_thousand_times(self, engine, processes, assert_dead):
        """What happens at the same time, and in which order, is drawn by lot."""
        lot = random.Random(4)
        dead, in_time = [], 0
        for number in range(NUMBER):
            key = open_session(engine, processes, lot.choice(STATES))
            meanwhile = [
                ["change", key, {"cart": 2}],
                ["change", key, LOGIN],
                ["load", key],
                ["logout", key],
            ]
            commands = [["logout", key], ["write"], *lot.choices(meanwhile, k=2)]
            lot.shuffle(commands)
            results = interleave(list(zip(processes, commands, strict=True)), lot)
            in_time += sum(isinstance(result, dict) for result in results)
            for worker in processes:
                assert worker.do("load", key) is None, f"No. {number}: {commands}"
            dead.append(key)
        print(f"0 of {NUMBER} came back; {in_time} requests were in time to see the session")
        assert_dead(*dead)


#: What of a session memcached and DynamoDB have, and the processes that have opened or changed it.
STATES = ["new", "clean", "clean and lost", "changed", "changed and lost"]


def open_session(engine, processes, state):
    owner, other, *_ = processes
    key = owner.do("open", {"cart": 1})
    if state != "new":
        owner.do("write")
    if "changed" in state:
        other.do("change", key, {"cart": 1.5})
    if "lost" in state:
        assert engine.hot.delete(hot_key(key))
    return key


class TestChanges:
    """Of two requests at the same time, each of another key: both are kept."""

    @pytest.mark.parametrize("state", STATES)
    def test_of_two_processes(self, engine, processes, state):
        a, b, c, *_ = processes
        key = open_session(engine, [c, a], state)
        with a.stopped("hot.cas", "change", key, {"mine": 1}) as change:
            b.do("change", key, {"yours": 1})
        change.result()
        for worker in processes:
            worker.do("write")
        engine.hot.flush()
        cart = 1.5 if "changed" in state else 1
        assert b.do("load", key) == {"cart": cart, "mine": 1, "yours": 1}

    @pytest.mark.parametrize("loses", [False, True], ids=["", "memcached loses some of them"])
    def test_a_thousand_times(self, engine, processes, loses):
        lot = random.Random(6)
        for number in range(NUMBER):
            # Of a new session a process may be the only one that knows, for NEW_SESSION_DELAY.
            key = open_session(engine, processes, lot.choice(STATES[1:] if loses else STATES))
            evict = partial(engine.hot.delete, hot_key(key))
            one, other = {"mine": number, **lot.choice([{}, LOGIN])}, {"yours": number}
            meanwhile = lot.choices([["write"], ["load", key]], k=2)
            commands = [["change", key, one], ["change", key, other], *meanwhile]
            lot.shuffle(commands)
            calls = list(zip(processes, commands, strict=True))
            interleave(calls, lot, evict if loses else lambda: None)
            for worker in lot.sample(processes, k=len(processes)):
                assert worker.do("write") == 0
            evict()
            found = lot.choice(processes).do("load", key)
            assert (one | other).items() <= found.items(), f"No. {number}: {commands}"

    @pytest.mark.parametrize("first", ["a", "b"])
    def test_of_two_processes_and_then_of_another_site(
        self, engine, a, b, key, settings, start, first
    ):
        """The last third of "fail over, change, fail back": both sites have changed a session."""
        with other_site(settings, start(Memcached)) as (c,):
            a.do("change", key, {"a": 1})
            b.do("change", key, {"b": 1})
            c.do("change", key, {"c": 1})
            assert c.do("write") == 0
        for worker in [a, b] if first == "a" else [b, a]:
            assert worker.do("write") == 0
        everything = {"cart": 1, "a": 1, "b": 1, "c": 1}
        assert a.do("load", key) == everything
        engine.hot.flush()
        assert a.do("load", key) == everything

    def test_that_memcached_has_lost_one_of(self, engine, a, b, processes, key):
        a.do("change", key, {"cart": 2})
        with a.stopped("hot.cas", "change", key, {"mine": 1}) as change:
            b.do("change", key, {"yours": 1})
            engine.hot.delete(hot_key(key))
            processes[2].do("load", key)  # fills memcached with what DynamoDB has
        change.result()
        for worker in processes:
            assert worker.do("write") == 0
        assert b.do("load", key) == {"cart": 2, "mine": 1, "yours": 1}

    def test_that_one_had_not_seen_who_fills_memcached(self, engine, a, b, processes, key):
        """A has read DynamoDB before B changes the session, and adds what it read after that."""
        c = processes[2]
        engine.hot.delete(hot_key(key))
        with a.stopped("hot.add", "load", key) as load:
            b.do("change", key, {"yours": 1})
            assert b.do("write") == 0
            engine.hot.delete(hot_key(key))
            c.stop_next("hot.add")
            later = c.begin("load", key)
            c.wait_for_stop(later)
        assert load.result() == {"cart": 1}
        c.run_free()
        assert later.result() == {"cart": 1, "yours": 1}
        for worker in processes:
            assert worker.do("load", key) == {"cart": 1, "yours": 1}

    def test_that_are_pending_when_memcached_loses_them(
        self, engine, a, key, processes, settings, start
    ):
        a.do("change", key, {"a": 1})
        with a.stopped("hot.cas", "change", key, {"b": 1}) as change:
            engine.hot.delete(hot_key(key))
            with other_site(settings, start(Memcached)) as (c,):
                for number in (1, 2):
                    c.do("change", key, {"c": number})
                    assert c.do("write") == 0
        assert change.result() == {"cart": 1, "a": 1, "b": 1, "c": 2}
        assert a.do("write") == 0
        assert a.do("load", key) == {"cart": 1, "a": 1, "b": 1, "c": 2}

    def test_that_memcached_has_lost_while_one_of_them_logs_in(self, engine, a, b, key):
        b.stop_next("hot.cas")
        change = b.begin("change", key, {"yours": 1})
        b.wait_for_stop(change)
        with a.stopped("cold.put_over", "change", key, LOGIN) as login:
            engine.hot.delete(hot_key(key))
            b.run_free()
            assert change.result() == {"cart": 1, "yours": 1}
        assert login.result() == {"cart": 1, "yours": 1, **LOGIN}
        engine.hot.flush()
        assert b.do("load", key) == {"cart": 1, "yours": 1, **LOGIN}


@contextmanager
def other_site(settings, hot):
    """A process of a site with a memcached of its own."""
    cache = {**settings.CACHES["sessions"], "LOCATION": hot.address}
    settings.CACHES = {**settings.CACHES, "sessions": cache}
    with start_workers(settings, 1) as workers:
        yield workers
