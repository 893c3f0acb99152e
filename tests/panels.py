"""The panel: who looks at it, on which servers, and what made-up processes tell it.

=======================  =========================================================================
``panel_site``           a site that is well, and has a name
``panel_servers``        the same on servers of its own, to kill and freeze
``chief``                a browser whose user may do everything, at ``panel_site``
=======================  =========================================================================
"""

import html
import json
import re
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from servers import Dynalite, Memcached

from django_dynamo_failover import fleet, runtime
from django_dynamo_failover.conf import Config, Region
from django_dynamo_failover.dynamo_health import TableView
from django_dynamo_failover.dynamo_sites import Site
from django_dynamo_failover.fleet import Member
from django_dynamo_failover.histogram import new_histogram, observe
from django_dynamo_failover.history import Event, Minute
from django_dynamo_failover.metrics import COUNTERS
from django_dynamo_failover.panel.facts import Description, Facts, Fleets, Reached, Sites
from django_dynamo_failover.snapshot import Snapshot

from .configurations import BOTO_SESSION
from .sites import KEYRING
from .web import PASSWORD, Visitor

PANEL = "/admin/django_dynamo_failover/failoverhealth/"


@pytest.fixture
def panel_site(engine):
    engine.configure(SITE="east", BOTO_SESSION=BOTO_SESSION)
    return engine


class Servers:
    """A site on servers of its own, to kill and freeze."""

    def __init__(self, make_engine, start, **options):
        self.hot, self.cold = start(Memcached), start(Dynalite)
        self.engine = make_engine(
            self.hot, self.cold, SITE="east", BOTO_SESSION=BOTO_SESSION, **options
        )

    @contextmanager
    def without(self, *tiers):
        """A block in which these answer nobody."""
        with ExitStack() as stack:
            for tier in tiers:
                tier.freeze()
                stack.callback(tier.thaw)
            yield


@pytest.fixture
def panel_servers(make_engine, start):
    return Servers(make_engine, start)


@pytest.fixture
def chief(panel_site):
    return visitor(make_user("chief", is_superuser=True))


def make_user(name, *permissions, **fields):
    """Return a new user of the staff with these permissions."""
    fields = {"is_staff": True, **fields}
    user = get_user_model().objects.create_user(name, password=PASSWORD, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def visitor(user):
    """Return a browser that is logged in."""
    browser = Visitor()
    browser.force_login(user)
    return browser


def words(response):
    """Return what an answer says, without its HTML."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", response.content.decode()))
    return " ".join(text.split())


def histogram(*seconds):
    made = new_histogram()
    for each in seconds:
        observe(made, each)
    return made


def snapshot(number=1, *, at=None, **fields):
    """A process that was heard of just now, and has had nothing to do."""
    at = time.time() if at is None else at
    made = Snapshot(
        id=f"process-{number}",
        host=f"web-{number // 8}",
        pid=1000 + number,
        site="east",
        version="0.1.0",
        started=at - 7200,
        at=at,
        up={"hot": True, "us-east-1": True},
    )
    return replace(made, **fields)


#: What the panel warns of.
_BAD = {"oversize", "lost_writes"}


def busy_snapshot(number=1):
    """A process that has had plenty to do in each minute of the last hour."""
    now = time.time()
    minutes = tuple(
        Minute(
            at=int(now // 60) - ago,
            counts=dict.fromkeys(COUNTERS.keys() - _BAD, 1000 + number + ago),
            hot=[1000 + number + ago] * len(new_histogram()),
            cold=[number + ago] * len(new_histogram()),
        )
        for ago in reversed(range(60))
    )
    return snapshot(
        number,
        counters=dict.fromkeys(COUNTERS, 123_456),
        latencies={
            f"{tier} {operation}": [12_345] * len(new_histogram())
            for tier in ("hot", "us-east-1", "us-west-2")
            for operation in ("read", "write")
        },
        errors={"hot TimeoutError": 12, "us-east-1 ReadTimeoutError": 34},
        pending=number,
        oldest=now - 100,
        minutes=minutes,
        events=tuple(Event(now - 60 * n, "down", "us-east-1") for n in range(20)),
    )


def free_slots():
    """Return the slots of the site that this process has not taken."""
    return (name for name in fleet._SLOT_NAMES if name != runtime.current().fleet._slot)


def publish(snapshots):
    """Let these processes be heard of by this site, in slots of the hot tier."""
    other = runtime.build(runtime.config()).fleet
    hot = runtime.current().hot
    for each, other._slot in zip(snapshots, free_slots(), strict=False):
        other.publish(each)
        told = json.dumps(asdict(member(each))).encode()
        hot.put_note(other._slot, told, 60)


def facts(**fields):
    """What is known of a site that is well. Fields of ``Facts`` change it."""
    at = fields.pop("at", time.time())
    config = Config(site="east", regions=(Region("us-east-1"),), **fields.pop("config", {}))
    own = fields.pop("own", None) or snapshot(at=at)
    well = Facts(
        at=at,
        run=SimpleNamespace(config=config, keyring=KEYRING, fleet=SimpleNamespace(draining=False)),
        own=own,
        settings=(),
        servers={"hot tier": Reached(0.0002)},
        regions={"us-east-1": Reached(0.005)},
        described={"us-east-1": Description(table())},
        fleet=Fleets((member(own),), (own,), complete=True),
        sites=Sites((Site("east", KEYRING.fingerprints, at - 20),)),
    )
    return replace(well, **fields)


def table(**fields):
    """A table as its region describes it, with nothing to say against it."""
    well = TableView(
        status="ACTIVE",
        unfit="",
        replicas={},
        strong_consistency=False,
        ttl=True,
        recovery=True,
        items=1000,
        bytes=500_000,
    )
    return replace(well, **fields)


def member(of, **fields):
    """A process as it tells of itself every other second."""
    made = Member(of.id, of.host, of.pid, of.site, of.pending, 0, False, of.oldest, of.logouts)
    return replace(made, **fields)
