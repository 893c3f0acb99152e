"""No store is trusted (G8): what this engine did not write for this session is refused.

Refused is: answered from the other tier or, without that, with 503; counted; logged without
secrets; and left as it is. It never ends the session.
"""

import logging
import pickle
from dataclasses import replace

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.core.cache import caches

from django_dynamo_failover import record, runtime
from django_dynamo_failover.exceptions import SessionUnavailable, SessionUnreadable, Unreadable
from django_dynamo_failover.keys import Keyring, storage_id

from .configurations import BOTO_SESSION, hot_key, later, quieten, write_pending
from .forgeries import CARD, COLD_ITEMS, HOT_ENTRIES, PAYLOADS, Planted, executed, flipped, signed

LEASE = 900


@pytest.fixture
def site(engine, monkeypatch):
    quieten(monkeypatch)
    engine.configure(BOTO_SESSION=BOTO_SESSION)
    executed.clear()
    yield engine
    assert not executed


class Log(logging.Handler):
    """All that the package has logged, from the first fixture on, and the sessions it was about."""

    def __init__(self):
        super().__init__()
        self.records, self.keys = [], []

    def emit(self, entry):
        self.records.append(f"{self.format(entry)} {vars(entry)}")

    @property
    def text(self):
        return "\n".join(self.records)


@pytest.fixture
def logs(caplog):
    """The package's log at its most talkative. At the end it must hold no secret."""
    caplog.set_level(logging.DEBUG, logger="django_dynamo_failover")
    log = Log()
    logger = logging.getLogger("django_dynamo_failover")
    logger.addHandler(log)
    yield log
    logger.removeHandler(log)
    assert log.keys, "the test names no session"
    for secret in (CARD, "card_number", *log.keys, *map(storage_id, log.keys)):
        assert secret not in log.text


def new_session(site, logs, value):
    """The key of a session that both tiers have."""
    session = visit(site, None, card_number=value)
    logs.keys.append(session.session_key)
    write_pending()
    return session.session_key


@pytest.fixture
def session_key(site, logs):
    return new_session(site, logs, CARD)


@pytest.fixture
def other_key(site, logs):
    return new_session(site, logs, "somebody else's")


def counters():
    return runtime.current().metrics.snapshot()


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
        name = hot_key(session_key)
        planted = forge(site.hot.get(name), session_key, other_key, site.hot)
        site.hot.set(name, planted, flags=flags)
        assert visit(site, session_key)["card_number"] == CARD
        assert visit(site, session_key, color="red")["color"] == "red"
        write_pending()
        assert dict(visit(site, session_key).items()) == {"card_number": CARD, "color": "red"}
        assert site.hot.get(name) == planted
        assert counters()["hot_unreadable"] >= 3
        assert "refused" in logs.text
        assert storage_id(session_key)[:8] in logs.text

    def test_is_unavailable_without_dynamodb(self, make_engine, memcached, logs):
        site = make_engine(memcached)
        session = visit(site, None, card_number=CARD)
        logs.keys.append(session.session_key)
        memcached.set(hot_key(session.session_key), b"garbage")
        assert_refused(site, session.session_key)
        assert memcached.get(hot_key(session.session_key)) == b"garbage"

    def test_does_not_stand_against_a_logout(self, site, logs, session_key):
        site.hot.set(hot_key(session_key), b"garbage")
        raced = visit(site, session_key)
        site.store(session_key).delete()
        assert site.store(session_key).load() == {}
        raced["color"] = "red"
        with pytest.raises(UpdateError):
            raced.save()
        assert site.store(session_key).load() == {}

    @pytest.mark.parametrize(
        ("value", "flags"), [(pickle.dumps(Planted()), 1), (b"x", 0)], ids=["pickle", "bytes"]
    )
    def test_in_the_place_of_the_site_token_stops_nothing(self, site, logs, value, flags):
        site.hot.set(":1:session-site-token", value, flags=flags)
        site.restart()
        session = visit(site, None, card_number=CARD)
        logs.keys.append(session.session_key)
        visit(site, session.session_key, _auth_user_id="7")
        write_pending()
        assert storage_id(session.session_key) in site.items()
        assert "Traceback" not in logs.text


def item_of(site, session_key):
    return site.items()[storage_id(session_key)]


class TestColdItem:
    @pytest.fixture(params=COLD_ITEMS)
    def planted(self, request, site, session_key, other_key, logs):
        forge = COLD_ITEMS[request.param]
        item = forge(item_of(site, session_key), item_of(site, other_key))
        site.put_item(item)
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
            assert visit(site, session_key)["card_number"] == CARD
        assert item_of(site, session_key) == planted
        assert counters()["trusted"] == 1


def test_not_one_flipped_bit_is_accepted_in_either_tier():
    keyring, id = Keyring(["secret"]), "id"
    session = record.new_record(id, b'p{"card_number": 1}', 2_000_000_000, 1_700_000_000)
    entry, item = (
        record.encode_hot(session, keyring),
        record.encode_cold(session, keyring, ordered=False),
    )
    assert record.decode_hot(id, entry, keyring) == session
    assert record.decode_cold(item, keyring, 0).payload == session.payload
    for bit in range(8 * len(entry)):
        with pytest.raises(Unreadable):
            record.decode_hot(id, flipped(entry, *divmod(bit, 8)), keyring)
    for bit in range(8 * len(item.data)):
        broken = replace(item, data=flipped(item.data, *divmod(bit, 8)))
        with pytest.raises(Unreadable):
            record.decode_cold(broken, keyring, 0)


class TestPayload:
    """Authentic, and not to be decoded: another version of the site may have written it."""

    @pytest.mark.parametrize("name", PAYLOADS)
    def test_is_refused_and_the_session_is_not_over(self, site, logs, session_key, name):
        site.put_item(signed(item_of(site, session_key), b"\x01" + PAYLOADS[name]))
        planted = item_of(site, session_key)
        caches["sessions"].clear()
        self.check(site, session_key)
        write_pending()
        assert item_of(site, session_key) == planted

    def test_that_the_serializer_does_not_take_is_refused(self, site, logs, session_key, settings):
        settings.SESSION_SERIALIZER = f"{__name__}.Broken"
        entry = site.hot.get(hot_key(session_key))
        self.check(site, session_key)
        assert site.hot.get(hot_key(session_key)) == entry

    def check(self, site, session_key):
        session = site.store(session_key)
        with pytest.raises(SessionUnreadable):
            session.load()
        with pytest.raises(SessionUnreadable):
            visit(site, session_key, color="red")
        assert session.session_key == session_key


class Broken:
    def dumps(self, data):
        return b"?"

    def loads(self, data):
        raise EOFError(CARD)
