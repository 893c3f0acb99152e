"""A session that is nobody's, sent through the tiers by the code that all sessions go through."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from django_dynamo_failover.dynamo import REVOKED, DynamoTable
from django_dynamo_failover.exceptions import (
    ColdUnavailable,
    ConditionFailed,
    FailoverError,
    HotUnavailable,
    Unreadable,
)
from django_dynamo_failover.hot import HotTier, State
from django_dynamo_failover.keys import Keyring, storage_id
from django_dynamo_failover.payload import PayloadCodec, Serializer
from django_dynamo_failover.reasons import explain, is_denied
from django_dynamo_failover.record import (
    ColdAnswer,
    ColdItem,
    Record,
    decode_cold,
    encode_cold,
    new_record,
)

from .report import Finding

T = TypeVar("T")

MakeCanary = Callable[[], "Canary"]

#: What a check that is killed leaves behind is expired after so long.
_LIFETIME_SECONDS = 3600
#: A part of the table so small that to scan it costs next to nothing.
_SCAN_SEGMENTS = 1_000_000
_POLL_SECONDS = 0.05
#: memcached's clock ticks once a second: with 1 it could be gone at once.
_TOMBSTONE_SECONDS = 3
#: So long is kept for taking a session away again.
_REMOVAL_SECONDS = 1.0

_COMES_BACK = "a session comes back as it was stored, and ends"
_CHANGED = "a session does not come back from it as it was stored"
_LOOK_BETWEEN = "Look at SESSION_SERIALIZER and ENCRYPT, and at whatever stands between."


class Canary:
    """A session with a new key: no user has it, and none will be given it."""

    def __init__(self, keyring: Keyring, codec: PayloadCodec, serializer: Serializer) -> None:
        self._keyring = keyring
        self._codec = codec
        self._serializer = serializer
        self._key = keyring.new_session_key()
        self._data = {"canary": secrets.token_hex(16)}
        now = time.time()
        payload = codec.dumps(self._data, self._key, serializer)
        self.record = new_record(storage_id(self._key), payload, now + _LIFETIME_SECONDS, now)

    @property
    def id(self) -> str:
        """The id under which both tiers hold it."""
        return self.record.id

    def item(self) -> ColdItem:
        """Return what DynamoDB is to hold of it."""
        return encode_cold(self.record, self._keyring, ordered=True)

    def is_in(self, item: ColdItem) -> bool:
        """Tell whether an item is this session, authentic and unchanged."""
        try:
            return self.is_same(decode_cold(item, self._keyring, time.time()))
        except Unreadable:
            return False

    def is_same(self, record: Record) -> bool:
        """Tell whether a record has the data of this session."""
        try:
            data = self._codec.loads(record.payload, self._key, self._serializer)
        except Unreadable:
            return False
        return data == self._data and record.expires == self.record.expires


def check_in_hot_tier(hot: HotTier, canary: Canary) -> Finding:
    """Put a session into the hot tier, get it back, and end it."""
    try:
        hot.add(canary.record)
        answer = hot.get(canary.id)
        hot.bury(canary.id, _TOMBSTONE_SECONDS)
        after = hot.get(canary.id)
    except HotUnavailable as error:
        message = f"a session does not get there ({error})"
        remedy = "Look after the cache that SESSION_CACHE_ALIAS names."
        return Finding("session.hot", "error", "hot tier", message, remedy)
    if answer.record is None or not canary.is_same(answer.record):
        return Finding("session.hot", "error", "hot tier", _CHANGED, _LOOK_BETWEEN)
    if after.state is State.LIVE:
        message = "a session that is ended there lives on"
        return Finding("session.hot", "error", "hot tier", message, "Look at the BACKEND.")
    return Finding("session.hot", "ok", "hot tier", _COMES_BACK)


def check_in_region(
    table: DynamoTable, canary: Canary, *, has_ttl: bool, until: float
) -> Iterator[Finding]:
    """Write a session to a region, read it, end it, and remove what is left of it.

    These are all the operations that the engine makes, so that its permissions are tried too.
    """
    trial = _Trial()
    expires = canary.record.expires
    try:
        trial.make("PutItem", lambda: _put(table, canary, until))
        stored = trial.make("BatchGetItem", lambda: table.read(canary.id, until))
        trial.make("BatchWriteItem", lambda: table.revoke(canary.id, expires, until))
        ended = trial.make("BatchGetItem", lambda: table.read(canary.id, until))
        denied = list(trial.denied)
        trial.make("DeleteItem", lambda: _remove(table, canary, until))
        trial.make("Scan", lambda: table.scan_expired(0.0, 0, _SCAN_SEGMENTS, None, until))
    except FailoverError as error:
        yield Finding(
            "session.region",
            "error",
            table.name,
            f"a session does not get there and back: {explain(error)}",
            "Look at the state and the capacity of the table.",
        )
        return
    if not denied:
        assert stored is not None
        assert ended is not None
        yield _there_and_back(table.name, canary, stored, ended)
    yield _permissions(table.name, denied)
    yield _clearing(table.name, trial.denied[len(denied) :], has_ttl=has_ttl)


def check_replication(
    source: DynamoTable,
    target: DynamoTable,
    make_canary: MakeCanary,
    patience: float,
    until: float,
) -> Iterator[Finding]:
    """Write a session to one region, and wait ``patience`` seconds until another one has it."""
    canary = make_canary()
    subject = f"{source.name} to {target.name}"
    try:
        _put(source, canary, until)
        began = time.monotonic()
        patience = min(patience, until - _REMOVAL_SECONDS - began)
        try:
            seconds = _wait_for(target, canary, began + patience)
        finally:
            source.revoke(canary.id, canary.record.expires, until)
            with contextlib.suppress(ColdUnavailable):  # by then it is over in an hour
                _remove(source, canary, until)
    except FailoverError as error:
        yield Finding(
            "session.replication",
            "unknown",
            subject,
            f"cannot be measured: {explain(error)}",
            "See what is said of these regions.",
        )
        return
    if seconds is None:
        yield Finding(
            "session.replication",
            "error",
            subject,
            f"a session does not arrive within {patience:.1f} s: a failover would log everyone out",
            "Make it a global table with a replica in each of REGIONS, not one table in each; if it"
            " is one, look at ReplicationLatency in CloudWatch.",
        )
    else:
        message = f"a session arrives within {max(seconds, _POLL_SECONDS):.2f} s"
        yield Finding("session.replication", "ok", subject, message)


class _Trial:
    """Makes requests, and notes which of them these credentials may not make."""

    def __init__(self) -> None:
        self.denied: list[str] = []

    def make(self, action: str, request: Callable[[], T]) -> T | None:
        """Return the answer, None if the action is denied."""
        try:
            return request()
        except ColdUnavailable as error:
            if not is_denied(error):
                raise
        if action not in self.denied:
            self.denied.append(action)
        return None


def _put(table: DynamoTable, canary: Canary, until: float) -> None:
    with contextlib.suppress(ConditionFailed):  # by our own first attempt, whose reply got lost
        table.put_new(canary.item(), time.time(), until)


def _remove(table: DynamoTable, canary: Canary, until: float) -> None:
    for id in (canary.id, REVOKED + canary.id):
        with contextlib.suppress(ConditionFailed):  # it is gone
            table.delete_expired(id, canary.record.expires + 1, until)


def _wait_for(table: DynamoTable, canary: Canary, until: float) -> float | None:
    """Return after how many seconds a region has a session, None if it has none in time."""
    began = time.monotonic()
    while table.read(canary.id, until).item is None:
        if time.monotonic() + _POLL_SECONDS >= until:
            return None
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - began


def _there_and_back(region: str, canary: Canary, stored: ColdAnswer, ended: ColdAnswer) -> Finding:
    if stored.item is None or not canary.is_in(stored.item):
        return Finding("session.region", "error", region, _CHANGED, _LOOK_BETWEEN)
    if ended.item is not None or not ended.revoked:
        message = "a session that is ended there lives on"
        return Finding("session.region", "error", region, message, _LOOK_BETWEEN)
    return Finding("session.region", "ok", region, _COMES_BACK)


def _permissions(region: str, denied: list[str]) -> Finding:
    if not denied:
        message = "these credentials may do what the engine does"
        return Finding("region.permissions", "ok", region, message)
    actions = ", ".join(f"dynamodb:{action}" for action in denied)
    return Finding(
        "region.permissions",
        "error",
        region,
        f"these credentials lack {actions}",
        f"Allow {actions} on the table.",
    )


def _clearing(region: str, denied: list[str], *, has_ttl: bool) -> Finding:
    if not denied:
        return Finding("region.clearing", "ok", region, "clearsessions_dynamo may run")
    actions = ", ".join(f"dynamodb:{action}" for action in denied)
    if has_ttl:
        message = f"TTL deletes what has expired; clearsessions_dynamo would need {actions}"
        return Finding("region.clearing", "ok", region, message)
    return Finding(
        "region.clearing",
        "warning",
        region,
        f"there is no TTL, and clearsessions_dynamo lacks {actions} with these credentials",
        f"Run createtable_dynamo, which turns TTL on; or allow {actions} on the table.",
    )
