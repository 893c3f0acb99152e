"""Two requests that change one session at the same time both keep their change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dynamo_failover.merge import merge

AUTH = ["_auth_user_id", "_auth_user_backend", "_auth_user_hash"]
NOBODY: dict[str, str] = {}
ANN = dict.fromkeys(AUTH, "ann")
BEN = dict.fromkeys(AUTH, "ben")

keys = st.sampled_from(["cart", "theme", "step", "_session_expiry", *AUTH])
plain_keys = st.sampled_from(["cart", "theme", "step", "_session_expiry", "_author"])
values = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
sessions = st.dictionaries(keys, values)
plain_sessions = st.dictionaries(plain_keys, values)
laws = settings(deadline=None)


def changes(base, changed):
    """Return the keys that were set to something else, added or deleted."""
    keys = base.keys() | changed.keys()
    return {
        key for key in keys if (key in base, base.get(key)) != (key in changed, changed.get(key))
    }


def _only(session, keys):
    return {key: value for key, value in session.items() if key in keys}


def part(session, *, auth):
    return {key: value for key, value in session.items() if key.startswith("_auth_") == auth}


@laws
@given(plain_sessions, plain_sessions, plain_sessions)
def test_every_key_that_one_of_them_changed_is_as_they_left_it(base, ours, theirs):
    merged = merge(base, ours, theirs)
    for key in merged.keys() | base.keys() | ours.keys() | theirs.keys():
        source = ours if key in changes(base, ours) else theirs
        assert (key in merged, merged.get(key)) == (key in source, source.get(key))


@laws
@given(plain_sessions, plain_sessions, st.sets(plain_keys))
def test_the_order_does_not_matter_when_they_changed_different_keys(base, other, mine):
    """One of them sets or deletes the keys that are ``mine``, the other all the rest."""
    ours = {k: v for k, v in base.items() if k not in mine} | _only(other, mine)
    theirs = {k: v for k, v in base.items() if k in mine} | _only(other, other.keys() - mine)
    assert merge(base, ours, theirs) == merge(base, theirs, ours) == other


@laws
@given(sessions, sessions)
def test_who_changed_nothing_changes_nothing(base, other):
    assert merge(base, base, other) == other
    assert merge(base, other, base) == other


@laws
@given(sessions, sessions, sessions)
def test_a_merge_that_is_repeated_changes_no_more(base, ours, theirs):
    merged = merge(base, ours, theirs)
    assert part(merge(base, ours, merged), auth=False) == part(merged, auth=False)
    assert merge(base, ours, ours) == ours


@laws
@given(sessions, sessions, sessions)
def test_a_login_is_all_theirs_or_all_ours(base, ours, theirs):
    winner = theirs if changes(part(base, auth=True), part(theirs, auth=True)) else ours
    assert part(merge(base, ours, theirs), auth=True) == part(winner, auth=True)


@laws
@given(sessions, sessions, sessions)
def test_no_session_is_changed_by_being_merged(base, ours, theirs):
    before = base.copy(), ours.copy(), theirs.copy()
    merge(base, ours, theirs)["new"] = 1
    assert (base, ours, theirs) == before


def test_a_deletion_is_a_change():
    base = {"cart": 1, "theme": 2}
    assert merge(base, {"theme": 2}, {"cart": 1, "theme": 3}) == {"theme": 3}
    assert merge(base, {"cart": 1, "theme": 3}, {"theme": 2}) == {"theme": 3}


def test_a_key_that_both_deleted_is_gone():
    assert merge({"cart": 1}, {}, {}) == {}


def test_a_key_that_was_deleted_there_and_changed_here_is_as_here():
    assert merge({"cart": 1}, {"cart": 2}, {}) == {"cart": 2}


def test_none_is_a_value_and_not_a_deletion():
    assert merge({}, {"a": None}, {"b": 1}) == {"a": None, "b": 1}
    assert merge({"a": 1}, {"a": None}, {"a": 1}) == {"a": None}
    assert merge({"a": None}, {}, {"a": None}) == {}


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "user"),
    [
        (NOBODY, NOBODY, ANN, ANN),  # a page that began before the login does not undo it
        (NOBODY, ANN, NOBODY, ANN),
        (ANN, ANN, NOBODY, NOBODY),  # nor does one that began before the logout
        (ANN, NOBODY, ANN, NOBODY),
        (NOBODY, ANN, BEN, BEN),  # whoever was stored stands, and is no mixture
        (ANN, NOBODY, BEN, BEN),
        (ANN, ANN | {"_auth_user_hash": "old"}, ANN | {"_auth_user_hash": "new"}, None),
    ],
)
def test_the_other_saves_login_stands(base, ours, theirs, user):
    merged = merge(base | {"a": 1}, ours | {"a": 2}, theirs | {"a": 1})
    assert merged == (theirs if user is None else user) | {"a": 2}


def test_any_key_of_djangos_login_makes_it_a_change_of_the_login():
    for key in AUTH:
        theirs = ANN | {key: "new"}
        assert merge(ANN, BEN, theirs) == theirs


def test_the_expiry_is_a_key_like_any_other():
    assert merge({}, {"_session_expiry": 5}, ANN) == ANN | {"_session_expiry": 5}
