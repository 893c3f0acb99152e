"""What a thief finds in the stores, and what a new SECRET_KEY does to the sessions."""

import json
import zlib

import pytest

from django_dynamo_failover import record, runtime
from django_dynamo_failover.dynamo import to_item
from django_dynamo_failover.exceptions import Unreadable
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.payload import PayloadCodec

from .configurations import BOTO_SESSION, hot_key, quieten, write_pending

DATA = {"card_number": "4111-1111-1111-1111", "notes": "a long story " * 50}
WORDS = [b"card_number", b"4111-1111", b"notes", b"a long story"]
OLD, NEW = "the old key, " * 4, "the new key, " * 4


@pytest.fixture
def site(engine, monkeypatch):
    quieten(monkeypatch)
    engine.configure(BOTO_SESSION=BOTO_SESSION)
    return engine


def new_session(site, data):
    session = site.store()
    session.update(data)
    session.save()
    write_pending()
    return session.session_key


def loaded(site, session_key):
    session = site.store(session_key)
    data = dict(session.items())
    return data if session.session_key else None


def inflated(data):
    """All that zlib finds in bytes, wherever it begins."""
    for start in range(min(len(data), 100)):
        try:
            yield zlib.decompressobj().decompress(data[start:])
        except zlib.error:
            continue


def dump(site):
    """All that both stores hold, and all that can be inflated of it."""
    stored = {"hot": [], "cold": []}
    for key in site.hot.keys():  # noqa: SIM118  a method
        stored["hot"] += [key.encode(), site.hot.get(key) or b""]
    for item in site.items().values():
        for name, value in item.items():
            (content,) = value.values()
            content = content if isinstance(content, bytes) else content.encode()
            stored["cold"] += [name.encode(), content]
    return {
        tier: b"\n".join([*found, *(text for data in found for text in inflated(data))])
        for tier, found in stored.items()
    }


class TestAtRest:
    def test_a_session_is_in_clear_without_encrypt(self, site):
        """So that the next test would find what it says is not there."""
        new_session(site, DATA)
        for stored in dump(site).values():
            assert all(word in stored for word in WORDS)

    def test_neither_tier_holds_a_clear_value_with_encrypt(self, site):
        site.configure(ENCRYPT=True)
        key = new_session(site, DATA)
        for stored in dump(site).values():
            assert storage_id(key).encode() in stored
            assert not any(word in stored for word in WORDS)
        assert loaded(site, key) == DATA
        site.hot.flush()
        assert loaded(site, key) == DATA

    @pytest.mark.parametrize("encrypt", [False, True])
    def test_no_store_holds_a_session_key(self, site, encrypt):
        site.configure(ENCRYPT=encrypt)
        key, ended = new_session(site, DATA), new_session(site, DATA)
        site.store(ended).delete()
        for stored in dump(site).values():
            assert storage_id(key).encode() in stored
            assert storage_id(ended).encode() in stored
            assert key.encode() not in stored
            assert ended.encode() not in stored

    def test_what_a_store_holds_is_no_cookie(self, site):
        key = new_session(site, DATA)
        for cookie in (storage_id(key), storage_id(key)[:32], hot_key(key)):
            assert loaded(site, cookie) is None


class TestEncryption:
    def test_a_stolen_table_and_secret_key_open_nothing_without_the_cookie(self, site):
        site.configure(ENCRYPT=True)
        key, other = new_session(site, DATA), new_session(site, {"other": 1})
        keyring = runtime.current().keyring  # all that follows from the SECRET_KEY
        codec, serializer = PayloadCodec(keyring, encrypt=True), site.store().serializer()
        stolen = record.decode_cold(to_item(site.items()[storage_id(key)]), keyring, 0)
        for guess in ("", other, storage_id(key), key[:-1], key.upper()):
            with pytest.raises(Unreadable):
                codec.loads(stolen.payload, guess, serializer)
        assert codec.loads(stolen.payload, key, serializer) == DATA
        cached = record.decode_hot(storage_id(key), site.hot.get(hot_key(key)), keyring)
        assert cached.payload == stolen.payload

    def test_equal_sessions_do_not_look_equal(self, site):
        site.configure(ENCRYPT=True)
        key = new_session(site, DATA)
        before = site.items()[storage_id(key)]["data"]["B"]
        session = site.store(key)
        session["card_number"] = session["card_number"]
        session.save()
        write_pending()
        after = site.items()[storage_id(key)]["data"]["B"]
        assert before[30:60] != after[30:60]

    @pytest.mark.parametrize("before", [False, True])
    def test_can_be_switched_with_sessions_alive(self, site, before):
        site.configure(ENCRYPT=before)
        key = new_session(site, DATA)
        site.configure(ENCRYPT=not before)
        assert loaded(site, key) == DATA
        site.hot.flush()
        session = site.store(key)
        session["more"] = 1
        session.save()
        write_pending()
        site.hot.flush()
        assert loaded(site, key) == {**DATA, "more": 1}
        assert (b"card_number" in dump(site)["cold"]) is before


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
class TestSecretKey:
    @pytest.fixture
    def session_key(self, site, settings, encrypt):
        site.configure(ENCRYPT=encrypt)
        settings.SECRET_KEY = OLD
        return new_session(site, DATA)

    @pytest.mark.parametrize("lost", [False, True], ids=["hot", "cold"])
    def test_a_session_of_the_old_key_works_with_the_fallback(
        self, site, settings, session_key, lost
    ):
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
        if lost:
            site.hot.flush()
        session = site.store(session_key)
        session["more"] = json.dumps(1)
        session.save()
        write_pending()
        site.hot.flush()
        assert loaded(site, session_key) == {**DATA, "more": "1"}

    def test_a_session_of_the_old_key_is_absent_without_the_fallback(
        self, site, settings, session_key
    ):
        settings.SECRET_KEY = NEW
        assert loaded(site, session_key) is None
        assert not site.store().exists(session_key)
        settings.SECRET_KEY = OLD
        assert loaded(site, session_key) == DATA

    def test_a_new_cookie_does_without_the_fallback(self, site, settings, session_key):
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
        session = site.store(session_key)
        session.cycle_key()
        write_pending()
        settings.SECRET_KEY_FALLBACKS = []
        assert loaded(site, session.session_key) == DATA
        site.hot.flush()
        assert loaded(site, session.session_key) == DATA
