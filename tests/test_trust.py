"""No store is trusted (G8): what this engine did not write for this session is refused.

Refused is: answered from the other tier or, without that, with 503; counted; logged without
secrets; and left as it is. It never ends the session.
"""

import json
import logging
import pickle
import random
import struct
import zlib
from dataclasses import replace

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.core.cache import caches

from django_dynamo_failover import record, runtime
from django_dynamo_failover.exceptions import SessionUnavailable, SessionUnreadable
from django_dynamo_failover.keys import Keyring, storage_id
from django_dynamo_failover.payload import PayloadCodec

from .configurations import OURS, later

CARD = "4111-1111-1111-1111"
LEASE = 900
HEADER = record._HOT.size
TAG = record.TAG_BYTES

executed = []


class Planted:
    def __reduce__(self):
        return executed.append, ("code from a store",)


@pytest.fixture
def site(engine, monkeypatch):
    monkeypatch.setattr("django_dynamo_failover.writer.POLL_SECONDS", 3600)
    executed.clear()
    yield engine
    assert not executed


@pytest.fixture
def logs(caplog):
    """The package's log at its most talkative. At the end it must hold no secret."""
    caplog.set_level(logging.DEBUG, logger="django_dynamo_failover")
    sessions = []
    caplog.keys = sessions
    yield caplog
    assert sessions, "the test names no session"
    formatter = logging.Formatter()
    for entry in caplog.records:
        said = f"{formatter.format(entry)} {vars(entry)}"
        for key in sessions:
            assert key not in said
            assert storage_id(key) not in said
        assert CARD not in said
        assert "card" not in said


@pytest.fixture
def session_key(site, logs):
    """The key of a session that both tiers have."""
    session = site.store()
    session["card"] = CARD
    session.save()
    logs.keys.append(session.session_key)
    write_pending()
    logs.clear()
    return session.session_key


@pytest.fixture
def other_key(site, logs):
    session = site.store()
    session["card"] = "somebody else's"
    session.save()
    logs.keys.append(session.session_key)
    write_pending()
    return session.session_key


def write_pending():
    assert runtime.current().writer.flush(5) == 0


def counters():
    return runtime.current().metrics.snapshot()


def hot_name(session_key):
    return f":1:session:{storage_id(session_key)}"


def visit(site, session_key, **changes):
    """What a request does: load, and save if there are changes."""
    session = site.store(session_key)
    session.update(changes)
    if changes:
        session.save()
    return session


def assert_refused(site, session_key):
    """The session is unavailable, to be read and to be written, and is not over."""
    session = site.store(session_key)
    with pytest.raises(SessionUnavailable):
        session.load()
    assert session.session_key == session_key
    with pytest.raises(SessionUnavailable):
        visit(site, session_key, color="red")
    session.clear()
    with pytest.raises(SessionUnavailable):
        session.save()
    with pytest.raises(SessionUnavailable):
        session.exists(session_key)


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def signed_hot(keyring, session_key, body):
    return keyring.sign_hot(storage_id(session_key), body) + body


HOT_ENTRIES = {
    "empty but for a byte": lambda entry, *_: b"x",
    "garbage": lambda entry, *_: random.randbytes(len(entry)),
    "json": lambda *_: json.dumps({"card": CARD}).encode(),
    "pickle": lambda *_: pickle.dumps(Planted()),
    "truncated to the tag": lambda entry, *_: entry[:TAG],
    "truncated by a byte": lambda entry, *_: entry[:-1],
    "longer by a byte": lambda entry, *_: entry + b"x",
    "a bit flipped in the tag": lambda entry, *_: flipped(entry, random.randrange(TAG)),
    "a bit flipped in the format": lambda entry, *_: flipped(entry, TAG),
    "a bit flipped in the numbers": lambda entry, *_: flipped(
        entry, TAG + 1 + random.randrange(HEADER - 1)
    ),
    "a bit flipped in the payload": lambda entry, *_: flipped(
        entry, random.randrange(TAG + HEADER, len(entry))
    ),
    "another session's": lambda entry, key, other, hot: hot.get(hot_name(other)),
    "signed with another secret": lambda entry, key, *_: signed_hot(
        Keyring(["not ours"]), key, entry[TAG:]
    ),
    "signed as a cold item": lambda entry, key, *_: (
        runtime.current().keyring.sign_cold(storage_id(key), entry[TAG:]) + entry[TAG:]
    ),
    "ours, of a format of the future": lambda entry, key, *_: signed_hot(
        runtime.current().keyring, key, b"\x09" + entry[TAG + 1 :]
    ),
    "ours, too short for its numbers": lambda entry, key, *_: signed_hot(
        runtime.current().keyring, key, entry[TAG : TAG + HEADER - 1]
    ),
    "somebody's tombstone": lambda entry, key, other, hot: record.encode_tombstone(
        storage_id(other), runtime.current().keyring
    ),
}


class TestHotEntry:
    @pytest.mark.parametrize("name", HOT_ENTRIES)
    def test_is_refused_and_dynamodb_answers(self, site, logs, session_key, other_key, name):
        self.check(site, logs, session_key, HOT_ENTRIES[name], other_key)

    @pytest.mark.parametrize("flags", [1, 2, 4, 8, 16])
    def test_of_a_type_that_memcached_clients_decode_is_not_decoded(
        self, site, logs, session_key, flags
    ):
        forge = {1: HOT_ENTRIES["pickle"], 2: lambda *_: b"12"}.get(flags, lambda entry, *_: entry)
        self.check(site, logs, session_key, forge, "", flags)

    def check(self, site, logs, session_key, forge, other_key, flags=0):
        name = hot_name(session_key)
        planted = forge(site.hot.get(name), session_key, other_key, site.hot)
        site.hot.set(name, planted, flags=flags)

        assert visit(site, session_key)["card"] == CARD
        assert visit(site, session_key, color="red")["color"] == "red"
        write_pending()

        assert dict(visit(site, session_key).items()) == {"card": CARD, "color": "red"}
        assert site.hot.get(name) == planted
        assert counters()["hot_unreadable"] >= 3
        assert "refused" in logs.text
        assert storage_id(session_key)[:8] in logs.text

    def test_is_unavailable_without_dynamodb(self, make_engine, memcached, logs):
        site = make_engine(memcached)
        session = visit(site, None, card=CARD)
        logs.keys.append(session.session_key)
        memcached.set(hot_name(session.session_key), b"garbage")
        assert_refused(site, session.session_key)
        assert memcached.get(hot_name(session.session_key)) == b"garbage"

    def test_does_not_stand_against_a_logout(self, site, logs, session_key):
        site.hot.set(hot_name(session_key), b"garbage")
        raced = visit(site, session_key)
        site.store(session_key).delete()
        assert site.store(session_key).load() == {}
        raced["color"] = "red"
        with pytest.raises(UpdateError):
            raced.save()
        assert site.store(session_key).load() == {}

    @pytest.mark.parametrize(("value", "flags"), [(pickle.dumps(Planted()), 1), (b"x", 0)])
    def test_in_the_place_of_the_site_token_stops_nothing(self, site, logs, value, flags):
        site.hot.set(":1:session-site-token", value, flags=flags)
        site.restart()
        session = visit(site, None, card=CARD)
        logs.keys.append(session.session_key)
        visit(site, session.session_key, _auth_user_id="7")
        write_pending()
        assert storage_id(session.session_key) in site.items()
        assert "Traceback" not in logs.text


def item_of(site, session_key):
    return site.items()[storage_id(session_key)]


def signed_cold(item, body):
    """A change of the payload by somebody who has stolen the SECRET_KEY."""
    numbers = record._COLD.pack(
        int(item["version"]["N"]), int(item["expires"]["N"]), float(item["modified"]["N"])
    )
    keyring = runtime.current().keyring
    return {**item, "data": {"B": keyring.sign_cold(item["id"]["S"], numbers + body) + body}}


def with_data(change):
    return lambda item, *_: {**item, "data": {"B": change(item["data"]["B"])}}


def with_number(name, by):
    return lambda item, *_: {**item, name: {"N": repr(float(item[name]["N"]) + by)}} | (
        {name: {"N": str(int(item[name]["N"]) + by)}} if name != "modified" else {}
    )


def resigned(secret):
    def forge(item, *_):
        tag, body = item["data"]["B"][:TAG], item["data"]["B"][TAG:]
        numbers = struct.pack(
            "!Qqd", int(item["version"]["N"]), int(item["expires"]["N"]), float(item["modified"]["N"])
        )
        assert runtime.current().keyring.sign_cold(item["id"]["S"], numbers + body) == tag
        return {
            **item,
            "data": {"B": Keyring([secret]).sign_cold(item["id"]["S"], numbers + body) + body},
        }

    return forge


BODIES = {
    "a zip bomb": b"\x02" + zlib.compress(bytes(20 * 1024 * 1024)),
    "a format of the future": b"\x09" + b"p{}",
    "what does not inflate": b"\x02" + b"p{}",
    "a payload of the future": b"\x01" + b"?{}",
    "a payload that ends early": b"\x01" + b'p{"card": "41',
    "an empty payload": b"\x01",
    "a pickle": b"\x01" + b"p" + pickle.dumps(Planted()),
    "a list": b"\x01" + b"p[]",
}
COLD_ITEMS = {
    "garbage": with_data(lambda data: random.randbytes(len(data))),
    "truncated to nothing": with_data(lambda data: b"x"),
    "truncated to the tag": with_data(lambda data: data[:TAG]),
    "truncated by a byte": with_data(lambda data: data[:-1]),
    "longer by a byte": with_data(lambda data: data + b"x"),
    "a bit flipped in the tag": with_data(lambda data: flipped(data, random.randrange(TAG))),
    "a bit flipped in the format": with_data(lambda data: flipped(data, TAG)),
    "a bit flipped in the payload": with_data(
        lambda data: flipped(data, random.randrange(TAG + 1, len(data)))
    ),
    "another session's data": lambda item, other: {**item, "data": other["data"]},
    "another session's item": lambda item, other: {**other, "id": item["id"]},
    "signed with another secret": resigned("not ours"),
    "a later version": with_number("version", 1),
    "a later expiry": with_number("expires", 1),
    "an expiry that is past": with_number("expires", -10_000_000),
    "a later change": with_number("modified", 1),
    "numbers out of range": lambda item, *_: {**item, "version": {"N": "1" + "0" * 30}},
    "a negative version": lambda item, *_: {**item, "version": {"N": "-1"}},
    "a broken version": lambda item, *_: {**item, "version": {"N": "1.5"}},
    **{
        f"without {name}": lambda item, *_, name=name: {k: v for k, v in item.items() if k != name}
        for name in ("expires", "data", "version", "modified", "site", "nonce")
    },
    **{
        f"{name} of another type": lambda item, *_, name=name, value=value: {**item, name: value}
        for name, value in {
            "expires": {"S": "never"},
            "data": {"S": "text"},
            "version": {"L": [{"N": "1"}]},
            "modified": {"NULL": True},
            "site": {"B": b"x"},
            "nonce": {"BOOL": True},
        }.items()
    },
    **{
        f"ours, with {name}": lambda item, *_, body=body: signed_cold(item, body)
        for name, body in BODIES.items()
    },
}


class TestColdItem:
    @pytest.fixture(params=COLD_ITEMS)
    def planted(self, request, site, session_key, other_key, logs):
        forge = COLD_ITEMS[request.param]
        item = forge(item_of(site, session_key), item_of(site, other_key))
        site.put_item(item)
        logs.clear()
        return item

    def test_is_refused_when_the_hot_tier_has_nothing(self, site, logs, session_key, planted):
        caches["sessions"].clear()
        assert_refused(site, session_key)
        write_pending()
        assert item_of(site, session_key) == planted
        assert counters()["cold_unreadable"] >= 1
        assert "refused" in logs.text
        assert storage_id(session_key)[:8] in logs.text

    def test_does_not_end_a_session_whose_lease_is_over(self, site, logs, session_key, planted):
        with later(LEASE + 1):
            assert visit(site, session_key)["card"] == CARD
        assert item_of(site, session_key) == planted
        assert counters()["trusted"] == 1


class TestSession:
    def test_is_not_taken_for_that_of_an_id_that_was_not_asked_for(self, site, logs, session_key):
        """DynamoDB and memcached are believed about what was asked, as the id is signed too."""
        keyring = runtime.current().keyring
        entry = site.hot.get(hot_name(session_key))
        stored = record.decode_hot(storage_id(session_key), entry, keyring)
        foreign = replace(stored, id=storage_id("another"))
        assert record.encode_hot(foreign, keyring)[TAG:] == entry[TAG:]
        assert record.encode_hot(foreign, keyring)[:TAG] != entry[:TAG]

    def test_that_its_serializer_cannot_read_is_refused(self, site, logs, session_key, settings):
        settings.SESSION_SERIALIZER = f"{__name__}.Broken"
        entry = site.hot.get(hot_name(session_key))
        session = site.store(session_key)
        with pytest.raises(SessionUnreadable):
            session.load()
        assert session.session_key == session_key
        assert site.hot.get(hot_name(session_key)) == entry


class Broken:
    def dumps(self, data):
        return b"?"

    def loads(self, data):
        raise EOFError(CARD)


def test_a_stolen_table_and_secret_key_do_not_open_a_payload_that_was_swapped(site, logs):
    """An encrypted payload is bound to the session key, so that it opens for no other session."""
    site.configure(ENCRYPT=True)
    session = visit(site, None, card=CARD)
    logs.keys.append(session.session_key)
    codec: PayloadCodec = runtime.current().codec
    assert caches.settings["sessions"]["BACKEND"] == OURS
    payload = session._held.record.payload
    assert codec.loads(payload, session.session_key, session.serializer()) == {"card": CARD}
