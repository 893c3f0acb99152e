"""Session keys, storage ids, and what is derived from SECRET_KEY."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dynamo_failover.keys import ALPHABET, KEY_LENGTH, MAC_LENGTH, Keyring, label, storage_id

KEYRING = Keyring(["secret"])
ROTATED = Keyring(["new secret", "secret"])
ID = storage_id("a session")

#: Capitals, what int() and str.lower() forgive, and look-alikes.
NOT_IN_KEYS = "AZ_-+. \n\0\xe9\xb2\uff10\u017f\u212a"

SIGNERS = {
    "hot": (Keyring.sign_hot, Keyring.verify_hot),
    "cold": (Keyring.sign_cold, Keyring.verify_cold),
}
each_signer = pytest.mark.parametrize(("sign", "verify"), SIGNERS.values(), ids=SIGNERS)


def test_a_session_key_is_32_lower_case_letters_and_digits():
    for _ in range(100):
        key = KEYRING.new_session_key()
        assert len(key) == KEY_LENGTH == 32
        assert set(key) <= set(ALPHABET)


def test_no_two_session_keys_are_the_same_and_no_character_is_rare():
    keys = [KEYRING.new_session_key() for _ in range(1000)]
    assert len(set(keys)) == 1000
    random, mac = zip(*[(key[:-MAC_LENGTH], key[-MAC_LENGTH:]) for key in keys], strict=True)
    assert set("".join(random)) == set("".join(mac)) == set(ALPHABET)


def test_a_new_session_key_is_genuine():
    assert all(KEYRING.is_genuine(KEYRING.new_session_key()) for _ in range(100))


def test_session_keys_do_not_change_their_meaning_between_releases():
    assert KEYRING.is_genuine("0123456789abcdefghijklt351e9909e")


@settings(deadline=None)
@given(index=st.integers(0, KEY_LENGTH - 1), character=st.sampled_from(ALPHABET + NOT_IN_KEYS))
def test_a_session_key_with_any_other_character_is_made_up(index, character):
    key = KEYRING.new_session_key()
    changed = key[:index] + character + key[index + 1 :]
    assert KEYRING.is_genuine(changed) == (changed == key)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_text_is_taken_for_a_session_key(text):
    assert not KEYRING.is_genuine(text)


@settings(deadline=None)
@given(st.text(alphabet=ALPHABET, min_size=KEY_LENGTH, max_size=KEY_LENGTH))
def test_no_well_formed_text_is_taken_for_a_session_key(text):
    assert not KEYRING.is_genuine(text)


def test_a_session_key_in_capitals_is_made_up():
    assert not KEYRING.is_genuine(KEYRING.new_session_key().upper())


def test_a_longer_or_shorter_session_key_is_made_up():
    key = KEYRING.new_session_key()
    assert not KEYRING.is_genuine(key[:-1])
    assert not KEYRING.is_genuine(key + "0")
    assert not KEYRING.is_genuine("0" + key)


def test_a_session_key_from_before_a_rotation_stays_genuine():
    assert ROTATED.is_genuine(KEYRING.new_session_key())


def test_a_new_session_key_is_made_with_the_new_secret():
    assert not KEYRING.is_genuine(ROTATED.new_session_key())


def test_the_storage_id_is_the_sha256_of_the_session_key():
    assert storage_id("a session") == hashlib.sha256(b"a session").hexdigest()


def test_a_log_shows_eight_characters_of_an_id():
    assert label(ID) == ID[:8]


@each_signer
def test_what_was_signed_is_verified(sign, verify):
    assert verify(KEYRING, ID, b"body", sign(KEYRING, ID, b"body"))


@each_signer
def test_a_signature_is_bound_to_id_and_body(sign, verify):
    tag = sign(KEYRING, ID, b"body")
    assert not verify(KEYRING, storage_id("another"), b"body", tag)
    assert not verify(KEYRING, ID, b"body!", tag)
    assert not verify(KEYRING, ID, b"body", tag[:-1])
    assert not verify(KEYRING, ID, b"body", b"")


@each_signer
def test_a_rotation_accepts_the_old_secret_and_signs_with_the_new(sign, verify):
    assert verify(ROTATED, ID, b"body", sign(KEYRING, ID, b"body"))
    assert not verify(KEYRING, ID, b"body", sign(ROTATED, ID, b"body"))


def test_the_signature_of_one_tier_means_nothing_in_the_other():
    assert not KEYRING.verify_cold(ID, b"body", KEYRING.sign_hot(ID, b"body"))
    assert not KEYRING.verify_hot(ID, b"body", KEYRING.sign_cold(ID, b"body"))


def test_an_encryption_key_needs_both_the_secret_and_the_session_key():
    [key] = KEYRING.encryption_keys("a session")
    assert len(key) == 32
    assert KEYRING.encryption_keys("another") != [key]
    assert Keyring(["another secret"]).encryption_keys("a session") != [key]


def test_the_encryption_key_of_the_current_secret_comes_first():
    old, new = KEYRING, Keyring(["new secret"])
    assert ROTATED.encryption_keys("s") == [*new.encryption_keys("s"), *old.encryption_keys("s")]


@pytest.mark.parametrize("secret", [b"secret", "secret"])
def test_a_secret_may_be_text_or_bytes(secret):
    assert Keyring([secret]).is_genuine(KEYRING.new_session_key())


def test_every_character_of_a_long_secret_counts():
    one, other = Keyring(["x" * 200 + "1"]), Keyring(["x" * 200 + "2"])
    assert not one.is_genuine(other.new_session_key())


def test_fingerprints_tell_which_secrets_two_sites_share_and_nothing_else():
    ours = Keyring(["new", "old"])
    assert ours.fingerprints == Keyring(["new"]).fingerprints + Keyring(["old"]).fingerprints
    assert len(set(ours.fingerprints)) == 2
    assert ours.fingerprints[0] not in (ours.owners("")[0], ours.sign_cold("", b"").hex())
    assert ours.fingerprints[0] != ours.sign_hot("", b"").hex()
