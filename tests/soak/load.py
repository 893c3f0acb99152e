"""The users: each takes a session, visits its site for a while, and checks all it is told."""

import queue
import random
import threading
import time
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import requests
from shop import people
from shop.session import ASSOCIATE

from tests.soak.ledger import Ledger, Session
from tests.soak.outages import Outages
from tests.soak.sites import World
from tests.soak.traffic import Traffic

COOKIE = "sessionid"
CSRF = "c" * 32
SLOTS = 6

#: Seconds to connect, and to answer: more than any deadline of the engine on a busy machine.
TIMEOUT = (2.0, 8.0)

#: Of so many people one logs out and in again now and then.
LEAVERS = 10

#: How many people come again and again, and how much of the load they are.
REGULARS, REGULAR = 300, 0.8

#: Seconds between two clicks, at most.
THINKING = 0.15


@dataclass(slots=True)
class Sample:
    """One request. ``at`` is when it was answered; ``outcome`` a status, or what went wrong."""

    at: float
    took: float
    action: str
    site: str
    outcome: str


@dataclass(slots=True)
class Person:
    """Somebody at a till: at home at a site, with a session or about to log in."""

    home: str
    session: Session | None
    leaves: bool


@dataclass
class Crowd:
    """All people: those who come again and again, and those whose sessions are mostly idle."""

    regulars: "queue.SimpleQueue[Person]" = field(default_factory=queue.SimpleQueue)
    others: "queue.SimpleQueue[Person]" = field(default_factory=queue.SimpleQueue)


@dataclass
class Load:
    """What all users share."""

    world: World
    outages: Outages
    traffic: Traffic
    ledger: Ledger
    samples: list[Sample] = field(default_factory=list)
    #: Why requests were answered 503, or broke.
    causes: list[tuple[float, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    #: Sessions that are over: to be tried again at the other site, when each is due.
    dead: deque[tuple[float, str, Session]] = field(default_factory=deque)
    #: How long they were at work, in seconds.
    lasted: float = 0.0
    #: What went wrong with the users themselves.
    failed: list[str] = field(default_factory=list)
    _pairs: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))

    def run(self, crowd: "Crowd", order: random.Random) -> None:
        """Be one user after the other until ``ended``."""
        try:
            self._run(crowd, order)
        except Exception:
            self.failed.append(traceback.format_exc())

    def _run(self, crowd: "Crowd", order: random.Random) -> None:
        while not self.ended.is_set():
            queue = crowd.regulars if order.random() < REGULAR else crowd.others
            person = queue.get()
            try:
                self._visit(person, order)
            finally:
                queue.put(person)

    def _visit(self, person: Person, order: random.Random) -> None:
        site = self.traffic.site_of(person.home)
        browser = Browser(self, site, person.session)
        if person.session is None:
            person.session = browser.log_in()
        self._try_a_dead_one()
        for _ in range(order.randint(2, 8)):
            if person.session is None or self.ended.wait(order.uniform(0, THINKING)):
                return
            if self.traffic.site_of(person.home) != site or not self._act(browser, person, order):
                return

    def _act(self, browser: "Browser", person: Person, order: random.Random) -> bool:
        """Click once; tell whether to go on."""
        dice = order.random()
        slots = order.sample(range(SLOTS), 2)
        if person.leaves and dice < 0.12:
            person.session = browser.log_out()
            return False
        if dice < 0.45:
            return browser.mark(slots[0])
        if dice < 0.50:
            return all(self._pairs.map(browser.mark_only, slots)) and browser.look()
        if dice < 0.54:
            return browser.switch(order.choice(list(people.PINS)))
        if dice < 0.64:
            return browser.page()
        return browser.look()

    def _try_a_dead_one(self) -> None:
        try:
            due, site, session = self.dead.popleft()
        except IndexError:
            return
        if due > time.monotonic() or self.traffic.site_of(site) != site:
            self.dead.append((due, site, session))
            return
        Browser(self, site, session).haunt()

    def other_site(self, name: str) -> str:
        """Return the name of the site that is not this one."""
        return self.world.other(self.world.sites[name]).name


class Browser:
    """A cookie jar at one site, for one visit."""

    def __init__(self, load: Load, site: str, session: Session | None) -> None:
        self._load = load
        self._site = site
        self._url = load.world.sites[site].url
        self._session = session
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Connection"] = "close"  # any process may answer the next one
        self._set("csrftoken", CSRF)
        if session:
            self._set(COOKIE, session.cookie)

    def look(self) -> bool:
        """Read the session."""
        began = time.monotonic()
        answer = self._send("look", "GET", "/soak/")
        if answer is None or self._session is None:
            return False
        self._found(answer, began)
        return True

    def look_at_the_end(self) -> None:
        """Read the session from DynamoDB, when all is quiet."""
        assert self._session
        answer = self._send("final look", "GET", "/soak/")
        if answer is not None:
            self._load.ledger.found_at_the_end(self._session, answer.json(), self._site)

    def mark(self, slot: int) -> bool:
        """Write a new number into a slot, and look at the others."""
        began = time.monotonic()
        answer = self._mark(slot)
        if answer is not None:
            self._found(answer, began)
        return answer is not None

    def mark_only(self, slot: int) -> bool:
        """Write a new number into a slot while another one is being written."""
        return self._mark(slot) is not None

    def page(self) -> bool:
        """Open the till."""
        answer = self._send("page", "GET", "/")
        return answer is not None and self._was_let_in(answer)

    def switch(self, name: str) -> bool:
        """Let an associate take over with a PIN."""
        assert self._session
        change = self._load.ledger.change(self._session, ASSOCIATE, name, self._site, durable=True)
        number = 1 + list(people.PINS).index(name)
        answer = self._send(
            "switch", "POST", "/switch/", through=True, associate=str(number), pin=people.PINS[name]
        )
        if answer is None or not self._was_let_in(answer):
            return False
        if answer.status_code != 302:
            self._break("PIN refused", f"the right PIN of {name}", f"{answer.status_code}")
            return False
        self._load.ledger.acknowledge(change)
        return True

    def log_in(self) -> Session | None:
        """Log in; return the new session, None if it has to wait."""
        answer = self._send(
            "login",
            "POST",
            "/login/",
            through=True,
            username=people.MANAGER,
            password=people.PASSWORD,
        )
        cookie = self._http.cookies.get(COOKIE)
        if answer is None:
            return None
        if answer.status_code != 302 or not cookie:
            self._break("login refused", "the right password", f"{answer.status_code}")
            return None
        self._session = self._load.ledger.log_in(cookie, self._site)
        return self._session

    def log_out(self) -> Session | None:
        """Log out, and try the old cookie at once; return the session if that had to wait."""
        session = self._session
        assert session
        session.doubtful = True
        answer = self._send("logout", "POST", "/logout/", through=True)
        if answer is None:
            return None
        self._load.ledger.log_out(session, self._site)
        self.haunt()
        other = self._load.other_site(self._site)
        due = self._load.outages.known_everywhere(session.logout or 0.0)
        self._load.dead.append((due, other, session))
        return None

    def haunt(self) -> None:
        """Try the cookie of a session that is over."""
        assert self._session
        self._set(COOKIE, self._session.cookie)
        answer = self._send("dead cookie", "GET", "/soak/")
        if answer is not None:
            self._load.ledger.found_after_logout(self._session, answer.json(), self._site)

    def _mark(self, slot: int) -> requests.Response | None:
        session, ledger = self._session, self._load.ledger
        assert session
        number, name = ledger.number(), str(slot)
        change = ledger.change(session, name, number, self._site)
        answer = self._send("mark", "POST", "/soak/mark/", slot=name, value=str(number))
        if answer is not None and answer.json()["user"] == ledger.user:
            ledger.acknowledge(change, answer.json()["pid"])
        return answer

    def _send(
        self, action: str, method: str, path: str, *, through: bool = False, **fields: str
    ) -> requests.Response | None:
        """Return the answer; None if it broke or was 503, which is held against the outages."""
        load, site = self._load, self._site
        data = {**fields, "csrfmiddlewaretoken": CSRF} if method == "POST" else None
        if data is not None:
            self._set("csrftoken", CSRF)
        began = time.monotonic()
        try:
            answer = self._http.request(
                method, self._url + path, data=data, allow_redirects=False, timeout=TIMEOUT
            )
        except requests.RequestException as error:
            outcome = "timeout" if isinstance(error, requests.Timeout) else "broken"
            self._note(action, began, outcome)
            self._judge_broken(action, began, outcome, error)
            return None
        self._note(action, began, str(answer.status_code))
        if self._session and not self._session.doubtful and not self._http.cookies.get(COOKIE):
            load.ledger.lost_login(self._session, site, f"{action} took the cookie")
        if answer.status_code == 503:
            self._judge_503(action, began, answer, through=through)
            return None
        if answer.status_code >= 400:
            text = f"{action}: {answer.status_code} {answer.text[:80]!r}"
            doubtful = self._session is not None and self._session.doubtful
            if not doubtful:
                self._break("unexpected answer", "-", text)
            return None
        return answer

    def _judge_503(
        self, action: str, began: float, answer: requests.Response, *, through: bool
    ) -> None:
        seen = self._session.seen.get(self._site) if self._session else None
        cause = self._load.outages.unavailable(
            self._site, began, time.monotonic(), seen=seen, through=through
        )
        if "Retry-After" not in answer.headers:
            cause = None
        self._load.causes.append((time.monotonic(), cause or "no outage that allows it"))
        if cause is None:
            self._break("503 without need", "-", f"{action}: {answer.text[:80]!r}")

    def _judge_broken(self, action: str, began: float, outcome: str, error: Exception) -> None:
        excused = self._load.outages.web_down(self._site, began, time.monotonic())
        cause = "web process killed or frozen" if excused else "no outage that allows it"
        self._load.causes.append((time.monotonic(), cause))
        if not excused:
            took = time.monotonic() - began
            guarantee = "G10" if outcome == "timeout" else "connection broken"
            self._break(guarantee, "-", f"{action}: {outcome} after {took:.1f} s, {error}")

    def _was_let_in(self, answer: requests.Response) -> bool:
        if not answer.headers.get("Location", "").startswith("/login/"):
            return True
        if self._session:
            self._load.ledger.lost_login(self._session, self._site, "it was sent to the login")
        return False

    def _found(self, answer: requests.Response, began: float) -> None:
        assert self._session
        moved = self._load.traffic.moved_without_plan(self._site)
        self._load.ledger.found(self._session, answer.json(), self._site, asked=began, moved=moved)

    def _break(self, guarantee: str, acknowledged: str, found: str) -> None:
        self._load.ledger.break_(guarantee, self._session, self._site, acknowledged, found)

    def _note(self, action: str, began: float, outcome: str) -> None:
        now = time.monotonic()
        self._load.samples.append(Sample(now, now - began, action, self._site, outcome))

    def _set(self, name: str, value: str) -> None:
        self._http.cookies.set(name, value, domain="127.0.0.1", path="/")
