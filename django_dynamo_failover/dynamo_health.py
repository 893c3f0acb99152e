"""What a health check asks of the table in one region: its state and its clock."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from .dynamo import DynamoTable
from .dynamo_admin import attribute_of
from .exceptions import ColdMisconfigured
from .reasons import code_of
from .table_spec import TTL
from .table_state import TableFound, key_problems

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_NOT_TOLD = ("AccessDeniedException", "UnknownOperationException")


class Clock:
    """By how many seconds this machine is ahead of a region, from the date of its last answer.

    None before there was one. A date has no fractions: half a second more or less means nothing.
    """

    ahead: float | None = None

    def note(self, answer: Mapping[str, Any], asked_at: float) -> None:
        """Note the date of an answer, also of a refusal. ``asked_at`` is in epoch seconds."""
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        try:
            theirs = parsedate_to_datetime(date).timestamp() + 0.5
        except (TypeError, ValueError):
            return
        self.ahead = (asked_at + time.time()) / 2 - theirs


@dataclass(frozen=True, slots=True)
class TableView:
    """What DynamoDB says of a table; None for what it does not say to these credentials.

    ``unfit`` is why the key of the table is wrong, "" if it is right. ``replicas`` has the state of
    the table in each other region. ``ttl`` is whether what has expired is deleted, ``recovery``
    whether the table can be put back to any second of the last weeks. ``items`` and ``bytes`` were
    counted some hours ago.
    """

    status: str | None
    unfit: str | None
    replicas: Mapping[str, str] | None
    strong_consistency: bool
    ttl: bool | None
    recovery: bool | None
    items: int | None
    bytes: int | None


def view(table: DynamoTable, clock: Clock, until: float) -> TableView:
    """Return the state of a table, and note the clock of its region, even if that refuses.

    Raises ``ColdUnavailable``; its "ResourceNotFoundException" means that there is no table.
    """
    name = table.table

    def describe(client: "DynamoDBClient") -> Any:
        asked_at = time.time()
        try:
            answer = client.describe_table(TableName=name)
        except client.exceptions.ClientError as error:
            clock.note(error.response, asked_at)
            raise
        clock.note(answer, asked_at)
        return answer["Table"]

    described = _told(table, "DescribeTable", describe, until)
    found = TableFound.parse(described, table.name) if described else None
    ttl = _told(
        table,
        "DescribeTimeToLive",
        lambda client: client.describe_time_to_live(TableName=name)["TimeToLiveDescription"],
        until,
    )
    backups = _told(
        table,
        "DescribeContinuousBackups",
        lambda client: client.describe_continuous_backups(TableName=name),
        until,
    )
    return TableView(
        status=found.status if found else None,
        unfit=next(key_problems(found), "") if found else None,
        replicas=found.replicas if found else None,
        strong_consistency=bool(found and found.strong),
        ttl=ttl and attribute_of(ttl) == TTL,
        recovery=backups and _recovers(backups),
        items=described and described.get("ItemCount"),
        bytes=described and described.get("TableSizeBytes"),
    )


def _told(
    table: DynamoTable, operation: str, ask: Callable[["DynamoDBClient"], Any], until: float
) -> Any:
    """Return the answer, None if that is not for these credentials, or unknown to the server."""
    try:
        return table.client.call(operation, ask, until)
    except ColdMisconfigured as error:
        if code_of(error) in _NOT_TOLD:
            return None
        raise


def _recovers(backups: Any) -> bool:
    description = backups["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    return bool(description.get("PointInTimeRecoveryStatus") == "ENABLED")
