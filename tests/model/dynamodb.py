"""A DynamoDB global table in memory: replicas, and writes that reach the others late."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

from django_dynamo_failover.exceptions import ConditionFailed

Item = Mapping[str, Mapping[str, Any]]

_TOKENS = {
    r"#(\w+)": r"item('\1')",
    r":(\w+)": r"values(':\1')",
    r" = ": " == ",
    r"\bAND\b": "and",
    r"\bOR\b": "or",
}


@dataclass(frozen=True, slots=True)
class Written:
    """What a replica holds of an id (None: it was deleted), and when that was written.

    ``after`` are the writes of the id that the region knew of by then.
    """

    item: Item | None
    stamp: tuple[float, int]
    after: frozenset[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Replication:
    """A write on its way to another replica."""

    id: str
    written: Written
    origin: Replica
    to: Replica

    @property
    def sent_at(self) -> float:
        return self.written.stamp[0]


class Replica:
    """The table in one region, as far as the package asks boto3 for it.

    Conditions are evaluated on what this replica holds. Of two writes of an item the later wins,
    whichever arrives first.
    """

    def __init__(self, table: GlobalTable, name: str) -> None:
        self.table = table
        self.name = name
        self._held: dict[str, Written] = {}
        self._seen: dict[str, frozenset[tuple[float, int]]] = {}

    def item(self, id: str) -> Item | None:
        written = self._held.get(id)
        return written.item if written else None

    def put_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Item: Item,  # noqa: N803
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str],  # noqa: N803
        ExpressionAttributeValues: Item,  # noqa: N803
    ) -> None:
        id = Item["id"]["S"]
        item = self.item(id) or {}
        named = {short[1:]: item.get(name) for short, name in ExpressionAttributeNames.items()}
        if not holds(ConditionExpression, named, ExpressionAttributeValues):
            raise ConditionFailed("PutItem: ConditionalCheckFailedException")
        self._write(id, Item)

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        ((table, request),) = RequestItems.items()
        items = [self.item(key["id"]["S"]) for key in request["Keys"]]
        return {"Responses": {table: [item for item in items if item]}, "UnprocessedKeys": {}}

    def batch_write_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        ((_, requests),) = RequestItems.items()
        for request in requests:
            if "PutRequest" in request:
                item = request["PutRequest"]["Item"]
                self._write(item["id"]["S"], item)
            else:
                self._write(request["DeleteRequest"]["Key"]["id"]["S"], None)
        return {"UnprocessedItems": {}}

    def _write(self, id: str, item: Item | None) -> None:
        written = Written(item, self.table.stamp(), self._seen.get(id, frozenset()))
        self._held[id] = written
        self._seen[id] = written.after | {written.stamp}
        self.table.replicate(id, written, self)

    def receive(self, id: str, written: Written) -> Written | None:
        """Apply a write of another replica.

        Return what lost, if neither region had known of the other's write when it wrote.
        """
        held = self._held.get(id)
        self._seen[id] = self._seen.get(id, frozenset()) | written.after | {written.stamp}
        winner = loser = written
        if held is not None and held.stamp > written.stamp:
            winner = held
        elif held is not None:
            loser = held
        self._held[id] = winner
        return None if loser is winner or loser.stamp in winner.after else loser


class GlobalTable:
    """Replicas that tell each other of their writes when the test says so."""

    def __init__(self, clock: Callable[[], float], regions: list[str]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self.replicas = [Replica(self, name) for name in regions]
        self.under_way: list[Replication] = []
        #: Called with the id of an item that was written, and with what lost to a later write.
        self.on_write: Callable[[str, Item | None], None] = lambda id, loser: None

    def stamp(self) -> tuple[float, int]:
        return self._clock(), next(self._numbers)

    def replicate(self, id: str, written: Written, origin: Replica) -> None:
        for replica in self.replicas:
            if replica is not origin:
                self.under_way.append(Replication(id, written, origin, replica))
        self.on_write(id, None)

    def deliver(self, replication: Replication) -> None:
        """Let a replication arrive."""
        self.under_way.remove(replication)
        overruled = replication.to.receive(replication.id, replication.written)
        self.on_write(replication.id, overruled.item if overruled else None)


def holds(condition: str, item: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Evaluate a condition expression: the one place that knows what they mean.

    A comparison with an attribute that is not there is false, as in DynamoDB.
    """
    code, names = _compiled(condition)
    attributes = {name: _value(item[name]) for name in names}
    return eval(  # noqa: S307
        code,
        {
            "item": attributes.__getitem__,
            "values": lambda name: _value(values[name]),
            "attribute_exists": lambda value: value is not _MISSING,
            "attribute_not_exists": lambda value: value is _MISSING,
        },
    )


@cache
def _compiled(condition: str) -> tuple[CodeType, frozenset[str]]:
    names = frozenset(re.findall(r"#(\w+)", condition))
    for pattern, python in _TOKENS.items():
        condition = re.sub(pattern, python, condition)
    return compile(condition, "<condition>", "eval"), names


class _Missing:
    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __eq__ = __lt__
    __hash__ = object.__hash__


_MISSING = _Missing()


def _value(attribute: Mapping[str, Any] | None) -> Any:
    if attribute is None:
        return _MISSING
    ((kind, value),) = attribute.items()
    return float(value) if kind == "N" else value
