"""Sessions of a table as they come, for a look at them."""

from dataclasses import dataclass
from typing import Any

from .dynamo import DynamoTable, to_item
from .exceptions import Unreadable
from .record import ColdItem

_PAGE_ITEMS = 250


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions in a part of the table, also expired ones, and how many items are not of the form.

    ``last`` is where the next page goes on; None at the end of the segment.
    """

    items: list[ColdItem]
    malformed: int
    last: Any


def scan_sessions(
    table: DynamoTable, segment: int, segments: int, after: Any, until: float
) -> SessionPage:
    """Return the next sessions in a segment of the table, as they were a moment ago.

    ``after`` is the ``last`` of the page before this one, None at first. Raises
    ``ColdUnavailable``.
    """
    request: dict[str, Any] = {
        "TableName": table.table,
        "Segment": segment,
        "TotalSegments": segments,
        "Limit": _PAGE_ITEMS,
        "FilterExpression": "attribute_exists(#data)",  # no revocations, no notes
        "ExpressionAttributeNames": {"#data": "data"},
    }
    if after is not None:
        request["ExclusiveStartKey"] = after
    page = table.client.call("Scan", lambda client: client.scan(**request), until)
    items = []
    for attributes in page["Items"]:
        try:
            items.append(to_item(attributes))
        except Unreadable:
            continue
    return SessionPage(items, len(page["Items"]) - len(items), page.get("LastEvaluatedKey"))
