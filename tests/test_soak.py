"""The soak's own judgement: the ledger finds what is lost, the plan is kept to, the report adds up.

The soak itself is no test: ``tox -e soak``.
"""

import json
from xml.etree import ElementTree as ET

import pytest
from servers import Memcached

from tests.soak import report, timeline
from tests.soak.faults import KINDS
from tests.soak.ledger import Ledger
from tests.soak.load import Load, Sample
from tests.soak.outages import GRACE, SLACK, Outage, Outages, hot, web
from tests.soak.plan import plan
from tests.soak.proxy import Proxy
from tests.soak.watch import MOST_GROWTH, MOST_THREADS, Worker, incidents

REGIONS = ("us-east-1", "us-west-2")
EAST, WEST = "east", "west"
INTERVAL = 10.0
USER = "mia"
LONG = 1000.0  # seconds, after which nothing has an effect any more


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outages(clock):
    return Outages(REGIONS, INTERVAL, clock)


@pytest.fixture
def ledger(outages):
    return Ledger(outages, USER, 0.0)


@pytest.fixture
def session(ledger):
    return ledger.log_in("a cookie", EAST)


@pytest.fixture
def happen(outages, clock):
    """``happen("hot east", seconds=3)``: an outage that begins now and is over."""

    def happen(*touches, seconds=3.0):
        with outages.happening("a fault", "somewhere", frozenset(touches)):
            clock.now += seconds

    return happen


def change(ledger, session, value, *, site=EAST, pid=1, answered=True, durable=False):
    changed = ledger.change(session, "0", value, site, durable=durable)
    if answered:
        ledger.acknowledge(changed, pid)


def state(value=None, user=USER):
    return {"user": user, "slots": {} if value is None else {"0": value}}


def broken(ledger):
    return [each.guarantee for each in ledger.broken]


class TestLedger:
    def test_what_was_acknowledged_is_there(self, ledger, session):
        change(ledger, session, 1)
        change(ledger, session, 2)
        ledger.found_at_the_end(session, state(2), WEST)
        assert broken(ledger) == []
        assert ledger.counts["changes found"] == 1

    @pytest.mark.parametrize("found", [None, 1, 99])
    def test_a_lost_change_is_found_out(self, ledger, session, found):
        change(ledger, session, 1)
        change(ledger, session, 2)
        ledger.found_at_the_end(session, state(found), WEST)
        assert broken(ledger) == ["G3"]
        assert session.label in str(ledger.broken[0])
        assert "0 = 2 was acknowledged" in str(ledger.broken[0])
        assert ledger.broken[0].history[-1].endswith("0 = 2 at east, answered by 1")

    @pytest.mark.parametrize("found", [1, 2])
    def test_what_nobody_acknowledged_may_be_there_or_not(self, ledger, session, found):
        change(ledger, session, 1)
        change(ledger, session, 2, answered=False)
        ledger.found_at_the_end(session, state(found), WEST)
        assert broken(ledger) == []

    def test_a_request_that_broke_may_have_gone_on_for_a_while(self, ledger, session, clock):
        change(ledger, session, 1, answered=False)
        change(ledger, session, 2)
        ledger.found_at_the_end(session, state(1), WEST)
        assert broken(ledger) == []
        clock.now += LONG
        change(ledger, session, 3)
        ledger.found_at_the_end(session, state(1), WEST)
        assert broken(ledger) == ["G3"]

    @pytest.mark.parametrize(
        ("died", "emptied", "durable", "allowed"),
        [
            (1, 2, False, True),
            (2, 1, False, True),
            (1, 2, True, False),  # a login
            (None, 2, False, False),  # the process had it
            (LONG, 2, False, False),
        ],
    )
    def test_a_change_may_be_lost_with_memcached_and_its_process_only(
        self, ledger, session, outages, clock, died, emptied, durable, allowed
    ):
        change(ledger, session, 1)
        change(ledger, session, 2, pid=7, durable=durable)
        clock.now = emptied
        outages.emptied(EAST)
        if died is not None:
            outages.killed(EAST, [7], died)
        ledger.found_at_the_end(session, state(1), WEST)
        assert broken(ledger) == ([] if allowed else ["G3"])
        assert ledger.counts["changes lost within G3"] == allowed

    def test_a_change_that_only_memcached_had_is_told_apart(self, ledger, session, outages):
        change(ledger, session, 1, pid=7)
        outages.killed(EAST, [7])
        ledger.found_at_the_end(session, state(), WEST)
        assert broken(ledger) == []
        assert [name for name in ledger.counts if name.startswith("changes orphaned")]

    def test_a_use_of_the_session_brings_such_a_change_home(self, ledger, session, outages, clock):
        change(ledger, session, 1, pid=7)
        outages.killed(EAST, [7])
        clock.now = LONG
        ledger.found(session, state(1), EAST, asked=clock.now)
        ledger.found_at_the_end(session, state(), WEST)
        assert broken(ledger) == ["G3"]

    @pytest.mark.parametrize(("after", "allowed"), [(5, True), (LONG, False)])
    def test_of_one_key_changed_at_two_sites_the_earlier_change_may_stand(
        self, ledger, session, clock, after, allowed
    ):
        change(ledger, session, 1)
        clock.now += after
        change(ledger, session, 2, site=WEST)
        ledger.found_at_the_end(session, state(1), EAST)
        assert broken(ledger) == ([] if allowed else ["G3"])

    def test_so_it_may_where_processes_did_not_agree_that_memcached_is_down(
        self, ledger, session, happen
    ):
        change(ledger, session, 1, pid=1)
        change(ledger, session, 2, pid=2)
        ledger.found_at_the_end(session, state(1), WEST)
        assert broken(ledger) == ["G3"]
        happen(hot(EAST))
        ledger.found_at_the_end(session, state(1), WEST)
        ledger.found_at_the_end(session, state(), WEST)
        assert broken(ledger) == ["G3", "G3"]

    def test_a_logged_out_user_is_found_out(self, ledger, session):
        ledger.found(session, state(user=None), EAST, asked=0)
        ledger.found_at_the_end(session, state(user=None), WEST)
        assert broken(ledger) == ["G1", "G1"]

    def test_who_tried_to_log_out_may_be_logged_out(self, ledger, session):
        session.doubtful = True
        ledger.found(session, state(user=None), EAST, asked=0)
        assert broken(ledger) == []

    def test_an_own_change_is_seen_at_once(self, ledger, session):
        change(ledger, session, 1)
        ledger.found(session, state(), EAST, asked=1)
        assert broken(ledger) == ["own change not seen"]

    def test_after_an_outage_or_a_move_it_is_seen_a_lease_later(
        self, ledger, session, happen, clock
    ):
        change(ledger, session, 1)
        ledger.found(session, state(), WEST, asked=1, moved=0)
        happen(hot(EAST))
        ledger.found(session, state(), EAST, asked=clock.now)
        assert broken(ledger) == []
        clock.now += INTERVAL + GRACE + 1
        ledger.found(session, state(), EAST, asked=clock.now)
        assert broken(ledger) == ["own change not seen"]

    def test_who_comes_back_while_dynamodb_is_down_may_see_what_was_there(
        self, ledger, session, happen, clock
    ):
        clock.now = LONG
        change(ledger, session, 1, site=WEST)
        happen(*REGIONS)
        ledger.found(session, state(), EAST, asked=clock.now)
        assert broken(ledger) == []

    def test_a_session_that_outlives_its_logout_is_found_out(self, ledger, session, clock):
        ledger.log_out(session, EAST)
        ledger.found_after_logout(session, state(), WEST)
        assert broken(ledger) == []
        ledger.found_after_logout(session, state(), EAST)
        assert broken(ledger) == ["G4"]
        clock.now += INTERVAL + SLACK + 1
        ledger.found_after_logout(session, state(), WEST)
        assert broken(ledger) == ["G4", "G4"]
        ledger.found_after_logout(session, state(user=None), WEST)
        assert ledger.counts["logouts found final"] == 1


class TestOutages:
    def why(self, outages, clock, *, seen=None, through=False):
        return outages.unavailable(EAST, clock.now, clock.now, seen=seen, through=through)

    def test_no_503_without_an_outage(self, outages, clock):
        assert self.why(outages, clock) is None

    def test_one_region_is_no_excuse(self, outages, clock, happen):
        happen(hot(EAST), REGIONS[0])
        assert self.why(outages, clock, through=True) is None

    def test_all_regions_are_one_for_a_login_and_for_what_memcached_lacks(
        self, outages, clock, happen
    ):
        happen(*REGIONS)
        assert "durable" in self.why(outages, clock, through=True)
        assert "not in this memcached" in self.why(outages, clock, seen=None)
        assert self.why(outages, clock, seen=0) is None
        clock.now += GRACE + 1
        assert self.why(outages, clock, through=True) is None

    def test_both_tiers_are_one_for_everything(self, outages, clock, happen):
        happen(hot(EAST), *REGIONS)
        assert self.why(outages, clock, seen=0) == "both tiers down"

    def test_a_site_has_its_own_memcached(self, outages, clock, happen):
        happen(hot(WEST), *REGIONS)
        assert self.why(outages, clock, seen=0) is None

    def test_a_worker_that_has_just_begun_may_refuse_a_login(self, outages, clock, happen):
        happen(web(EAST))
        assert "just begun" in self.why(outages, clock, through=True)
        assert self.why(outages, clock, seen=0) is None

    def test_a_connection_breaks_with_its_process_only(self, outages, clock, happen):
        happen(web(WEST))
        assert not outages.web_down(EAST, clock.now, clock.now)
        happen(web(EAST))
        assert outages.web_down(EAST, clock.now, clock.now)


class TestPlan:
    @pytest.mark.parametrize("seed", range(10))
    def test_two_minutes_have_every_kind(self, seed):
        planned = plan(seed, 120)
        assert {fault.name for fault in planned} == set(KINDS)
        assert planned == plan(seed, 120) == sorted(planned)

    def test_each_seed_has_a_plan_of_its_own(self):
        assert plan(1, 120) != plan(2, 120)

    def test_no_two_faults_touch_the_same_at_once(self):
        planned = plan(3, 600)
        assert len(planned) == 5 * len(KINDS)
        for number, one in enumerate(planned):
            for other in planned[number + 1 :]:
                mine = KINDS[one.name].occupies(one.target)
                if mine & KINDS[other.name].occupies(other.target):
                    assert one.start + one.seconds < other.start

    def test_all_is_over_in_time(self):
        assert all(fault.start + fault.seconds <= 60 for fault in plan(1, 60))


@pytest.fixture
def proxy(start):
    return start(Proxy, target=start(Memcached).port)


def ask(proxy, timeout=0.3):
    behind = Memcached(port=proxy.port)
    behind.timeout = timeout
    return behind._ask("version")


class TestProxy:
    def test_passes_on(self, proxy):
        assert ask(proxy).startswith(b"VERSION")

    def test_refuses_until_it_is_healed(self, proxy):
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            ask(proxy)
        proxy.heal()
        assert ask(proxy)

    def test_swallows_until_it_is_healed(self, proxy):
        proxy.swallow()
        with pytest.raises(TimeoutError):
            ask(proxy)
        proxy.heal()
        assert ask(proxy)

    def test_delays(self, proxy):
        proxy.delay(0.4)
        with pytest.raises(TimeoutError):
            ask(proxy)
        assert ask(proxy, timeout=5)


class TestReport:
    @pytest.fixture
    def load(self, outages, ledger, happen, session, clock):
        load = Load(None, outages, None, ledger)
        clock.now = 5.0
        happen(hot(EAST), seconds=2)
        load.samples = [
            Sample(float(second), 0.5 if second == 6 else 0.01, "look", EAST, "200")
            for second in range(10)
        ]
        load.samples.append(Sample(6.5, 0.2, "mark", EAST, "503"))
        load.causes.append((6.5, "both tiers down"))
        load.lasted = 10.0
        return load

    def test_adds_up(self, load, ledger, tmp_path):
        worker = Worker(EAST, 7, 0.0)
        worker.see(1.0, 80.0, 12)
        document = report.document(load, ledger, [worker], {EAST: []}, seed=1)
        assert document["ok"]
        assert document["requests"]["by_outcome"] == {"200": 10, "503": 1}
        assert document["latency"]["a fault"]["max_ms"] == 500.0
        assert document["latency"]["no fault"]["max_ms"] == 10.0
        assert document["workers"]["seen"][0]["memory_mb"]["most"] == 80.0
        assert json.loads(report.write(document, tmp_path).read_text()) == document
        assert "All guarantees held" in report.summary(document, ledger.broken)

    @pytest.mark.parametrize("what", ["loss", "log", "threads", "memory"])
    def test_is_not_ok_if_anything_is_broken(self, load, ledger, session, what):
        worker = Worker(EAST, 7, 0.0)
        worker.see(1.0, 80.0, 12)
        if what == "loss":
            change(ledger, session, 1)
            ledger.found_at_the_end(session, state(), WEST)
        if what == "threads":
            worker.see(2.0, 80.0, MOST_THREADS + 1)
        if what == "memory":
            worker.see(60.0, 80.0 + MOST_GROWTH + 1, 12)
        logs = {EAST: ["Traceback …"] if what == "log" else []}
        document = report.document(load, ledger, [worker], logs, seed=1)
        assert not document["ok"]
        assert "BROKEN" in report.summary(document, ledger.broken)

    def test_a_log_with_an_exception_is_shown(self, tmp_path):
        log = tmp_path / "east.log"
        log.write_text("fine\nTraceback (most recent call last):\n  File …\nValueError: x\n")
        assert len(incidents(log)) == 1
        assert "ValueError: x" in incidents(log)[0]
        log.write_text("Answered 503: the session is unavailable (no tier answers).\n")
        assert incidents(log) == []

    def test_the_timeline_is_a_picture(self, load, outages):
        outages.all.append(Outage("a <fault>", "east & west", frozenset(), 8.0))
        root = ET.fromstring(timeline.draw(load.samples, outages.all, 0.0, 10.0))  # noqa: S314
        texts = "".join(root.itertext())
        assert "a <fault> (east & west)" in texts
        assert len([each for each in root.iter() if each.get("class") == "bad"]) == 1
