"""What to ask DynamoDB about a table in one region, and what to have done to it.

All of this raises ``ColdUnavailable`` when there is no answer within 4 s.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .dynamo import DynamoTable
from .exceptions import ColdMisconfigured, FailoverError
from .reasons import is_denied
from .table_spec import TTL
from .table_state import TableFound

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_TTL_ON = ("ENABLED", "ENABLING")
_STEP_SECONDS = 4.0  # for one answer, also where nobody is there to give one

#: DynamoDB is at work on the table, maybe for another process that runs the same.
_BUSY = ("ResourceInUseException", "ContinuousBackupsUnavailableException")


class TableUnfit(FailoverError):
    """The table is not, and cannot be, as it is asked for. The message says why."""


@dataclass(frozen=True, slots=True)
class TableState:
    """What DynamoDB says of a table; None for what it does not say to these credentials.

    ``items`` was counted some hours ago, or not yet. ``ttl`` is whether DynamoDB deletes what has
    expired. A global table of ``strong_consistency`` can have no TTL.
    """

    items: int | None = None
    ttl: bool | None = None
    strong_consistency: bool = False


def look_at(table: DynamoTable) -> TableState:
    """Return the state of a table."""
    described = _ask_if_allowed(
        table, "DescribeTable", lambda client: client.describe_table(TableName=table.table)["Table"]
    )
    ttl = _ask_if_allowed(table, "DescribeTimeToLive", _describe_ttl(table.table))
    return TableState(
        items=described and (described["ItemCount"] or None),
        ttl=ttl and attribute_of(ttl) == TTL,
        strong_consistency=bool(described) and described.get("MultiRegionConsistency") == "STRONG",
    )


def _ask_if_allowed(
    table: DynamoTable, operation: str, ask: Callable[["DynamoDBClient"], Any]
) -> Any:
    """Return the answer, None if these credentials lack the permission."""
    try:
        return _ask(table, operation, ask)
    except ColdMisconfigured as error:
        if is_denied(error):
            return None
        raise


def describe(table: DynamoTable) -> TableFound | None:
    """Return what DescribeTable says, None if there is no table."""

    def ask(client: "DynamoDBClient") -> Any:
        try:
            return client.describe_table(TableName=table.table)["Table"]
        except client.exceptions.ResourceNotFoundException:
            return None

    described = _ask(table, "DescribeTable", ask)
    return described and TableFound.parse(described, table.name)


def ttl_attribute(table: DynamoTable) -> str | None:
    """Return the attribute that TTL is on for."""
    state = _ask(table, "DescribeTimeToLive", _describe_ttl(table.table))
    return attribute_of(state) if state else None


def attribute_of(ttl: Mapping[str, Any]) -> str | None:
    """Return the attribute that TTL is on for, by the answer to DescribeTimeToLive."""
    return ttl["AttributeName"] if ttl["TimeToLiveStatus"] in _TTL_ON else None


def has_recovery(table: DynamoTable) -> bool:
    """Return whether point-in-time recovery is on."""
    backups = _ask(
        table,
        "DescribeContinuousBackups",
        lambda client: client.describe_continuous_backups(TableName=table.table),
    )["ContinuousBackupsDescription"]
    status = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
    return bool(status == "ENABLED")


def tags(table: DynamoTable, arn: str) -> dict[str, str]:
    """Return the tags of the table with that ARN."""
    found: dict[str, str] = {}
    request = {"ResourceArn": arn}
    while True:
        page = _ask(
            table,
            "ListTagsOfResource",
            lambda client: client.list_tags_of_resource(**request),
        )
        found.update((tag["Key"], tag["Value"]) for tag in page["Tags"])
        if not page.get("NextToken"):
            return found
        request["NextToken"] = page["NextToken"]


def order(table: DynamoTable, operation: str, request: Mapping[str, Any]) -> bool:
    """Have something done. Return False if DynamoDB is at work on the table already.

    Raises ``TableUnfit``, with the words of DynamoDB, if it refuses.
    """

    def ask(client: "DynamoDBClient") -> bool | TableUnfit:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        try:
            getattr(client, method)(**request)
        except client.exceptions.ClientError as error:
            if _code(error) in _BUSY:
                return False
            if _code(error) == "ValidationException":
                # Returned, as what is raised here would be tried again.
                words = " ".join(str(error.response["Error"].get("Message")).split())
                return TableUnfit(f"DynamoDB refuses to {method.replace('_', ' ')}: {words}")
            raise
        return True

    answer = _ask(table, operation, ask)
    if isinstance(answer, TableUnfit):
        raise answer
    return bool(answer)


def turn_ttl_on(table: DynamoTable) -> bool | None:
    """Return whether it is on now; None for a server that does not know TTL."""

    def ask(client: "DynamoDBClient") -> bool | None:
        try:
            client.update_time_to_live(
                TableName=table.table,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL},
            )
        except client.exceptions.ClientError as error:
            if _code(error) == "UnknownOperationException":  # dynalite, though it describes TTL
                return None
            if _code(error) == "ValidationException":
                return False
            raise
        return True

    answer: bool | None = _ask(table, "UpdateTimeToLive", ask)
    return answer


def _ask(table: DynamoTable, operation: str, ask: Callable[["DynamoDBClient"], Any]) -> Any:
    return table.client.call(operation, ask, time.monotonic() + _STEP_SECONDS)


def _describe_ttl(name: str) -> Callable[["DynamoDBClient"], Any]:
    def ask(client: "DynamoDBClient") -> Any:
        try:
            return client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        except client.exceptions.ClientError as error:
            if _code(error) == "UnknownOperationException":
                return None
            raise

    return ask


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code"))
