"""One contract of session behaviour, the same whatever the engine stands on and whatever is down.

What a configuration must answer otherwise is said in ``configurations.Configuration``. More of it
is in ``test_contract_in_time``.
"""

import pytest
from django.contrib.sessions.backends.base import CreateError, UpdateError

from django_dynamo_failover.exceptions import SessionUnavailable
from django_dynamo_failover.runtime import current

from .configurations import CONFIGURATIONS, LOGIN, Configuration, close_site, open_site


@pytest.fixture(params=CONFIGURATIONS, ids=str)
def site(request, monkeypatch):
    yield open_site(request.param, request, monkeypatch)
    close_site()


class TestData:
    def test_a_session_has_no_key_until_it_is_saved(self, site):
        session = site.session()
        assert session.is_empty()
        session["a"] = 1
        assert session.session_key is None
        session.save()
        assert len(session.session_key) == 32
        assert site.data(session.session_key) == {"a": 1}

    def test_a_session_is_created_without_data_too(self, site):
        session = site.session()
        session.create()
        assert session.modified
        assert site.session().exists(session.session_key)
        assert site.data(session.session_key) == {}

    def test_a_change_is_seen_by_the_next_request(self, site):
        session = site.new(a=1, b=2)
        session["a"] = 3
        session.save()
        assert site.data(session.session_key) == {"a": 3, "b": 2}

    def test_what_is_not_saved_is_not_kept(self, site):
        session = site.new(a=1)
        session["a"] = 2
        assert site.data(session.session_key) == {"a": 1}

    def test_a_session_is_changed_like_a_dict(self, site):
        session = site.new(a=1, b=2)
        assert session.pop("a") == 1
        assert session.pop("nope", "default") == "default"
        with pytest.raises(KeyError):
            session.pop("nope")
        assert session.setdefault("b", 9) == 2
        assert session.setdefault("c", 3) == 3
        session.update({"d": 4})
        session.save()
        loaded = site.session(session.session_key)
        assert sorted(loaded.keys()) == ["b", "c", "d"]
        assert sorted(loaded.values()) == [2, 3, 4]
        assert loaded["d"] == loaded.get("d") == 4
        assert "a" not in loaded
        assert not loaded.modified

    def test_a_change_inside_a_value_is_saved(self, site):
        session = site.new(cart={"tea": [1]})
        session["cart"]["tea"].append(2)
        session.modified = True
        session.save()
        assert site.data(session.session_key) == {"cart": {"tea": [1, 2]}}

    def test_a_change_inside_a_new_value_is_saved_by_the_second_save(self, site):
        session = site.session()
        session["cart"] = [1]
        session.save()
        session["cart"].append(2)
        session.save()
        session["cart"].append(3)
        session.save()
        assert site.data(session.session_key) == {"cart": [1, 2, 3]}

    def test_clear_empties_a_session_and_keeps_its_key(self, site):
        session = site.new(a=1)
        session.clear()
        session.save()
        assert site.data(session.session_key) == {}

    def test_a_value_that_cannot_be_serialized_raises_in_the_request(self, site):
        session = site.new(a=1)
        session["b"] = object()
        with pytest.raises(TypeError):
            session.save()
        assert site.data(session.session_key) == {"a": 1}
        new = site.session()
        new["b"] = object()
        with pytest.raises(TypeError):
            new.save()

    def test_types_are_the_same_after_a_failover(self, site):
        session = site.new(point=(1, 2), counts={1: "x"})
        before = site.data(session.session_key)
        assert before == {"point": [1, 2], "counts": {"1": "x"}}
        site.write_pending()
        site.lose_hot()
        if site.expected.survives_loss_of_hot:
            assert site.data(session.session_key) == before
        else:
            site.assert_over(session.session_key)


class TestKeys:
    def test_a_made_up_key_gets_another_one(self, site):
        made_up = "made0up0" * 4
        session = site.session(made_up)
        assert not session.exists(made_up)
        session["a"] = 1
        session.save()
        assert session.session_key != made_up
        assert site.data(session.session_key) == {"a": 1}

    def test_a_key_of_ours_without_a_session_is_no_session(self, site):
        key = current().keyring.new_session_key()
        site.assert_over(key)

    def test_an_id_that_is_taken_cannot_be_created(self, site):
        session = site.new(a=1)
        with pytest.raises(CreateError):
            session.save(must_create=True)
        assert site.data(session.session_key) == {"a": 1}

    def test_an_id_that_only_dynamodb_knows_cannot_be_created_either(self, site):
        session = site.new(a=1)
        site.write_pending()
        site.lose_hot()
        if site.expected.survives_loss_of_hot:
            with pytest.raises(CreateError):
                session.save(must_create=True)
            assert site.data(session.session_key) == {"a": 1}

    def test_cycle_key_moves_the_data_and_ends_the_old_key(self, site):
        session = site.new(a=1)
        old = session.session_key
        if not site.expected.is_durable:
            with pytest.raises(SessionUnavailable):
                session.cycle_key()
            assert session.session_key == old
            return
        session.cycle_key()
        assert session.session_key != old
        assert site.data(session.session_key) == {"a": 1}
        site.assert_over(old, is_proven=True)

    def test_cycle_key_moves_a_login(self, site):
        session = site.new(a=1)
        session.update(LOGIN)
        if site.expected.is_durable:
            session.cycle_key()
            site.lose_hot()
            if site.expected.survives_loss_of_hot:
                assert site.data_elsewhere(session.session_key) == {"a": 1, **LOGIN}
        else:
            with pytest.raises(SessionUnavailable):
                session.cycle_key()


class TestEnd:
    def test_a_deleted_session_is_over(self, site):
        session = site.new(a=1)
        assert session.exists(session.session_key)
        session.delete()
        site.assert_over(session.session_key, is_proven=True)
        site.lose_hot()
        site.assert_over(session.session_key, is_proven=True)  # this process knows, too

    def test_a_session_is_deleted_by_the_key_of_another(self, site):
        session, other = site.new(a=1), site.new(a=2)
        other.delete(session.session_key)
        site.assert_over(session.session_key, is_proven=True)
        assert site.data(other.session_key) == {"a": 2}

    def test_deleting_what_is_not_there_does_nothing(self, site):
        site.session().delete()
        site.session("made0up0" * 4).delete()
        site.session(current().keyring.new_session_key()).delete()

    def test_flush_ends_the_session_and_starts_without_one(self, site):
        session = site.new(a=1)
        key = session.session_key
        session.flush()
        assert session.session_key is None
        assert session.is_empty()
        site.assert_over(key, is_proven=True)
        session["b"] = 2
        session.save()
        assert session.session_key not in (None, key)

    @pytest.mark.parametrize("change", [{"a": 2}, LOGIN], ids=["change", "login"])
    def test_a_save_that_raced_with_the_logout_loses_and_revives_nothing(self, site, change):
        session = site.new(a=1)
        site.write_pending()
        raced = site.session(session.session_key)
        raced.update(change)
        session.delete()
        with pytest.raises(UpdateError):
            raced.save()
        site.assert_over(session.session_key, is_proven=True)
        site.write_pending()
        site.lose_hot()
        site.assert_over(session.session_key, is_proven=True)  # this process knows, too

    def test_a_session_that_has_vanished_is_not_saved(self, site):
        session = site.new(a=1)
        site.write_pending()
        if site.expected.survives_loss_of_hot:
            site.lose_hot()  # so that the request knows that DynamoDB has the session
        session["a"] = 2
        site.lose_hot()
        site.lose_cold(session.session_key)
        site.save_without_hot_entry(session)
        if site.expected.has_every_region:
            site.assert_over(session.session_key)


class TestBothTiersDown:
    """Nothing is pretended, and no session ends."""

    @pytest.fixture
    def site(self, request, monkeypatch):
        nothing = Configuration("both tiers down", down=("hot", "cold"))
        yield open_site(nothing, request, monkeypatch)
        close_site()

    @pytest.mark.parametrize(
        "ask",
        [
            lambda session: session.load(),
            lambda session: session.get("a"),
            lambda session: session.exists(session.session_key),
            lambda session: (session.clear(), session.save()),
            lambda session: session.save(must_create=True),
            lambda session: session.delete(),
        ],
        ids=["load", "get", "exists", "save", "create", "delete"],
    )
    def test_every_answer_is_unavailable_and_the_key_stays(self, site, ask):
        key = current().keyring.new_session_key()
        session = site.session(key)
        with pytest.raises(SessionUnavailable):
            ask(session)
        assert session.session_key == key

    def test_a_new_session_is_refused(self, site):
        session = site.session()
        session["a"] = 1
        with pytest.raises(SessionUnavailable):
            session.save()

    def test_a_made_up_key_is_still_known_to_be_one(self, site):
        session = site.session("made0up0" * 4)
        assert session.load() == {}
        assert not session.exists("made0up0" * 4)
