"""Numbers as a person reads them."""

import pytest

from django_dynamo_failover.panel.words import NOTHING, dollars, duration, latency, size, some


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 changes"), (1, "1 change"), (1200, "1,200 changes")]
)
def test_some(number, words):
    assert some(number, "change") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (900, "15 min"),
        (5_940, "99 min"),
        (6_000, "1 h 40 min"),
        (7_200, "2 h"),
        (172_799, "2 days"),
        (40 * 86_400, "40 days"),
    ],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, NOTHING),
        (0.000021, "21 µs"),
        (0.00421, "4.2 ms"),
        (0.021, "21 ms"),
        (0.9994, "999 ms"),
        (1.05, "1.05 s"),
    ],
)
def test_latency(seconds, words):
    assert latency(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1434, "1.4 KB"), (3.4e9, "3.2 GB"), (1e16, "9,094.9 TB")],
)
def test_size(number, words):
    assert size(number) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "$0.00"), (0.042, "$0.04"), (12.4, "$12"), (123, "$120"), (1_349, "$1,300")],
)
def test_dollars(amount, words):
    assert dollars(amount) == words
