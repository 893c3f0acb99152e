"""FALLBACK_ENGINE: sessions of another engine move over as they are used, and out again."""

import random
import secrets
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import OperationalError
from django.utils import timezone
from django.utils.module_loading import import_string
from servers import free_port
from shop.catalog import PRODUCTS

from django_dynamo_failover import runtime, signals
from django_dynamo_failover.cold import ColdTier
from django_dynamo_failover.exceptions import SessionUnavailable, SessionUnreadable
from django_dynamo_failover.fallback import OldEngine
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.keys import ALPHABET, storage_id
from django_dynamo_failover.moving_out import SessionStore as MovingOutStore
from django_dynamo_failover.users import revoke_user_sessions

from .configurations import BOTO_SESSION, LOCMEM, LOGIN, later, quieten, write_pending
from .web import PASSWORD, USER, Visitor

pytestmark = pytest.mark.django_db

BUILT_IN = "django.contrib.sessions.backends."
ENGINES = ["db", "cached_db", "cache"]


class Site:
    """A site that was on an engine of Django's, whose cache is another one than the hot tier."""

    def __init__(self, engine, settings, name):
        self.engine = engine
        self.settings = settings
        self.path = BUILT_IN + name
        settings.CACHES = {
            **settings.CACHES,
            "old": {"BACKEND": LOCMEM, "LOCATION": f"old {engine.table}"},
        }
        engine.configure(
            BOTO_SESSION=BOTO_SESSION, FALLBACK_ENGINE=self.path, FALLBACK_CACHE_ALIAS="old"
        )

    def old(self, session_key=None):
        """A session as the old engine would have it, were it still the engine."""
        session = import_string(f"{self.path}.SessionStore")(session_key)
        if hasattr(session, "_cache"):
            session._cache = caches["old"]
        return session

    def begin(self, **data):
        """Begin a session in the old engine; return its key."""
        session = self.old()
        session.update(data)
        session.save()
        return session.session_key

    def is_in_old(self, session_key):
        return self.old().exists(session_key)

    def data(self, session_key):
        """What the next page sees; None if the session is over."""
        session = self.engine.store(session_key)
        data = dict(session.items())
        return data if session.session_key else None

    def counts(self, *names):
        counts = self.engine.runtime.metrics.snapshot()
        return [counts[name] for name in names]


@pytest.fixture
def make_site(engine, settings, monkeypatch):
    quieten(monkeypatch)
    return lambda name: Site(engine, settings, name)


@pytest.fixture(params=ENGINES)
def site(request, make_site):
    return make_site(request.param)


@pytest.fixture
def db_site(make_site):
    return make_site("db")


@contextmanager
def before(owner, method, do):
    """Let something happen right before the next call of a method."""
    original = getattr(owner, method)
    todo = [do]

    def call(*args, **kwargs):
        if todo:
            todo.pop()()
        return original(*args, **kwargs)

    with patch.object(owner, method, call):
        yield
    assert not todo, "it was not called"


@contextmanager
def after(owner, method, do):
    """Let something happen right after the next call of a method."""
    original = getattr(owner, method)
    todo = [do]

    def call(*args, **kwargs):
        result = original(*args, **kwargs)
        if todo:
            todo.pop()()
        return result

    with patch.object(owner, method, call):
        yield
    assert not todo, "it was not called"


def made_up_key():
    return "".join(random.choices(ALPHABET, k=32))


class TestMovingIn:
    def test_a_session_of_the_old_engine_goes_on_under_its_key(self, site):
        key = site.begin(cart=["tea"])
        assert site.data(key) == {"cart": ["tea"]}
        assert site.counts("moved", "ended") == [1, 0]

    def test_it_is_in_both_tiers_then_and_the_old_engine_is_not_asked_again(self, site):
        key = site.begin(cart=1)
        site.data(key)
        site.old().delete(key)
        assert site.data(key) == {"cart": 1}
        caches["sessions"].clear()
        assert site.data(key) == {"cart": 1}
        assert site.counts("moved") == [1]

    def test_what_is_changed_here_is_newer_than_what_the_old_engine_has(self, site):
        key = site.begin(cart=1)
        session = site.engine.store(key)
        session["cart"] = 2
        session.save()
        write_pending()
        caches["sessions"].clear()
        assert site.data(key) == {"cart": 2}

    def test_a_session_that_there_is_nowhere_is_over(self, site):
        assert site.data(made_up_key()) is None
        assert not site.engine.store().exists(made_up_key())

    def test_exists_and_a_save_without_a_look_move_it_too(self, site):
        assert site.engine.store().exists(site.begin(cart=1))
        session = site.engine.store(key := site.begin(cart=1))
        session.clear()
        session["cart"] = 2
        session.save()
        assert site.data(key) == {"cart": 2}

    def test_it_moves_in_an_async_view(self, site):
        session = site.engine.store(site.begin(cart=1))
        assert async_to_sync(session.aget)("cart") == 1

    def test_nobody_hears_that_it_has_ended(self, db_site):
        heard = []
        signals.session_ended.connect(receiver := lambda **arguments: heard.append(arguments))
        db_site.data(db_site.begin(cart=1))
        assert heard == []
        db_site.data(made_up_key())
        assert len(heard) == 1
        signals.session_ended.disconnect(receiver)

    def test_it_expires_when_it_would_have(self, db_site):
        key = db_site.begin(cart=1)
        Session.objects.update(expire_date=timezone.now() + timedelta(seconds=100))
        assert db_site.data(key)
        with later(90):
            assert db_site.data(key)
        with later(110):
            assert db_site.data(key) is None

    def test_an_expiry_of_its_own_stays(self, site):
        session = site.old()
        session.set_expiry(100)
        session.save()
        moved = site.engine.store(session.session_key)
        assert moved.get_expiry_age() == 100

    def test_one_that_has_expired_does_not_move(self, db_site):
        key = db_site.begin(cart=1)
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
        assert db_site.data(key) is None

    def test_it_moves_while_the_hot_tier_is_down(self, db_site):
        key = db_site.begin(cart=1)
        db_site.settings.CACHES = {
            **db_site.settings.CACHES,
            "sessions": {
                "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
                "LOCATION": f"127.0.0.1:{free_port()}",
            },
        }
        assert db_site.data(key) == {"cart": 1}

    def test_it_moves_where_there_is_no_cold_tier(self, db_site):
        db_site.engine.configure(REGIONS=[])
        key = db_site.begin(cart=1)
        assert db_site.data(key) == {"cart": 1}
        db_site.engine.store(key).delete()
        assert db_site.data(key) is None

    def test_one_that_is_too_large_for_dynamodb_moves_to_the_hot_tier(self, db_site):
        key = db_site.begin(big=secrets.token_hex(400_000))
        assert db_site.data(key)
        assert db_site.counts("oversize", "cold_writes") == [1, 0]
        assert db_site.is_in_old(key)

    def test_it_is_sealed_with_encrypt(self, db_site):
        db_site.engine.configure(ENCRYPT=True)
        key = db_site.begin(card="4111")
        assert db_site.data(key) == {"card": "4111"}
        assert b"4111" not in db_site.engine.items()[storage_id(key)]["data"]["B"]


class TestTheKeys:
    def test_a_key_without_a_mac_is_refused_without_the_setting(self, db_site):
        key = db_site.begin(cart=1)
        assert db_site.data(key)
        db_site.engine.configure(FALLBACK_ENGINE=None)
        assert db_site.data(key) is None
        assert db_site.counts("forged_keys", "hot_hits", "hot_misses") == [1, 0, 0]

    @pytest.mark.parametrize("key", ["a" * 31, "a" * 33, "A" * 32, "é" * 32, "a" * 31 + "\n"])
    def test_a_key_that_no_engine_makes_is_refused(self, db_site, key):
        assert db_site.data(key) is None
        assert db_site.counts("forged_keys", "old_keys", "hot_misses") == [1, 0, 0]

    def test_new_sessions_have_a_mac(self, db_site):
        session = db_site.engine.store()
        session["cart"] = 1
        session.save()
        db_site.engine.configure(FALLBACK_ENGINE=None)
        assert db_site.data(session.session_key) == {"cart": 1}

    def test_a_login_changes_to_a_key_with_a_mac(self, db_site):
        session = db_site.engine.store(old_key := db_site.begin(cart=1))
        session.cycle_key()
        assert db_site.data(old_key) is None
        assert not db_site.is_in_old(old_key)
        db_site.engine.configure(FALLBACK_ENGINE=None)
        assert db_site.data(session.session_key) == {"cart": 1}


class TestCosts:
    @pytest.fixture
    def cost(self, db_site, django_assert_num_queries):
        assert db_site.engine.runtime.cold
        db_site.data(db_site.begin(warm=1))

        @contextmanager
        def cost(queries, hot, cold):
            commands = db_site.engine.hot.commands()
            db_site.engine.cold.reset_requests()
            with django_assert_num_queries(queries):
                yield
            assert dict(db_site.engine.hot.commands() - commands) == hot
            assert dict(db_site.engine.cold.requests()) == cold

        return cost

    def test_a_session_that_is_here_costs_what_it_always_did(self, db_site, cost):
        db_site.data(key := db_site.begin(cart=1))
        with cost(queries=0, hot={"get": 1}, cold={}):
            assert db_site.data(key)

    def test_a_made_up_key_costs_one_look_at_each(self, db_site, cost):
        with cost(queries=1, hot={"get": 1}, cold={"BatchGetItem": 1}):
            db_site.data(made_up_key())

    def test_a_move_costs_a_write_and_a_look_at_it(self, db_site, cost):
        key = db_site.begin(cart=1)
        with cost(queries=1, hot={"get": 1, "set": 1}, cold={"BatchGetItem": 2, "PutItem": 1}):
            db_site.data(key)

    def test_a_change_does_not_ask_the_old_engine(self, db_site, cost):
        db_site.data(key := db_site.begin(cart=1))
        session = db_site.engine.store(key)
        with cost(queries=0, hot={"get": 1, "set": 1, "cas": 1}, cold={}):
            session["cart"] = 2
            session.save()


class TestTheEnd:
    def test_a_logout_ends_it_in_both(self, site):
        key = site.begin(cart=1)
        site.data(key)
        site.engine.store(key).delete()
        assert site.data(key) is None
        assert not site.is_in_old(key)

    def test_a_logout_without_a_look_ends_it_in_both(self, site):
        key = site.begin(cart=1)
        site.engine.store(key).delete()
        assert site.data(key) is None
        assert not site.is_in_old(key)

    @pytest.mark.parametrize("lose", [False, True])
    def test_what_was_logged_out_here_does_not_come_back_from_there(self, db_site, lose):
        key = db_site.begin(cart=1)
        db_site.data(key)
        with patch.object(OldEngine, "delete"):
            db_site.engine.store(key).delete()
        assert db_site.is_in_old(key)
        if lose:
            caches["sessions"].clear()
        assert db_site.data(key) is None

    def test_what_has_expired_here_does_not_come_back_from_there(self, db_site):
        session = db_site.engine.store(key := db_site.begin(cart=1))
        session["cart"] = 2
        with patch.object(OldEngine, "delete"):
            session.set_expiry(10)
            session.save()
        caches["sessions"].clear()
        with later(20):
            assert db_site.is_in_old(key)
            assert db_site.data(key) is None

    @pytest.mark.parametrize("change", [{"_session_expiry": 10}, LOGIN], ids=["expiry", "login"])
    def test_a_change_of_login_or_expiry_ends_the_copy_there(self, site, change):
        session = site.engine.store(key := site.begin(cart=1))
        session["cart"] = 2
        session.save()
        assert site.is_in_old(key)
        session.update(change)
        session.save()
        assert not site.is_in_old(key)

    @pytest.mark.parametrize(
        ("when", "owner", "method"),
        [
            (after, OldEngine, "load"),
            (before, ColdTier, "put_first"),
            (after, ColdTier, "put_first"),
            (before, HotTier, "add"),
        ],
    )
    @pytest.mark.parametrize("lose", [False, True])
    def test_a_logout_during_the_move_wins(self, db_site, when, owner, method, lose):
        key = db_site.begin(cart=1)
        logout = db_site.engine.store(key).delete
        with when(owner, method, logout):
            assert db_site.data(key) is None
        if lose:
            caches["sessions"].clear()
        assert db_site.data(key) is None
        assert storage_id(key) not in db_site.engine.items()

    def test_two_requests_move_it_at_once(self, db_site):
        key = db_site.begin(cart=1)

        def other():
            session = db_site.engine.store(key)
            session["cart"] = 2
            session.save()
            write_pending()

        with after(OldEngine, "load", other):
            assert db_site.data(key) == {"cart": 2}
        assert db_site.counts("moved", "conflicts") == [1, 0]


class TestUsers:
    @pytest.fixture
    def user(self):
        return get_user_model().objects.create_user(USER)

    def begin(self, site, user):
        return site.begin(**{**LOGIN, "_auth_user_id": str(user.pk)})

    def test_who_was_logged_out_everywhere_is_not_back_by_a_move(self, db_site, user):
        key = self.begin(db_site, user)
        revoke_user_sessions(user)
        assert db_site.data(key) is None
        assert db_site.data(key) is None

    def test_nor_once_the_processes_of_the_site_have_forgotten(self, db_site, user):
        key = self.begin(db_site, user)
        revoke_user_sessions(user)
        caches["sessions"].clear()
        db_site.engine.restart()
        assert db_site.data(key) is None

    def test_who_is_logged_out_everywhere_after_a_move_is_out(self, db_site, user):
        db_site.data(key := self.begin(db_site, user))
        revoke_user_sessions(user)
        assert db_site.data(key) is None

    def test_also_if_the_session_was_changed_here(self, db_site, user):
        session = db_site.engine.store(key := self.begin(db_site, user))
        session["cart"] = 1
        session.save()
        revoke_user_sessions(user)
        assert db_site.data(key) is None

    def test_others_stay(self, db_site, user):
        other = get_user_model().objects.create_user("other")
        key = self.begin(db_site, other)
        revoke_user_sessions(user)
        assert db_site.data(key)


class TestFailures:
    @pytest.mark.parametrize("method", ["load", "delete", "save", "exists"])
    def test_an_old_engine_that_fails_ends_nothing(self, db_site, method):
        session = db_site.engine.store(key := db_site.begin(cart=1))
        if method == "save":
            session.clear()
        with (
            patch("django.db.models.query.QuerySet._fetch_all", side_effect=OperationalError),
            pytest.raises(SessionUnavailable),
        ):
            getattr(session, method)(*([key] if method == "exists" else []))
        assert session.session_key == key

    def test_nor_does_a_cache_that_fails(self, make_site):
        site = make_site("cache")
        session = site.engine.store(key := site.begin(cart=1))
        with (
            patch.object(caches["old"], "get", side_effect=OSError),
            pytest.raises(SessionUnavailable),
        ):
            session.load()
        assert session.session_key == key
        assert site.data(key) == {"cart": 1}

    def test_a_session_that_is_here_does_not_need_the_old_engine(self, db_site):
        db_site.data(key := db_site.begin(cart=1))
        with patch.object(OldEngine, "load", side_effect=SessionUnavailable):
            assert db_site.data(key) == {"cart": 1}

    def test_while_dynamodb_is_down_nobody_knows_whether_it_has_ended(self, db_site):
        key = db_site.begin(cart=1)
        db_site.engine.cold.fail("*", "InternalServerError", status=500, times=None)
        with pytest.raises(SessionUnavailable):
            db_site.data(key)
        db_site.engine.cold.heal()

    def test_dynamodb_that_fails_at_the_move_ends_nothing(self, db_site):
        key = db_site.begin(cart=1)
        db_site.engine.cold.fail("PutItem", "InternalServerError", status=500, times=None)
        with pytest.raises(SessionUnavailable):
            db_site.data(key)
        db_site.engine.cold.heal()
        db_site.engine.restart()
        assert db_site.data(key) == {"cart": 1}

    def test_what_cannot_be_read_is_not_ended_and_not_emptied(self, db_site):
        key = db_site.begin(cart=1)
        Session.objects.update(session_data="nonsense")
        with pytest.raises(SessionUnreadable):
            db_site.data(key)
        assert db_site.engine.items() == {}

    def test_an_empty_session_can_be_read(self, db_site):
        assert db_site.data(db_site.begin()) == {}

    def test_a_pickle_that_json_cannot_hold_is_not_ended(self, make_site):
        site = make_site("cache")
        key = site.begin(today=timezone.now())
        with pytest.raises(SessionUnreadable):
            site.data(key)


class TestMovingOut:
    """The engine ``moving_out``: the old engine is home again."""

    def data(self, session_key):
        session = MovingOutStore(session_key)
        data = dict(session.items())
        data.pop("_moved_out", None)
        return data if session.session_key else None

    def new_here(self, site, **data):
        session = site.engine.store()
        session.update(data)
        session.save()
        return session.session_key

    def test_a_session_of_ours_goes_on_there(self, site):
        key = self.new_here(site, cart=1)
        assert self.data(key) == {"cart": 1}
        assert site.old(key)["cart"] == 1

    def test_one_that_moved_in_goes_on_from_what_it_is_here(self, site):
        key = site.begin(cart=1)
        session = site.engine.store(key)
        session["cart"] = 2
        session.save()
        assert self.data(key) == {"cart": 2}
        assert site.old(key)["cart"] == 2

    def test_one_that_never_moved_in_goes_on_there(self, site):
        key = site.begin(cart=1)
        assert self.data(key) == {"cart": 1}

    def test_what_is_changed_there_is_newer_than_what_is_here(self, site):
        session = MovingOutStore(key := self.new_here(site, cart=1))
        session["cart"] = 2
        session.save()
        assert self.data(key) == {"cart": 2}
        assert site.old(key)["cart"] == 2

    def test_one_that_moves_in_once_more_goes_on_from_what_it_is_here(self, site):
        session = MovingOutStore()
        session["cart"] = 1
        session.save()
        again = site.engine.store(key := session.session_key)
        assert dict(again.items()) == {"cart": 1}
        again["cart"] = 2
        again.save()
        assert self.data(key) == {"cart": 2}

    def test_its_copy_there_does_not_outlive_it(self, db_site):
        session = MovingOutStore()
        session.save()
        Session.objects.update(expire_date=timezone.now() + timedelta(seconds=100))
        db_site.data(session.session_key)
        expires = float(db_site.engine.items()[storage_id(session.session_key)]["expires"]["N"])
        assert Session.objects.get().expire_date.timestamp() <= expires

    def test_a_logout_as_it_moves_in_once_more_wins(self, site):
        session = MovingOutStore()
        session.save()
        key = session.session_key
        with after(OldEngine, "load", session.delete):
            assert site.data(key) is None
        assert not site.is_in_old(key)

    def test_a_new_session_is_there_only(self, site):
        session = MovingOutStore()
        session["cart"] = 1
        session.save()
        assert self.data(session.session_key) == {"cart": 1}
        assert site.old(session.session_key)["cart"] == 1
        assert site.engine.items() == {}

    def test_a_session_that_there_is_nowhere_is_over(self, site):
        assert self.data(made_up_key()) is None
        assert not MovingOutStore().exists(made_up_key())

    def test_a_logout_ends_it_in_both(self, site):
        key = self.new_here(site, cart=1)
        self.data(key)
        MovingOutStore(key).flush()
        assert self.data(key) is None
        assert site.data(key) is None
        assert not site.is_in_old(key)

    def test_a_logout_during_the_move_wins(self, db_site):
        key = self.new_here(db_site, cart=1)
        with before(OldEngine, "save", MovingOutStore(key).delete):
            assert self.data(key) is None
        assert not db_site.is_in_old(key)

    def test_a_login_changes_the_key(self, site):
        session = MovingOutStore(key := self.new_here(site, cart=1))
        session.cycle_key()
        assert self.data(key) is None
        assert self.data(session.session_key) == {"cart": 1}

    def test_it_works_in_an_async_view(self, site):
        session = MovingOutStore(self.new_here(site, cart=1))
        assert async_to_sync(session.aget)("cart") == 1
        async_to_sync(session.aset)("cart", 2)
        async_to_sync(session.asave)()
        assert site.old(session.session_key)["cart"] == 2

    def test_what_is_at_home_needs_neither_tier(self, db_site):
        key = self.new_here(db_site, cart=1)
        self.data(key)
        with patch.object(HotTier, "get", side_effect=AssertionError):
            assert self.data(key) == {"cart": 1}

    def test_while_no_tier_answers_a_session_goes_on_from_what_is_there(self, db_site):
        here, there = self.new_here(db_site, cart=1), db_site.begin(cart=2)
        with patch("django_dynamo_failover.store.TieredStore.load", side_effect=SessionUnavailable):
            assert self.data(there) == {"cart": 2}
            with pytest.raises(SessionUnavailable):
                self.data(here)
        assert self.data(here) == {"cart": 1}


@pytest.mark.parametrize("name", ENGINES)
def test_a_site_moves_in_and_out_again_under_traffic_and_nobody_is_logged_out(
    name, make_site, settings
):
    """A rolling deployment: while it goes on, each request meets a process of either release.

    A ``Visitor`` fails if any answer takes its cookie or is slow.
    """
    site = make_site(name)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    get_user_model().objects.create_superuser(USER, password=PASSWORD)
    old = {"SESSION_ENGINE": site.path, "SESSION_CACHE_ALIAS": "old"}
    ours = {"SESSION_ENGINE": "django_dynamo_failover.sessions", "SESSION_CACHE_ALIAS": "sessions"}
    moving_out = {**ours, "SESSION_ENGINE": "django_dynamo_failover.moving_out"}
    visitors = []

    def serve(*releases, rounds=6):
        """Let everybody use the site, and one more log in."""
        dice = random.Random(name)
        visitors.append(Visitor())
        for number in range(rounds):
            for visitor in visitors:
                for setting, value in dice.choice(releases).items():
                    if getattr(settings, setting) != value:
                        setattr(settings, setting, value)
                if visitor.cookie is None:
                    visitor.enter()
                if number % 2:
                    visitor.add(PRODUCTS[0].sku)
                assert visitor.user == USER

    serve(old)
    serve(old, moving_out)
    serve(moving_out, ours)
    serve(ours)
    write_pending()
    caches["sessions"].clear()
    serve(ours)
    visitors[0].leave()
    del visitors[0]
    serve(ours, moving_out)
    serve(moving_out, rounds=1)
    runtime.reset()
    serve(moving_out, old)
    serve(old)
    assert len(visitors) == 8
