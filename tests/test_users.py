"""Log a user out everywhere: two processes at one site and one at another, over one table."""

import time
from contextlib import contextmanager
from io import StringIO

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model, login
from django.core.management import CommandError, call_command
from django.test import RequestFactory
from servers import free_port

from django_dynamo_failover import runtime, store, users
from django_dynamo_failover.exceptions import SessionUnavailable
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.users import revoke_user_sessions

from .configurations import BOTO_SESSION, eventually, later, write_pending

LEASE = 900
DAY = 86_400


class World:
    """Processes by name: "here" and "beside" share a memcached, "west" has one of its own."""

    def __init__(self, engine, monkeypatch):
        self.engine = engine
        self._monkeypatch = monkeypatch
        self._processes = {"here": runtime.current()}
        self.begin("beside")
        self.begin("west", "west")

    def begin(self, name, cache="sessions"):
        """Start a process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(django_settings, "SESSION_CACHE_ALIAS", cache)
            self._processes[name] = runtime.build(runtime.config())
        self._processes[name].writer.start()

    @contextmanager
    def process(self, name):
        self._monkeypatch.setattr(runtime, "_current", self._processes[name])
        yield self._processes[name]
        self._monkeypatch.setattr(runtime, "_current", self._processes["here"])

    def log_in(self, user, process="here", **data):
        """Return the cookie of a new session."""
        with self.process(process):
            request = RequestFactory().post("/")
            request.session = self.engine.store()
            request.session.update(data)
            login(request, user)
            request.session.save()
            write_pending()
            return request.session.session_key

    def data(self, cookie, process="here"):
        """What a page sees; None if the session is over."""
        with self.process(process):
            session = self.engine.store(cookie)
            data = session.load()
            return data if session.session_key else None

    def save(self, cookie, process="here", **data):
        with self.process(process):
            session = self.engine.store(cookie)
            session.update(data)
            session.save()

    def is_alive(self, cookie, process="here"):
        return self.data(cookie, process) is not None


def user(number=7):
    return get_user_model()(
        pk=number, username=f"user{number}", password="", last_login=None, email=""
    )


@pytest.fixture(autouse=True)
def _no_database(monkeypatch):
    monkeypatch.setattr("django.contrib.auth.models.update_last_login", lambda *a, **k: None)
    monkeypatch.setattr(get_user_model(), "save", lambda *args, **kwargs: None)
    monkeypatch.setattr(
        django_settings, "AUTHENTICATION_BACKENDS", ["django.contrib.auth.backends.ModelBackend"]
    )


@pytest.fixture
def open_world(make_engine, memcached, dynamodb, table, settings, monkeypatch):
    def open_world(cold=dynamodb, **options):
        monkeypatch.setattr("django_dynamo_failover.writer.POLL_SECONDS", 0.2)
        engine = make_engine(
            memcached, cold, table=table, BOTO_SESSION=BOTO_SESSION, WRITE_INTERVAL=LEASE, **options
        )
        caches = settings.CACHES
        settings.CACHES = {**caches, "west": {**caches["sessions"], "KEY_PREFIX": "west"}}
        return World(engine, monkeypatch)

    return open_world


@pytest.fixture
def world(open_world):
    return open_world()


class TestItEnds:
    @pytest.mark.parametrize("process", ["here", "beside"])
    def test_at_this_site_at_once(self, world, process):
        cookie = world.log_in(user(), cart=1)
        assert world.is_alive(cookie, process)

        assert revoke_user_sessions(user())
        assert not world.is_alive(cookie, process)

    def test_at_another_site_after_one_lease(self, world):
        cookie = world.log_in(user())
        assert world.is_alive(cookie, "west")
        revoke_user_sessions(user())

        with later(LEASE + 1):
            assert not world.is_alive(cookie, "west")

    def test_at_another_site_also_when_it_is_changed_all_the_time(self, world):
        cookie = world.log_in(user())
        assert world.is_alive(cookie, "west")
        revoke_user_sessions(user())

        for part in (0.3, 0.6, 0.9):
            with later(LEASE * part):
                world.save(cookie, "west", number=part)
        with later(LEASE + 1):
            assert not world.is_alive(cookie, "west")

    def test_at_another_site_that_has_not_seen_it_yet(self, world):
        cookie = world.log_in(user())
        revoke_user_sessions(user())

        assert not world.is_alive(cookie, "west")

    def test_every_session_of_every_user_that_is_named(self, world):
        cookies = [world.log_in(user(number)) for number in (7, 7, 8)]
        other = world.log_in(user(9))
        anonymous = world.engine.store()
        anonymous["cart"] = 1
        anonymous.save()

        revoke_user_sessions(user(7), user(8))
        assert [world.is_alive(cookie) for cookie in cookies] == [False] * 3
        assert world.is_alive(other)
        assert world.is_alive(anonymous.session_key)

    def test_whoever_has_lost_all_asks_dynamodb(self, world, memcached):
        cookie = world.log_in(user())
        revoke_user_sessions(user())
        for process in world._processes.values():
            process.writer.close(0)
        memcached.flush()
        world.begin("new")

        assert not world.is_alive(cookie, "new")

    def test_also_when_dynamodb_is_down_by_then(self, world, dynamodb):
        cookie = world.log_in(user())
        other = world.log_in(user(8))
        revoke_user_sessions(user())
        dynamodb.fail("*", "InternalServerError", times=None)

        with later(LEASE + 1):
            assert world.is_alive(other, "beside")  # G1
            assert not world.is_alive(cookie, "beside")

    def test_a_process_that_begins_later_knows(self, world):
        cookie = world.log_in(user())
        revoke_user_sessions(user())
        world.begin("new")

        assert not world.is_alive(cookie, "new")

    @pytest.mark.parametrize("days", [2, 13])
    def test_the_cookie_of_a_thief_who_waits(self, world, memcached, days):
        cookie = world.log_in(user())
        revoke_user_sessions(user())

        with later(days * DAY):
            memcached.flush()
            assert not world.is_alive(cookie)
            assert not world.is_alive(cookie, "west")

    def test_what_raced_with_a_save(self, world):
        cookie = world.log_in(user())
        session = world.engine.store(cookie)
        session["late"] = 1
        revoke_user_sessions(user())
        session.save()

        assert not world.is_alive(cookie)
        assert not world.is_alive(cookie, "west")

    def test_sealed_sessions(self, open_world):
        world = open_world(ENCRYPT=True)
        cookie = world.log_in(user(), cart=1)
        assert world.data(cookie)["cart"] == 1
        revoke_user_sessions(user())

        assert not world.is_alive(cookie, "beside")

    def test_those_from_before_secret_key_was_rotated(self, open_world, settings):
        old = settings.SECRET_KEY
        cookie = open_world().log_in(user())
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new" * 20, [old]
        world = open_world()
        assert world.is_alive(cookie)
        world.save(cookie, a=1)

        revoke_user_sessions(user())
        assert not world.is_alive(cookie)


class TestItDoesNotEnd:
    @pytest.mark.parametrize("process", ["here", "beside", "west"])
    def test_a_later_login(self, world, process):
        revoke_user_sessions(user())
        cookie = world.log_in(user())

        assert world.is_alive(cookie, process)
        with later(LEASE + 1):
            assert world.is_alive(cookie, process)

    @pytest.mark.parametrize("process", ["here", "beside", "west"])
    def test_the_session_that_asks_for_it(self, world, process):
        others = world.log_in(user())
        cookie = world.log_in(user())
        if process == "west":
            assert world.is_alive(cookie, "west")
        session = world.engine.store(cookie)

        revoke_user_sessions(user(), keep=session)
        assert world.is_alive(cookie, "beside")
        assert not world.is_alive(others)
        with later(LEASE + 1):
            assert world.is_alive(cookie, process)

    def test_nothing_while_dynamodb_does_not_know(self, world, dynamodb):
        cookie = world.log_in(user())
        dynamodb.fail("*", "InternalServerError", times=None)

        with pytest.raises(SessionUnavailable):
            revoke_user_sessions(user())
        assert world.is_alive(cookie)

    def test_no_session_for_an_answer_that_cannot_be_read(self, world, memcached):
        cookie = world.log_in(user())
        [owner] = world._processes["here"].keyring.owners("7")
        world.engine.put_item({"id": {"S": f"user:{owner}"}, "before": {"S": "soon"}})
        memcached.flush()

        with pytest.raises(SessionUnavailable):
            world.is_alive(cookie)


class TestALogin:
    def test_into_a_revoked_session_that_goes_on_elsewhere_does_not_save_it(self, world):
        """Django keeps its key, which a thief may have."""
        cookie = world.log_in(user())
        assert world.is_alive(cookie, "west")
        revoke_user_sessions(user())
        with world.process("west"):
            request = RequestFactory().post("/")
            request.session = world.engine.store(cookie)
            login(request, user())
            request.session.save()

        assert request.session.session_key == cookie
        with later(LEASE + 1):
            assert not world.is_alive(cookie, "west")

    def test_is_not_made_younger_by_saves_or_a_new_key(self, world):
        cookie = world.log_in(user())
        revoked_at = time.time()
        session = world.engine.store(cookie)
        session["a"] = 1
        session.save()
        session.cycle_key()
        session["a"] = 2
        session.save()

        for owner in world._processes["here"].keyring.owners("7"):
            world._processes["here"].cold.revoke_user(owner, revoked_at, int(revoked_at) + DAY)
        assert not world.is_alive(session.session_key, "west")

    def test_belongs_to_whoever_logs_in_next(self, world):
        cookie = world.log_in(user(7))
        with world.process("here"):
            request = RequestFactory().post("/")
            request.session = world.engine.store(cookie)
            login(request, user(8))
            request.session.save()
        revoke_user_sessions(user(7))

        assert world.is_alive(request.session.session_key)
        revoke_user_sessions(user(8))
        assert not world.is_alive(request.session.session_key)

    def test_is_nobodys_after_a_flush(self, world):
        cookie = world.log_in(user())
        session = world.engine.store(cookie)
        session.flush()
        session["a"] = 1
        session.save()
        revoke_user_sessions(user())

        assert world.is_alive(session.session_key)


class TestRegions:
    def test_each_is_told_as_soon_as_it_answers(self, open_world, start, dynamodb, table):
        from servers import Dynalite, create_table

        second = start(Dynalite)
        create_table(second.endpoint_url, table, "us-west-2")
        world = open_world([dynamodb, second])
        second.fail("*", "InternalServerError", times=None)
        revoke_user_sessions(user())
        second.heal()

        eventually(lambda: any(id.startswith("user:") for id in world.engine.items(1)), 10)


class TestWhatItLeaves:
    def test_one_item_that_names_nobody_and_outlives_every_cookie(self, world):
        began = time.time()
        revoke_user_sessions(user())
        revoke_user_sessions(user())

        [(id, item)] = world.engine.items().items()
        assert id.startswith("user:")
        assert len(id) == len("user:") + 32
        assert item.keys() == {"id", "before", "expires"}
        assert int(item["expires"]["N"]) - began > store._LONGEST_LIFE + LEASE

    def test_an_order_that_comes_late_undoes_no_later_one(self, world):
        process = world._processes["here"]
        [owner] = process.keyring.owners("7")
        for before in (2000.0, 1000.0):
            assert process.cold.revoke_user(owner, before, int(time.time()) + DAY)
        assert process.cold.read_user(owner) == 2000.0

    def test_costs_one_request_at_a_renewal(self, world, dynamodb):
        cookie = world.log_in(user())
        dynamodb.reset_requests()
        with later(LEASE + 1):
            assert world.is_alive(cookie)
        assert dynamodb.requests() == {"BatchGetItem": 1}

    def test_costs_two_requests_at_a_restore_and_one_the_next_time(
        self, world, memcached, dynamodb
    ):
        cookie = world.log_in(user())
        id = storage_id(cookie)
        # Else that would put the session back.
        eventually(lambda: ("note", id) not in world._processes["here"].writer._jobs)
        for requests in (2, 1):
            memcached.delete(f":1:session:{id}")
            dynamodb.reset_requests()
            assert world.is_alive(cookie)
            assert dynamodb.requests() == {"BatchGetItem": requests}


def test_a_site_without_its_hot_tier_ends_it_too(make_engine, start, dynamodb, table, monkeypatch):
    from servers import Memcached

    hot = start(Memcached)
    world = make_engine(hot, dynamodb, table=table, BOTO_SESSION=BOTO_SESSION)
    request = RequestFactory().post("/")
    request.session = world.store()
    login(request, user())
    request.session.save()
    hot.kill()

    assert not revoke_user_sessions(user())  # some process may not know
    assert world.store(request.session.session_key).load() == {}


def test_a_process_that_does_not_answer_is_reported(world, monkeypatch):
    monkeypatch.setattr(users, "_PATIENCE", 0.3)
    world._processes["west"].writer.close(0)
    with world.process("beside") as beside:
        beside.writer._polls.close()

    assert not revoke_user_sessions(user())


@pytest.mark.django_db
class TestCommand:
    @pytest.fixture
    def mia(self):
        return get_user_model().objects.bulk_create([get_user_model()(username="mia")])[0]

    def run(self, *names, **options):
        out = StringIO()
        call_command("logoutuser_dynamo", *names, stdout=out, **options)
        return out.getvalue()

    def test_ends_the_sessions(self, world, mia):
        cookie = world.log_in(mia)
        assert self.run("mia") == (
            "mia is logged out: at this site now, at any other within 15 minutes.\n"
        )
        assert not world.is_alive(cookie, "beside")

    def test_nobody_is_logged_out_if_one_is_unknown(self, world, mia):
        cookie = world.log_in(mia)
        with pytest.raises(CommandError, match="no user 'max'") as caught:
            self.run("mia", "max")
        assert caught.value.returncode == 1
        assert world.is_alive(cookie)

    def test_dynamodb_is_down(self, world, mia, settings):
        world.engine.configure(
            REGIONS=[{"NAME": "us-east-1", "ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}]
        )
        with pytest.raises(CommandError, match="run it again") as caught:
            self.run("mia")
        assert caught.value.returncode == 2

    def test_json(self, world, mia):
        assert '"at_once": true' in self.run("mia", json=True)
