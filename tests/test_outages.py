"""What a browser sees of an outage: the shop on real servers that are killed and frozen.

``Visitor`` looks at every answer: it comes within 3 s (G10) and leaves the cookie alone (G1).
"""

import time

import pytest
from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.http import HttpResponse, JsonResponse
from django.template import RequestContext, Template, engines
from django.template.response import TemplateResponse
from django.test import AsyncClient
from django.urls import path, reverse
from servers import Dynalite, Memcached
from shop.urls import urlpatterns

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.hot import State
from django_dynamo_failover.keys import storage_id
from tests.conftest import require
from tests.web import (
    COOKIE,
    PASSWORD,
    SLOWEST,
    USER,
    Visitor,
    is_503,
    takes_cookie,
    until,
    visitor_with,
)

pytestmark = pytest.mark.django_db

#: What is pending at the end of a test is of no interest.
QUICK = {"SHUTDOWN_TIMEOUT": 0.1, "BOTO_SESSION": "tests.web.boto_session"}


@pytest.fixture(autouse=True)
def manager(settings):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        "shop.pins.PinHasher",
    ]
    return get_user_model().objects.create_superuser(USER, password=PASSWORD)


@pytest.fixture(scope="module")
def hot_server():
    require(Memcached)
    with Memcached() as server:
        yield server


@pytest.fixture(scope="module")
def cold_server(tmp_path_factory):
    require(Dynalite)
    with Dynalite(path=tmp_path_factory.mktemp("tables")) as server:
        yield server


@pytest.fixture
def hot(hot_server):
    """A memcached that may be killed and frozen."""
    hot_server.flush()
    yield hot_server
    mend(hot_server)


@pytest.fixture
def cold(cold_server):
    """A dynalite that may be killed and frozen: it keeps its tables."""
    yield cold_server
    mend(cold_server)


@pytest.fixture
def shop(make_engine, hot, cold):
    return make_engine(hot, cold, **QUICK)


@pytest.fixture
def visitor(shop):
    """Someone who is logged in, with a mug in the cart, all of it in both tiers."""
    visitor = Visitor()
    assert visitor.enter().status_code == 302
    visitor.add("mug")
    settle(shop)
    return visitor


@pytest.fixture
def other(shop):
    """What another process of the site has. Nothing runs in its background yet."""
    other = runtime.build(runtime.config())
    yield other
    other.writer.close(0)


@pytest.fixture
def mount(settings):
    """``mount(view, *middleware)``: put a view at /here/, and middleware below all others."""

    def mount(view, *middleware):
        settings.ROOT_URLCONF = (path("here/", view), *urlpatterns)
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, *middleware]

    return mount


def kill(server):
    server.kill()


def freeze(server):
    server.freeze()


def restart(server):
    server.restart()


def throttle(server):
    server.fail("*", "ThrottlingException", times=None)


def err(server):
    server.fail("*", "InternalServerError", status=500, times=None)


def lose_replies(server):
    server.fail("*", "drop", times=None, after=True)


def mend(server):
    if server.pid is None:
        server.start()
    server.thaw()
    if isinstance(server, Dynalite):
        server.heal()


each_hot_outage = pytest.mark.parametrize("break_hot", [kill, freeze, restart])
each_cold_outage = pytest.mark.parametrize(
    "break_cold", [kill, freeze, throttle, err, lose_replies]
)
both_down = pytest.mark.parametrize(
    ("break_hot", "break_cold"), [(kill, kill), (freeze, freeze), (kill, throttle)]
)


def settle(engine):
    """Bring all that is pending to DynamoDB, as WRITE_INTERVAL would."""
    assert engine.runtime.writer.flush(5) == 0


def hits(engine):
    return engine.runtime.metrics.snapshot()["hot_hits"]


def until_memcached_serves(engine, ask):
    """Ask until it is memcached that answers."""
    had = hits(engine)

    def is_served():
        ask()
        return hits(engine) > had

    until(is_served, within=5)


def until_dynamodb_is_asked(engine):
    """Wait for the breaker to let calls through again."""

    def is_asked():
        try:
            engine.runtime.cold.read(storage_id("nobody"))
        except ColdUnavailable:
            return False
        return True

    until(is_asked)


class TestMemcachedFails:
    @each_hot_outage
    def test_nobody_is_logged_out(self, shop, visitor, hot, break_hot):
        break_hot(hot)
        for _ in range(20):
            assert visitor.user == USER
        assert visitor.get(reverse("till")).status_code == 200
        mend(hot)
        until_memcached_serves(shop, lambda: visitor.items)

    @each_hot_outage
    def test_who_logs_in_meanwhile_stays_logged_in(self, shop, hot, break_hot):
        break_hot(hot)
        visitor = Visitor()
        assert visitor.enter().status_code == 302
        assert visitor.user == USER
        mend(hot)
        until_memcached_serves(shop, lambda: visitor.items)

    @each_hot_outage
    def test_a_cart_that_grows_meanwhile_is_never_seen_smaller(self, shop, visitor, hot, break_hot):
        def look(number):
            assert visitor.items == {"mug": 1, "espresso": number}

        break_hot(hot)
        for number in range(1, 4):
            assert visitor.add("espresso").status_code == 302
            look(number)
        mend(hot)
        until_memcached_serves(shop, lambda: look(3))
        assert visitor.add("espresso").status_code == 302
        look(4)
        settle(shop)
        hot.restart()
        look(4)

    def test_another_process_sees_the_cart_that_grew_meanwhile(self, shop, visitor, other, hot):
        id = storage_id(visitor.cookie)
        hot.freeze()
        visitor.add("espresso")
        newest = other.store.load(id).record.payload
        hot.thaw()

        def sees_it_in_memcached():
            assert other.store.load(id).record.payload == newest
            return other.metrics.snapshot()["hot_hits"]

        until(sees_it_in_memcached)

    def test_a_process_that_noticed_nothing_sees_it_soon(self, shop, visitor, other, hot):
        id = storage_id(visitor.cookie)
        hot.freeze()
        visitor.add("espresso")
        newest = shop.runtime.store.load(id).record.payload
        hot.thaw()

        # Nobody asks the process that knows.
        until(lambda: other.store.load(id).record.payload == newest, within=5)

    @each_hot_outage
    def test_a_change_from_right_before_it_is_still_there(self, visitor, hot, break_hot):
        visitor.add("kettle")  # DynamoDB would have it in 15 minutes

        break_hot(hot)

        assert visitor.items == {"mug": 1, "kettle": 1}

    def test_a_change_from_right_before_it_does_not_stay_in_one_process(self, visitor, shop, hot):
        visitor.add("kettle")
        hot.kill()

        until(lambda: shop.runtime.writer.pending_count == 0, within=4)

    @pytest.mark.parametrize("break_hot", [kill, restart])
    @pytest.mark.parametrize("first", ["here", "there"])
    def test_two_processes_change_a_session_that_it_has_lost(
        self, visitor, shop, other, hot, monkeypatch, break_hot, first
    ):
        processes = {"here": shop.runtime, "there": other}
        for name, process in processes.items():
            monkeypatch.setattr(runtime, "_current", process)
            session = shop.store(visitor.cookie)
            session[name] = 1
            session.save()
            if name == "here":
                break_hot(hot)
        for name in sorted(processes, key=lambda name: name != first):
            assert processes[name].writer.flush(5) == 0
        monkeypatch.setattr(runtime, "_current", processes["here"])

        session = shop.store(visitor.cookie)
        assert (session.get("here"), session.get("there")) == (1, 1)

    @pytest.mark.parametrize("look", [None, "here", "there"])
    @pytest.mark.parametrize("first", ["here", "there"])
    def test_the_later_of_two_changes_to_one_cart_stands(
        self, visitor, shop, other, hot, monkeypatch, first, look
    ):
        """The second process saw the first one's change, which is part of its own."""
        processes = {"here": shop.runtime, "there": other}

        def session_in(name):
            monkeypatch.setattr(runtime, "_current", processes[name])
            return shop.store(visitor.cookie)

        for name, cart in {"here": {"mug": 2}, "there": {"mug": 2, "kettle": 1}}.items():
            session = session_in(name)
            session["cart"] = cart
            session.save()
        hot.restart()
        if look:
            session_in(look).get("cart")
        for name in sorted(processes, key=lambda name: name != first):
            assert processes[name].writer.flush(5) == 0

        assert session_in("here")["cart"] == {"mug": 2, "kettle": 1}
        hot.restart()
        assert session_in("there")["cart"] == {"mug": 2, "kettle": 1}

    def test_a_memcached_that_flaps_is_not_noticed(self, visitor, hot):
        for number in range(1, 6):
            hot.kill()
            visitor.add("espresso")
            hot.start()
            assert visitor.items == {"mug": 1, "espresso": number}

    def test_a_frozen_one_costs_a_timeout_now_and_then_and_not_one_a_page(self, visitor, hot):
        visitor.user  # noqa: B018
        hot.freeze()
        times = []
        for _ in range(30):
            began = time.monotonic()
            visitor.user  # noqa: B018
            times.append(time.monotonic() - began)

        assert sum(took > 0.4 for took in times) <= 3


class TestDynamoDBFails:
    @each_cold_outage
    def test_pages_and_changes_go_on(self, shop, visitor, cold, break_cold):
        break_cold(cold)
        for number in range(1, 6):
            assert visitor.add("espresso").status_code == 302
            assert visitor.items == {"mug": 1, "espresso": number}
        mend(cold)
        until_dynamodb_is_asked(shop)
        settle(shop)
        shop.hot.flush()
        assert visitor.items == {"mug": 1, "espresso": 5}

    @each_cold_outage
    def test_a_login_is_refused_and_the_same_credentials_work_afterwards(
        self, shop, cold, break_cold
    ):
        visitor = Visitor()
        break_cold(cold)
        assert is_503(visitor.enter())
        assert visitor.cookie is None
        assert visitor.user is None
        mend(cold)
        until(lambda: visitor.enter().status_code == 302)
        assert visitor.user == USER
        shop.hot.flush()
        assert visitor.user == USER

    @pytest.mark.parametrize("break_cold", [kill, freeze, lose_replies])
    def test_a_refused_login_leaves_what_the_visitor_had_before(
        self, shop, cold, mount, break_cold
    ):
        mount(remember_number)
        visitor = Visitor()
        visitor.post("/here/", {"number": 7})  # as a cart that is filled before the login
        settle(shop)
        break_cold(cold)
        assert is_503(visitor.enter())
        assert visitor.get("/here/").json() == {"number": 7}
        mend(cold)
        until(lambda: visitor.enter().status_code == 302)
        assert visitor.get("/here/").json() == {"number": 7}

    @pytest.mark.parametrize(
        ("answer", "after"),
        [("drop", False), ("ThrottlingException", False), ("drop", True), ("hang", True)],
    )
    def test_a_login_survives_one_lost_request_or_reply(self, shop, cold, answer, after):
        cold.fail("PutItem", answer, times=1, after=after)
        visitor = Visitor()

        assert visitor.enter().status_code == 302
        shop.hot.flush()
        assert visitor.user == USER

    @pytest.mark.parametrize(("break_cold", "dirty"), [(kill, False), (kill, True), (freeze, True)])
    def test_a_lease_that_ends_meanwhile_logs_nobody_out(
        self, make_engine, hot, cold, break_cold, dirty
    ):
        engine = make_engine(hot, cold, WRITE_INTERVAL=0.05, **QUICK)
        visitor = Visitor()
        visitor.enter()
        visitor.add("mug")
        settle(engine)
        break_cold(cold)
        if dirty:
            visitor.add("mug")

        def lease_is_over():
            assert visitor.items == {"mug": 2 if dirty else 1}
            return engine.runtime.metrics.snapshot()["trusted"]

        until(lease_is_over)

    @pytest.mark.parametrize("dirty", [False, True])
    def test_a_lease_that_ends_without_an_outage_logs_nobody_out(
        self, make_engine, hot, cold, dirty
    ):
        engine = make_engine(hot, cold, WRITE_INTERVAL=0.05, NEW_SESSION_DELAY=60, **QUICK)
        visitor = Visitor()
        visitor.enter()
        visitor.add("mug")
        if not dirty:
            settle(engine)

        def lease_is_over():
            assert visitor.items == {"mug": 1}
            return engine.runtime.metrics.snapshot()["renewed"] > 3

        until(lease_is_over)


class TestBothFail:
    @both_down
    def test_the_answer_is_503_and_the_same_cookie_works_afterwards(
        self, visitor, hot, cold, break_hot, break_cold
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
    def test_a_login_is_refused_and_works_afterwards(self, shop, hot, cold, break_hot, break_cold):
        visitor = Visitor()
        break_hot(hot)
        break_cold(cold)
        assert is_503(visitor.enter())
        assert visitor.cookie is None
        mend(hot)
        mend(cold)
        until(lambda: visitor.enter().status_code == 302)
        assert visitor.user == USER

    @both_down
    def test_who_has_no_session_sees_nothing_of_it(self, shop, hot, cold, break_hot, break_cold):
        break_hot(hot)
        break_cold(cold)
        assert Visitor().get(reverse("login")).status_code == 200
        assert Visitor().get(reverse("ping")).status_code == 200

    def test_what_is_pending_in_this_process_is_served_from_there(self, visitor, hot, cold):
        visitor.add("kettle")
        hot.kill()
        throttle(cold)

        assert visitor.items == {"mug": 1, "kettle": 1}


class TestLogout:
    def is_dead(self, cookie):
        """Tell whether nobody is logged in with this cookie any more."""
        return visitor_with(cookie).user is None

    @pytest.mark.parametrize("break_cold", [kill, freeze, lose_replies])
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
        throttle(cold)
        assert visitor.leave().status_code == 302
        hot.restart()
        cold.heal()

        def is_revoked():
            response = visitor_with(cookie).get(reverse("status-json"))
            assert response.status_code == 503 or response.json()["user"] is None, "it came back"
            return f"revoked:{storage_id(cookie)}" in shop.items()

        until(is_revoked)

    @each_hot_outage
    def test_it_is_final_with_memcached_down(self, visitor, hot, break_hot):
        cookie = visitor.cookie
        break_hot(hot)
        response = visitor.leave()
        assert response.status_code == 302
        assert takes_cookie(response)
        for _ in range(3):
            assert self.is_dead(cookie)

    @pytest.mark.parametrize("told", [True, False])
    def test_memcached_thaws_with_the_old_session_still_in_it(self, shop, visitor, hot, told):
        cookie = visitor.cookie
        hot.freeze()
        if not told:  # the breaker opens, and memcached is not even sent the tombstone
            assert visitor.user == USER
        assert visitor.leave().status_code == 302
        hot.thaw()

        def is_buried():
            assert self.is_dead(cookie), "it came back"
            return old_session_is_gone(shop.runtime, cookie)

        until(is_buried)

    def test_memcached_thaws_in_front_of_another_process(self, shop, visitor, other, hot):
        id = storage_id(visitor.cookie)
        hot.freeze()
        assert visitor.user == USER
        assert other.store.load(id) is not None
        assert visitor.leave().status_code == 302
        hot.thaw()

        def is_buried():
            assert other.store.load(id) is None, "it came back"
            return other.store._hot.is_up

        until(is_buried)

    @both_down
    def test_it_is_not_pretended_when_both_are_down(
        self, visitor, hot, cold, break_hot, break_cold
    ):
        break_hot(hot)
        break_cold(cold)
        assert is_503(visitor.leave())
        mend(hot)
        mend(cold)
        until(lambda: visitor.get(reverse("till")).status_code == 200)
        assert visitor.items == {"mug": 1}
        until(lambda: visitor.leave().status_code == 302)

    @pytest.mark.parametrize(("break_hot", "break_cold"), [(kill, kill), (kill, throttle)])
    def test_a_refused_one_loses_no_change(self, visitor, hot, cold, break_hot, break_cold):
        visitor.add("kettle")  # DynamoDB would have it in 15 minutes
        break_hot(hot)
        break_cold(cold)
        assert is_503(visitor.leave())
        mend(hot)
        mend(cold)
        until(lambda: visitor.get(reverse("till")).status_code == 200)
        assert visitor.items == {"mug": 1, "kettle": 1}


def old_session_is_gone(run, cookie):
    """Tell whether memcached answers, and does not have the session any more."""
    hot = run.store._hot
    return hot.is_up and hot.get(storage_id(cookie)).state is not State.LIVE


def remember_number(request):
    """A view: keep a number in the session, or tell it."""
    if request.method == "POST":
        request.session["number"] = int(request.POST["number"])
    return JsonResponse({"number": request.session.get("number")})


def plain(request):
    """A view without any interest in the session."""
    return HttpResponse("done")


def touch_user(get_response):
    """A middleware: wants to know who it is, as many do."""

    def middleware(request):
        request.is_known = request.user.is_authenticated
        return get_response(request)

    return middleware


def flush_session(get_response):
    """A middleware: ends the session, as one that times sessions out does."""

    def middleware(request):
        request.session.flush()
        return get_response(request)

    return middleware


def cycle_session(get_response):
    """A middleware: gives the session a new key."""

    def middleware(request):
        request.session.cycle_key()
        return get_response(request)

    return middleware


def save_session(get_response):
    """A middleware: saves the session itself."""

    def middleware(request):
        request.session["number"] = 7
        request.session.save()
        return get_response(request)

    return middleware


def break_while_it_runs(get_response):
    """A middleware: reads the session, then both tiers go down."""

    def middleware(request):
        request.session.get("number")
        break_while_it_runs.now()
        return get_response(request)

    return middleware


def touch_session_on_the_way_out(get_response):
    """A middleware: reads the session when the view is done."""

    def middleware(request):
        response = get_response(request)
        response["X-Number"] = request.session.get("number", 0)
        return response

    return middleware


class TestWhereverItIsRaised:
    """``SessionUnavailable`` is a 503, never a 500, and the session is as it was afterwards."""

    @pytest.fixture
    def break_both(self, settings, shop, visitor, hot, cold):
        middleware = settings.MIDDLEWARE

        def break_both():
            hot.kill()
            throttle(cold)

        yield break_both
        settings.MIDDLEWARE = middleware
        mend(hot)
        mend(cold)
        shop.restart()  # not to wait for the breakers
        assert visitor.items == {"mug": 1}
        assert visitor.session.get("number") is None

    def test_in_a_view(self, visitor, mount, break_both):
        mount(remember_number)
        break_both()
        assert is_503(visitor.get("/here/"))
        assert is_503(visitor.post("/here/", {"number": 7}))

    def test_in_a_decorator(self, visitor, break_both):
        break_both()
        assert is_503(visitor.get(reverse("till")))

    @pytest.mark.parametrize("debug", [False, True])
    def test_in_a_middleware(self, visitor, mount, break_both, settings, debug):
        settings.DEBUG = debug
        mount(plain, "tests.test_outages.touch_user")
        break_both()
        assert is_503(visitor.get("/here/"))

    @pytest.mark.parametrize("name", ["flush_session", "cycle_session", "save_session"])
    def test_in_a_middleware_that_does_not_even_read(self, visitor, mount, break_both, name):
        mount(plain, f"tests.test_outages.{name}")
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_a_middleware_when_the_session_was_read_before(self, visitor, mount, break_both):
        break_while_it_runs.now = break_both
        mount(plain, "tests.test_outages.break_while_it_runs", "tests.test_outages.flush_session")
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
        # Django's own 500 page asks for the CSRF token, so for the session, once more.
        settings.CSRF_USE_SESSIONS = True
        mount(plain)
        break_both()
        assert is_503(visitor.post("/here/"))

    def test_in_djangos_message_middleware(self, visitor, mount, break_both, settings):
        settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

        def view(request):
            messages.info(request, "something to store")
            return HttpResponse("done")

        mount(view)
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_a_template(self, visitor, mount, break_both):
        template = engines["django"].from_string("Number {{ request.session.number }}")

        def view(request):
            break_both()
            return TemplateResponse(request, template)

        mount(view)
        assert is_503(visitor.get("/here/"))

    def test_in_a_template_that_the_view_renders(self, visitor, mount, break_both):
        template = engines["django"].from_string("Hello {{ user.username }}")

        def view(request):
            break_both()
            return HttpResponse(template.render({}, request))

        mount(view)
        assert is_503(visitor.get("/here/"))

    def test_in_the_save_at_the_end(self, visitor, mount, break_both):
        def view(request):
            request.session["number"] = 7
            break_both()
            return HttpResponse("done")

        mount(view)
        response = visitor.get("/here/")
        assert is_503(response)
        assert b"done" not in response.content

    def test_in_the_save_of_a_page_that_did_not_ask(self, visitor, mount, break_both, settings):
        settings.SESSION_SAVE_EVERY_REQUEST = True
        mount(plain)
        break_both()
        assert is_503(visitor.get("/here/"))

    def test_in_flush(self, visitor, mount, break_both):
        def view(request):
            request.session["number"] = 7
            break_both()
            request.session.flush()

        mount(view)
        assert is_503(visitor.get("/here/"))

    def test_in_cycle_key(self, visitor, mount, break_both):
        def view(request):
            request.session["number"] = 7
            break_both()
            request.session.cycle_key()

        mount(view)
        assert is_503(visitor.get("/here/"))

    @pytest.mark.parametrize("where", ["view", "middleware", "save"])
    def test_under_asgi(self, visitor, mount, break_both, where):
        async def view(request):
            if where == "view":
                await request.session.aget("number")
            if where == "save":
                await request.session.aset("number", 7)
                break_both()
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


def log_in(request):
    """A view: log someone in, whatever the session says."""
    from django.contrib.auth import login

    login(request, get_user_model().objects.get())
    return HttpResponse("done")


class TestAnonymous:
    """``ON_UNAVAILABLE = "anonymous"``: the page without a session, and nothing more."""

    @pytest.fixture
    def shop(self, make_engine, hot, cold):
        return make_engine(hot, cold, ON_UNAVAILABLE="anonymous", **QUICK)

    @pytest.fixture
    def broken(self, shop, visitor, hot, cold):
        hot.kill()
        throttle(cold)
        yield
        # What a request without its session did, it did to nobody's.
        mend(hot)
        mend(cold)
        shop.restart()  # not to wait for the breakers
        assert visitor.items == {"mug": 1}
        assert visitor.session.get("number") is None

    def test_the_page_is_there_without_the_session(self, visitor, broken):
        for _ in range(3):
            response = visitor.get(reverse("status-json"))
            assert response.status_code == 200
            assert response.json()["user"] is None
            assert COOKIE not in response.cookies

    def test_the_page_can_say_so(self, visitor, mount, hot, cold, shop):
        def view(request):
            template = "{% if request.session.unavailable %}Please come back.{% endif %}"
            return HttpResponse(Template(template).render(RequestContext(request)))

        mount(view)
        assert visitor.get("/here/").content == b""
        hot.kill()
        throttle(cold)
        response = visitor.get("/here/")
        assert response.content == b"Please come back."
        assert "Cookie" in response["Vary"]

    def test_no_cache_takes_it_for_everyones_page(self, visitor, mount, broken):
        mount(remember_number)
        assert "Cookie" in visitor.get("/here/").get("Vary", "")

    def test_a_page_for_members_asks_for_a_login(self, visitor, broken):
        response = visitor.get(reverse("till"))
        assert response.status_code == 302
        assert COOKIE not in response.cookies

    def test_what_the_view_writes_is_not_saved(self, visitor, mount, broken):
        mount(remember_number)
        response = visitor.post("/here/", {"number": 7})
        assert response.json() == {"number": 7}
        assert COOKIE not in response.cookies

    def test_a_view_that_only_writes_saves_nothing_either(self, visitor, mount, broken):
        def view(request):
            request.session.modified = True
            return HttpResponse("done")

        mount(view)
        response = visitor.get("/here/")
        assert response.status_code == 200
        assert COOKIE not in response.cookies

    def test_saving_every_request_changes_no_cookie(self, visitor, mount, broken, settings):
        settings.SESSION_SAVE_EVERY_REQUEST = True
        mount(plain)
        response = visitor.get("/here/")
        assert response.status_code == 200
        assert COOKIE not in response.cookies

    def test_memcached_comes_back_before_the_end_of_the_request(
        self, visitor, mount, hot, cold, shop
    ):
        def view(request):
            request.session["number"] = 7
            mend(hot)
            mend(cold)
            until_dynamodb_is_asked(shop)
            until(shop.runtime.store._hot._cache._shards[0].breaker.allow)
            return HttpResponse("done")

        mount(view)
        hot.freeze()
        cold.fail("*", "InternalServerError", status=500, times=None)
        response = visitor.get("/here/")
        assert response.status_code == 200
        assert COOKIE not in response.cookies
        assert visitor.session.get("number") is None
        assert visitor.items == {"mug": 1}

    def test_a_login_does_not_touch_the_session_of_the_cookie(self, visitor, mount, broken):
        mount(log_in)
        response = visitor.get("/here/")
        assert response.status_code in (200, 503)
        assert COOKIE not in response.cookies

    def test_a_login_that_cannot_be_kept_is_not_pretended(self, shop, hot, cold):
        hot.kill()
        throttle(cold)
        newcomer = Visitor()
        assert is_503(newcomer.enter())

    def test_a_logout_that_cannot_be_kept_is_not_pretended(self, visitor, broken):
        assert is_503(visitor.leave())

    def test_under_asgi(self, visitor, mount, broken):
        async def view(request):
            await request.session.aset("number", 7)
            return JsonResponse({"mug": await request.session.aget("cart")})

        mount(view)
        client = AsyncClient(raise_request_exception=False)
        client.cookies[COOKIE] = visitor.cookie
        response = async_to_sync(client.get)("/here/")
        assert response.status_code == 200
        assert response.json() == {"mug": None}
        assert COOKIE not in response.cookies
