"""What a request changed, put onto what others did: three ways, and four where others had begun."""

import json
from dataclasses import replace

import pytest

from django_dynamo_failover.changes import Change, Draft, Held, Pending, merge_over, of_others
from django_dynamo_failover.merge import merge
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.record import MAX_GROUND_BYTES, new_record

NOW = 1_800_000_000.0
LATER = NOW + 10
EXPIRES = NOW + 1000


def payload(**data):
    return json.dumps(data).encode()


def merged(base, ours, theirs):
    """As ``SessionStore`` does, of payloads that are JSON."""
    return payload(**merge(*map(json.loads, (base, ours, theirs)))), EXPIRES


def data(result):
    assert result is not None
    body, expires = result
    assert expires == EXPIRES
    return json.loads(body)


@pytest.fixture
def stored():
    """What DynamoDB holds."""
    return new_record("an id", payload(a=1, b=1, c=1), EXPIRES, NOW).written()


@pytest.fixture
def begun(stored):
    """What a neighbour made of it, and has not written yet."""
    return stored.changed(payload(a=2, b=1, c=1), EXPIRES, NOW + 1)


@pytest.fixture
def ours(begun):
    """What we made of that."""
    return begun.changed(payload(a=2, b=2, c=1), EXPIRES, NOW + 2)


def pending(begun, ours):
    return Pending(ours, begun.payload, merged, begun.ground)


def elsewhere(stored, at, **data):
    """What another site made of the stored version."""
    return stored.reborn().changed(payload(**data), EXPIRES, at).written()


def change(loaded, **data):
    draft = Draft(payload(**data), EXPIRES, through=False)
    return Change(draft, Held(loaded), merged, Metrics())


@pytest.mark.parametrize("at", [NOW + 1, LATER], ids=["earlier", "later"])
def test_what_a_neighbour_has_begun_is_not_undone_by_a_merge_with_another_site(
    stored, begun, ours, at
):
    theirs = elsewhere(stored, at, a=1, b=1, c=3)
    assert data(pending(begun, ours).merged(ours, theirs)) == {"a": 2, "b": 2, "c": 3}


@pytest.mark.parametrize(("at", "stands"), [(NOW + 1, 2), (LATER, 3)], ids=["earlier", "later"])
def test_of_a_key_that_both_changed_the_later_version_stands(stored, begun, ours, at, stands):
    theirs = elsewhere(stored, at, a=1, b=3, c=1)
    assert data(pending(begun, ours).merged(ours, theirs)) == {"a": 2, "b": stands, "c": 1}


def test_what_was_removed_after_a_neighbour_had_changed_it_does_not_come_back(stored, begun, ours):
    """Ours is later; but we did not change that key."""
    theirs = elsewhere(stored, NOW + 1.5, b=1, c=1)
    assert data(pending(begun, ours).merged(ours, theirs)) == {"b": 2, "c": 1}


def test_a_change_from_clean_ground_is_merged_three_ways(stored):
    ours = stored.changed(payload(a=1, b=2, c=1), EXPIRES, NOW + 2)
    theirs = elsewhere(stored, NOW + 1, a=3, b=1, c=1)
    mine = Pending(ours, stored.payload, merged, stored.ground)
    assert data(mine.merged(ours, theirs)) == {"a": 3, "b": 2, "c": 1}


@pytest.mark.parametrize("at", [NOW + 1, LATER], ids=["earlier", "later"])
def test_what_others_changed_is_merged_as_if_it_were_ours(stored, ours, at):
    theirs = elsewhere(stored, at, a=1, b=3, c=3)
    stands = 3 if at == LATER else 2
    assert data(of_others(ours, merged).merged(ours, theirs)) == {"a": 2, "b": stands, "c": 3}


def test_what_others_changed_is_not_merged_without_a_merge_or_its_ground(stored, ours):
    assert of_others(ours, None) is None
    assert of_others(stored, merged) is None


def test_nothing_merges_without_a_merge(stored, ours):
    assert Pending(ours).merged(ours, elsewhere(stored, LATER, a=1)) is None


def test_a_save_onto_what_the_hot_tier_was_filled_with_keeps_what_a_neighbour_had_begun(
    stored, begun
):
    """The hot tier lost it, and another request has changed the stored version since."""
    theirs = elsewhere(stored, LATER, a=1, b=1, c=3)
    assert data(change(begun, a=2, b=2, c=1).onto(theirs)) == {"a": 2, "b": 2, "c": 3}


def test_a_save_onto_a_later_version_of_the_entry_that_was_loaded_takes_that_as_it_is(begun):
    theirs = begun.changed(payload(a=1, b=1, c=3), EXPIRES, LATER)
    assert data(change(begun, a=2, b=2, c=1).onto(theirs)) == {"a": 1, "b": 2, "c": 3}


def test_our_change_goes_over_the_others():
    ground, begun = payload(a=1), payload(a=2)
    result = merge_over(merged, ground, begun, ours=payload(a=3), theirs=payload(a=4))
    assert data(result) == {"a": 3}


def test_a_ground_that_is_too_large_is_not_carried_along(stored):
    large = replace(stored, payload=bytes(MAX_GROUND_BYTES + 1))
    assert large.changed(b"", EXPIRES, NOW).ground == b""
    fits = replace(stored, payload=bytes(MAX_GROUND_BYTES))
    assert fits.changed(b"", EXPIRES, NOW).ground == fits.payload


def test_all_payloads_are_counted(stored, begun, ours):
    held = [ours.payload, ours.ground, begun.payload, begun.ground]
    assert pending(begun, ours).size == sum(map(len, held))
    assert len(held[1]) == len(held[3]) == len(stored.payload)
