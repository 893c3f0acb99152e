"""One runtime a process: made at first use, never at import, and for no longer than it is true."""

import json
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from servers import Memcached, free_port

from django_dynamo_failover import runtime, signals
from django_dynamo_failover.conf import Config
from django_dynamo_failover.keys import Keyring, storage_id

from .configurations import BOTO_SESSION, boto_session, eventually

ROOT = Path(__file__).parent.parent

made_in = []


def recording_session():
    """A boto3 session that leaves word where it was asked for."""
    made_in.append(threading.current_thread().name)
    return boto_session()


def our_threads():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("django-dynamo-failover", "dynamo-client"))
    ]


@pytest.fixture
def site(engine):
    engine.configure(BOTO_SESSION=BOTO_SESSION, NEW_SESSION_DELAY=900)
    return engine


@pytest.fixture
def heard():
    """What was signalled of the tiers: [("tier_down", "hot"), …]."""
    heard = []

    def down(tier, **arguments):
        heard.append(("tier_down", tier))

    def up(tier, **arguments):
        heard.append(("tier_up", tier))

    signals.tier_down.connect(down)
    signals.tier_up.connect(up)
    yield heard
    signals.tier_down.disconnect(down)
    signals.tier_up.disconnect(up)


def save(engine, **data):
    session = engine.store()
    session.update(data)
    session.save()
    return session.session_key


def python(code, **environment):
    """Run code in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'testproject'}",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            **environment,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- Nothing before its time ------------------------------------------------------------------

IMPORT = """
import sys, threading
import django
django.setup()
import django_dynamo_failover.sessions
import django_dynamo_failover.middleware
from django_dynamo_failover import runtime
heavy = {"boto3", "botocore", "cryptography", "pymemcache"} & set(sys.modules)
print(sorted(heavy), threading.active_count(), runtime._current)
"""


def test_an_import_loads_nothing_and_starts_nothing():
    environment = {"SHOP_REGIONS": "us-east-1", "SHOP_MEMCACHED": "127.0.0.1:1"}
    assert python(IMPORT, **environment) == "[] 1 None\n"


def test_to_build_a_runtime_starts_nothing(site):
    before = set(our_threads())
    site.cold.reset_requests()
    runtime.build(runtime.config())
    assert set(our_threads()) <= before
    assert not site.cold.requests()
    assert site.hot.keys() == []


def test_the_client_is_made_off_the_request_path(site):
    site.configure(BOTO_SESSION=f"{__name__}.recording_session")
    made_in.clear()
    save(site, _auth_user_id="7")
    assert made_in == ["dynamo-client"]


def test_the_client_is_being_made_before_anybody_needs_it(site):
    site.configure(BOTO_SESSION=f"{__name__}.recording_session")
    made_in.clear()
    runtime.current()
    eventually(lambda: made_in)


def test_hot_only_needs_no_client_and_no_thread(make_engine):
    engine = make_engine()
    before = set(our_threads())
    key = save(engine, a=1)
    assert engine.store(key)["a"] == 1
    assert set(our_threads()) <= before


# --- One for all ------------------------------------------------------------------------------


def test_there_is_one_runtime(site):
    assert runtime.current() is runtime.current()


def test_threads_that_come_first_together_get_the_same_runtime(site):
    start = threading.Barrier(8)

    def current():
        start.wait(5)
        return runtime.current()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: current(), range(8)))
    assert len({id(each) for each in found}) == 1


# --- Settings ---------------------------------------------------------------------------------


def test_the_config_is_what_the_settings_say(settings):
    settings.DYNAMO_FAILOVER = {"TABLE": "sessions", "DEADLINE": 9}
    assert runtime.config() == Config(table="sessions", deadline=9)


def test_a_missing_setting_means_the_defaults(settings):
    del settings.DYNAMO_FAILOVER
    assert runtime.config() == Config()


def test_a_wrong_setting_is_refused_with_what_to_do(settings):
    settings.DYNAMO_FAILOVER = {"TABEL": "t", "DEADLINE": 0}
    with pytest.raises(ImproperlyConfigured, match=r"TABEL.*'TABLE'.*DEADLINE.*above 0"):
        runtime.config()
    with pytest.raises(ImproperlyConfigured):
        runtime.current()


def test_after_a_mistake_was_mended_it_works(settings, make_engine):
    engine = make_engine()
    engine.configure(DEADLINE=0)
    with pytest.raises(ImproperlyConfigured):
        runtime.current()
    engine.configure(DEADLINE=1)
    assert runtime.current().config.deadline == 1


CHANGES = {
    "DYNAMO_FAILOVER": {},
    "CACHES": {"sessions": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    "SECRET_KEY": "another secret",
    "SECRET_KEY_FALLBACKS": ["another secret"],
    "SESSION_CACHE_ALIAS": "default",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_setting_makes_a_new_runtime(make_engine, settings, name):
    make_engine()
    before = runtime.current()
    setattr(settings, name, CHANGES[name])
    assert runtime.current() is not before


@pytest.mark.parametrize("name", ["DEBUG", "SESSION_COOKIE_AGE"])
def test_a_change_of_another_setting_does_not(make_engine, settings, name):
    make_engine()
    before = runtime.current()
    setattr(settings, name, 7)
    assert runtime.current() is before


def test_a_change_of_the_settings_loses_nothing_that_is_pending(site):
    key = save(site, a=1)
    assert site.runtime.writer.pending_count == 1
    assert site.items() == {}
    site.configure(WRITE_INTERVAL=5)
    assert list(site.items()) == [storage_id(key)]


def test_the_secret_of_before_a_rotation_is_accepted(make_engine, settings):
    engine = make_engine()
    key = save(engine, a=1)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret"
    assert engine.store(key)["a"] == 1
    assert Keyring(["another secret"]).is_genuine(save(engine, a=2))


@pytest.mark.parametrize(("regions", "attempts"), [(["a"], 2), (["a", "b"], 1)])
def test_another_region_is_the_second_attempt(regions, attempts):
    config = Config.parse(
        {
            "TABLE": "t",
            "REGIONS": regions,
            "CONNECT_TIMEOUT": 0.25,
            "READ_TIMEOUT": 0.75,
            "MAX_CONNECTIONS": 7,
        }
    )
    tables = runtime.tables(config)
    assert [table.name for table in tables] == regions
    for table in tables:
        client = table.client
        assert table.table == "t"
        assert client._attempts == attempts
        assert (client._connect_timeout, client._read_timeout) == (0.25, 0.75)
        assert client._max_connections == 7


def test_encryption_is_as_the_settings_say(make_engine):
    engine = make_engine(ENCRYPT=True)
    assert runtime.current().codec.encrypt
    engine.configure(ENCRYPT=False)
    assert not runtime.current().codec.encrypt


# --- Reset ------------------------------------------------------------------------------------


def test_a_reset_writes_what_is_pending_and_ends_the_threads(site):
    key = save(site, a=1)
    site.restart()
    assert list(site.items()) == [storage_id(key)]
    eventually(lambda: not [t for t in our_threads() if t.name != "dynamo-client"])


def test_a_reset_of_nothing_does_nothing(site):
    runtime.reset()
    runtime.reset()
    assert runtime._current is None


def test_what_was_started_anew_works(site):
    key = save(site, a=1)
    before = runtime.current()
    site.restart()
    assert runtime.current() is not before
    assert site.store(key)["a"] == 1


def test_a_reset_takes_no_longer_than_the_shutdown_timeout(site):
    site.configure(SHUTDOWN_TIMEOUT=0.2)
    save(site, a=1)
    metrics = runtime.current().metrics
    site.cold.fail("*", "InternalServerError", status=500, times=None)
    runtime.reset()
    assert metrics.snapshot()["lost_writes"] == 1


EXIT = """
import django
django.setup()
from django_dynamo_failover.sessions import SessionStore
session = SessionStore()
session["a"] = 1
session.save()
print(session.session_key)
"""


def test_at_the_end_of_the_process_what_is_pending_is_written(site):
    printed = python(
        EXIT,
        SHOP_MEMCACHED=site.hot.address,
        SHOP_DYNAMODB_ENDPOINT=site.cold.endpoint_url,
        SHOP_TABLE=site.table,
    )
    assert list(site.items()) == [storage_id(printed.strip())]


# --- Tiers that go down and come back ---------------------------------------------------------


def test_a_hot_tier_that_goes_down_is_announced_and_what_is_pending_written(
    make_engine, start, dynamodb, table, heard, caplog
):
    server = start(Memcached)
    engine = make_engine(
        server, dynamodb, table=table, BOTO_SESSION=BOTO_SESSION, NEW_SESSION_DELAY=900
    )
    key = save(engine, a=1)
    assert engine.items() == {}
    server.kill()
    assert engine.store(key)["a"] == 1
    assert heard == [("tier_down", "hot")]
    assert "hot: does not answer." in caplog.text
    eventually(lambda: list(engine.items()) == [storage_id(key)])
    server.start()
    eventually(lambda: engine.store(key).exists(key) and ("tier_up", "hot") in heard)
    assert heard == [("tier_down", "hot"), ("tier_up", "hot")]


@pytest.mark.parametrize("dead", [0, 1])
def test_any_server_of_the_hot_tier_that_goes_down_is_announced(
    make_engine, start, memcached, dynamodb, table, heard, dead
):
    addresses = [memcached.address, memcached.address]
    addresses[dead] = f"127.0.0.1:{free_port()}"
    backend = "django_dynamo_failover.cache.MemcachedCache"
    engine = make_engine(
        memcached,
        dynamodb,
        cache={"BACKEND": backend, "LOCATION": addresses},
        table=table,
        BOTO_SESSION=BOTO_SESSION,
    )
    keys = [save(engine, a=1) for _ in range(20)]  # some of which belong to the dead server
    assert heard == [("tier_down", "hot")]
    assert all(engine.store(key)["a"] == 1 for key in keys)


def test_a_region_that_goes_down_is_announced_by_its_name(make_engine, memcached, table, heard):
    engine = make_engine(memcached, table=table, BOTO_SESSION=BOTO_SESSION)
    dead = {"NAME": "us-east-1", "ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    engine.configure(REGIONS=[dead], SHUTDOWN_TIMEOUT=0)
    session = engine.store()
    session["_auth_user_id"] = "7"
    for _ in range(2):
        with pytest.raises(Exception, match="DynamoDB does not answer"):
            session.save()
    assert heard == [("tier_down", "us-east-1")]


def test_a_receiver_that_raises_stops_nothing(make_engine, caplog):
    engine = make_engine()

    def fail(**arguments):
        raise ValueError

    signals.tier_down.connect(fail)
    try:
        breaker = runtime.current().store._hot._cache._shards[0].breaker
        breaker.failure()
    finally:
        signals.tier_down.disconnect(fail)
    assert not breaker.closed
    assert engine.settings


# --- Forks ------------------------------------------------------------------------------------


def in_child(function):
    """Return what a function returns in a child of a fork, as JSON can tell it."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "this process is multi-threaded"
        child = os.fork()
    if child == 0:
        try:
            result = json.dumps(function())
        except BaseException as error:  # it must not get back into pytest
            result = json.dumps(repr(error))
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        result = json.load(stream)
    os.waitpid(child, 0)
    return result


def test_a_child_has_no_runtime_until_it_needs_one(site):
    parent = runtime.current()
    assert in_child(lambda: runtime._current is None)
    assert in_child(lambda: runtime.current() is not parent)
    assert runtime.current() is parent


def test_a_child_has_nothing_of_what_its_parent_has_pending(site):
    key = save(site, a=1)

    def child():
        inherited = runtime.current().writer.pending_count
        runtime.reset()
        return inherited

    assert in_child(child) == 0
    assert site.items() == {}
    assert site.runtime.writer.pending_count == 1
    site.restart()
    assert list(site.items()) == [storage_id(key)]


def test_a_child_writes_what_is_its_own_with_threads_of_its_own(site):
    save(site, a=1)
    before = len(our_threads())
    assert before

    def child():
        inherited = len(our_threads())
        key = save(site, b=2)
        threads = [thread.name for thread in our_threads()]
        left = runtime.current().writer.flush(5)
        return [inherited, key, threads, left]

    inherited, key, threads, left = in_child(child)
    assert inherited == 0
    assert any(name.startswith("django-dynamo-failover") for name in threads)
    assert left == 0
    assert storage_id(key) in site.items()
    assert len(our_threads()) >= 1


def test_a_child_reads_the_sessions_of_its_parent(site):
    key = save(site, a=1)
    assert in_child(lambda: site.store(key)["a"]) == 1
    assert site.store(key)["a"] == 1


def test_a_child_starts_also_while_its_parent_does(site):
    with runtime._lock:
        assert in_child(lambda: runtime.current() is not None) is True


def test_a_fork_that_calls_no_hooks_is_noticed_by_its_pid(site, monkeypatch):
    """As uWSGI forks."""
    parents = runtime.current()
    key = save(site, a=1)
    monkeypatch.setattr(runtime, "_current", replace(parents, pid=parents.pid + 1))
    own = runtime.current()
    assert own.writer is not parents.writer
    assert own.pid == os.getpid()
    assert runtime.current() is own
    assert site.store(key)["a"] == 1


def test_what_such_a_fork_ends_is_not_its_parents(site, monkeypatch):
    parents = runtime.current()
    save(site, a=1)
    monkeypatch.setattr(runtime, "_current", replace(parents, pid=parents.pid + 1))
    runtime.reset()
    assert runtime.running() is None
    assert parents.writer.pending_count == 1
    assert len(parents.fleet.members()) == 1


def test_a_child_that_ends_its_runtime_does_not_end_its_parents(site):
    parent = runtime.current()
    key = save(site, a=1)
    in_child(runtime.reset)
    assert runtime.current() is parent
    assert parent.writer.pending_count == 1
    assert site.store(key)["a"] == 1
