"""Times in buckets: what is known of their quantiles, and that they add up."""

import itertools
import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dynamo_failover.histogram import (
    BOUNDS,
    added,
    count,
    new_histogram,
    observe,
    quantile,
    since,
)

times = st.one_of(st.floats(0, 10), st.sampled_from(BOUNDS))
parts = st.floats(0, 1)


def histogram_of(times):
    histogram = new_histogram()
    for seconds in times:
        observe(histogram, seconds)
    return histogram


histograms = st.lists(times, max_size=30).map(histogram_of)
#: As ``Metrics`` returns them: with a sum in whole microseconds.
totals = histograms.map(lambda histogram: added([histogram]))


def test_of_nothing_nothing_is_known():
    assert count(new_histogram()) == 0
    assert quantile(new_histogram(), 0.5) is None


def test_bounds_rise():
    assert all(lower < upper for lower, upper in itertools.pairwise(BOUNDS))


@pytest.mark.parametrize("number", range(len(BOUNDS)))
def test_a_bound_belongs_to_the_bucket_below_it(number):
    """As the ``le`` of Prometheus has it."""
    assert histogram_of([BOUNDS[number]])[number] == 1
    assert histogram_of([math.nextafter(BOUNDS[number], 99)])[number + 1] == 1


@given(st.lists(times))
def test_each_time_is_counted_once_and_summed(times):
    histogram = histogram_of(times)
    assert count(histogram) == len(times)
    assert histogram[-1] == pytest.approx(sum(times))


@given(st.lists(times, min_size=1), parts)
def test_a_quantile_is_in_the_bucket_of_the_real_one(times, part):
    real = sorted(times)[max(0, math.ceil(part * len(times)) - 1)]
    bucket = bisect_left(BOUNDS, real)
    told = quantile(histogram_of(times), part)
    assert told is not None
    if bucket == len(BOUNDS):  # longer than the last bound: nobody knows how long
        assert told == BOUNDS[-1]
    else:
        assert (0.0, *BOUNDS)[bucket] <= told
        assert told <= BOUNDS[bucket] or told == pytest.approx(BOUNDS[bucket])


@given(st.lists(times, min_size=1), parts, parts)
def test_quantiles_rise(times, one, other):
    histogram = histogram_of(times)
    lower, upper = sorted([one, other])
    assert quantile(histogram, lower) <= quantile(histogram, upper)


def test_times_are_taken_for_evenly_spread_in_a_bucket():
    histogram = histogram_of([0.03] * 4)
    assert [quantile(histogram, part) for part in (0, 0.5, 1)] == pytest.approx(
        [0.025, 0.0375, 0.05]
    )


@given(totals, totals)
def test_since_takes_away_what_was_added(before, new):
    assert since(added([before, new]), before) == new


@given(totals)
def test_since_nothing_is_all(histogram):
    assert since(histogram, None) == histogram == since(histogram, new_histogram())


@given(st.lists(histograms, max_size=6), st.randoms())
def test_neither_the_order_nor_the_grouping_changes_what_is_added(histograms, random):
    """Threads come and go: what they have counted is added in whatever order, and then at once."""
    total = added(histograms)
    shuffled = random.sample(histograms, len(histograms))
    split = random.randint(0, len(histograms))
    assert total == added(shuffled)
    assert total == added([added(shuffled[:split]), *shuffled[split:]])
    assert count(total) == sum(map(count, histograms))


def test_adding_leaves_the_parts_as_they_are():
    one = histogram_of([0.1])
    total = added([one])
    observe(total, 0.1)
    assert count(one) == 1
    assert added([]) == new_histogram()


def test_buckets_of_another_release_are_not_added():
    with pytest.raises(ValueError, match="zip"):
        added([[1, 2, 3]])
