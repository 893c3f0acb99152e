"""A crowd of users whose sessions memcached has just lost: for a test and a benchmark."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.http import HttpResponse
from django.test import RequestFactory

from django_dynamo_failover import runtime
from django_dynamo_failover.middleware import SessionMiddleware
from django_dynamo_failover.sessions import SessionStore

from .web import COOKIE, takes_cookie, until


def show(request):
    """A view: the number that was put into the session."""
    return HttpResponse(str(request.session.get("number")))


@dataclass(frozen=True)
class Rush:
    """What the users saw."""

    seconds: float  # until each had his page
    pages: int
    logged_out: int
    unavailable: int
    slowest: float


class Herd:
    """Sessions, every second one with a login, and threads that serve their pages."""

    def __init__(self, sessions, threads):
        self.threads = threads
        self.keys = []
        for number in range(sessions):
            session = SessionStore()
            session["number"] = number
            if number % 2:
                session[SESSION_KEY] = str(number)
                session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
                session[HASH_SESSION_KEY] = "0" * 64
            session.save()
            self.keys.append(session.session_key)
        writer = runtime.current().writer
        assert writer.flush(120) == 0
        # What is still to be noted would fill the memcached that has lost all.
        until(lambda: not writer._jobs._jobs and not writer._jobs._running, within=120)
        self._serve = SessionMiddleware(show)

    def warm_up(self):
        """Read each session once; DynamoDB must be at full speed."""
        with ThreadPoolExecutor(self.threads) as pool:
            assert all(pool.map(self._is_there, range(len(self.keys))))

    def _is_there(self, number):
        return SessionStore(self.keys[number]).get("number") == number

    def rush(self):
        """Let each user come, two of three more than once, and again after a 503."""
        crowd = list(range(len(self.keys))) * 3
        random.shuffle(crowd)
        lock = threading.Lock()
        seen = Counter()
        times = []

        def work():
            while True:
                with lock:
                    if not crowd:
                        return
                    number = crowd.pop()
                began = time.monotonic()
                what = self._page(number)
                took = time.monotonic() - began
                with lock:
                    seen[what] += 1
                    times.append(took)
                    if what == "unavailable":
                        crowd.insert(random.randrange(len(crowd) + 1), number)
                if what == "unavailable":
                    time.sleep(0.1)  # a browser would wait for 5 s

        began = time.monotonic()
        with ThreadPoolExecutor(self.threads) as pool:
            for thread in [pool.submit(work) for _ in range(self.threads)]:
                thread.result()
        return Rush(
            seconds=time.monotonic() - began,
            pages=seen.total(),
            logged_out=seen["logged out"],
            unavailable=seen["unavailable"],
            slowest=max(times),
        )

    def _page(self, number):
        request = RequestFactory().get("/")
        request.COOKIES[COOKIE] = self.keys[number]
        response = self._serve(request)
        if response.status_code == 503:
            assert not response.cookies
            return "unavailable"
        if takes_cookie(response) or response.content != str(number).encode():
            return "logged out"
        return "fine"
