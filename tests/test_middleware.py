"""The session middleware by itself, over a cache that counts its calls and can be down."""

import asyncio
from unittest.mock import Mock

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.admin.checks import check_dependencies
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import SessionUnavailable, SessionUnreadable
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.middleware import SessionMiddleware
from tests.web import COOKIE, takes_cookie

NOWHERE = "http://127.0.0.1:1"  # where nothing listens


class FlakyCache(LocMemCache):
    """A cache that counts its calls, and fails while it is down."""

    down = False
    calls = 0

    def _call(self, method, *args, **options):
        type(self).calls += 1
        if self.down:
            raise ConnectionRefusedError("the cache is down")
        return method(*args, **options)

    def get(self, *args, **options):
        return self._call(super().get, *args, **options)

    def get_many(self, *args, **options):
        return self._call(super().get_many, *args, **options)

    def add(self, *args, **options):
        return self._call(super().add, *args, **options)

    def set(self, *args, **options):
        return self._call(super().set, *args, **options)

    def delete(self, *args, **options):
        return self._call(super().delete, *args, **options)


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setattr(FlakyCache, "down", False)
    monkeypatch.setattr(FlakyCache, "calls", 0)
    return FlakyCache


@pytest.fixture(autouse=True)
def engine(make_engine, cache):
    """The hot tier only: while that is down, none can answer."""
    engine = make_engine(cache={"BACKEND": "tests.test_middleware.FlakyCache"})
    assert engine.runtime  # has asked the hot tier for its orders
    cache.calls = 0
    return engine


@pytest.fixture
def cookie(engine, cache):
    """The cookie of a session with ``{"number": 1}``."""
    session = engine.store()
    session["number"] = 1
    session.save()
    cache.calls = 0
    return session.session_key


def ask(view, cookie=None):
    """Return what the middleware makes of a view's answer."""
    request = RequestFactory().get("/")
    if cookie is not None:
        request.COOKIES[COOKIE] = cookie
    return SessionMiddleware(view)(request)


def read(request):
    return HttpResponse(str(request.session.get("number")))


def write(request):
    request.session["number"] = 2
    return HttpResponse("done")


def plain(request):
    return HttpResponse("done")


def is_503(response):
    return response.status_code == 503 and not response.cookies


class TestIsDjangos:
    def test_it_is_a_subclass(self):
        assert issubclass(SessionMiddleware, DjangoSessionMiddleware)

    def test_the_admin_accepts_it(self, settings):
        assert "django_dynamo_failover.middleware.SessionMiddleware" in settings.MIDDLEWARE
        assert not check_dependencies()

        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Session" not in name]
        assert [error.id for error in check_dependencies()] == ["admin.E410"]

    def test_it_serves_wsgi_and_asgi(self):
        async def view(request):
            return HttpResponse("done")

        assert not iscoroutinefunction(SessionMiddleware(plain))
        assert iscoroutinefunction(SessionMiddleware(view))
        assert asyncio.run(SessionMiddleware(view)(RequestFactory().get("/"))).content == b"done"

    @pytest.mark.parametrize("view", [plain, read])
    def test_a_visitor_without_a_session_gets_none(self, cache, view):
        assert not ask(view).cookies
        assert cache.calls == 0

    def test_a_new_session_gets_a_cookie(self, engine):
        response = ask(write)

        assert engine.store(response.cookies[COOKIE].value)["number"] == 2
        assert response.cookies[COOKIE]["max-age"] == 14 * 24 * 3600
        assert response.cookies[COOKIE]["httponly"]

    def test_a_change_is_saved_under_the_same_cookie(self, engine, cookie):
        assert ask(write, cookie).cookies[COOKIE].value == cookie
        assert engine.store(cookie)["number"] == 2

    def test_a_page_that_does_not_ask_for_the_session_starts_nothing(self, engine, monkeypatch):
        """Not even where it could not: an endpoint has to answer with wrong settings, too."""
        monkeypatch.setattr(runtime, "build", Mock(side_effect=AssertionError))
        engine.restart()
        assert ask(plain).content == b"done"
        engine.configure(DEADLINE=0)
        assert ask(plain).content == b"done"
        with pytest.raises(ImproperlyConfigured):
            ask(read, "x" * 32)

    def test_a_page_that_does_not_ask_for_the_session_costs_nothing(self, cache, cookie):
        response = ask(plain, cookie)

        assert not response.cookies
        assert "Vary" not in response
        assert cache.calls == 0

    @pytest.mark.parametrize("view", [read, write])
    def test_a_page_that_does_varies_with_the_cookie(self, cookie, view):
        assert ask(view, cookie)["Vary"] == "Cookie"
        assert ask(view)["Vary"] == "Cookie"

    def test_an_emptied_session_takes_its_cookie_along(self, cookie):
        def view(request):
            request.session.flush()
            return HttpResponse("done")

        assert takes_cookie(ask(view, cookie))
        assert takes_cookie(ask(read, cookie))

    def test_a_server_error_saves_nothing(self, engine, cookie):
        def view(request):
            write(request)
            return HttpResponse(status=500)

        assert not ask(view, cookie).cookies
        assert engine.store(cookie)["number"] == 1

    def test_every_request_saves_if_so_set(self, settings, engine, cookie):
        settings.SESSION_SAVE_EVERY_REQUEST = True
        saves = engine.runtime.metrics.snapshot()["saves"]

        for _ in range(3):
            assert ask(plain, cookie).cookies[COOKIE].value == cookie

        assert engine.runtime.metrics.snapshot()["saves"] == saves + 3
        assert not ask(plain).cookies

    def test_another_cookie_name_is_respected(self, settings, engine):
        settings.SESSION_COOKIE_NAME = "till"

        assert list(ask(write).cookies) == ["till"]

    @pytest.mark.parametrize("status", [200, 500])
    def test_a_session_that_somebody_took_away_is_none_of_its_business(self, cookie, status):
        def view(request):
            del request.session
            return HttpResponse(status=status)

        assert ask(view, cookie).status_code == status

    @pytest.mark.parametrize("status", [200, 500])
    def test_neither_is_one_that_somebody_replaced(self, cookie, status):
        def view(request):
            request.session = {}
            return HttpResponse(status=status)

        assert ask(view, cookie).status_code == status


class TestCookieOfNoSession:
    @pytest.mark.parametrize(
        "forge",
        [
            lambda key: "x" * len(key),
            lambda key: key[:-1] + ("1" if key[-1] == "0" else "0"),
            lambda key: key.upper(),
            lambda key: key + "0",
            lambda key: key[:-1],
            lambda key: " " + key[1:],
            lambda key: "é" * len(key),
            lambda key: "٣" * len(key),
            lambda key: "\0" * len(key),
            lambda key: key * 1000,
            lambda key: "",
        ],
        ids=[
            "made up",
            "last character",
            "upper case",
            "longer",
            "shorter",
            "blank",
            "accents",
            "other digits",
            "zero bytes",
            "32 KB",
            "empty",
        ],
    )
    def test_a_forged_one_is_taken_and_costs_nothing(self, cache, cookie, forge):
        response = ask(read, forge(cookie))

        assert response.content == b"None"
        assert takes_cookie(response)
        assert cache.calls == 0

    def test_a_forged_one_is_taken_during_an_outage_too(self, cache):
        cache.down = True

        assert takes_cookie(ask(read, "x" * 32))
        assert cache.calls == 0

    def test_a_forged_one_never_names_a_session(self, engine):
        forged = "x" * 32

        response = ask(write, forged)

        assert response.cookies[COOKIE].value not in ("", forged)
        assert engine.store(response.cookies[COOKIE].value)["number"] == 2

    def test_one_of_a_session_that_has_ended_is_taken(self, engine, cookie):
        engine.store(cookie).delete()

        assert takes_cookie(ask(read, cookie))


class TestInterrupted:
    """400 on proof that the session is over, and on nothing less."""

    def test_by_a_logout_of_another_request(self, engine, cookie):
        def view(request):
            write(request)
            engine.store(cookie).delete()
            return HttpResponse("done")

        with pytest.raises(SessionInterrupted):
            ask(view, cookie)
        assert not engine.store(cookie).exists(cookie)

    def test_not_by_an_outage(self, cache, cookie):
        def view(request):
            write(request)
            cache.down = True
            return HttpResponse("done")

        assert is_503(ask(view, cookie))

    def test_not_by_a_concurrent_save(self, engine, cookie):
        def view(request):
            write(request)
            other = engine.store(cookie)
            other["colour"] = "red"
            other.save()
            return HttpResponse("done")

        assert ask(view, cookie).status_code == 200
        assert dict(engine.store(cookie).items()) == {"number": 2, "colour": "red"}


class TestUnavailable:
    def test_the_browser_learns_when_to_come_back(self, cache, cookie):
        def view(request):
            write(request)
            cache.down = True
            return HttpResponse("done")

        response = ask(view, cookie)

        assert is_503(response)
        assert 0 < int(response["Retry-After"]) <= 60
        assert response["Cache-Control"] == "no-store"
        assert response["Content-Type"] == "text/plain; charset=utf-8"

    @pytest.mark.parametrize("error", [SessionUnavailable, SessionUnreadable])
    def test_a_view_that_cannot_have_its_session(self, error):
        middleware = SessionMiddleware(plain)

        assert middleware.process_exception(RequestFactory().get("/"), error()).status_code == 503

    @pytest.mark.parametrize("error", [ValueError(), SessionInterrupted(), KeyError("number")])
    def test_other_errors_are_left_to_others(self, error):
        middleware = SessionMiddleware(plain)

        assert middleware.process_exception(RequestFactory().get("/"), error) is None

    def test_what_comes_through_django_as_an_error(self, cache, cookie):
        # As with CSRF_USE_SESSIONS: Django's own 500 page asks for the session once more.
        cache.down = True

        assert is_503(ask(read, cookie))

    def test_the_same_under_asgi(self, cache, cookie):
        async def view(request):
            return HttpResponse(str(await request.session.aget("number")))

        request = RequestFactory().get("/")
        request.COOKIES[COOKIE] = cookie
        cache.down = True

        assert is_503(asyncio.run(SessionMiddleware(view)(request)))

    def test_a_page_that_does_without_the_session_is_left_as_it_is(self, cache, cookie):
        def view(request):
            try:
                return read(request)
            except SessionUnavailable:
                return HttpResponse("Without")

        cache.down = True
        response = ask(view, cookie)

        assert (response.status_code, response.content) == (200, b"Without")
        assert not response.cookies

    def test_an_error_of_the_site_itself_stays_one(self, cache, cookie, engine):
        def view(request):
            with pytest.raises(SessionUnavailable):
                read(request)
            cache.down = False
            engine.restart()
            read(request)
            return HttpResponse("a bug", status=500)

        cache.down = True

        assert ask(view, cookie).content == b"a bug"

    def test_a_page_that_does_not_ask_is_served(self, cache, cookie):
        cache.down = True

        assert ask(plain, cookie).content == b"done"

    @pytest.mark.django_db  # close() ends the request, which looks after database connections
    @pytest.mark.parametrize("status", [200, 500])
    def test_a_stream_that_nobody_will_read_is_closed(self, cache, cookie, status):
        class Stream:
            closed = False

            def __iter__(self):
                return iter([b"one", b"two"])

            def close(self):
                self.closed = True

        stream = Stream()

        def view(request):
            write(request)
            cache.down = True
            if status == 500:
                with pytest.raises(SessionUnavailable):
                    request.session.save()
            return StreamingHttpResponse(stream, status=status)

        response = ask(view, cookie)

        assert is_503(response)
        response.close()
        assert stream.closed

    def test_the_request_does_not_end_before_its_answer(self, cache, cookie):
        def view(request):
            write(request)
            cache.down = True
            return HttpResponse("done")

        ended = Mock()
        request_finished.connect(ended)
        try:
            assert is_503(ask(view, cookie))
        finally:
            request_finished.disconnect(ended)
        # What listens to it closes database connections and the like.
        assert not ended.called

    def test_a_stream_that_is_answered_is_left_open(self, cookie):
        def view(request):
            write(request)
            return StreamingHttpResponse(iter([b"one", b"two"]))

        response = ask(view, cookie)

        assert response.cookies[COOKIE].value == cookie
        assert b"".join(response.streaming_content) == b"onetwo"


class TestSecrets:
    @pytest.fixture
    def engine(self, make_engine):
        return make_engine(
            cache={"BACKEND": "tests.test_middleware.FlakyCache", "LOCATION": "secret-cache"},
            TABLE="secret-table",
            REGIONS=[{"NAME": "secret-region", "ENDPOINT_URL": NOWHERE}],
            SHUTDOWN_TIMEOUT=0,
        )

    @pytest.mark.parametrize("debug", [False, True])
    def test_none_is_in_the_answer_or_the_log(self, cache, engine, settings, caplog, debug):
        settings.DEBUG = debug
        key = engine.runtime.keyring.new_session_key()
        cache.down = True
        with caplog.at_level(0):
            response = ask(read, key)

        assert is_503(response)
        answer = f"{response.content!r} {response.headers}"
        # Django's and ours: botocore shows all of its requests to whoever sets it to DEBUG.
        records = [record for record in caplog.records if record.name.startswith("django")]
        log = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in records)
        assert "Answered 503" in log
        for secret in [key, storage_id(key), settings.SECRET_KEY]:
            assert secret not in answer
            assert secret not in log
        assert "secret" not in answer
        assert "secret-table" not in log
        assert "127.0.0.1" not in answer
