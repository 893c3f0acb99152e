"""A session as the tiers hold it: what was written is read, and nothing else is."""

import dataclasses
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dynamo_failover import record as record_module
from django_dynamo_failover.exceptions import FailoverError, Unreadable
from django_dynamo_failover.keys import Keyring, storage_id
from django_dynamo_failover.record import (
    MAX_PAYLOAD_BYTES,
    Record,
    decode_cold,
    decode_hot,
    encode_cold,
    encode_hot,
    encode_tombstone,
    new_record,
)

NOW = 1_800_000_000.25
KEYRING = Keyring(["secret"])
STRANGER = Keyring(["another secret"])
ID = storage_id("a session")
OTHER_ID = storage_id("another")
RECORD = Record(
    id=ID,
    payload=b"payload",
    lineage=b"lineage.",
    version=7,
    base=5,
    base_expires=int(NOW) + 50,
    agreed_at=NOW - 30,
    dirty_since=NOW - 20,
    modified=NOW - 10,
    expires=int(NOW) + 100,
)

ITEM = encode_cold(RECORD, KEYRING, ordered=True)

seconds = st.floats(0, 1e10)
numbers = st.integers(0, 2**63 - 1)
records = st.builds(
    Record,
    id=st.just(ID),
    payload=st.binary(max_size=300),
    lineage=st.binary(min_size=8, max_size=8),
    version=numbers,
    base=numbers,
    base_expires=st.integers(-(2**63), 2**63 - 1),
    agreed_at=seconds,
    dirty_since=seconds,
    modified=seconds,
    expires=st.integers(-(2**63), 2**63 - 1),
)


def flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- One version and the next -----------------------------------------------------------------


def test_a_new_record_is_the_first_version_and_unknown_to_dynamodb():
    record = new_record(ID, b"new", NOW + 0.1, NOW)
    assert (record.id, record.payload, record.version) == (ID, b"new", 1)
    assert (record.base, record.base_expires, record.dirty) == (0, 0, True)
    assert record.agreed_at == record.dirty_since == record.modified == NOW


@pytest.mark.parametrize("make", [lambda e: new_record(ID, b"", e, NOW), None])
def test_a_session_never_ends_before_its_expiry(make):
    record = make(NOW + 0.1) if make else RECORD.changed(b"", NOW + 0.1, NOW)
    assert record.expires == math.ceil(NOW + 0.1)
    assert isinstance(record.expires, int)


def test_a_change_is_the_next_version_on_the_same_base():
    changed = RECORD.changed(b"changed", NOW + 200, NOW)
    assert changed == dataclasses.replace(
        RECORD, payload=b"changed", version=8, modified=NOW, expires=math.ceil(NOW + 200)
    )


def test_a_record_is_dirty_since_the_first_change_that_dynamodb_lacks():
    clean = RECORD.agreed(NOW)
    first = clean.changed(b"first", NOW + 100, NOW + 1)
    second = first.changed(b"second", NOW + 100, NOW + 2)
    assert not clean.dirty
    assert first.dirty_since == second.dirty_since == NOW + 1


def test_a_record_that_agreed_is_clean_and_based_on_itself():
    assert RECORD.agreed(NOW) == dataclasses.replace(
        RECORD, base=7, base_expires=RECORD.expires, agreed_at=NOW, dirty_since=0.0
    )


def test_a_record_ahead_of_a_written_one_is_dirty_since_that_write():
    written = dataclasses.replace(RECORD, version=6, expires=RECORD.expires - 5)
    assert RECORD.ahead_of(written, NOW) == dataclasses.replace(
        RECORD, base=6, base_expires=written.expires, dirty_since=NOW, ground=written.payload
    )


@pytest.mark.parametrize(("theirs", "version"), [(3, 8), (7, 8), (9, 10)])
def test_a_record_on_top_of_another_sites_follows_both(theirs, version):
    other = dataclasses.replace(
        RECORD, payload=b"theirs", version=theirs, expires=RECORD.expires + 5
    )
    merged = RECORD.on_top_of(other, b"merged", NOW + 50.5, NOW)
    assert merged == dataclasses.replace(
        RECORD,
        payload=b"merged",
        lineage=merged.lineage,
        version=version,
        base=theirs,
        base_expires=other.expires,
        agreed_at=NOW,
        modified=merged.modified,
        expires=math.ceil(NOW + 50.5),
        ground=b"theirs",
    )
    # It has what the one who merges had changed, and not what others had.
    assert not merged.includes(RECORD)
    assert not merged.includes(other)


def test_a_record_on_top_of_another_is_as_late_as_the_later_of_them():
    """Else the next site to compare would take it for the earlier change."""
    later = dataclasses.replace(RECORD, modified=RECORD.modified + 1)
    for merged in (RECORD.on_top_of(later, b"", NOW, NOW), later.on_top_of(RECORD, b"", NOW, NOW)):
        assert later.modified < merged.modified < later.modified + 0.002


def test_two_who_merge_with_the_same_version_make_two_versions():
    """Else one would take the other's for its own, and believe that DynamoDB has its changes."""
    theirs = dataclasses.replace(RECORD, version=9, modified=RECORD.modified + 9)
    one, other = (RECORD.on_top_of(theirs, ours, NOW, NOW) for ours in (b"one", b"other"))
    assert one.version == other.version
    assert not one.same_as(other)
    assert not one.includes(other)


def test_a_clean_record_that_goes_on_top_of_another_becomes_dirty():
    assert RECORD.agreed(NOW).on_top_of(RECORD, b"", NOW, NOW + 1).dirty_since == NOW + 1


def test_the_repr_of_a_record_shows_nothing_of_the_session():
    assert "payload" not in repr(RECORD)
    assert "payload" not in repr(encode_cold(RECORD, KEYRING, ordered=True))


# --- Lineages: what includes what -------------------------------------------------------------

LATER = RECORD.changed(b"later", RECORD.expires, NOW)
OTHER_LIFE = dataclasses.replace(RECORD, lineage=b"another.", modified=RECORD.modified + 1)


def test_each_life_of_an_entry_has_a_lineage_of_its_own():
    lineages = {new_record(ID, b"", NOW, NOW).lineage for _ in range(100)}
    lineages |= {RECORD.reborn().lineage for _ in range(100)}
    lineages |= {decode_cold(ITEM, KEYRING, NOW).lineage for _ in range(100)}
    assert len(lineages) == 300


def test_a_rebirth_changes_nothing_else():
    reborn = RECORD.reborn()
    assert reborn == dataclasses.replace(RECORD, lineage=reborn.lineage)


@pytest.mark.parametrize(
    ("one", "other", "included"),
    [
        (RECORD, RECORD, True),
        (LATER, RECORD, True),
        (RECORD, LATER, False),
        (RECORD.reborn(), RECORD, True),  # the same version, whatever its life
        (LATER.reborn(), RECORD, False),  # a later number of another life proves nothing
        (OTHER_LIFE, RECORD, False),  # nor does the same number
    ],
)
def test_a_version_includes_itself_and_the_earlier_ones_of_its_lineage(one, other, included):
    assert one.includes(other) == included


HELD = RECORD.written()  # by DynamoDB, once
THEN = dataclasses.replace(HELD.reborn(), version=9, base=9, modified=NOW)


@pytest.mark.parametrize(
    ("one", "other", "outdone"),
    [
        (HELD, THEN, True),
        (HELD, THEN.changed(b"more", NOW + 9, NOW + 1), True),
        (THEN, HELD, False),
        (HELD, HELD.reborn(), False),
        (RECORD, THEN, False),  # it has a change that DynamoDB lacks
        (HELD, dataclasses.replace(THEN, version=7, base=7), False),  # two sites' of one number
        (HELD, dataclasses.replace(THEN, modified=RECORD.modified - 1), False),  # written before
        # Made of what DynamoDB held before: it lacks what this one has.
        (HELD, dataclasses.replace(THEN, base=6, dirty_since=NOW), False),
    ],
)
def test_an_earlier_version_is_outdone_by_what_builds_on_a_later_one(one, other, outdone):
    assert one.is_outdone_by(other) == outdone


def test_the_same_version_is_the_same_number_and_the_same_change():
    assert RECORD.same_as(RECORD.reborn().agreed(NOW))
    assert not RECORD.same_as(LATER)
    assert not RECORD.same_as(OTHER_LIFE)


def test_an_entry_learns_that_its_own_version_was_written():
    assert RECORD.knowing(RECORD, NOW) == RECORD.written()
    assert RECORD.reborn().knowing(RECORD, NOW).dirty_since == 0


def test_an_entry_learns_that_an_earlier_version_of_its_lineage_was_written():
    assert LATER.knowing(RECORD, NOW) == LATER.ahead_of(RECORD, NOW)


def test_an_entry_that_knows_of_a_later_write_learns_nothing():
    agreed = LATER.agreed(NOW)
    assert agreed.knowing(RECORD, NOW + 1) is agreed
    assert agreed.knowing(LATER, NOW + 1) is agreed


def test_an_entry_that_lacks_what_was_written_gives_way_to_it():
    known = RECORD.reborn().knowing(LATER, NOW)
    assert known == dataclasses.replace(LATER.written(), lineage=known.lineage)
    assert known.lineage not in (RECORD.lineage, LATER.lineage)


def test_an_entry_that_was_changed_since_without_what_was_written_stays():
    assert OTHER_LIFE.knowing(RECORD, NOW) is OTHER_LIFE


# --- Hot entries ------------------------------------------------------------------------------


@settings(deadline=None)
@given(records)
def test_a_hot_entry_is_read_as_it_was_written(record):
    assert decode_hot(ID, encode_hot(record, KEYRING), KEYRING) == record


def test_a_tombstone_is_read_as_none():
    assert decode_hot(ID, encode_tombstone(ID, KEYRING), KEYRING) is None


@pytest.mark.parametrize("entry", [encode_hot(RECORD, KEYRING), encode_tombstone(ID, KEYRING)])
def test_a_hot_entry_with_any_bit_flipped_is_refused(entry):
    for bit in range(len(entry) * 8):
        with pytest.raises(Unreadable):
            decode_hot(ID, flip(entry, bit), KEYRING)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_hot_entry(entry):
    with pytest.raises(Unreadable):
        decode_hot(ID, entry, KEYRING)


@pytest.mark.parametrize("entry", [encode_hot(RECORD, KEYRING), encode_tombstone(ID, KEYRING)])
def test_a_hot_entry_that_was_cut_short_is_refused(entry):
    for length in range(len(entry)):
        with pytest.raises(Unreadable):
            decode_hot(ID, entry[:length], KEYRING)


@pytest.mark.parametrize("entry", [encode_hot(RECORD, KEYRING), encode_tombstone(ID, KEYRING)])
def test_the_hot_entry_of_another_session_is_refused(entry):
    with pytest.raises(Unreadable):
        decode_hot(OTHER_ID, entry, KEYRING)


@pytest.mark.parametrize("entry", [encode_hot(RECORD, KEYRING), encode_tombstone(ID, KEYRING)])
def test_the_hot_entry_of_another_secret_is_refused_until_that_is_a_fallback(entry):
    with pytest.raises(Unreadable):
        decode_hot(ID, entry, STRANGER)
    decode_hot(ID, entry, Keyring(["another secret", "secret"]))


@pytest.mark.parametrize(
    "entry", [None, "text", 7, {"a": 1}, bytearray(encode_hot(RECORD, KEYRING))]
)
def test_what_is_not_bytes_is_no_hot_entry(entry):
    with pytest.raises(Unreadable):
        decode_hot(ID, entry, KEYRING)


def test_a_hot_entry_of_a_later_release_is_refused():
    body = bytes([99]) + encode_hot(RECORD, KEYRING)[17:]
    with pytest.raises(Unreadable, match="unknown format"):
        decode_hot(ID, KEYRING.sign_hot(ID, body) + body, KEYRING)


def test_the_formats_in_both_tiers_do_not_change_their_numbers_between_releases():
    """A new meaning needs a new number: entries and items of the release before are still there."""
    noise = dataclasses.replace(RECORD, payload=random.Random(1).randbytes(100))
    text = dataclasses.replace(RECORD, payload=b"x" * 100)
    assert encode_hot(RECORD, KEYRING)[16] == 1
    assert encode_tombstone(ID, KEYRING)[16] == 2
    assert encode_cold(noise, KEYRING, ordered=True).data[16] == 1
    assert encode_cold(text, KEYRING, ordered=True).data[16] == 2


# --- Cold items -------------------------------------------------------------------------------


@settings(deadline=None)
@given(records)
def test_a_cold_item_is_read_as_a_clean_record(record):
    item = encode_cold(record, KEYRING, ordered=True)
    found = decode_cold(item, KEYRING, NOW)
    assert found == dataclasses.replace(record.agreed(NOW), lineage=found.lineage)


def test_a_cold_item_says_openly_what_conditions_and_ttl_need():
    item = encode_cold(RECORD, KEYRING, ordered=True)
    assert (item.id, item.site, item.version) == (ID, RECORD.lineage.hex(), 7)
    assert (item.expires, item.modified) == (RECORD.expires, RECORD.modified)


def test_a_cold_item_that_no_hot_tier_ordered_is_of_no_lineage():
    assert encode_cold(RECORD, KEYRING, ordered=False).site == ""


def test_each_write_has_a_nonce_of_its_own():
    nonces = {encode_cold(RECORD, KEYRING, ordered=True).nonce for _ in range(100)}
    assert len(nonces) == 100
    assert "" not in nonces


@pytest.mark.parametrize(
    ("payload", "shrinks"), [(b"x" * 1000, True), (random.Random(1).randbytes(1000), False)]
)
def test_a_cold_item_is_compressed_when_that_is_smaller(payload, shrinks):
    item = encode_cold(dataclasses.replace(RECORD, payload=payload), KEYRING, ordered=True)
    assert (len(item.data) < len(payload)) == shrinks
    assert len(item.data) <= len(payload) + 17


@pytest.mark.parametrize("payload", [b"abc", b"x" * 1000])
def test_a_cold_item_with_any_bit_of_its_data_flipped_is_refused(payload):
    item = encode_cold(dataclasses.replace(RECORD, payload=payload), KEYRING, ordered=True)
    for bit in range(len(item.data) * 8):
        with pytest.raises(Unreadable):
            decode_cold(dataclasses.replace(item, data=flip(item.data, bit)), KEYRING, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"id": OTHER_ID},
        {"version": 8},
        {"version": -1},
        {"version": 2**64},
        {"expires": RECORD.expires + 1},
        {"expires": 2**63},
        {"modified": RECORD.modified + 1},
        {"modified": math.inf},
        {"data": b""},
        {"data": encode_cold(RECORD, KEYRING, ordered=True).data[:16]},
    ],
)
def test_a_cold_item_with_any_of_its_numbers_changed_is_refused(change):
    item = encode_cold(RECORD, KEYRING, ordered=True)
    with pytest.raises(Unreadable):
        decode_cold(dataclasses.replace(item, **change), KEYRING, NOW)


def test_a_cold_item_of_another_secret_is_refused_until_that_is_a_fallback():
    item = encode_cold(RECORD, KEYRING, ordered=True)
    with pytest.raises(Unreadable):
        decode_cold(item, STRANGER, NOW)
    decode_cold(item, Keyring(["another secret", "secret"]), NOW)


def test_a_hot_entry_is_no_cold_item():
    item = encode_cold(RECORD, KEYRING, ordered=True)
    with pytest.raises(Unreadable):
        decode_cold(dataclasses.replace(item, data=encode_hot(RECORD, KEYRING)), KEYRING, NOW)


def test_a_cold_item_of_a_later_release_is_refused():
    item = encode_cold(RECORD, KEYRING, ordered=True)
    numbers = record_module._COLD.pack(item.version, item.expires, item.modified)
    body = bytes([99]) + item.data[17:]
    forged = dataclasses.replace(item, data=KEYRING.sign_cold(ID, numbers + body) + body)
    with pytest.raises(Unreadable, match="unknown format"):
        decode_cold(forged, KEYRING, NOW)


@pytest.mark.parametrize("spoil", [lambda packed: packed[:-1], lambda packed: b"no zlib"])
def test_a_cold_item_that_was_signed_but_does_not_inflate_is_unreadable(spoil):
    item = encode_cold(dataclasses.replace(RECORD, payload=b"x" * 100), KEYRING, ordered=True)
    numbers = record_module._COLD.pack(item.version, item.expires, item.modified)
    body = item.data[16:17] + spoil(item.data[17:])
    spoilt = dataclasses.replace(item, data=KEYRING.sign_cold(ID, numbers + body) + body)
    with pytest.raises(Unreadable):
        decode_cold(spoilt, KEYRING, NOW)


@pytest.mark.parametrize("excess", [0, 1])
def test_what_can_be_written_to_dynamodb_can_be_read_back(excess):
    """zlib makes 400 KB of 400 MB: a payload that inflating would refuse must not be written."""
    record = dataclasses.replace(RECORD, payload=b"x" * (MAX_PAYLOAD_BYTES + excess))
    try:
        item = encode_cold(record, KEYRING, ordered=True)
    except FailoverError:
        assert excess
    else:
        assert decode_cold(item, KEYRING, NOW).payload == record.payload


def test_inflating_stops_at_the_limit(monkeypatch):
    item = encode_cold(dataclasses.replace(RECORD, payload=b"x" * 100_000), KEYRING, ordered=True)
    monkeypatch.setattr(record_module, "MAX_PAYLOAD_BYTES", 50_000)
    with pytest.raises(Unreadable, match="limit"):
        decode_cold(item, KEYRING, NOW)
