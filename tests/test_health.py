"""What a health check finds: nothing where all is well, and each fault by itself."""

import base64
import contextlib
import re
import threading
import time
from functools import partial
from typing import get_args

import pytest
from django.core.cache.backends.locmem import LocMemCache
from servers import Dynalite, Memcached, create_table, free_port

from django_dynamo_failover import health
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.dynamo_sites import Site, note_site, read_sites
from django_dynamo_failover.exceptions import Unreadable
from django_dynamo_failover.health import FindingId
from django_dynamo_failover.keys import Keyring

from .configurations import BOTO_SESSION, STOCK
from .conftest import client
from .relays import Relay, described, replicas_in
from .test_dynamo import connect, soon
from .web import until

EAST, WEST = "us-east-1", "us-west-2"
OLD, NEW = "the old key, " * 4, "the new key, " * 4
NOTHING = {}


class Place:
    """A site with a table in two regions that replicate at once, and what a check of it finds."""

    def __init__(self, engine, relays):
        self.engine = engine
        self.east, self.west = relays
        self.server = relays[0].server

    def check(self, **options):
        """Return the report of a check."""
        return health.check(**{"timeout": 20, "replication_timeout": 0.3, **options})

    def faults(self, **options):
        """Return what is not well: the level of each finding, by its id and subject."""
        found = self.check(**options).findings
        return {(f.id, f.subject): f.level for f in found if f.level != "ok"}

    def messages(self, id):
        """Return what is found of an id, with the remedy."""
        return [f"{f.message}. {f.remedy}" for f in self.check().findings if f.id == id]

    def deny(self, *operations, region=None):
        """Let these credentials lack the permission."""
        for operation in operations:
            self.server.fail(operation, "AccessDeniedException", times=None, region=region)

    def edit(self, operation, change):
        """Let the first region answer differently."""
        self.east.edits[operation] = change

    @contextlib.contextmanager
    def elsewhere(self, **settings):
        """Be another site for a while."""
        ours = self.engine.settings.DYNAMO_FAILOVER, self.engine.settings.SECRET_KEY
        fallbacks = self.engine.settings.SECRET_KEY_FALLBACKS
        self.engine.configure(SITE="west")
        for name, value in settings.items():
            setattr(self.engine.settings, name, value)
        yield
        self.engine.settings.DYNAMO_FAILOVER, self.engine.settings.SECRET_KEY = ours
        self.engine.settings.SECRET_KEY_FALLBACKS = fallbacks

    def table(self):
        return connect(self.server.endpoint_url, self.engine.table)


@pytest.fixture
def lonely(make_engine, memcached, dynamodb, table):
    """A site that knows of no other."""
    engine = make_engine(memcached, dynamodb, table=table, SITE="east", BOTO_SESSION=BOTO_SESSION)
    with Relay(dynamodb, [WEST]) as east, Relay(dynamodb, [EAST]) as west:
        engine.configure(
            REGIONS=[
                {"NAME": EAST, "ENDPOINT_URL": east.endpoint_url},
                {"NAME": WEST, "ENDPOINT_URL": west.endpoint_url},
            ],
            READ_TIMEOUT=10,
            DEADLINE=11,
        )
        yield Place(engine, [east, west])


@pytest.fixture
def place(lonely):
    """A site where all is well."""
    other = Site("west", Keyring([lonely.engine.settings.SECRET_KEY]).fingerprints, time.time())
    note_site(lonely.table(), other, [], int(time.time()) + 1000, soon())
    return lonely


# --- All is well ------------------------------------------------------------------------------


#: What is not looked at once, but told by the processes.
PANEL_ONLY = {
    "sessions.served",
    "sessions.backlog",
    "sessions.oversize",
    "sessions.lost",
    "processes.heard",
    "sites.heard",
}


def test_where_all_is_well_every_finding_is_ok(place):
    report = place.check()
    assert {finding.level for finding in report.findings} == {"ok"}
    assert {finding.id for finding in report.findings} == set(get_args(FindingId)) - PANEL_ONLY
    assert (report.verdict, report.asked) == ("ready", True)


def test_what_is_well_needs_no_remedy(place):
    assert {finding.remedy for finding in place.check().findings} == {""}


@pytest.mark.parametrize("encrypt", [False, True])
def test_it_leaves_nothing_but_the_note_of_the_site(place, memcached, encrypt):
    place.engine.configure(ENCRYPT=encrypt)
    key = place.engine.store()
    key["a"] = "user's own"
    key.create()
    place.engine.restart()
    mine = set(place.engine.items()) - {"sites"}
    kept = memcached.keys()
    assert place.faults() == NOTHING
    assert set(place.engine.items()) == {"sites", *mine}
    until(lambda: memcached.keys() == kept)  # a tombstone lives for 3 seconds
    assert len(mine) == 1


def test_a_note_of_the_site_outlives_clearsessions(place):
    place.check()
    assert int(place.engine.items()["sites"]["expires"]["N"]) > time.time() + 20 * 24 * 3600


# --- The hot tier -----------------------------------------------------------------------------


def test_memcached_does_not_answer(place, start):
    server = start(Memcached)
    place.engine.settings.CACHES = caches(MemcachedCache, server.address)
    assert place.faults() == NOTHING
    server.kill()
    assert place.faults() == {("hot.reachable", "hot tier"): "error"}


def test_one_of_several_servers_does_not_answer(place, start):
    servers = [start(Memcached), start(Memcached), start(Memcached)]
    place.engine.settings.CACHES = caches(MemcachedCache, [each.address for each in servers])
    servers[1].kill()
    assert place.faults() == {("hot.reachable", "hot tier, server 2 of 3"): "error"}


def test_a_cache_that_keeps_nothing(place):
    place.engine.settings.CACHES = caches("django.core.cache.backends.dummy.DummyCache", "")
    faults = place.faults()
    assert faults["hot.keeps", "hot tier"] == "error"
    assert faults["session.hot", "hot tier"] == "error"


def test_a_cache_without_compare_and_swap(place, memcached):
    place.engine.settings.CACHES = caches(STOCK, memcached.address)
    assert place.faults() == {
        ("settings", "django_dynamo_failover.W002"): "warning",
        ("hot.swap", "hot tier"): "warning",
    }


class Overwriting(MemcachedCache):
    """Takes no notice of what came between."""

    def cas(self, key, value, token, timeout=None, version=None):
        self.set(key, value, timeout, version)
        return True


def test_a_cache_whose_swap_overwrites(place, memcached):
    place.engine.settings.CACHES = caches(Overwriting, memcached.address)
    assert place.faults() == {("hot.swap", "hot tier"): "error"}


class Garbling(MemcachedCache):
    """Gives back sessions with one bit changed."""

    def gets(self, key, version=None):
        found = super().gets(key, version)
        if found is None or not key.startswith("session:"):
            return found
        return found[0][:-1] + bytes([found[0][-1] ^ 1]), found[1]


def test_a_cache_that_changes_sessions(place, memcached):
    place.engine.settings.CACHES = caches(Garbling, memcached.address)
    assert place.faults() == {("session.hot", "hot tier"): "error"}


class Silent(LocMemCache):
    """Says nothing until it is let go."""

    let_go = threading.Event()

    def get_many(self, *args, **options):
        self.let_go.wait(30)
        return super().get_many(*args, **options)


def test_a_cache_without_timeouts_keeps_nobody_waiting(place):
    place.engine.settings.CACHES = caches(Silent, "")
    began = time.monotonic()
    try:
        faults = place.faults(timeout=2)
    finally:
        Silent.let_go.set()
    assert faults["hot.reachable", "hot tier"] == "error"
    assert ("session.region", EAST) not in faults
    assert time.monotonic() - began < 5


def caches(backend, location):
    if isinstance(backend, type):
        backend = f"{backend.__module__}.{backend.__name__}"
    return {"sessions": {"BACKEND": backend, "LOCATION": location}}


# --- A region ---------------------------------------------------------------------------------


def disabled(name):
    return {"TimeToLiveDescription": {"TimeToLiveStatus": name, "AttributeName": "expires"}}


@pytest.mark.parametrize(
    ("operation", "change", "fault"),
    [
        ("DescribeTimeToLive", lambda answer: disabled("DISABLED"), ("region.ttl", "warning")),
        (
            "DescribeTimeToLive",
            lambda answer: {
                "TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}
            },
            ("region.ttl", "warning"),
        ),
        (
            "DescribeTable",
            lambda answer: described(
                answer, Replicas=replicas_in(WEST), MultiRegionConsistency="STRONG"
            ),
            ("region.ttl", "warning"),
        ),
        (
            "DescribeContinuousBackups",
            lambda answer: {
                "ContinuousBackupsDescription": {"ContinuousBackupsStatus": "DISABLED"}
            },
            ("region.recovery", "warning"),
        ),
        ("DescribeTable", lambda answer: answer, ("region.replicas", "warning")),
        (
            "DescribeTable",
            lambda answer: described(answer, Replicas=replicas_in(WEST, status="CREATING")),
            ("region.replicas", "warning"),
        ),
        (
            "DescribeTable",
            lambda answer: described(
                answer,
                Replicas=replicas_in(WEST),
                TableStatus="ARCHIVED",
            ),
            ("region.table", "error"),
        ),
        (
            "DescribeTable",
            lambda answer: described(
                answer,
                Replicas=replicas_in(WEST),
                KeySchema=[{"AttributeName": "session_key", "KeyType": "HASH"}],
            ),
            ("region.key", "error"),
        ),
    ],
)
def test_a_table_is_not_as_it_should_be(place, operation, change, fault):
    place.edit(operation, change)
    assert place.faults() == {(fault[0], EAST): fault[1]}


def test_there_is_no_table(place):
    place.engine.configure(TABLE="no-such-table")
    report = place.check()
    assert place.faults() == {("region.table", EAST): "error", ("region.table", WEST): "error"}
    assert report.asked
    assert "createtable_dynamo" in place.messages("region.table")[0]


def test_a_region_is_down(place):
    place.engine.configure(
        REGIONS=[
            {"NAME": EAST, "ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"},
            {"NAME": WEST, "ENDPOINT_URL": place.west.endpoint_url},
        ]
    )
    assert place.faults() == {("region.reachable", EAST): "error"}
    assert place.check().asked


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (-30, "warning", "30 s ahead"),
        (30, "warning", "30 s behind"),
        (-600, "error", "600 s ahead"),
        (600, "error", "600 s behind"),
    ],
)
def test_the_clock_is_wrong(place, ahead, level, words):
    place.east.ahead = ahead
    assert place.faults() == {("region.clock", EAST): level}
    assert words in place.messages("region.clock")[0]


def test_a_clock_that_is_a_little_off_will_do(place):
    place.east.ahead = 4
    assert place.faults() == NOTHING


def test_the_clock_is_told_also_where_it_makes_every_signature_invalid(place):
    place.server.fail("*", "InvalidSignatureException", times=None, region=EAST)
    place.east.edits.clear()
    place.east.ahead = 1000
    faults = place.faults()
    assert faults["region.reachable", EAST] == "error"
    assert faults["region.clock", EAST] == "error"


@pytest.mark.parametrize("operation", ["PutItem", "BatchGetItem", "BatchWriteItem"])
def test_a_permission_of_the_engine_is_lacking(place, operation):
    place.deny(operation, region=WEST)
    faults = place.faults()
    assert faults["region.permissions", WEST] == "error"
    assert ("region.permissions", EAST) not in faults
    assert any(f"dynamodb:{operation} on" in line for line in place.messages("region.permissions"))


@pytest.mark.parametrize("operation", ["Scan", "DeleteItem"])
def test_permissions_to_clear_matter_where_there_is_no_ttl(place, operation):
    place.deny(operation)
    assert place.faults() == NOTHING
    place.edit("DescribeTimeToLive", lambda answer: disabled("DISABLED"))
    assert place.faults() == {
        ("region.ttl", EAST): "warning",
        ("region.clearing", EAST): "warning",
    }


def test_what_may_not_be_asked_is_unknown(place):
    place.deny("DescribeTable", "DescribeTimeToLive", "DescribeContinuousBackups", region=EAST)
    assert place.faults() == {
        ("region.table", EAST): "unknown",
        ("region.ttl", EAST): "unknown",
        ("region.recovery", EAST): "unknown",
    }
    assert place.check().verdict == "ready"


def test_a_throttled_table(place):
    place.server.fail("PutItem", "ProvisionedThroughputExceededException", times=None, region=EAST)
    assert place.faults(timeout=6) == {("session.region", EAST): "error"}


def test_a_table_that_changes_sessions(place):
    def garble(answer):
        for items in answer.get("Responses", {}).values():
            for item in items:
                if "data" in item:
                    item["version"] = {"N": "7"}
        return answer

    place.edit("BatchGetItem", garble)
    assert place.faults() == {("session.region", EAST): "error"}


def test_a_table_that_loses_logouts(place):
    place.east.swallowed.add("BatchWriteItem")
    assert place.faults() == {("session.region", EAST): "error"}


# --- Between regions and sites ----------------------------------------------------------------


def test_two_tables_that_do_not_replicate(place, start):
    other = start(Dynalite)
    create_table(other.endpoint_url, place.engine.table, WEST)
    place.west.server = other
    assert place.faults() == {("session.replication", f"{EAST} to {WEST}"): "error"}
    assert "log everyone out" in place.messages("session.replication")[0]
    assert set(place.engine.items()) == {"sites"}


def test_a_session_that_arrives_late_is_in_time(place, start):
    other = start(Dynalite)
    create_table(other.endpoint_url, place.engine.table, WEST)
    place.west.server = other

    def replicate(operation, request):
        if operation == "PutItem":
            put = partial(client(other.endpoint_url, WEST).put_item, TableName=place.engine.table)
            timers.append(threading.Timer(0.5, put, kwargs={"Item": typed(request["Item"])}))
            timers[-1].start()

    timers = []
    place.east.after = replicate
    report = place.check(replication_timeout=10)
    for timer in timers:
        timer.join()
    (message,) = [f.message for f in report.findings if f.id == "session.replication"]
    assert report.verdict == "ready"
    assert 0.3 < float(re.search(r"[\d.]+", message).group()) < 10


def typed(item):
    """Return an item of a request as boto3 takes it."""
    data = base64.b64decode(item["data"]["B"])
    return {**item, "data": {"B": data}}


def test_no_other_site_is_known(lonely):
    assert lonely.faults() == {("sites.secret-key", "other sites"): "unknown"}
    assert lonely.check().verdict == "ready"


def test_a_site_without_a_name(place):
    place.engine.configure(SITE=None)
    assert place.faults() == {("sites.label", "this site"): "warning"}


@pytest.mark.parametrize(
    ("here", "there", "agree"),
    [
        ([NEW], [NEW], True),
        ([NEW], [OLD], False),
        ([NEW, OLD], [OLD, NEW], True),
        ([NEW, OLD], [OLD], False),
        ([NEW], [OLD, NEW], False),
        ([NEW, OLD], [NEW], True),
    ],
)
def test_sites_must_accept_each_others_sessions(lonely, here, there, agree):
    with lonely.elsewhere(SECRET_KEY=there[0], SECRET_KEY_FALLBACKS=there[1:]):
        lonely.check()
    lonely.engine.settings.SECRET_KEY = here[0]
    lonely.engine.settings.SECRET_KEY_FALLBACKS = here[1:]
    wrong = {("sites.secret-key", "site 'west'"): "error"}
    assert lonely.faults() == ({} if agree else wrong)
    assert OLD not in str(lonely.engine.items())
    assert NEW not in str(lonely.engine.items())


def test_two_sites_of_one_name(place):
    place.check()
    place.engine.settings.SECRET_KEY = OLD
    assert place.faults()["sites.secret-key", "site 'east'"] == "error"


def test_a_site_that_is_no_more_is_forgotten(lonely):
    old = Site("gone", ("f00",), time.time() - 5 * 7 * 24 * 3600)
    note_site(lonely.table(), old, [], int(time.time()) + 1000, soon())
    assert lonely.faults() == {("sites.secret-key", "other sites"): "unknown"}
    assert [site.label for site in read_sites(lonely.table(), soon())] == ["east"]


def test_other_sites_cannot_be_asked(place):
    place.deny("UpdateItem")
    assert place.faults() == {("sites.secret-key", "other sites"): "unknown"}


def test_the_name_of_a_site_moves_no_cursor(place):
    note_site(place.table(), Site("\x1b[2J" * 99, ("f00",), time.time()), [], 2**31, soon())
    (subject,) = [f.subject for f in place.check().findings if f.level == "error"]
    assert "\x1b" not in subject
    assert len(subject) < 200


@pytest.mark.parametrize(
    "value", [{"S": "rubbish"}, {"M": {}}, {"M": {"keys": {"L": [{"N": "1"}]}}}]
)
def test_a_note_that_is_rubbish_proves_nothing(lonely, value):
    lonely.engine.put_item({"id": {"S": "sites"}, "site:west": value})
    with pytest.raises(Unreadable):
        read_sites(lonely.table(), soon())
    assert lonely.faults() == {("sites.secret-key", "other sites"): "unknown"}


# --- The settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"DYNAMO_FAILOVER": {"TABEL": "sessions"}},
        {"DYNAMO_FAILOVER": {"REGIONS": []}},
        {"SESSION_CACHE_ALIAS": "elsewhere"},
        {"SESSION_SERIALIZER": "no.such.serializer"},
        {"SECRET_KEY": ""},
        {"CACHES": {"sessions": {"BACKEND": f"{__name__}.Broken", "LOCATION": ""}}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_with_wrong_settings_nothing_is_asked(place, wrong):
    for name, value in wrong.items():
        setattr(place.engine.settings, name, value)
    report = place.check()
    assert not report.asked
    assert report.verdict == "not ready"
    assert any(f.id == "settings" and f.level == "error" for f in report.findings)
    assert "hunter2" not in str(report)


class Broken(LocMemCache):
    def __init__(self, *args):
        raise TypeError("redis://:hunter2@host")


def test_another_engine_is_a_warning(place):
    place.engine.settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    assert place.faults() == {("settings", "SESSION_ENGINE"): "warning"}


def unserializable(*args):
    raise TypeError("what a serializer may say")


def test_a_check_that_breaks_says_so(place, monkeypatch, caplog):
    monkeypatch.setattr("django.core.signing.JSONSerializer.dumps", unserializable)
    faults = place.faults()
    assert faults["region.reachable", EAST] == faults["hot.reachable", "hot tier"] == "error"
    assert "Health check of us-east-1" in caplog.text
