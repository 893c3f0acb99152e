"""The user: a cookie jar that talks HTTP to either datacenter and sees if its cookie is taken."""

import time
from urllib.parse import urlsplit

import requests

SESSION_COOKIE = "sessionid"
TIMEOUT = (1, 6)  # seconds to connect, to answer


class _OneRequestEach(requests.adapters.HTTPAdapter):
    """Keeps no connection open, also where the server does not say that it closes it."""

    def send(self, *args, **options) -> requests.Response:
        answer = super().send(*args, **options)
        self.close()
        return answer


class Browser:
    """A browser in front of the shop. Cookies belong to the host, so both sites get the same.

    Each request is a new connection, so that any process of a site may answer it.
    """

    def __init__(self, cookie: str | None = None) -> None:
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy stands between the demo and itself
        self._http.headers["Connection"] = "close"
        self._http.mount("http://", _OneRequestEach())
        if cookie:
            self._http.cookies.set(SESSION_COOKIE, cookie, domain="127.0.0.1", path="/")
        self.answers = 0
        self.cookie_taken: list[str] = []
        self.last_ms = 0.0

    @property
    def cookie(self) -> str | None:
        """The session key."""
        return self._http.cookies.get(SESSION_COOKIE)

    def get(self, url: str) -> requests.Response:
        """Get a page. Raises ``requests.HTTPError`` for 4xx and 5xx."""
        return self._send("GET", url)

    def post(self, url: str, **fields: str) -> requests.Response:
        """Send a form and follow its redirect."""
        token = self._http.cookies.get("csrftoken", "")
        return self._send("POST", url, data={**fields, "csrfmiddlewaretoken": token})

    def status(self, site: str) -> dict:
        """Return what the site knows of this session."""
        return self.get(f"{site}/status.json").json()

    def login(self, site: str, username: str, password: str) -> requests.Response:
        """Fill in the login form."""
        self.get(f"{site}/login/")
        return self.post(f"{site}/login/", username=username, password=password)

    def add(self, site: str, *skus: str) -> requests.Response:
        """Tap products; return the last page."""
        for sku in skus:
            page = self.post(f"{site}/cart/add/{sku}/")
        return page

    def switch(self, site: str, name: str, pin: str) -> requests.Response:
        """Choose an associate's button on the page and type the PIN."""
        page = self.get(f"{site}/switch/").text
        value = page.split(f"<span>{name}</span>")[0].rpartition('value="')[2].partition('"')[0]
        return self.post(f"{site}/switch/", associate=value, pin=pin)

    def logout(self, site: str) -> requests.Response:
        """Press "Log out"."""
        had = len(self.cookie_taken)
        page = self.post(f"{site}/logout/")
        del self.cookie_taken[had:]  # a logout is the one answer that may take it
        return page

    def _send(self, method: str, url: str, **fields: object) -> requests.Response:
        had, began = self.cookie, time.perf_counter()
        answer = self._http.request(method, url, timeout=TIMEOUT, **fields)
        self.last_ms = 1000 * (time.perf_counter() - began)
        self.answers += 1 + len(answer.history)
        if had and not self.cookie:
            self.cookie_taken.append(f"{method} {urlsplit(url).path}")
        answer.raise_for_status()
        return answer
