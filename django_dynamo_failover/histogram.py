"""How long calls took: counts in fixed buckets, which add up over threads and processes."""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Sequence

#: The upper bounds of the buckets, in seconds. One more bucket is for whatever took longer.
BOUNDS = (
    0.000025,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
)

#: A count for each bucket, then the sum of all seconds: a plain list, for the page hit's sake.
Histogram = list[float]


def new_histogram() -> Histogram:
    """Return a histogram of nothing."""
    return [0] * (len(BOUNDS) + 1) + [0.0]


def observe(histogram: Histogram, seconds: float, number: int = 1) -> None:
    """Add one call to a histogram, or one that stands for several."""
    histogram[bisect_left(BOUNDS, seconds)] += number
    histogram[-1] += seconds * number


def count(histogram: Sequence[float]) -> int:
    """Return how many calls a histogram has seen."""
    return int(sum(histogram[:-1]))


def added(histograms: Iterable[Sequence[float]]) -> Histogram:
    """Return one histogram of all that these have seen: the same in whatever order they come."""
    parts = [*histograms]
    total: Histogram = [sum(values) for values in zip(new_histogram(), *parts, strict=True)]
    total[-1] = _in_microseconds(sum(_in_microseconds(part[-1]) for part in parts))
    return total


def since(now: Sequence[float], before: Sequence[float] | None) -> Histogram:
    """Return what a histogram has seen after an earlier copy of it was made."""
    if before is None:
        return list(now)
    new: Histogram = [later - earlier for later, earlier in zip(now, before, strict=True)]
    new[-1] = _in_microseconds(new[-1])
    return new


def quantile(histogram: Sequence[float], part: float) -> float | None:
    """Return within how many seconds this part of the calls was done, None if there were none.

    As exact as the buckets are: it is taken for evenly spread within one. What took longer than
    the last bound counts as the last bound.
    """
    total = count(histogram)
    if not total:
        return None
    rank = part * total
    for lower, upper, (before, upto) in zip(
        (0.0, *BOUNDS),
        (*BOUNDS, BOUNDS[-1]),
        itertools.pairwise(itertools.accumulate(histogram[:-1], initial=0)),
        strict=True,
    ):
        if upto >= rank and upto > before:
            return lower + (upper - lower) * (rank - before) / (upto - before)
    return BOUNDS[-1]


def _in_microseconds(seconds: float) -> float:
    # Whole ones add up exactly. Else a sum would depend on the order of the threads, and could get
    # smaller when one ends: to whoever watches the numbers that is a restart.
    return round(seconds, 6)
