"""What stands when the orders of several processes are put together, and how long."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dynamo_failover.exceptions import Unreadable
from django_dynamo_failover.orders import Orders, decode_orders

from .sites import NOW

DAY = 86_400
MICROSECOND = 1e-6
laws = settings(deadline=None)

times = st.sampled_from([0.0, NOW, NOW + 1, NOW + 2])
users = st.dictionaries(st.sampled_from(["ann", "ben", "eve"]), times)


@st.composite
def orders(draw):
    """Any orders: few versions, so that they meet."""
    version = draw(st.integers(0, 4))
    drain_version = draw(st.integers(0, version))
    return Orders(
        version=version,
        # No two orders to drain and not to drain can have one version, except made in one moment.
        draining=draw(st.booleans()) if drain_version else False,
        drain_version=drain_version,
        revalidated=draw(times),
        users=draw(users),
    )


def content(orders):
    """What is ordered, without the version."""
    return dataclasses.replace(orders, version=0)


def says_all_of(orders, other):
    """Tell whether who knows these orders knows the others too."""
    return (
        (orders.drain_version, orders.draining) >= (other.drain_version, other.draining)
        and orders.revalidated >= other.revalidated
        and all(orders.users.get(user, -1) >= before for user, before in other.users.items())
    )


# --- Putting together -------------------------------------------------------------------------


@laws
@given(orders(), orders(), orders())
def test_it_does_not_matter_who_tells_whom_first(one, two, three):
    left, right = one.merged(two).merged(three), one.merged(two.merged(three))
    assert content(left) == content(right)


@laws
@given(orders(), orders())
def test_it_does_not_matter_who_puts_together(one, two):
    assert one.merged(two) == two.merged(one)


@laws
@given(orders(), orders())
def test_what_is_known_is_told_in_vain(one, two):
    assert one.merged(one) == one
    merged = one.merged(two)
    assert merged.merged(one) == merged.merged(two) == merged


@laws
@given(orders(), orders())
def test_nothing_is_lost_and_nothing_is_made_up(one, two):
    merged = one.merged(two)
    assert says_all_of(merged, one)
    assert says_all_of(merged, two)
    assert (merged.draining, merged.drain_version) in [
        (one.draining, one.drain_version),
        (two.draining, two.drain_version),
    ]
    assert merged.revalidated in (one.revalidated, two.revalidated)
    for user, before in merged.users.items():
        assert before in (one.users.get(user), two.users.get(user))


@laws
@given(orders(), orders())
def test_a_version_never_stands_for_less_than_it_says(one, two):
    """Who has this version passes for one who knows of both."""
    merged = one.merged(two)
    for known in (one, two):
        assert merged.version > known.version or merged == known


@laws
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("drul"))))
def test_whoever_has_the_version_of_an_order_or_a_later_one_knows_the_order(steps):
    """Three processes and one note, all within one moment of a clock."""
    note = Orders()
    processes = [note] * 3
    told = []
    for number, (process, step) in enumerate(steps):
        orders = processes[process]
        match step:
            case "d":
                orders = orders.drain(number % 2 == 0, NOW)
            case "r":
                orders = orders.revalidate(NOW + number)
            case "u":
                orders = orders.revoke({f"user {number}": NOW}, NOW)
        # And with "l" it only looks.
        note = processes[process] = orders.merged(note)
        told.append(note)
        for known in processes:
            assert all(says_all_of(known, each) for each in told if known.version >= each.version)


ORDERS = {
    "drain": lambda orders: orders.drain(True, NOW),
    "revalidate": lambda orders: orders.revalidate(NOW),
    "revoke": lambda orders: orders.revoke({"ann": NOW}, NOW),
}


@pytest.mark.parametrize("first", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("second", ORDERS.values(), ids=ORDERS)
def test_orders_of_one_moment_at_processes_that_know_nothing_of_each_other(first, second):
    one, two = first(Orders()), second(Orders())
    assert one.version == two.version
    merged = one.merged(two)
    assert says_all_of(merged, one)
    assert says_all_of(merged, two)
    assert merged.version > one.version or one == two


@pytest.mark.parametrize("draining", [True, False])
def test_the_later_one_of_on_and_off_stands(draining):
    """Also where neither knew of the other."""
    one = Orders().drain(not draining, NOW)
    two = Orders().drain(draining, NOW + MICROSECOND)
    assert one.merged(two).draining is two.merged(one).draining is draining


def test_other_orders_do_not_turn_draining_on_or_off():
    draining = Orders().drain(True, NOW)
    later = Orders().drain(False, NOW - 1).revalidate(NOW + 1).revoke({"ann": NOW}, NOW + 1)
    assert later.version > draining.version
    assert draining.merged(later).draining


@pytest.mark.parametrize("ordered", ORDERS.values(), ids=ORDERS)
def test_each_order_is_of_a_later_version_even_if_the_clock_went_back(ordered):
    known = Orders().revalidate(NOW + DAY)
    assert ordered(known).version == known.version + 1


def test_an_order_is_newer_than_those_that_all_have_forgotten():
    """They live in caches: what was version 7 once may be in some process's memory only."""
    forgotten = Orders().drain(True, NOW)
    assert Orders().drain(False, NOW + 1).version > forgotten.version


def test_a_user_who_is_logged_out_twice_stays_logged_out_until_the_later_time():
    twice = Orders().revoke({"ann": NOW + 2}, NOW).revoke({"ann": NOW}, NOW)
    assert twice.users == {"ann": NOW + 2}


# --- How long ---------------------------------------------------------------------------------


def test_after_a_day_users_are_named_no_more():
    orders = Orders().revoke({"ann": NOW}, NOW).revoke({"ben": NOW + 1}, NOW + 1)
    assert orders.pruned(NOW + DAY - 1) is orders
    assert orders.pruned(NOW + DAY).users == {"ben": NOW + 1}
    assert orders.pruned(NOW + DAY + 1).users == {}


def test_draining_and_revalidating_do_not_end_by_themselves():
    orders = Orders().drain(True, NOW).revalidate(NOW)
    assert orders.pruned(NOW + 1000 * DAY) == orders


def many(number):
    return {f"user {n}": NOW - n % 7 for n in range(number)}


def test_a_thousand_users_are_named():
    orders = Orders().revoke(many(1000), NOW)
    assert len(orders.users) == 1000
    assert orders.revalidated == 0


def test_of_more_users_all_sessions_are_revalidated():
    """All that agreed before DynamoDB was told of the last one, which took so long."""
    orders = Orders().revoke(many(1001), NOW + 20)
    assert orders.users == {}
    assert orders.revalidated == NOW + 20


def test_too_many_of_several_processes_are_not_lost_either():
    one = Orders().revoke(many(900), NOW)
    two = Orders().revoke({f"other {n}": NOW for n in range(101)}, NOW)
    merged = one.merged(two)
    assert len(merged.users) == 1001
    assert merged.pruned(NOW).users == {}
    assert merged.pruned(NOW).revalidated == NOW


def test_a_revalidation_that_was_later_stays_so():
    orders = Orders().revalidate(NOW + 5).revoke(many(1001), NOW)
    assert orders.revalidated == NOW + 5


def test_orders_of_many_users_are_a_note_of_a_size_that_any_cache_takes():
    owners = {f"{n:032x}": NOW + n / 7 for n in range(1000)}
    assert len(Orders().revoke(owners, NOW).encode()) < 100_000


# --- Notes ------------------------------------------------------------------------------------


@laws
@given(orders())
def test_a_note_says_the_orders(orders):
    assert decode_orders(orders.encode()) == orders


def test_a_note_of_a_newer_release_is_read_as_far_as_it_is_known():
    orders = Orders().drain(True, NOW)
    newer = {**dataclasses.asdict(orders), "freeze": True}
    assert decode_orders(json.dumps(newer).encode()) == orders


def _without(name):
    told = dataclasses.asdict(Orders().drain(True, NOW))
    del told[name]
    return json.dumps(told).encode()


NOT_ORDERS = {
    "nothing": b"",
    "noise": b"\x00\xff",
    "no JSON": b"{",
    "another thing": b"7",
    "a text": b'"version"',
    "a list": b"[]",
    "an empty object": b"{}",
    **{
        f"no {field.name}": _without(field.name)  # another release's
        for field in dataclasses.fields(Orders)
    },
}


@pytest.mark.parametrize("note", NOT_ORDERS.values(), ids=NOT_ORDERS)
def test_what_says_no_orders_is_refused(note):
    with pytest.raises(Unreadable):
        decode_orders(note)


def test_no_error_page_shows_whose_logins_are_over():
    assert "ann" not in repr(Orders().revoke({"ann": NOW}, NOW))
