"""Sessions in one DynamoDB table of one region: single items, conditional writes, no policy."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .conf import Region
from .dynamo_client import DynamoClient
from .exceptions import ColdThrottled, ColdUnavailable, ConditionFailed, Unreadable, ValueTooLarge
from .record import ColdAnswer, ColdItem

#: DynamoDB's own limit, which counts the names of the attributes too.
MAX_ITEM_BYTES = 400 * 1024

#: Before the id of a session: the id of its revocation.
REVOKED = "revoked:"
_USER = "user:"
_SCAN_PAGE_ITEMS = 250  # at 1 KB each 32 read units; a page of 1 MB would take 128 at once

# Any name may be or become a reserved word, so expressions use the # form only.
_NAMES = {f"#{name}": name for name in ("id", "expires", "version", "site", "before")}


@dataclass(frozen=True, slots=True)
class ExpiredPage:
    """A part of the table: what has expired in it, how many items it has, what to read it cost.

    ``last`` is where the next page goes on; None at the end of the segment.
    """

    ids: list[str]
    last: str | None
    scanned: int
    units: float


class DynamoTable:
    """A table in a region: reads and writes of single sessions, each with a deadline.

    ``until`` is always a ``time.monotonic()`` time; a call may end up to ``connect_timeout +
    read_timeout`` seconds after it. Every method raises ``ColdUnavailable`` when there is no
    answer in time, its subclass ``ColdMisconfigured`` when trying again would not help. No
    message names a table or a session.

    ``make_session`` returns a new boto3 ``Session``. It is called in a thread of its own.
    """

    def __init__(
        self,
        table: str,
        region: Region,
        *,
        connect_timeout: float,
        read_timeout: float,
        attempts: int,
        max_connections: int,
        make_session: Callable[[], Any] | None = None,
    ) -> None:
        self.name = region.name
        self.table = table
        self.client = DynamoClient(
            region,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            attempts=attempts,
            max_connections=max_connections,
            make_session=make_session,
        )

    def warm(self) -> None:
        """Start to make the client, and return at once. Not to be called before a fork.

        A child that is forked while this imports boto3 may never get done importing it.
        """
        self.client.warm()

    def read(self, id: str, until: float, owner: str | None = None) -> ColdAnswer:
        """Return what the region knows of a session: one consistent read of item and revocation.

        With ``owner``, also whether that user was logged out everywhere. Raises ``Unreadable`` for
        an item that is not of the form that this class writes.
        """
        user = _USER + owner if owner else None
        found = self.read_items([id, REVOKED + id, *([user] if user else [])], until)
        item = found.get(id)
        return ColdAnswer(
            item=None if item is None else to_item(item),
            revoked=REVOKED + id in found,
            logins_over=_before(found.get(user)) if user else 0.0,
        )

    def read_user(self, owner: str, until: float) -> float:
        """Return before when a user's logins are over, 0 if they never were. See ``read``."""
        return _before(self.read_items([_USER + owner], until).get(_USER + owner))

    def put_new(self, item: ColdItem, now: float, until: float) -> None:
        """Write the item of a new session.

        Raises ``ConditionFailed`` if its id is taken by one that has not expired. That may be
        this very item: the reply to the first of two attempts can get lost.
        """
        self._put(
            _from_item(item),
            "attribute_not_exists(#id) OR #expires < :now",
            {":now": _n(now)},
            until,
        )

    def put_over(self, item: ColdItem, base: int, site: str, until: float) -> None:
        """Write a later version of an item.

        Raises ``ConditionFailed`` unless there is an earlier version that was ordered by the same
        hot tier or is the one this one is based on. Without a ``site`` (no hot tier ordered this
        write) it must be the one it is based on.
        """
        if site:
            condition = (
                "attribute_exists(#id) AND #version < :version"
                " AND (#site = :site OR #version = :base)"
            )
            values = {":version": _n(item.version), ":site": {"S": site}, ":base": _n(base)}
        else:
            condition = "attribute_exists(#id) AND #version = :base"
            values = {":base": _n(base)}
        self._put(_from_item(item), condition, values, until)

    def revoke(self, id: str, expires: int, until: float) -> None:
        """Delete the item of a session and leave a revocation until ``expires``, in one request."""
        revocation = {"id": {"S": REVOKED + id}, "expires": _n(expires)}
        left: list[Any] = [
            {"DeleteRequest": {"Key": _key(id)}},
            {"PutRequest": {"Item": revocation}},
        ]
        tries = 0
        while left:
            if tries:
                self.client.pause(tries, until, ColdThrottled("BatchWriteItem: UnprocessedItems"))
            tries += 1
            left = self._write(left, until)

    def revoke_user(self, owner: str, before: float, expires: int, until: float) -> None:
        """Note until ``expires`` that a user's logins from before a time are over."""
        attributes = {
            **_key(_USER + owner),
            "before": _n(before),
            "expires": _n(expires),
        }
        condition = "attribute_not_exists(#id) OR #before < :before"
        with contextlib.suppress(ConditionFailed):  # a later one is noted already
            self._put(attributes, condition, {":before": _n(before)}, until)

    def scan_expired(
        self, before: float, segment: int, segments: int, after: str | None, until: float
    ) -> ExpiredPage:
        """Return the next ids in a segment of the table that expired before a time.

        Revocations too. ``after`` is the ``last`` of the page before this one, None at first.
        """
        request: dict[str, Any] = {
            "TableName": self.table,
            "Segment": segment,
            "TotalSegments": segments,
            "Limit": _SCAN_PAGE_ITEMS,
            "ProjectionExpression": "#id",
            "FilterExpression": "#expires < :before",
            "ExpressionAttributeNames": _names("#id #expires"),
            "ExpressionAttributeValues": {":before": _n(before)},
            "ReturnConsumedCapacity": "TOTAL",
        }
        if after is not None:
            request["ExclusiveStartKey"] = _key(after)
        page = self.client.call("Scan", lambda client: client.scan(**request), until)
        return ExpiredPage(
            ids=[_id_of(item) for item in page["Items"]],
            last=_id_of(page["LastEvaluatedKey"]) if page.get("LastEvaluatedKey") else None,
            scanned=page["ScannedCount"],
            units=_units(page),
        )

    def delete_expired(self, id: str, before: float, until: float) -> float:
        """Delete an item that expired before a time; return the write units that it cost.

        ``id`` is one that ``scan_expired`` has found. Raises ``ConditionFailed`` if it has been
        renewed or is gone; that may be our own doing, when the reply to a first attempt got lost.
        """
        answer = self.client.call(
            "DeleteItem",
            lambda client: client.delete_item(
                TableName=self.table,
                Key=_key(id),
                ConditionExpression="#expires < :before",
                ExpressionAttributeNames=_names("#expires"),
                ExpressionAttributeValues={":before": _n(before)},
                ReturnConsumedCapacity="TOTAL",
            ),
            until,
        )
        return _units(answer)

    def read_items(self, ids: list[str], until: float) -> dict[str, Mapping[str, Any]]:
        """Return the attributes of those of these items that there are: one consistent read."""
        found: dict[str, Mapping[str, Any]] = {}
        missing = [_key(id) for id in ids]
        tries = 0
        while missing:
            if tries:
                self.client.pause(tries, until, ColdThrottled("BatchGetItem: UnprocessedKeys"))
            tries += 1
            items, missing = self._get(missing, until)
            found.update((_id_of(item), item) for item in items)
            if not found.keys() <= set(ids):
                raise Unreadable("DynamoDB answered with an item that was not asked for")
        return found

    def _get(self, keys: list[Any], until: float) -> tuple[list[Any], list[Any]]:
        """Return the items of these keys, and the keys that were not looked up."""
        answer = self.client.call(
            "BatchGetItem",
            lambda client: client.batch_get_item(
                RequestItems={self.table: {"Keys": keys, "ConsistentRead": True}}
            ),
            until,
        )
        items = answer.get("Responses", {}).get(self.table)
        left = answer.get("UnprocessedKeys", {}).get(self.table)
        unprocessed = list(left["Keys"]) if left else []
        if items is None and len(unprocessed) < len(keys):
            # Some server said {}. To take it for "no such item" would log the user out.
            raise ColdUnavailable("BatchGetItem: no answer for the table")
        return list(items or ()), unprocessed

    def _write(self, requests: list[Any], until: float) -> list[Any]:
        """Do these deletes and puts; return those that were not done."""
        answer = self.client.call(
            "BatchWriteItem",
            lambda client: client.batch_write_item(RequestItems={self.table: requests}),
            until,
        )
        return list(answer.get("UnprocessedItems", {}).get(self.table, ()))

    def _put(
        self,
        attributes: Mapping[str, Any],
        condition: str,
        values: Mapping[str, Any],
        until: float,
    ) -> None:
        if _size(attributes) > MAX_ITEM_BYTES:
            raise ValueTooLarge("PutItem: more than 400 KB")
        self.client.call(
            "PutItem",
            lambda client: client.put_item(
                TableName=self.table,
                Item=attributes,
                ConditionExpression=condition,
                ExpressionAttributeNames=_names(condition),
                ExpressionAttributeValues=values,
            ),
            until,
        )


def fits(item: ColdItem) -> bool:
    """Tell whether an item is not too large for DynamoDB."""
    return _size(_from_item(item)) <= MAX_ITEM_BYTES


def _key(id: str) -> dict[str, Any]:
    return {"id": {"S": id}}


def _n(number: float) -> dict[str, str]:
    return {"N": repr(number)}  # what DynamoDB returns for it is the same float again


def _names(expression: str) -> dict[str, str]:
    """Return the names that an expression uses: DynamoDB refuses more than those."""
    return {short: name for short, name in _NAMES.items() if short in expression}


def _units(answer: Mapping[str, Any]) -> float:
    """Return the capacity units that a request has consumed; 0 if the server does not say."""
    return float(answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))


def _id_of(attributes: Mapping[str, Any]) -> str:
    try:
        id: str = attributes["id"]["S"]
    except KeyError:
        raise Unreadable("DynamoDB item without an id") from None
    return id


def _from_item(item: ColdItem) -> dict[str, Any]:
    return {
        "id": {"S": item.id},
        "expires": _n(item.expires),
        "data": {"B": item.data},
        "version": _n(item.version),
        "site": {"S": item.site},
        "modified": _n(item.modified),
        "nonce": {"S": item.nonce},
    }


def to_item(attributes: Mapping[str, Any]) -> ColdItem:
    """Return the item of a session. Raises ``Unreadable``."""
    try:
        return ColdItem(
            id=attributes["id"]["S"],
            expires=int(attributes["expires"]["N"]),
            data=attributes["data"]["B"],
            version=int(attributes["version"]["N"]),
            site=attributes["site"]["S"],
            modified=float(attributes["modified"]["N"]),
            nonce=attributes["nonce"]["S"],
        )
    except (KeyError, ValueError):
        raise Unreadable("DynamoDB item with a missing or mistyped attribute") from None


def _before(attributes: Mapping[str, Any] | None) -> float:
    if attributes is None:
        return 0.0
    try:
        return float(attributes["before"]["N"])
    except (KeyError, ValueError):
        raise Unreadable("DynamoDB item with a missing or mistyped attribute") from None


def _size(attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the bytes that DynamoDB counts: names as well, numbers two digits to the byte."""
    total = 0
    for name, value in attributes.items():
        total += len(name)
        for type_, content in value.items():
            if type_ == "N":
                total += 1 + math.ceil(sum(map(str.isdigit, content)) / 2)
            else:
                total += len(content.encode() if type_ == "S" else content)
    return total
