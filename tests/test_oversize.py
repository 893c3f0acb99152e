"""Sessions over DynamoDB's 400 KB, over memcached's 1 MB or over both: no change is lost unsaid."""

import random
import string

import pytest

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import SessionTooLarge, SessionUnavailable

from .configurations import Configuration, close_site, open_site


def noise(size):
    """Text that zlib makes a quarter smaller."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=size))


BIG = {
    "DynamoDB": lambda: noise(620_000),
    "memcached": lambda: "x" * 1_500_000,
    "both": lambda: noise(1_500_000),
    "what is ever inflated": lambda: "x" * 17 * 1024 * 1024,
}


@pytest.fixture
def open_with(request, monkeypatch):
    def open_with(**changes):
        return open_site(Configuration("oversize", **changes), request, monkeypatch)

    yield open_with
    close_site()


@pytest.fixture(params=["hot-only", "raise"])
def site(request, open_with):
    return open_with(options={"OVERSIZE": request.param})


@pytest.fixture
def lenient(open_with):
    return open_with(options={"OVERSIZE": "hot-only"})


@pytest.fixture
def strict(open_with):
    return open_with(options={"OVERSIZE": "raise"})


def oversize():
    return runtime.current().metrics.snapshot()["oversize"]


def grow(site, session, big):
    """What a request does that puts too much into a session."""
    session = site.session(session.session_key)
    session["big"] = big
    session.save()


def check_it_works_again(site, session):
    """With little in it, the session is like any other."""
    session = site.session(session.session_key)
    session["big"] = "small"
    session["again"] = True
    session.save()
    expected = dict(session.items())
    assert site.data(session.session_key) == expected
    site.write_pending()
    site.lose_hot()
    assert site.data_elsewhere(session.session_key) == expected


class TestHotOnly:
    def test_over_dynamodb_lives_in_the_hot_tier_and_says_so(self, lenient, caplog):
        session, big = lenient.new(a=1), BIG["DynamoDB"]()
        lenient.write_pending()
        grow(lenient, session, big)
        assert oversize() == 1
        assert "over DynamoDB's 400 KB" in caplog.text
        assert session.session_key not in caplog.text
        lenient.write_pending()
        assert lenient.data(session.session_key) == {"a": 1, "big": big}
        assert lenient.data_elsewhere(session.session_key) == {"a": 1, "big": big}
        check_it_works_again(lenient, session)

    def test_over_dynamodb_falls_back_to_what_dynamodb_has(self, lenient):
        session = lenient.new(a=1)
        lenient.write_pending()
        grow(lenient, session, BIG["DynamoDB"]())
        lenient.write_pending()
        lenient.lose_hot()
        assert lenient.data_elsewhere(session.session_key) == {"a": 1}

    def test_over_memcached_lives_in_dynamodb_and_says_so(self, lenient, caplog):
        session, big = lenient.new(a=1), BIG["memcached"]()
        grow(lenient, session, big)
        assert oversize() == 1
        assert "over the limit of the hot tier" in caplog.text
        assert lenient.data(session.session_key) == {"a": 1, "big": big}
        assert lenient.data_elsewhere(session.session_key) == {"a": 1, "big": big}
        check_it_works_again(lenient, session)

    @pytest.mark.parametrize("what", ["DynamoDB", "memcached"])
    def test_a_new_session_may_be_as_large(self, lenient, what):
        big = BIG[what]()
        session = lenient.new(big=big)
        assert oversize() == 1
        lenient.write_pending()
        assert lenient.data(session.session_key) == {"big": big}
        check_it_works_again(lenient, session)

    @pytest.mark.parametrize("what", ["DynamoDB", "memcached"])
    def test_a_login_of_that_size_is_kept(self, lenient, what):
        session, big = lenient.new(a=1), BIG[what]()
        session["_auth_user_id"] = "7"
        session["big"] = big
        session.save()
        assert lenient.data(session.session_key) == {"a": 1, "big": big, "_auth_user_id": "7"}

    def test_over_memcached_with_dynamodb_down_changes_nothing(self, open_with):
        site = open_with(down=("cold",))
        session = site.new(a=1)
        with pytest.raises(SessionUnavailable):
            grow(site, session, BIG["memcached"]())
        assert site.data(session.session_key) == {"a": 1}
        assert site.data_elsewhere(session.session_key) == {"a": 1}


class TestTooLarge:
    """Refused in the request: in either mode what fits nowhere, with "raise" all of it."""

    @pytest.mark.parametrize("what", BIG)
    def test_raises_and_what_was_there_stays(self, strict, what):
        self.check(strict, what)

    @pytest.mark.parametrize("what", ["both", "what is ever inflated"])
    def test_raises_where_no_tier_can_have_it(self, lenient, what):
        self.check(lenient, what)

    def check(self, site, what):
        session = site.new(a=1)
        site.write_pending()
        session["a"] = 2  # in the hot tier, and not yet in DynamoDB
        session.save()
        with pytest.raises(SessionTooLarge):
            grow(site, session, BIG[what]())
        assert oversize() >= 1
        assert site.data(session.session_key) == {"a": 2}
        assert site.data_elsewhere(session.session_key) == {"a": 2}
        check_it_works_again(site, session)

    @pytest.mark.parametrize("what", BIG)
    def test_raises_for_a_new_session(self, strict, what):
        with pytest.raises(SessionTooLarge):
            strict.new(big=BIG[what]())
        assert oversize() >= 1

    def test_raises_with_the_hot_tier_down_too(self, open_with):
        site = open_with(down=("hot",), options={"OVERSIZE": "raise"})
        session = site.new(a=1)
        with pytest.raises(SessionTooLarge):
            grow(site, session, BIG["DynamoDB"]())
        assert oversize() >= 1
        assert site.data(session.session_key) == {"a": 1}

    def test_over_dynamodb_is_unavailable_while_the_hot_tier_is_down(self, open_with):
        site = open_with(down=("hot",))
        session = site.new(a=1)
        with pytest.raises(SessionUnavailable):
            grow(site, session, BIG["DynamoDB"]())
        assert site.data(session.session_key) == {"a": 1}

    def test_raises_over_memcached_without_dynamodb(self, open_with):
        site = open_with(regions=0)
        session = site.new(a=1)
        with pytest.raises(SessionTooLarge):
            grow(site, session, BIG["memcached"]())
        assert site.data(session.session_key) == {"a": 1}
        with pytest.raises(SessionTooLarge):
            site.new(big=BIG["memcached"]())

    def test_names_no_secret(self, site, caplog):
        session = site.new(a=1)
        with pytest.raises(SessionTooLarge) as raised:
            grow(site, session, "4111-1111" + BIG["both"]())
        for text in (caplog.text, str(raised.value)):
            assert session.session_key not in text
            assert "4111" not in text
