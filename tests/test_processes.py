"""What DynamoDB has after a process or a memcached is gone: real web processes, killed and ended.

G2: a login is in DynamoDB before the browser has its cookie. G3: every other change is there
when the process has ended, and soon after memcached has died.
"""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from servers import Memcached

from tests.web import USER, Till, run_python, until

SITES = {
    "gthread": {},
    "sync": {"worker_class": "sync"},
    "preloaded": {"preload": True, "workers": 2},
}


#: What a web server's parent process may do to the sessions before it forks its workers.
PARENTS = {
    "a warm-up request": "from django.test import Client\nClient().get('/ping')\n",
    "a session": (
        "from django_dynamo_failover import runtime\n"
        "from django_dynamo_failover.sessions import SessionStore\n"
        "session = SessionStore()\n"
        "session['early'] = True\n"
        "session.save()\n"
        "runtime.current().cold.read('nobody')\n"  # a client that has a socket
    ),
}


#: A thread that is half through with an import, and goes on with it half a second later.
HALF_IMPORTED = """
import threading
from importlib.machinery import PathFinder

half, go = threading.Event(), threading.Event()

class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "multiprocessing.util":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (half.set(), go.wait(), run(module))
        return spec

sys.meta_path.insert(0, Slow)
assert "multiprocessing.util" not in sys.modules
threading.Thread(target=lambda: __import__("multiprocessing.util")).start()
half.wait()
threading.Timer(0.5, go.set).start()
"""


@pytest.fixture
def onlooker(make_engine, dynamodb, table):
    """Reads sessions from DynamoDB and holds nothing itself."""
    return make_engine(
        None,
        dynamodb,
        table=table,
        cache={"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    )


def stored(onlooker, cookie):
    """Return what DynamoDB has of a session."""
    return onlooker.store(cookie).load()


def stored_carts(onlooker, tills):
    return [stored(onlooker, till.cookie).get("cart") for till in tills]


def open_tills(url, number):
    """Return browsers that have logged in and have a mug in their cart, in DynamoDB as well."""

    def open_till(_):
        till = Till(url)
        till.enter()
        till.change("mug")
        return till

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(open_till, range(number)))


def change_all(tills, sku="espresso"):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda till: till.change(sku), tills))


class TestKilledRightAfterTheResponse:
    def test_memcached_and_the_process_are_killed_and_come_back(self, start, serve):
        hot = start(Memcached)
        web = serve(hot)
        browser = Till(web.url)
        browser.enter()
        hot.kill()
        web.kill()

        hot.start()
        web.start()
        assert browser.items == {}

    def test_the_other_datacenter_knows_every_login(self, start, serve, memcached):
        hot = start(Memcached)
        east, west = serve(hot), serve(memcached)
        tills = [Till(east.url) for _ in range(20)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Till.enter, tills[:-1]))
        tills[-1].enter()
        hot.kill()
        east.kill()

        for till in tills:
            till.url = west.url
            assert till.items == {}

    def test_the_other_datacenter_knows_the_logout(self, start, serve, memcached):
        east, west = serve(start(Memcached)), serve(memcached)
        browser = Till(east.url)
        browser.enter()
        cookie = browser.cookie
        browser.logout(east.url)
        east.kill()

        thief = Till(west.url)
        thief._http.cookies.set("sessionid", cookie, domain="127.0.0.1", path="/")
        assert thief.status(west.url)["user"] is None


class TestEndedRightAfterAChange:
    @pytest.mark.parametrize("kind", SITES)
    def test_sigterm(self, serve, onlooker, kind):
        web = serve(**SITES[kind])
        tills = open_tills(web.url, 20)
        change_all(tills)

        assert web.end(signal.SIGTERM) < 5
        assert stored_carts(onlooker, tills) == [{"mug": 1, "espresso": 1}] * 20

    def test_sighup_replaces_the_workers(self, serve, onlooker):
        web = serve()
        tills = open_tills(web.url, 5)
        change_all(tills)

        web.send(signal.SIGHUP)
        until(lambda: stored_carts(onlooker, tills) == [{"mug": 1, "espresso": 1}] * 5)
        assert tills[0].items == {"mug": 1, "espresso": 1}

    def test_workers_that_are_replaced_after_so_many_requests(self, serve, onlooker):
        web = serve(max_requests=30)
        tills = open_tills(web.url, 5)
        pid = tills[0].status(web.url)["pid"]
        change_all(tills)

        until(lambda: tills[0].status(web.url)["pid"] != pid)
        until(lambda: stored_carts(onlooker, tills) == [{"mug": 1, "espresso": 1}] * 5)

    def test_in_the_middle_of_busy_times(self, serve, onlooker):
        """What a browser was told is there; of what it was not told at most one change is."""
        web = serve()
        tills = open_tills(web.url, 8)
        told = dict.fromkeys(tills, 0)
        ending = threading.Event()

        def work(till):
            while not ending.is_set():
                try:
                    till.change("espresso")
                except (requests.RequestException, AssertionError):
                    if ending.wait(0.01):
                        return
                    raise
                told[till] += 1

        with ThreadPoolExecutor(len(tills)) as pool:
            jobs = [pool.submit(work, till) for till in tills]
            until(lambda: min(told.values()) > 3)
            threading.Timer(0, ending.set).start()
            web.end(signal.SIGTERM)
            for job in jobs:
                job.result()

        for till, cart in zip(tills, stored_carts(onlooker, tills), strict=True):
            assert told[till] <= cart["espresso"] <= told[till] + 1

    @pytest.mark.parametrize("parent", PARENTS)
    def test_what_the_preloading_parent_did_harms_no_worker(
        self, serve, onlooker, environment, tmp_path, parent
    ):
        (tmp_path / "early.py").write_text("from shop.wsgi import application\n" + PARENTS[parent])
        environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
        web = serve(application="early:application", preload=True, workers=2)
        tills = open_tills(web.url, 10)
        change_all(tills)

        web.end(signal.SIGTERM)
        assert stored_carts(onlooker, tills) == [{"mug": 1, "espresso": 1}] * 10

    def test_dynamodb_is_down_and_the_process_ends_in_time(
        self, serve, dynamodb, environment, onlooker
    ):
        environment["SHUTDOWN_TIMEOUT"] = "1"
        web = serve()
        tills = open_tills(web.url, 3)
        change_all(tills)
        dynamodb.freeze()

        assert web.end(signal.SIGTERM) < 4
        dynamodb.thaw()
        assert all(cart.get("mug") == 1 for cart in stored_carts(onlooker, tills) if cart)


SESSION = """
import os, sys, threading
from django_dynamo_failover import runtime
from django_dynamo_failover.sessions import SessionStore

def change():
    session = SessionStore()
    session["number"] = 1
    session.save()
    session["number"] = 2
    session.save()
    print(session.session_key, flush=True)
"""


class TestPlainProcesses:
    """Not a web server: a script, a management command, a task queue's worker."""

    @pytest.mark.parametrize(
        "end",
        [
            "",
            "sys.exit(3)",
            "raise ValueError('a bug')",
            "threading.Thread(target=change).start()",
        ],
        ids=["normal", "sys.exit", "error", "in a last thread"],
    )
    def test_a_process_that_ends(self, environment, onlooker, end):
        done = run_python(environment, f"{SESSION}\nchange()\n{end}\n", check=False)

        cookies = done.stdout.split()
        assert cookies
        for cookie in cookies:
            assert stored(onlooker, cookie) == {"number": 2}

    @pytest.mark.parametrize(
        "fork",
        [
            "pid = os.fork()\nif not pid:\n    change()\n    sys.exit()\nos.waitpid(pid, 0)",
            "import multiprocessing\n"
            "child = multiprocessing.get_context('fork').Process(target=change)\n"
            "child.start()\nchild.join()",
        ],
        ids=["os.fork", "multiprocessing"],
    )
    @pytest.mark.parametrize(
        "before",
        ["", "change()", "change()\nruntime.current().writer.flush(5)"],
        ids=["unused parent", "parent that has just begun", "busy parent"],
    )
    def test_a_forked_child_that_ends(self, environment, onlooker, fork, before):
        done = run_python(environment, f"{SESSION}\n{before}\n{fork}\n")

        cookies = done.stdout.split()
        assert len(cookies) == 1 + before.count("change()")
        for cookie in cookies:
            assert stored(onlooker, cookie) == {"number": 2}

    def test_multiprocessing_is_being_imported_when_it_begins(self, environment, onlooker):
        """By another thread, such as the one that loads boto3."""
        done = run_python(environment, f"{SESSION}\n{HALF_IMPORTED}\nchange()\n")

        [cookie] = done.stdout.split()
        assert stored(onlooker, cookie) == {"number": 2}

    def test_dynamodb_is_down_and_the_process_says_what_is_lost(self, environment, dynamodb):
        environment["SHUTDOWN_TIMEOUT"] = "1"
        end = (
            "change()\nimport time, urllib.request\nprint(time.time(), flush=True)\n"
            f"request = urllib.request.Request('{dynamodb.endpoint_url}/__control', method='POST',"
            ' data=b\'{"fault": {"operation": "*", "answer": "hang", "times": null}}\')\n'
            "urllib.request.urlopen(request).read()\n"
        )
        done = run_python(environment, f"{SESSION}\n{end}")
        ended = time.time()

        assert re.search("1 changes? did not reach DynamoDB", done.stderr)
        assert ended - float(done.stdout.split()[-1]) < 4


class TestMemcachedKilledRightAfterChanges:
    """The processes are alive, so nothing is lost: it only has to get out of their memory."""

    NUMBER = 100

    @pytest.mark.parametrize("comes_back", [False, True])
    def test_every_change_reaches_dynamodb_and_no_older_cart_is_seen(
        self, start, serve, onlooker, comes_back
    ):
        hot = start(Memcached)
        web = serve(hot)
        tills = open_tills(web.url, self.NUMBER)
        change_all(tills)
        hot.kill()
        if comes_back:
            hot.start()
        began = time.monotonic()

        for till in tills:
            assert till.items == {"mug": 1, "espresso": 1}
        until(
            lambda: stored_carts(onlooker, tills) == [{"mug": 1, "espresso": 1}] * self.NUMBER,
            within=5,
        )
        print(f"in DynamoDB after {time.monotonic() - began:.1f} s")
        for till in tills:
            assert till.items == {"mug": 1, "espresso": 1}

    @pytest.mark.parametrize("comes_back", [False, True])
    def test_after_a_few_seconds_every_process_has_them(self, start, serve, comes_back):
        hot = start(Memcached)
        web = serve(hot, workers=2)
        tills = open_tills(web.url, 20)
        change_all(tills)
        hot.kill()
        if comes_back:
            hot.start()

        deadline = time.monotonic() + 4
        pids = set()
        while len(pids) < 2 or time.monotonic() < deadline:
            late = time.monotonic() > deadline
            for till in tills:
                status = till.status(web.url)
                assert status["user"] == USER
                if late:
                    assert status["cart"]["items"] == {"mug": 1, "espresso": 1}
                    pids.add(status["pid"])
