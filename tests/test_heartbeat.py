"""The heartbeat of a site in DynamoDB: one of its processes leaves it, and the other sites read it.

Times are those of ``time_machine``, by which LocMemCache forgets, too: each cache is a site.
"""

import random
import time
import uuid
from collections import Counter
from io import StringIO

import pytest
import time_machine
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from servers import free_port

from django_dynamo_failover import dynamo_sites, heartbeat, runtime
from django_dynamo_failover.breaker import Breaker
from django_dynamo_failover.cache import MemcachedCache
from django_dynamo_failover.cold import ColdTier, GuardedRegion
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_sites import Site, note_site, read_heartbeats, read_sites
from django_dynamo_failover.heartbeat import KEPT_SECONDS, Heartbeat
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.metrics import Metrics

from .configurations import BOTO_SESSION, boto_session, quieten
from .conftest import client
from .sites import KEYRING, NOW
from .test_dynamo import soon

EAST, WEST = "us-east-1", "us-west-2"
OURS, OTHERS = KEYRING.fingerprints, ("another key's",)
HOUR, DAY = 3600, 24 * 3600


def connect(server, *, read_timeout=2.0, attempts=1):
    """Return a table in two regions of one server."""
    return [
        DynamoTable(
            "no-table",
            Region(name, server.endpoint_url),
            connect_timeout=0.5,
            read_timeout=read_timeout,
            attempts=attempts,
            max_connections=10,
            make_session=boto_session,
        )
        for name in (EAST, WEST)
    ]


@pytest.fixture(scope="module")
def connected(dynamodb_server):
    return connect(dynamodb_server)


@pytest.fixture
def tables(connected, dynamodb, table):
    for each in connected:
        each.table = table
    return connected


@pytest.fixture
def east(tables):
    return tables[0]


@pytest.fixture
def traveller():
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


class Process:
    """One process of a site, with breakers of its own."""

    def __init__(self, tables, cache, label="here", fingerprints=OURS):
        metrics = Metrics()
        self.hot = HotTier(lambda: cache, KEYRING, metrics)
        self.breakers = [Breaker() for _ in tables]
        regions = [GuardedRegion(*pair) for pair in zip(tables, self.breakers, strict=True)]
        cold = ColdTier(regions, metrics, deadline=5)
        self.heartbeat = Heartbeat(label, fingerprints, self.hot, cold)
        self.due = 0.0

    def beat(self):
        self.due = time.time() + self.heartbeat.beat()


@pytest.fixture
def start_site(tables, traveller):
    """``start_site(label, processes)``: the processes of a site, which share a hot tier."""

    def start_site(label="here", processes=1, *, tables=tables, **options):
        caches = [LocMemCache(uuid.uuid4().hex, {})] * processes
        return [Process(tables, cache, label, **options) for cache in caches]

    return start_site


def live(processes, seconds, traveller):
    """Let processes beat when they want to."""
    end = time.time() + seconds
    while (first := min(processes, key=lambda process: process.due)).due < end:
        traveller.move_to(max(first.due, time.time()))
        first.beat()
    traveller.move_to(end)


def labels(table):
    return {site.label: site for site in read_sites(table, soon())}


def heartbeats(table, *names):
    return {site.label: site for site in read_heartbeats(table, names, soon())}


# --- When -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "most"), [(1, 67), (3, 73), (20, 73)])
def test_one_of_the_processes_beats_about_every_minute(
    start_site, dynamodb, traveller, processes, most
):
    live(start_site("here", processes), HOUR, traveller)
    assert 60 <= dynamodb.requests()["PutItem"] <= most


def test_of_two_processes_one_beats_on_memcached_too(tables, memcached, dynamodb):
    cache = MemcachedCache(memcached.address, {})
    processes = [Process(tables, cache) for _ in range(2)]
    before = memcached.commands()
    for process in processes * 2:
        process.beat()
    cache.disconnect()
    assert dynamodb.requests()["PutItem"] == 1
    assert +(memcached.commands() - before) == Counter(set=4)


def test_processes_do_not_stay_in_step(start_site):
    [process] = start_site()
    waits = [process.heartbeat.beat() for _ in range(50)]
    assert 54 <= min(waits) < max(waits) <= 60
    assert len(set(waits)) > 40


def test_while_the_hot_tier_is_down_all_beat(tables, dynamodb, caplog):
    """Rather than none."""
    cache = MemcachedCache(f"127.0.0.1:{free_port()}", {})
    for _ in range(2):
        Process(tables, cache).beat()
    assert dynamodb.requests()["PutItem"] == 2
    assert caplog.records == []


# --- What -------------------------------------------------------------------------------------


def test_the_other_sites_read_it(start_site, east, traveller):
    [here], [there] = start_site("here"), start_site("there", fingerprints=OTHERS)
    here.beat()
    traveller.shift(100)
    there.beat()
    assert labels(east).keys() == {"here", "there"}
    assert heartbeats(east, *labels(east)) == {
        "here": Site("here", OURS, NOW),
        "there": Site("there", OTHERS, NOW + 100),
    }
    traveller.shift(100)
    here.beat()
    assert heartbeats(east, "here")["here"].seen == NOW + 200
    assert labels(east)["here"].seen == NOW  # that is noted once a day


def test_of_a_site_that_never_had_one_nothing_is_read(east, start_site, dynamodb):
    start_site("here")[0].beat()
    assert heartbeats(east, "here", "nowhere").keys() == {"here"}
    dynamodb.reset_requests()
    assert heartbeats(east) == {}
    assert dynamodb.requests() == Counter()


def test_a_crowd_of_labels_is_still_one_request(east, start_site, dynamodb):
    """Somebody may have written them: DynamoDB refuses to read more than 100 items at once."""
    start_site("0")[0].beat()
    dynamodb.reset_requests()
    assert heartbeats(east, *map(str, range(500))).keys() == {"0"}
    assert dynamodb.requests() == Counter(BatchGetItem=1)


@pytest.mark.parametrize(
    "change",
    [{"keys": {"S": "x"}}, {"seen": {"S": "now"}}, {"seen": {"N": "1"}, "keys": {"L": [1]}}],
)
def test_a_heartbeat_of_another_form_is_refused(change):
    with pytest.raises(dynamo_sites.Unreadable):
        dynamo_sites._site("here", {"M": {"keys": {"L": []}, "seen": {"N": "1"}, **change}})


def test_it_is_kept_for_four_weeks_and_costs_one_unit(start_site, dynamodb, table):
    start_site("a label that is not the shortest one")[0].beat()
    dynamo = client(dynamodb.endpoint_url)
    [item] = [
        item
        for item in dynamo.scan(TableName=table)["Items"]
        if item["id"]["S"].startswith("heartbeat:")
    ]
    assert item["expires"] == {"N": str(int(NOW) + KEPT_SECONDS)}
    answer = dynamo.put_item(TableName=table, Item=item, ReturnConsumedCapacity="TOTAL")
    assert answer["ConsumedCapacity"]["CapacityUnits"] == 1


# --- The list of the sites --------------------------------------------------------------------


def test_a_site_is_noted_once_a_day(start_site, dynamodb, traveller):
    processes = start_site("here", 3)
    for _ in range(72):
        for process in random.sample(processes, 3):
            process.beat()
        traveller.shift(HOUR)
    sent = dynamodb.requests()
    assert sent["PutItem"] == 72
    assert sent["UpdateItem"] == 3
    assert 3 <= sent["BatchGetItem"] <= 9  # each process looks once a day


def test_another_key_of_the_same_site_is_left_to_a_health_check(start_site, east, traveller):
    noted = Site("here", OTHERS, NOW)
    note_site(east, noted, [], int(NOW) + KEPT_SECONDS, soon())
    [process] = start_site("here")
    for _ in range(3):
        process.beat()
        assert labels(east) == {"here": noted}
        assert heartbeats(east, "here")["here"].fingerprints == OURS
        traveller.shift(DAY)


def test_another_key_that_was_not_heard_of_for_four_weeks_is_forgotten(start_site, east):
    note_site(east, Site("here", OTHERS, NOW - KEPT_SECONDS), [], int(NOW) + 9, soon())
    start_site("here")[0].beat()
    assert labels(east) == {"here": Site("here", OURS, NOW)}


def test_a_site_that_was_not_heard_of_for_four_weeks_is_forgotten(start_site, east):
    old, new = Site("old", OURS, NOW - KEPT_SECONDS), Site("new", OTHERS, NOW - KEPT_SECONDS + 1)
    for site in (old, new):
        note_site(east, site, [], int(NOW) + 9, soon())
    start_site("here")[0].beat()
    assert labels(east) == {"here": Site("here", OURS, NOW), "new": new}


def warnings_of(caplog):
    found = [record.getMessage() for record in caplog.records if record.name == heartbeat.__name__]
    caplog.clear()
    return found


def test_a_permission_that_lacks_is_one_warning_a_day(
    start_site, east, dynamodb, traveller, caplog
):
    """The policy of the release before has no UpdateItem."""
    dynamodb.fail("UpdateItem", "AccessDeniedException", times=None)
    [process] = start_site("here")
    for _ in range(24):
        process.beat()
        traveller.shift(HOUR)
    [warning] = warnings_of(caplog)
    assert "these AWS credentials lack the permission (UpdateItem" in warning
    assert heartbeats(east, "here")["here"].seen == NOW + 23 * HOUR
    assert process.heartbeat._cold.is_up
    process.beat()
    assert len(warnings_of(caplog)) == 1
    dynamodb.heal()
    traveller.shift(DAY)
    process.beat()
    assert labels(east).keys() == {"here"}
    assert warnings_of(caplog) == []


def test_a_failure_that_passes_is_tried_again_within_the_hour(
    start_site, east, dynamodb, traveller, caplog
):
    dynamodb.fail("UpdateItem", "InternalServerError", status=500)
    [process] = start_site("here")
    live([process], HOUR - 60, traveller)
    assert len(warnings_of(caplog)) == 1
    assert labels(east) == {}
    live([process], 240, traveller)
    assert labels(east).keys() == {"here"}
    assert warnings_of(caplog) == []


def test_a_list_of_another_form_is_one_warning_and_left_as_it_is(
    start_site, east, dynamodb, table, traveller, caplog
):
    item = {"id": {"S": "sites"}, "site:eve": {"S": "\x1b[2J"}, "expires": {"N": "1"}}
    client(dynamodb.endpoint_url).put_item(TableName=table, Item=item)
    [process] = start_site("here")
    live([process], HOUR, traveller)
    [warning] = warnings_of(caplog)
    assert "\x1b" not in warning
    assert heartbeats(east, "here")
    assert dynamodb.requests()["UpdateItem"] == 0


# --- Where ------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """The regions in which a heartbeat was tried."""
    asked = []
    put_heartbeat = heartbeat.put_heartbeat

    def put(table, *arguments):
        asked.append(table.name)
        put_heartbeat(table, *arguments)

    monkeypatch.setattr(heartbeat, "put_heartbeat", put)
    return asked


def test_it_is_left_in_the_nearest_region(start_site, asked):
    start_site()[0].beat()
    assert asked == [EAST]


def test_where_the_nearest_region_fails_it_is_left_in_the_next(start_site, asked, dynamodb, east):
    dynamodb.fail("PutItem", "InternalServerError", status=500, times=None, region=EAST)
    [process] = start_site("here")
    process.beat()
    assert asked == [EAST, WEST]
    assert heartbeats(east, "here").keys() == labels(east).keys() == {"here"}
    # Requests find that out for themselves.
    assert process.heartbeat._cold.is_up


def test_a_region_that_is_known_to_be_down_is_not_asked(start_site, asked):
    [process] = start_site()
    process.breakers[0].failure()
    process.beat()
    assert asked == [WEST]


def test_while_dynamodb_is_down_nothing_is_asked_and_nothing_raised(start_site, asked, dynamodb):
    [process] = start_site()
    for breaker in process.breakers:
        breaker.failure()
    dynamodb.reset_requests()
    assert process.heartbeat.beat() > 0
    assert asked == []
    assert dynamodb.requests() == Counter()


def test_regions_that_hang_do_not_hold_up_the_thread(start_site, asked, dynamodb, monkeypatch):
    """It is the one that looks after the hot tier."""
    monkeypatch.setattr(heartbeat, "_BEAT_WITHIN", 0.4)
    tables = connect(dynamodb, read_timeout=0.3, attempts=2)
    for table in tables:
        table.warm()
        table.client.wait(5)
    dynamodb.fail("PutItem", "hang", times=None)
    [process] = start_site(tables=tables)
    began = time.perf_counter()
    process.beat()
    assert time.perf_counter() - began < 0.4 + 2 * 0.3
    assert asked == [EAST, WEST]


# --- Who else sees it -------------------------------------------------------------------------


@pytest.fixture
def site(make_engine, memcached, dynamodb, table, monkeypatch):
    quieten(monkeypatch)
    return make_engine(memcached, dynamodb, table=table, BOTO_SESSION=BOTO_SESSION)


def test_clearing_keeps_it_until_it_has_expired(site, east):
    soon_over, later = Site("gone", OURS, 0.0), Site("here", OURS, time.time())
    dynamo_sites.put_heartbeat(east, soon_over, int(time.time()) - HOUR, soon())
    dynamo_sites.put_heartbeat(east, later, int(time.time()) + HOUR, soon())
    call_command("clearsessions_dynamo", stdout=StringIO())
    assert site.items().keys() == {"heartbeat:here"}


def test_it_is_no_session_to_a_drill(site, east):
    dynamo_sites.put_heartbeat(east, Site("here", OURS, time.time()), int(time.time()) + 9, soon())
    out = StringIO()
    call_command("drillsessions_dynamo", stdout=out)
    assert "no session that has not expired" in out.getvalue()


# --- The background ---------------------------------------------------------------------------


def test_a_process_of_a_site_with_a_name_beats_by_itself(site, east, beaten):
    site.configure(SITE="east")
    began = time.time()
    run = site.runtime
    assert beaten.wait(5)
    found = heartbeats(east, *labels(east))
    assert found.keys() == {"east"}
    assert found["east"].fingerprints == run.keyring.fingerprints
    assert found["east"].seen >= began


def test_a_site_without_a_name_has_none(site, monkeypatch):
    monkeypatch.setattr(runtime, "FIRST_REPORT_SECONDS", 0)
    writer = site.runtime.writer
    assert "report" in writer._polls
    assert "heartbeat" not in writer._polls


def test_without_a_background_thread_no_request_waits_for_one(site, dynamodb, monkeypatch):
    monkeypatch.setattr(runtime, "FIRST_REPORT_SECONDS", 0)
    site.configure(SITE="east", BACKGROUND=False)
    run = site.runtime
    run.cold.wait(5)
    for _ in range(3):
        run.writer.run_due()
    assert len(run.fleet.snapshots()) == 1
    assert dynamodb.requests()["PutItem"] == 0
