"""The contract of ``test_contract`` where time passes: expiry, leases, durability and races."""

import time
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from django.conf import settings

from django_dynamo_failover.runtime import current

from .configurations import CONFIGURATIONS, LOGIN, Configuration, close_site, later, open_site

WRITE_INTERVAL = 900


@pytest.fixture(params=CONFIGURATIONS, ids=str)
def site(request, monkeypatch):
    yield open_site(request.param, request, monkeypatch)
    close_site()


class TestExpiry:
    @pytest.mark.parametrize("kind", ["int", "timedelta", "datetime"])
    def test_a_session_ends_at_its_expiry(self, site, kind):
        session = site.new(a=1)
        session.set_expiry(
            {
                "int": 60,
                "timedelta": timedelta(seconds=60),
                "datetime": datetime.now(UTC) + timedelta(seconds=60),
            }[kind]
        )
        site.save_durably(session)
        loaded = site.session(session.session_key)
        assert 55 < loaded.get_expiry_age() <= 60
        assert not loaded.get_expire_at_browser_close()
        with later(50):
            assert site.data(session.session_key)["a"] == 1
        with later(70):
            site.assert_over(session.session_key)

    def test_a_session_until_the_browser_closes_lasts_as_long_as_any(self, site):
        session = site.new(a=1)
        session.set_expiry(0)
        site.save_durably(session)
        assert site.session(session.session_key).get_expire_at_browser_close()
        with later(settings.SESSION_COOKIE_AGE - 60):
            assert site.data(session.session_key)["a"] == 1
        with later(settings.SESSION_COOKIE_AGE + 60):
            site.assert_over(session.session_key)

    def test_a_session_whose_expiry_is_in_the_past_is_over(self, site):
        session = site.new(a=1)
        session.set_expiry(-60)
        site.save_durably(session)
        site.assert_over(session.session_key)

    def test_a_save_prolongs_a_session(self, site):
        session = site.new(a=1)
        with later(settings.SESSION_COOKIE_AGE - 60):
            session["a"] = 2
            session.save()
        with later(settings.SESSION_COOKIE_AGE + 60):
            assert site.data(session.session_key) == {"a": 2}


class TestLease:
    def test_an_idle_session_outlives_its_lease(self, site):
        session = site.new(a=1)
        site.write_pending()
        for leases in (1, 2, 3):
            with later(leases * WRITE_INTERVAL + 1):
                assert site.data(session.session_key) == {"a": 1}

    def test_a_change_that_dynamodb_lacks_outlives_its_lease(self, site):
        session = site.new(a=1)
        site.write_pending()
        session["a"] = 2
        session.save()
        for leases in (1, 2, 3):
            with later(leases * WRITE_INTERVAL + 1):
                assert site.data(session.session_key) == {"a": 2}

    def test_a_session_is_changed_after_its_lease(self, site):
        session = site.new(a=1)
        site.write_pending()
        with later(WRITE_INTERVAL + 1):
            session = site.session(session.session_key)
            session["a"] = 2
            session.save()
            assert site.data(session.session_key) == {"a": 2}


class TestDurability:
    def test_a_login_is_in_dynamodb_before_the_response(self, site):
        session = site.new(a=1)
        session.update(LOGIN)
        site.save_durably(session)
        site.lose_hot()
        if site.expected.is_durable and site.expected.survives_loss_of_hot:
            assert site.data_elsewhere(session.session_key) == {"a": 1, **LOGIN}

    @pytest.mark.parametrize("looked", [True, False], ids=["loaded", "not loaded"])
    def test_the_end_of_a_login_is_in_dynamodb_before_the_response(self, site, looked):
        session = site.new(a=1)
        session.update(LOGIN)
        site.save_durably(session)
        session = site.session(session.session_key)
        if looked:
            assert session["a"] == 1
        session.clear()
        site.save_durably(session)
        site.lose_hot()
        if site.expected.is_durable and site.expected.survives_loss_of_hot:
            assert site.data_elsewhere(session.session_key) == {}

    def test_every_change_outlives_the_hot_tier(self, site):
        session = site.new(a=1)
        site.write_pending()
        session["a"] = 2
        session.save()
        site.lose_hot()  # DynamoDB has not got it yet: the memory of this process has
        if site.expected.survives_loss_of_hot:
            assert site.data(session.session_key) == {"a": 2}
            site.write_pending()
            site.lose_hot()
            assert site.data(session.session_key) == {"a": 2}
        else:
            site.assert_over(session.session_key)


class TestConcurrency:
    def test_two_requests_that_change_different_keys_keep_both_changes(self, site):
        session = site.new(a=1, b=1, gone=1)
        one, other = site.session(session.session_key), site.session(session.session_key)
        one["a"] = 2
        other["b"] = 2
        other.pop("gone")
        one["mine"] = 1
        one.save()
        other.save()
        assert site.data(session.session_key) == {"a": 2, "b": 2, "mine": 1}
        assert dict(other.items()) == {"a": 2, "b": 2, "mine": 1}

    def test_the_later_of_two_changes_of_one_key_stands(self, site):
        session = site.new(a=1)
        one, other = site.session(session.session_key), site.session(session.session_key)
        one["a"] = 2
        other["a"] = 3
        one.save()
        other.save()
        assert site.data(session.session_key) == {"a": 3}

    def test_a_change_does_not_undo_a_login_that_raced_with_it(self, site):
        session = site.new(a=1)
        login, other = site.session(session.session_key), site.session(session.session_key)
        other["a"] = 2
        login.update(LOGIN)
        site.save_durably(login)
        other.save()
        assert site.data(session.session_key) == {"a": 2, **LOGIN}

    def test_two_logins_that_raced_are_never_mixed(self, site):
        session = site.new(a=1)
        one, other = site.session(session.session_key), site.session(session.session_key)
        one.update(LOGIN)
        other.update({"_auth_user_id": "8", "_auth_user_hash": "ba5"})
        site.save_durably(one)
        site.save_durably(other)
        assert site.data(session.session_key) == {"a": 1, **LOGIN}

    def test_changes_of_many_threads_are_all_kept(self, site):
        if not site.expected.is_atomic or site.expected.asynchronous:
            return  # get-then-set keeps them one after the other, as above
        key = site.new(start=1).session_key
        names = [f"thread {number}" for number in range(6)]
        barrier = Barrier(len(names))

        def change(name):
            session = site.session(key)
            session[name] = True
            barrier.wait(10)
            session.save()

        threads = [Thread(target=change, args=[name]) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert site.data(key) == {"start": 1, **dict.fromkeys(names, True)}


@pytest.mark.parametrize("down", [(), ("hot",)], ids=["both tiers up", "hot down"])
def test_a_process_ends_without_a_word_once_dynamodb_has_it_all(down, request, monkeypatch, caplog):
    site = open_site(Configuration("the end", down=down), request, monkeypatch)
    session, other = site.new(a=1), site.new(a=2)
    session["a"] = 3
    session.save()
    other.delete()
    metrics = current().metrics
    site.engine.configure(SHUTDOWN_TIMEOUT=5)
    caplog.clear()
    began = time.monotonic()
    close_site()
    assert time.monotonic() - began < 2
    assert site.data(session.session_key) == {"a": 3}
    assert metrics.snapshot()["lost_writes"] == 0
    assert "did not reach" not in caplog.text
    close_site()
