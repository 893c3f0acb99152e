"""The shop under web servers other than gunicorn's threads (see test_processes.py), for real.

Each has a day of its own: logins, changes, a rush, an idle user, the loss of memcached; and it is
ended right after changes, which all have to be in DynamoDB then.
"""

import importlib.util
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import HOST, Memcached
from shop.demo.datacenter import PROJECT_DIR

from tests.operating import open_till
from tests.web import USER, WebProcess, until


class Uvicorn(WebProcess):
    """The shop as an ASGI application."""

    module = "uvicorn"

    def __init__(self, environment, *, application="shop.asgi:application", **options):
        super().__init__(environment, application=application, **options)

    def argv(self):
        address = ["--host", HOST, "--port", str(self.port)]
        return [
            *(sys.executable, "-m", "uvicorn", "--app-dir", str(PROJECT_DIR), *address),
            *("--workers", str(self.workers), self.application),
        ]


class Uwsgi(WebProcess):
    """The shop under uWSGI; ``options`` are more of its own."""

    module = "pyuwsgi"

    def argv(self):
        options = {
            "http_socket": self.address,
            "chdir": PROJECT_DIR,
            "module": self.application,
            "processes": self.workers,
            "master": True,
            "need_app": True,
            # Not die-on-term: a worker in the middle of a request would skip its hooks at exit.
            "hook_master_start": "unix_signal:15 gracefully_kill_them_all",
            **self.options,
        }
        words = []
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
        return [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", *words]


class Gevent(WebProcess):
    """The shop under gunicorn, with greenlets for threads."""

    module = "gevent"

    def __init__(self, environment, **options):
        super().__init__(environment, worker_class="gevent", **options)


class Runserver(WebProcess):
    """Django's development server."""

    def argv(self):
        words = [f"--{name}" for name in self.options]
        return [sys.executable, str(PROJECT_DIR / "manage.py"), "runserver", *words, self.address]


SERVERS = {
    "uvicorn": (Uvicorn, {}),
    "uvicorn, 2 workers": (Uvicorn, {"workers": 2}),
    "uwsgi": (Uwsgi, {"workers": 2, "threads": 4}),
    "uwsgi, lazy": (Uwsgi, {"workers": 2, "enable_threads": True, "lazy_apps": True}),
    "gevent": (Gevent, {"workers": 2}),
    "gevent, preloaded": (Gevent, {"workers": 2, "preload": True, "config": "python:patched"}),
}

#: A configuration of gunicorn: with preload its worker would patch too late.
PATCHED = "from gevent import monkey\nmonkey.patch_all()\n"

#: An application whose parent process has had a session, threads and sockets.
EARLY = """
from django_dynamo_failover import runtime
from django_dynamo_failover.sessions import SessionStore
from shop.wsgi import application

session = SessionStore()
session["early"] = True
session.save()
runtime.current().cold.read("nobody")
"""

#: An application with a view that takes long.
SLOW = """
import time
from shop.wsgi import application
from django.http import HttpResponse
from django.urls import path
from shop import urls

def slow(request):
    time.sleep(1)
    return HttpResponse("done")

urls.urlpatterns.append(path("slow", slow))
"""

#: An application with a view that waits for the session.
ASYNC = """
from shop.asgi import application
from django.http import HttpResponse
from django.urls import path
from shop import urls

async def change(request, sku):
    user = await request.auser()
    await request.session.aset(sku, (await request.session.aget(sku, 0)) + 1)
    return HttpResponse(user.get_username())

urls.urlpatterns.append(path("async/<slug:sku>", change))
"""


def require_module(name):
    """Skip the test, or fail it with REQUIRE_SERVERS=1, if this is not installed."""
    if importlib.util.find_spec(name) is None:
        message = f"{name} is not installed"
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(f"{message}, and REQUIRE_SERVERS=1", pytrace=False)
        pytest.skip(message)


@pytest.fixture
def folder(environment, tmp_path):
    """A folder for modules of the web processes."""
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    return tmp_path


@pytest.fixture
def launch(start, environment, folder):
    """``launch(name, **environment)``: one of the web servers, running."""

    def launch(name, **changed):
        kind, options = SERVERS[name]
        require_module(kind.module)
        (folder / "patched.py").write_text(PATCHED)
        return start(kind, environment={**environment, **changed}, **options)

    return launch


def open_tills(url, number):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: open_till(url, "mug"), range(number)))


def visit_all_workers(web, till):
    """Return once every worker has shown this cart."""
    pids = set()

    def all_have():
        status = till.status(web.url)
        assert status["cart"]["items"] == {"mug": 1}
        pids.add(status["pid"])
        return len(pids) == web.workers

    until(all_have)


def change_all(tills, sku="espresso"):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda till: till.change(sku), tills))


@pytest.mark.parametrize("name", SERVERS)
def test_a_day(launch, start, operator, name):
    hot = start(Memcached)
    web = launch(name, SHOP_MEMCACHED=hot.address, SHOP_WRITE_INTERVAL="1")
    till = open_till(web.url, "mug")
    visit_all_workers(web, till)

    with ThreadPoolExecutor(50) as pool:
        carts = list(pool.map(lambda _: till.status(web.url)["cart"]["items"], range(50)))
    assert carts == [{"mug": 1}] * 50

    till.change("espresso")
    until(lambda: operator.carts([till]) == [{"mug": 1, "espresso": 1}], within=4)

    hot.kill()
    assert till.items == {"mug": 1, "espresso": 1}


@pytest.mark.parametrize("name", SERVERS)
def test_sigterm_right_after_changes(launch, operator, name):
    web = launch(name)
    tills = open_tills(web.url, 10)
    change_all(tills)

    assert web.end(signal.SIGTERM) < 5
    assert operator.carts(tills) == [{"mug": 1, "espresso": 1}] * 10


@pytest.mark.parametrize("name", ["uvicorn", "uwsgi", "gevent"])
def test_dynamodb_is_down_and_the_server_ends_in_time(launch, dynamodb, name):
    web = launch(name, SHUTDOWN_TIMEOUT="1")
    change_all(open_tills(web.url, 3))
    dynamodb.freeze()

    assert web.end(signal.SIGTERM) < 5
    assert "did not reach DynamoDB" in web.output()


def test_async_views_lose_nothing_of_each_other(start, environment, folder, operator):
    require_module("uvicorn")
    (folder / "async_shop.py").write_text(ASYNC)
    web = start(Uvicorn, environment=environment, application="async_shop:application")
    till = open_till(web.url, "mug")
    skus = [f"sku-{number}" for number in range(20)]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda sku: till.get(f"{web.url}/async/{sku}").text, skus))

    assert answers == [USER] * 20
    web.end(signal.SIGTERM)
    assert operator.stored(till.cookie).items() >= dict.fromkeys(skus, 1).items()


def test_the_background_works_though_uwsgi_forks_a_process_that_had_it(
    start, environment, folder, operator
):
    """A fork in C, of which Python is told nothing."""
    require_module("pyuwsgi")
    (folder / "early.py").write_text(EARLY)
    environment["SHOP_WRITE_INTERVAL"] = "1"
    web = start(Uwsgi, environment=environment, application="early", workers=2, threads=4)
    tills = open_tills(web.url, 10)
    change_all(tills)

    until(lambda: operator.carts(tills) == [{"mug": 1, "espresso": 1}] * 10, within=4)


def test_uwsgi_is_ended_in_the_middle_of_a_request(start, environment, folder, operator):
    require_module("pyuwsgi")
    (folder / "slow_shop.py").write_text(SLOW)
    web = start(Uwsgi, environment=environment, application="slow_shop", threads=4)
    till = open_till(web.url, "mug")

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(till.get, f"{web.url}/slow")
        time.sleep(0.3)
        assert web.end(signal.SIGTERM) < 5
        assert answer.result().text == "done"
    assert operator.carts([till]) == [{"mug": 1}]


def test_runserver_and_ctrl_c(start, environment, operator):
    web = start(Runserver, environment=environment, noreload=True)
    till = open_till(web.url, "mug")

    web.end(signal.SIGINT)
    assert operator.carts([till]) == [{"mug": 1}]
