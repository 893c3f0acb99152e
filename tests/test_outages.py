"""What a browser sees of an outage: the shop on real servers that are killed and frozen.

``Visitor`` looks at every answer: it comes within 3 s (G10) and leaves the cookie alone (G1).
"""

import time
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient
from django.urls import path, reverse
from servers import Dynalite, Memcached
from shop.urls import urlpatterns

from django_dynamo_failover.keys import storage_id
from tests.web import COOKIE, PASSWORD, SLOWEST, USER, Visitor, takes_cookie, until, visitor_with

pytestmark = pytest.mark.django_db

MIDDLEWARE = "django_dynamo_failover.middleware.SessionMiddleware"


@pytest.fixture(autouse=True)
def manager(settings):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        "shop.pins.PinHasher",
    ]
    return get_user_model().objects.create_superuser(USER, password=PASSWORD)


@pytest.fixture
def hot(start):
    return start(Memcached)


@pytest.fixture
def cold(start, tmp_path):
    return start(Dynalite, path=tmp_path / "tables")


@pytest.fixture
def shop(make_engine, hot, cold):
    """The engine on servers of this test's own."""
    return make_engine(hot, cold)


@pytest.fixture
def mount(settings):
    """``mount(view, *middleware)``: put a view at /here/, and middleware below all others."""

    def mount(view, *middleware):
        settings.ROOT_URLCONF = (path("here/", view), *urlpatterns)
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, *middleware]

    return mount


@pytest.fixture
def visitor(shop):
    """Someone who is logged in, with a mug in the cart, all of it in both tiers."""
    visitor = Visitor()
    assert visitor.enter().status_code == 302
    visitor.add("mug")
    settle(shop)
    return visitor


def settle(engine):
    """Bring all that is pending to DynamoDB, as WRITE_INTERVAL would."""
    assert engine.runtime.writer.flush(5) == 0


def is_503(response):
    """Tell whether an answer is a 503 as it should be."""
    if response.status_code != 503:
        return False
    assert int(response["Retry-After"]) > 0
    assert COOKIE not in response.cookies
    assert "no-store" in response["Cache-Control"]
    return True


def hits(engine):
    return engine.runtime.metrics.snapshot()["hot_hits"]


def until_hot_serves(engine, visitor):
    """Ask for pages until memcached answers again."""
    had = hits(engine)

    def served():
        assert visitor.user == USER
        return hits(engine) > had

    until(served, within=5)


def until_cold_works(engine):
    """Wait until DynamoDB is asked again, which its breaker decides."""
    region = engine.runtime.cold._regions[0]
    probe = storage_id("probe")

    def works():
        try:
            engine.runtime.cold.read(probe)
        except Exception:
            return False
        return region.breaker.closed

    until(works)


def kill_memcached(server):
    server.kill()


def freeze(server):
    server.freeze()


def restart(server):
    server.restart()


def mend(server):
    if server.pid is None:
        server.start()
    server.thaw()
    if isinstance(server, Dynalite):
        server.heal()


def throttle(server):
    server.fail("*", "ThrottlingException", times=None)


def err(server):
    server.fail("*", "InternalServerError", status=500, times=None)


def hang_up(server):
    server.fail("*", "drop", times=None)


def lose_replies(server):
    server.fail("*", "drop", times=None, after=True)


def say_nothing(server):
    server.fail("*", "hang", times=None)


def kill(server):
    server.kill()


HOT_OUTAGES = [kill, freeze, restart]
COLD_OUTAGES = [kill, freeze, throttle, err, hang_up, lose_replies, say_nothing]
each_hot_outage = pytest.mark.parametrize("break_hot", HOT_OUTAGES)
each_cold_outage = pytest.mark.parametrize("break_cold", COLD_OUTAGES)
both_down = pytest.mark.parametrize(
    ("break_hot", "break_cold"), [(kill, kill), (freeze, freeze), (kill, throttle), (freeze, kill)]
)


class TestMemcachedFailsInTheMiddleOfASession:
    @each_hot_outage
    def test_nobody_is_logged_out(self, shop, visitor, hot, break_hot):
        break_hot(hot)
        for _ in range(20):
            assert visitor.user == USER
        assert visitor.get(reverse("till")).status_code == 200
        mend(hot)
        until_hot_serves(shop, visitor)

    @each_hot_outage
    def test_a_cart_that_grows_meanwhile_is_never_seen_smaller(
        self, shop, visitor, hot, break_hot
    ):
        break_hot(hot)
        for number in range(1, 4):
            assert visitor.add("espresso").status_code == 302
            assert visitor.items == {"mug": 1, "espresso": number}
        mend(hot)

        def seen_from_memcached():
            had = hits(shop)
            assert visitor.items == {"mug": 1, "espresso": 3}
            return hits(shop) > had

        until(seen_from_memcached, within=5)
        assert visitor.add("espresso").status_code == 302
        assert visitor.items == {"mug": 1, "espresso": 4}
        settle(shop)
        hot.restart()
        assert visitor.items == {"mug": 1, "espresso": 4}

    @each_hot_outage
    def test_a_change_from_right_before_it_is_still_there(self, shop, visitor, hot, break_hot):
        visitor.add("kettle")  # DynamoDB would have it in 15 minutes

        break_hot(hot)

        assert visitor.items == {"mug": 1, "kettle": 1}

    @each_hot_outage
    def test_a_login_works_and_lasts(self, shop, hot, break_hot):
        break_hot(hot)
        visitor = Visitor()
        assert visitor.enter().status_code == 302
        assert visitor.user == USER
        mend(hot)
        until_hot_serves(shop, visitor)

    def test_memcached_that_flaps_is_never_noticed(self, shop, visitor, hot):
        for number in range(1, 6):
            hot.kill()
            visitor.add("espresso")
            hot.start()
            assert visitor.items == {"mug": 1, "espresso": number}

    def test_a_frozen_memcached_costs_one_timeout_and_not_one_a_page(self, visitor, hot):
        hot.freeze()
        began = time.monotonic()
        for _ in range(30):
            assert visitor.user == USER

        assert time.monotonic() - began < 2 * SLOWEST


class TestDynamoDBFailsInTheMiddleOfASession:
    @each_cold_outage
    def test_pages_and_changes_go_on(self, shop, visitor, cold, break_cold):
        break_cold(cold)
        for number in range(1, 6):
            assert visitor.add("espresso").status_code == 302
            assert visitor.items == {"mug": 1, "espresso": number}
        mend(cold)
        until_cold_works(shop)
        settle(shop)
        shop.hot.flush()
        assert visitor.items == {"mug": 1, "espresso": 5}

    @each_cold_outage
    def test_a_login_is_refused_and_the_same_credentials_work_afterwards(
        self, shop, cold, break_cold
    ):
        visitor = Visitor()
        break_cold(cold)
        for _ in range(4):
            assert is_503(visitor.enter())
            assert visitor.cookie is None
            assert visitor.user is None
        mend(cold)
        until(lambda: visitor.enter().status_code == 302)
        assert visitor.user == USER
        shop.hot.flush()
        assert visitor.user == USER

    @each_cold_outage
    def test_a_refused_login_leaves_the_visitor_with_the_session_from_before(
        self, shop, cold, mount, break_cold
    ):
        mount(remember_number)
        visitor = Visitor()
        visitor.post("/here/", {"number": 7})  # a cart from before the login
        settle(shop)
        break_cold(cold)
        for _ in range(2):
            assert is_503(visitor.enter())
        assert visitor.get("/here/").json() == {"number": 7}
        mend(cold)
        until(lambda: visitor.enter().status_code == 302)
        assert visitor.get("/here/").json() == {"number": 7}

    @pytest.mark.parametrize("answer", ["drop", "ThrottlingException", "hang"])
    @pytest.mark.parametrize("after", [False, True])
    def test_a_login_survives_one_lost_request_or_reply(self, shop, cold, answer, after):
        cold.fail("PutItem", answer, times=1, after=after)
        visitor = Visitor()

        assert visitor.enter().status_code == 302
        shop.hot.flush()
        assert visitor.user == USER

    @each_cold_outage
    def test_a_lease_that_ends_meanwhile_logs_nobody_out(
        self, make_engine, hot, cold, break_cold
    ):
        engine = make_engine(hot, cold, WRITE_INTERVAL=0.05)
        visitor = Visitor()
        visitor.enter()
        visitor.add("mug")
        settle(engine)
        break_cold(cold)
        trusted = engine.runtime.metrics.snapshot()["trusted"]
        for _ in range(5):
            time.sleep(0.05)  # the lease
            assert visitor.items == {"mug": 1}
        assert engine.runtime.metrics.snapshot()["trusted"] > trusted


class TestBothFail:
    @both_down
    def test_the_answer_is_503_and_the_same_cookie_works_afterwards(
        self, shop, visitor, hot, cold, break_hot, break_cold
    ):
        break_hot(hot)
        break_cold(cold)
        for address in [reverse("status-json"), reverse("till")] * 3:
            assert is_503(visitor.get(address))
        assert is_503(visitor.add("mug"))
        mend(hot)
        mend(cold)
        until(lambda: visitor.get(reverse("till")).status_code == 200)
        assert visitor.items == {"mug": 1}

    @both_down
    def test_a_login_is_refused_and_works_afterwards(
        self, shop, hot, cold, break_hot, break_cold
    ):
        visitor = Visitor()
        break_hot(hot)
        break_cold(cold)
        assert is_503(visitor.enter())
        mend(hot)
        mend(cold)
        until(lambda: visitor.enter().status_code == 302)
        assert visitor.user == USER

    @both_down
    def test_a_page_without_a_session_is_not_concerned(
        self, shop, hot, cold, break_hot, break_cold
    ):
        break_hot(hot)
        break_cold(cold)
        assert Visitor().get(reverse("login")).status_code == 200
        assert Visitor().get(reverse("ping")).status_code == 200


class TestLogout:
    def is_dead(self, cookie):
        """Tell whether nobody is logged in with this cookie any more."""
        return visitor_with(cookie).user is None

    @each_cold_outage
    def test_dynamodb_learns_of_it_when_it_is_back(self, shop, visitor, cold, break_cold):
        cookie = visitor.cookie
        break_cold(cold)
        response = visitor.leave()
        assert response.status_code == 302
        assert takes_cookie(response)
        for _ in range(3):
            assert self.is_dead(cookie)
        mend(cold)
        id = storage_id(cookie)
        until(lambda: shop.items().keys() & {id, f"revoked:{id}"} == {f"revoked:{id}"})
        shop.hot.flush()
        assert self.is_dead(cookie)

    def test_memcached_loses_the_tombstone_before_dynamodb_learns_of_it(
        self, shop, visitor, hot, cold
    ):
        cookie = visitor.cookie
        cold.freeze()
        assert visitor.leave().status_code == 302
        hot.restart()
        cold.thaw()

        id = storage_id(cookie)

        def is_revoked():
            response = visitor_with(cookie).get(reverse("status-json"))
            assert response.status_code == 503 or response.json()["user"] is None, "it came back"
            return f"revoked:{id}" in shop.items()

        until(is_revoked)

    @each_hot_outage
    def test_it_is_final_with_memcached_down(self, shop, visitor, hot, break_hot):
        cookie = visitor.cookie
        break_hot(hot)
        response = visitor.leave()
        assert response.status_code == 302
        assert takes_cookie(response)
        for _ in range(3):
            assert self.is_dead(cookie)
        mend(hot)
        for _ in range(3):
            assert self.is_dead(cookie)

    @pytest.mark.parametrize("breaker", ["closed", "open"])
    def test_memcached_thaws_with_the_old_session_still_in_it(
        self, shop, visitor, hot, breaker
    ):
        cookie = visitor.cookie
        hot.freeze()
        if breaker == "open":  # then memcached is not even told
            assert visitor.user == USER
        assert visitor.leave().status_code == 302
        hot.thaw()
        hot_breaker = shop.runtime.store._hot._breaker

        def memcached_is_asked():
            assert self.is_dead(cookie), "it came back"
            return hot_breaker.closed

        until(memcached_is_asked)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert self.is_dead(cookie), "it came back"

    def test_memcached_thaws_in_front_of_another_process(self, shop, visitor, hot):
        """The process that knows of the logout ends before memcached can be told."""
        cookie = visitor.cookie
        hot.freeze()
        assert visitor.user == USER
        assert visitor.leave().status_code == 302
        shop.restart()
        hot.thaw()

        assert self.is_dead(cookie)

    @both_down
    def test_it_is_not_pretended_when_both_are_down(
        self, shop, visitor, hot, cold, break_hot, break_cold
    ):
        break_hot(hot)
        break_cold(cold)
        response = visitor.leave()
        assert is_503(response)
        mend(hot)
        mend(cold)
        until(lambda: visitor.get(reverse("till")).status_code == 200)
        assert visitor.items == {"mug": 1}
        assert visitor.leave().status_code == 302

    @both_down
    def test_a_refused_one_loses_no_change(
        self, shop, visitor, hot, cold, break_hot, break_cold
    ):
        visitor.add("kettle")  # DynamoDB would have it in 15 minutes
        break_hot(hot)
        break_cold(cold)
        assert is_503(visitor.leave())
        mend(hot)
        mend(cold)
        until(lambda: visitor.get(reverse("till")).status_code == 200)
        assert visitor.items == {"mug": 1, "kettle": 1}


def remember_number(request):
    """A view: keep a number in the session, or tell it."""
    if request.method == "POST":
        request.session["number"] = int(request.POST["number"])
    return JsonResponse({"number": request.session.get("number")})


async def remember_number_async(request):
    """A view: the same under ASGI."""
    if request.method == "POST":
        await request.session.aset("number", int(request.POST["number"]))
    return JsonResponse({"number": await request.session.aget("number")})


def touch_user(get_response):
    """A middleware: want to know who it is, as many do."""

    def middleware(request):
        request.is_known = request.user.is_authenticated
        return get_response(request)

    return middleware


def touch_session_on_the_way_out(get_response):
    """A middleware: read the session when the view is done."""

    def middleware(request):
        response = get_response(request)
        response["X-Number"] = request.session.get("number", 0)
        return response

    return middleware


def plain(request):
    """A view: no interest in the session."""
    return HttpResponse("plain")


def missing(request):
    """A view: 404 is what DEBUG shows much of."""
    return HttpResponse("not here", status=404)


class TestWhereverItIsRaised:
    """``SessionUnavailable`` is 503 wherever it comes up, never 500, and the cookie stays."""

    @pytest.fixture
    def break_both(self, visitor, hot, cold):
        def break_both():
            hot.kill()
            cold.kill()

        return break_both

    def test_in_a_view(self, visitor, mount, break_both):
        mount(remember_number)
        break_both()
        assert is_503(Visitor.get(visitor, "/here/"))

    @pytest.mark.parametrize("debug", [False, True])
    def test_in_a_middleware(self, visitor, mount, break_both, settings, debug):
        settings.DEBUG = debug
        mount(plain, "tests.test_outages.touch_user")
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_a_middleware_on_the_way_out(self, visitor, mount, break_both):
        mount(plain, "tests.test_outages.touch_session_on_the_way_out")
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_djangos_login_required_middleware(self, visitor, mount, break_both):
        mount(plain, "django.contrib.auth.middleware.LoginRequiredMiddleware")
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_djangos_csrf_middleware(self, visitor, mount, break_both, settings):
        settings.CSRF_USE_SESSIONS = True
        mount(plain)
        break_both()
        assert is_503(visitor.post("/here/"))

    def test_in_djangos_message_middleware(self, visitor, mount, break_both, settings):
        settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

        def view(request):
            from django.contrib import messages

            messages.info(request, "something to store")
            return HttpResponse("done")

        mount(view)
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_a_decorator(self, visitor, break_both):
        break_both()
        assert is_503(visitor.get(reverse("till")))

    def test_in_the_save_at_the_end(self, visitor, mount, break_both):
        def view(request):
            request.session["number"] = 7
            break_both()
            return HttpResponse("done")

        mount(view)
        response = visitor.get("/here/")
        assert is_503(response)
        assert b"done" not in response.content

    def test_in_the_save_at_the_end_of_an_outage_that_begins_with_the_write(
        self, visitor, mount, break_both, settings
    ):
        settings.SESSION_SAVE_EVERY_REQUEST = True
        mount(plain)
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_a_template(self, visitor, mount, break_both):
        template = engines["django"].from_string("Number {{ request.session.number }}")

        def view(request):
            break_both()
            return TemplateResponse(request, template)

        mount(view)
        assert is_503(visitor.get("/here/"))

    def test_in_a_template_that_a_view_renders(self, visitor, mount, break_both):
        template = engines["django"].from_string("Hello {{ user.username }}")

        def view(request):
            break_both()
            return HttpResponse(template.render({}, request))

        mount(view)
        assert is_503(visitor.get("/here/"))

    def test_a_change_that_came_before_it_is_not_saved(self, visitor, mount, break_both, hot, cold):
        def view(request):
            request.session["number"] = 7
            request.session.clear_expired  # noqa: B018
            break_both()
            request.session.flush()

        mount(view)
        assert is_503(visitor.get("/here/"))
        mend(hot)
        mend(cold)
        until(lambda: visitor.get(reverse("till")).status_code == 200)
        assert visitor.items == {"mug": 1}

    @pytest.mark.parametrize("where", ["view", "middleware", "save"])
    def test_under_asgi(self, visitor, mount, break_both, where):
        async def view(request):
            if where == "save":
                await request.session.aset("number", 7)
                break_both()
            elif where == "view":
                await request.session.aget("number")
            return HttpResponse("done")

        mount(view, *(["tests.test_outages.touch_user"] if where == "middleware" else []))
        client = AsyncClient(raise_request_exception=False)
        client.cookies[COOKIE] = visitor.cookie
        if where != "save":
            break_both()

        began = time.monotonic()
        response = async_to_sync(client.get)("/here/")

        assert time.monotonic() - began < SLOWEST
        assert is_503(response)

    def test_under_asgi_the_same_cookie_works_afterwards(
        self, visitor, mount, break_both, hot, cold
    ):
        mount(remember_number_async)
        client = AsyncClient(raise_request_exception=False)
        client.cookies[COOKIE] = visitor.cookie
        async_to_sync(client.post)("/here/", {"number": 7})
        hot.freeze()
        assert async_to_sync(client.get)("/here/").json() == {"number": 7}
        hot.thaw()
        break_both()
        # The number is still in the memory of this process, the next one's is not.
        until(lambda: True)
        assert async_to_sync(client.get)("/here/").json() == {"number": 7}
