"""What can fail and how, on real servers, and what users see of it: for a test and a table."""

import time
from dataclasses import dataclass, field

from django.urls import reverse
from servers import Dynalite, FaultProxy, Memcached

from django_dynamo_failover import runtime

from .web import USER, Visitor, is_503, until, visitor_with

MEMCACHED, REGION, REGIONS, BOTH = "memcached", "region 1", "all regions", "both tiers"

#: Later than this, in seconds, an answer must have waited for something. None does by itself.
WAITED = 0.15

_MODES = {
    "refused": "refuse",
    "black hole": "black hole",
    "frozen": "freeze",
    "reset": "reset",
    "slow 5 s": "slow",
    "error replies": "error",
    "throttled": "error",
    "thawed with old contents": "refuse",  # memcached thaws while DynamoDB is gone
}


def _dynamodb_error(status, name):
    body = b'{"__type": "com.amazonaws.dynamodb.v20120810#%s"}' % name
    return b"HTTP/1.1 %d \r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


_OUT_OF_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"
_ERROR = _dynamodb_error(500, b"InternalServerError")
_THROTTLED = _dynamodb_error(400, b"ProvisionedThroughputExceededException")

_DEFINITE = "a DynamoDB table keeps its items; an empty one says that nobody is logged in"


@dataclass(frozen=True)
class Cell:
    """A fault of a tier."""

    tier: str
    fault: str

    @property
    def answers(self):
        """What users are to get by the guarantees: of each kind of request."""
        sessions = "503" if self.tier == BOTH else "done"
        logins = "503" if self.tier in (REGIONS, BOTH) else "done"
        return {"pages": sessions, "changes": sessions, "logins": logins, "logouts": sessions}

    def __str__(self):
        return f"{self.tier}, {self.fault}"


TIERS = [MEMCACHED, REGION, REGIONS, BOTH]
FAULTS = [
    "refused",
    "black hole",
    "frozen",
    "reset",
    "slow 5 s",
    "error replies",
    "throttled",
    "restarted empty",
    "thawed with old contents",
]
#: What there is not, and why.
LEFT_OUT = {
    Cell(MEMCACHED, "throttled"): "memcached throttles nobody",
    Cell(REGION, "restarted empty"): _DEFINITE,
    Cell(REGION, "thawed with old contents"): "for DynamoDB that is frozen",
    Cell(REGIONS, "restarted empty"): _DEFINITE,
    Cell(REGIONS, "thawed with old contents"): "for DynamoDB that is frozen",
    Cell(BOTH, "restarted empty"): _DEFINITE,
}
CELLS = [
    Cell(tier, fault) for tier in TIERS for fault in FAULTS if Cell(tier, fault) not in LEFT_OUT
]


class Site:
    """A memcached and a table in two regions, each behind a proxy, to break and to heal.

    Behind both regions is one server: a global table that replicates at once.
    """

    def __init__(self):
        self.memcached = Memcached()
        self.dynamodb = Dynalite()
        self.memcached_proxy = FaultProxy(self.memcached.port)
        self.region_proxies = [FaultProxy(self.dynamodb.port), FaultProxy(self.dynamodb.port)]
        self.all = [self.memcached, self.dynamodb, self.memcached_proxy, *self.region_proxies]

    def __enter__(self):
        for each in self.all:
            each.start()
        return self

    def __exit__(self, *exc_info):
        for each in reversed(self.all):
            each.stop()

    @property
    def regions(self):
        """The REGIONS setting."""
        return [
            {"NAME": name, "ENDPOINT_URL": proxy.endpoint_url}
            for name, proxy in zip(("us-east-1", "us-west-2"), self.region_proxies, strict=True)
        ]

    def fail(self, cell):
        """Let a fault begin."""
        if cell.tier in (MEMCACHED, BOTH):
            self._fail_memcached(cell.fault)
        if cell.tier in (REGIONS, BOTH) and cell.fault == "frozen":
            self.dynamodb.freeze()
        elif cell.tier != MEMCACHED:
            for proxy in self.region_proxies[:1] if cell.tier == REGION else self.region_proxies:
                proxy.reply = _THROTTLED if cell.fault == "throttled" else _ERROR
                proxy.set(_MODES[cell.fault])

    def _fail_memcached(self, fault):
        match fault:
            case "restarted empty":
                self.memcached.restart()
            case "frozen" | "thawed with old contents":
                self.memcached.freeze()
            case "throttled":
                self.memcached_proxy.set("refuse")
            case _:
                self.memcached_proxy.reply = _OUT_OF_MEMORY
                self.memcached_proxy.set(_MODES[fault])

    def heal(self, cell):
        """Let it end. A memcached that refused or was frozen comes back empty."""
        if cell.tier in (MEMCACHED, BOTH) and cell.fault in ("refused", "frozen"):
            self.memcached.restart()
        self.memcached.thaw()
        self.dynamodb.thaw()
        for proxy in (self.memcached_proxy, *self.region_proxies):
            proxy.set("pass")


@dataclass
class Outcome:
    """What the users of a site got while a fault held, and how long it took afterwards."""

    answered: dict[str, set[str]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    recovery: float = 0.0

    def note(self, what, visitor, ask, *args):
        """Note one answer; return the response."""
        began = time.monotonic()
        response = ask(*args)
        self.times.append(time.monotonic() - began)
        unavailable = is_503(response)
        assert unavailable or response.status_code in (200, 302), f"{what}: {response.status_code}"
        self.answered.setdefault(what, set()).add("503" if unavailable else "done")
        return response

    @property
    def answers(self):
        """What users got, of each kind of request."""
        return {what: " or ".join(sorted(got)) for what, got in self.answered.items()}

    @property
    def slowest(self):
        return max(self.times)

    @property
    def waited(self):
        """How many answers came so late that they must have waited for a timeout."""
        return sum(took > WAITED for took in self.times)


def live_through(site, cell):
    """Let users read, change, log in and log out while a fault holds; check that none is hurt."""
    outcome = Outcome()
    reader, leaver = _enter(), _enter()
    assert runtime.current().writer.flush(5) == 0
    had = {"mug": 1}
    site.fail(cell)
    try:
        for number in range(3):
            for _ in range(5):
                response = outcome.note("pages", reader, reader.get, reverse("status-json"))
                if response.status_code == 200:
                    _is_fine(response.json(), had)
            if outcome.note("changes", reader, reader.add, "kettle").status_code == 302:
                had = {"mug": 1, "kettle": number + 1}
        newcomer = Visitor()
        for _ in range(2):
            outcome.note("logins", newcomer, newcomer.enter)
        left = leaver.cookie
        gone = outcome.note("logouts", leaver, leaver.leave).status_code == 302
        assert (leaver.cookie == left) != gone
    finally:
        site.heal(cell)
    healed = time.monotonic()
    until(lambda: _is_back(reader, had), within=40)
    outcome.recovery = time.monotonic() - healed
    if newcomer.cookie:
        _is_fine(newcomer.status(), {})
    # What is left of it: neither a change nor a login nor a logout was in memcached only.
    for lose in (lambda: None, site.memcached.flush):
        lose()
        _is_fine(reader.status(), had)
        user = visitor_with(left).get(reverse("status-json")).json()["user"]
        assert user == (None if gone else USER)
    return outcome


def _enter():
    visitor = Visitor()
    assert visitor.enter().status_code == 302
    assert visitor.add("mug").status_code == 302
    return visitor


def _is_fine(status, items):
    assert status["user"] == USER, "logged out"
    assert status["cart"]["items"] == items


def _is_back(visitor, items):
    """Tell whether both tiers are asked again, and a page comes from memcached."""
    run = runtime.current()
    hits = run.metrics.snapshot()["hot_hits"]
    response = visitor.get(reverse("status-json"))
    if response.status_code == 503:
        return False
    _is_fine(response.json(), items)
    return run.store._hot.is_up and run.cold.is_up and run.metrics.snapshot()["hot_hits"] > hits
