"""The session dict as bytes: serialized, and with ENCRYPT sealed."""

import json
import random
import sys

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dynamo_failover import payload as payload_module
from django_dynamo_failover.exceptions import FailoverError, Unreadable
from django_dynamo_failover.keys import Keyring
from django_dynamo_failover.payload import PayloadCodec

pytest.importorskip("cryptography")

KEYRING = Keyring(["secret"])
PLAIN = PayloadCodec(KEYRING, encrypt=False)
SEALING = PayloadCodec(KEYRING, encrypt=True)
JSON = JSONSerializer()
KEY = "a session key"
DATA = {"cart": [1, 2, 3], "name": "Zoë"}

each_codec = pytest.mark.parametrize("codec", [PLAIN, SEALING], ids=["plain", "sealing"])

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("codec", [PLAIN, SEALING], ids=["plain", "sealing"])
@settings(deadline=None)
@given(data=st.dictionaries(st.text(), values, max_size=5))
def test_a_session_dict_comes_back_as_it_was(codec, data):
    assert codec.loads(codec.dumps(data, KEY, JSON), KEY, JSON) == data


def test_the_serializer_of_the_site_is_used():
    class Shouting:
        def dumps(self, obj):
            return json.dumps(obj).upper().encode()

        def loads(self, data):
            return json.loads(data.decode().lower())

    payload = PLAIN.dumps({"a": "b"}, KEY, Shouting())
    assert payload == b'p{"A": "B"}'
    assert PLAIN.loads(payload, KEY, Shouting()) == {"a": "b"}


@each_codec
def test_what_cannot_be_serialized_fails_at_once(codec):
    with pytest.raises(TypeError):
        codec.dumps({"a": object()}, KEY, JSON)


def test_encrypt_can_be_switched_with_sessions_alive():
    assert SEALING.loads(PLAIN.dumps(DATA, KEY, JSON), KEY, JSON) == DATA
    assert PLAIN.loads(SEALING.dumps(DATA, KEY, JSON), KEY, JSON) == DATA


def test_a_sealed_payload_shows_nothing_and_never_repeats():
    one, other = (SEALING.dumps({"name": "Zoe"}, KEY, JSON) for _ in range(2))
    assert b"Zoe" not in one
    assert one != other
    assert one[1:13] != other[1:13]  # a nonce that comes twice under a key breaks GCM


def test_a_sealed_payload_is_compressed_before_it_is_sealed():
    assert len(SEALING.dumps({"a": "x" * 10_000}, KEY, JSON)) < 1_000


def test_a_sealed_payload_needs_the_cookie_of_its_user():
    with pytest.raises(Unreadable):
        SEALING.loads(SEALING.dumps(DATA, KEY, JSON), "another session key", JSON)


def test_a_sealed_payload_needs_a_secret_of_the_site():
    sealed = SEALING.dumps(DATA, KEY, JSON)
    stranger = PayloadCodec(Keyring(["another secret"]), encrypt=True)
    rotated = PayloadCodec(Keyring(["another secret", "secret"]), encrypt=True)
    with pytest.raises(Unreadable):
        stranger.loads(sealed, KEY, JSON)
    assert rotated.loads(sealed, KEY, JSON) == DATA


def test_a_payload_is_sealed_with_the_current_secret():
    rotated = PayloadCodec(Keyring(["another secret", "secret"]), encrypt=True)
    with pytest.raises(Unreadable):
        SEALING.loads(rotated.dumps(DATA, KEY, JSON), KEY, JSON)


def test_a_sealed_payload_with_any_bit_flipped_is_refused():
    sealed = SEALING.dumps({"a": 1}, KEY, JSON)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unreadable):
            SEALING.loads(bytes(changed), KEY, JSON)


@each_codec
@pytest.mark.parametrize("payload", [b"", b"e", b"x{}", b"{}", b"e" + bytes(12), b"e" + bytes(40)])
def test_what_is_no_payload_is_refused(codec, payload):
    with pytest.raises(Unreadable):
        codec.loads(payload, KEY, JSON)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[1]", b"null", b'"a"'])
def test_a_payload_that_is_no_dict_is_unreadable(text):
    with pytest.raises(Unreadable):
        PLAIN.loads(b"p" + text, KEY, JSON)


def test_the_error_of_a_serializer_shows_nothing_of_the_session():
    with pytest.raises(Unreadable) as caught:
        PLAIN.loads(b'p{"card": "4111"', KEY, JSON)
    assert "4111" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_session_that_can_be_sealed_can_be_opened(monkeypatch):
    monkeypatch.setattr(payload_module, "MAX_PAYLOAD_BYTES", 10_000)
    data = {"a": "x" * 20_000}
    try:
        sealed = SEALING.dumps(data, KEY, JSON)
    except FailoverError:
        return
    assert SEALING.loads(sealed, KEY, JSON) == data


def test_a_site_without_cryptography_can_go_without_encryption(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert PLAIN.loads(PLAIN.dumps(DATA, KEY, JSON), KEY, JSON) == DATA
    with pytest.raises(ImportError):
        SEALING.dumps(DATA, KEY, JSON)


@pytest.mark.parametrize("size", [10, 1_000])
def test_a_plain_payload_is_the_serialized_dict_and_one_byte(size):
    data = {"a": random.Random(1).randbytes(size).hex()}
    assert PLAIN.dumps(data, KEY, JSON) == b"p" + JSON.dumps(data)
