"""Browsers in front of the shop: in this process, and of web processes to kill."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from functools import cache

import boto3
from django.test import Client
from django.urls import reverse
from shop.demo.browser import Browser
from shop.demo.datacenter import PROJECT_DIR, Web

#: No answer may take longer, whatever is down. In seconds.
SLOWEST = 3.0

USER, PASSWORD = "mia", "s3same"
COOKIE = "sessionid"


@cache
def boto_session():
    """Return one boto3 session for all tests (BOTO_SESSION): to make a new one takes 60 ms."""
    return boto3.Session()


def until(condition, within=10.0):
    """Return what ``condition`` returns once that is true; fail after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.01)
    return value


def takes_cookie(response):
    """Tell whether an answer deletes the session cookie."""
    morsel = response.cookies.get(COOKIE)
    return morsel is not None and (not morsel.value or morsel["max-age"] == 0)


def is_503(response):
    """Tell whether an answer is a 503, and check that it is one as it should be."""
    if response.status_code != 503:
        return False
    assert int(response["Retry-After"]) > 0
    assert "no-store" in response["Cache-Control"]
    assert COOKIE not in response.cookies
    return True


class Visitor(Client):
    """A browser that sees every answer: none may be slow, or take its session cookie."""

    def __init__(self, **options):
        super().__init__(raise_request_exception=False, **options)
        self.slowest = 0.0

    def request(self, **request):
        self.handler._middleware_chain = None  # settings.MIDDLEWARE may have changed
        began = time.monotonic()
        response = super().request(**request)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        what = f"{request['REQUEST_METHOD']} {request['PATH_INFO']}"
        assert took < SLOWEST, f"{what} took {took:.2f} s"
        if not self.leaving:
            assert not takes_cookie(response), f"{what} took the cookie"
        return response

    #: Whether the user wants to be rid of the cookie.
    leaving = False

    @property
    def cookie(self):
        morsel = self.cookies.get(COOKIE)
        return morsel.value if morsel else None

    def enter(self, password=PASSWORD):
        return self.post(reverse("login"), {"username": USER, "password": password})

    def leave(self):
        self.leaving = True
        try:
            return self.post(reverse("logout"))
        finally:
            self.leaving = False

    def add(self, sku):
        return self.post(reverse("cart-add", args=[sku]))

    def status(self):
        """Return what the shop knows of this session; fail on any answer but 200."""
        response = self.get(reverse("status-json"))
        assert response.status_code == 200, response.content
        return response.json()

    @property
    def user(self):
        return self.status()["user"]

    @property
    def items(self):
        status = self.status()
        assert status["user"] == USER, "logged out"
        return status["cart"]["items"]


def visitor_with(cookie):
    """Return a browser that still has this cookie, and may lose it."""
    visitor = Visitor()
    visitor.cookies[COOKIE] = cookie
    visitor.leaving = True
    return visitor


class Till(Browser):
    """A browser of its own at a web process, at the site ``url``."""

    def __init__(self, url):
        super().__init__()
        self.url = url

    def enter(self):
        """Log in; return with the very answer that sets the cookie, without the next page."""
        self.get(f"{self.url}/login/")
        answer = self._http.post(
            f"{self.url}/login/",
            data={
                "username": USER,
                "password": PASSWORD,
                "csrfmiddlewaretoken": self._http.cookies["csrftoken"],
            },
            allow_redirects=False,
            timeout=SLOWEST,
        )
        assert answer.status_code == 302, answer.text
        assert self.cookie

    def change(self, sku):
        """Put a product into the cart; return with the answer to that."""
        answer = self._http.post(
            f"{self.url}/cart/add/{sku}/",
            data={"csrfmiddlewaretoken": self._http.cookies["csrftoken"]},
            allow_redirects=False,
            timeout=SLOWEST,
        )
        assert answer.status_code == 302, answer.text
        assert answer.headers["Location"] == "/", "logged out"

    @property
    def items(self):
        status = self.status(self.url)
        assert status["user"] == USER, "logged out"
        return status["cart"]["items"]


class WebProcess(Web):
    """The shop under gunicorn, with options of its own for gunicorn."""

    def __init__(self, environment, *, workers=1, application="shop.wsgi", **options):
        super().__init__(environment, workers)
        self.application = application
        self.options = options

    @staticmethod
    def available():
        return importlib.util.find_spec("gunicorn") is not None

    def argv(self):
        words = super().argv()[:-1]
        for name, value in self.options.items():
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
        return [*words, self.application]

    @property
    def url(self):
        return f"http://{self.address}"

    def send(self, number):
        """Send a signal to the master, as systemd and docker do."""
        os.kill(self.pid, number)

    def end(self, number=signal.SIGTERM, within=10.0):
        """Send a signal and wait; return after how many seconds the master had ended."""
        began = time.monotonic()
        self.send(number)
        self._process.wait(within)
        return time.monotonic() - began


def prepare_site(folder):
    """Make the settings module ``fast`` and the database of the shop; return the environment.

    Its passwords are hashed in no time, so that a hundred logins are.
    """
    (folder / "fast.py").write_text(
        "from shop.settings import *\n"
        "PASSWORD_HASHERS = [\n"
        "    'django.contrib.auth.hashers.MD5PasswordHasher',\n"
        "    'shop.pins.PinHasher',\n"
        "]\n"
        "DYNAMO_FAILOVER['SHUTDOWN_TIMEOUT'] = float(os.environ.get('SHUTDOWN_TIMEOUT', '5'))\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}
    environment = {
        **kept,
        "DJANGO_SETTINGS_MODULE": "fast",
        "PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT_DIR), str(PROJECT_DIR.parent)]),
        "PYTHONUNBUFFERED": "1",
        "SHOP_DATABASE": str(folder / "shop.sqlite3"),
        "SHOP_DEBUG": "0",
    }
    run_python(
        environment,
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
        "from django.contrib.auth import get_user_model\n"
        f"get_user_model().objects.create_superuser({USER!r}, password={PASSWORD!r})\n",
    )
    return environment


def run_python(environment, code, *, check=True, timeout=30):
    """Run code in a Python process of the site; return what subprocess.run() does."""
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()\n" + code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert not check or done.returncode == 0, done.stderr
    return done
