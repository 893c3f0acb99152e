"""What a process tells of itself, as a note: what comes back, what is refused, what it costs."""

import dataclasses
import json
import random
import time
import zlib
from pathlib import Path

import pytest

from django_dynamo_failover.exceptions import Unreadable
from django_dynamo_failover.history import MINUTES, Event, History, Minute
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.reporter import REPORT_SECONDS
from django_dynamo_failover.snapshot import Snapshot, decode_snapshot

from .sites import NOW, Clock

#: What is counted in a minute of a process that answers 20 pages a second.
BUSY = {
    "hot_hits": 1200,
    "hot_misses": 6,
    "saves": 300,
    "created": 30,
    "deleted": 4,
    "cold_reads": 45,
    "cold_writes": 60,
    "renewed": 40,
    "forged_keys": 3,
}
#: Calls in such a minute, and the logarithm of how long most take.
CALLS = {
    "hot read": (1200, -8.5),
    "hot write": (300, -8.3),
    "us-east-1 read": (45, -5),
    "us-east-1 write": (60, -4.8),
}


@pytest.fixture(scope="module")
def busy():
    """A process after a busy hour."""
    dice = random.Random(1)
    metrics, clock = Metrics(), Clock()
    history = History(metrics, now=clock)
    for _ in range(MINUTES):
        for name, number in BUSY.items():
            metrics.count(name, round(dice.gauss(number, number**0.5)))
        for call, (number, typical) in CALLS.items():
            for _ in range(number):
                metrics.took(call, dice.lognormvariate(typical, 0.5))
        history.look()
        clock.tick(60)
    clock.tick(-1)
    for tier in ("us-east-1", "hot"):
        history.happened("down", tier)
        history.happened("up", tier)
    history.happened("drain on")
    return Snapshot(
        id="0123456789abcdef",
        host="web-1.east.example.com",
        pid=12345,
        site="east",
        version="0.1.0",
        started=NOW - 0.25,
        at=clock.now + 0.125,
        counters={name: number for name, number in metrics.snapshot().items() if number},
        latencies=metrics.latencies(),
        errors={"us-east-1 ReadTimeoutError": 3},
        up={"hot": True, "us-east-1": False},
        pending=7,
        oldest=NOW + 3000.5,
        logouts=1,
        draining=True,
        minutes=history.minutes,
        events=history.events,
    )


IDLE = Snapshot("id", "host", 1, None, "0.1.0", NOW, NOW)


def told_by(snapshot):
    """What a note says."""
    return json.loads(zlib.decompress(snapshot.encode()))


def note_of(told):
    return zlib.compress(json.dumps(told).encode())


def test_it_comes_back_as_it_was(busy):
    assert len(busy.minutes) == MINUTES
    assert decode_snapshot(busy.encode()) == busy
    assert decode_snapshot(IDLE.encode()) == IDLE


def test_after_a_busy_hour_it_is_less_than_4_kb(busy):
    assert len(busy.encode()) < 4096


def test_what_an_hour_of_them_takes_is_documented(busy):
    page = (Path(__file__).parent.parent / "docs" / "how.rst").read_text()
    assert "2,700 KB for one that has answered 20 pages a second" in page
    assert len(busy.encode()) * 3600 / REPORT_SECONDS / 1000 == pytest.approx(2700, rel=0.1)


def test_to_make_and_to_read_it_takes_about_a_millisecond(busy):
    def cost(work, *arguments):
        began = time.perf_counter()
        work(*arguments)
        return time.perf_counter() - began

    note = busy.encode()
    assert min(cost(busy.encode) for _ in range(50)) < 0.001
    assert min(cost(decode_snapshot, note) for _ in range(50)) < 0.001


def test_what_a_newer_release_tells_besides_is_left_out(busy):
    told = told_by(busy)
    told["mood"] = "good"
    for part in (*told["minutes"], *told["events"]):
        part["mood"] = "good"
    assert decode_snapshot(note_of(told)) == busy


@pytest.mark.parametrize(
    ("kind", "part"), [(Snapshot, None), (Minute, "minutes"), (Event, "events")]
)
def test_what_an_earlier_release_does_not_tell_has_its_default(busy, kind, part):
    """Without what has none it is refused."""
    for field in dataclasses.fields(kind):
        told = told_by(busy)
        del (told if part is None else told[part][0])[field.name]
        if field.default is field.default_factory is dataclasses.MISSING:
            with pytest.raises(Unreadable, match="another release"):
                decode_snapshot(note_of(told))
            continue
        empty = field.default_factory() if field.default is dataclasses.MISSING else field.default
        decoded = decode_snapshot(note_of(told))
        assert getattr(decoded if part is None else getattr(decoded, part)[0], field.name) == empty


MISTOLD = {
    "minutes": [None, 1, [None], [[]], ["minute"]],
    "events": [None, 1, [7]],
    "latencies": [None, [], 1, {"hot read": 1}, {"hot read": [1, 2]}, {"hot read": ["x"] * 19}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in MISTOLD for value in MISTOLD[name]]
)
def test_what_has_another_form_is_refused(busy, name, value):
    with pytest.raises(Unreadable):
        decode_snapshot(note_of({**told_by(busy), name: value}))


def test_minutes_of_other_buckets_are_refused(busy):
    told = told_by(busy)
    told["minutes"][-1]["cold"].append(0)
    with pytest.raises(Unreadable):
        decode_snapshot(note_of(told))


BOMB = zlib.compress(bytes(50_000_000))

GARBAGE = {
    "nothing": b"",
    "noise": random.Random(1).randbytes(500),
    "plain json": json.dumps({}).encode(),
    "compressed noise": zlib.compress(b"\xff\x00noise"),
    "compressed nothing": zlib.compress(b""),
    "a number": note_of(1),
    "a list": note_of([]),
    "null": note_of(None),
    "an empty object": note_of({}),
    "a very deep list": zlib.compress(b"[" * 500_000),
    "truncated": IDLE.encode()[:-20],
    "a zip bomb": BOMB,
    "a zip bomb of json": zlib.compress(b'{"id": "' + b"x" * 5_000_000 + b'"}'),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused(name):
    with pytest.raises(Unreadable):
        decode_snapshot(GARBAGE[name])


def test_a_zip_bomb_is_not_unpacked():
    assert len(BOMB) < 100_000  # it would be 50 MB
    began = time.perf_counter()
    with pytest.raises(Unreadable):
        decode_snapshot(BOMB)
    assert time.perf_counter() - began < 0.1
