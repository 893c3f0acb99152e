"""Making the DynamoDB table of one region, and checking one that is there."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .dynamo import DynamoTable
from .exceptions import ColdMisconfigured, ColdUnavailable, FailoverError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Ttl = Literal["enabled", "was enabled", "unknown to the server", "refused by the server"]

_KEY = "id"
TTL_ATTRIBUTE = "expires"
TTL_ON = ("ENABLED", "ENABLING")
_STEP_SECONDS = 4.0  # for one answer, also where nobody is there to give one
_FIRST_POLL = 0.05
_LONGEST_POLL = 1.0


class TableUnfit(FailoverError):
    """There is a table, and it cannot hold sessions as it is. The message says why."""


@dataclass(frozen=True, slots=True)
class TableMade:
    """What ``make_table`` has done: whether the table is new, and the state of its TTL."""

    created: bool
    ttl: Ttl


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
    """Return the state of a table. Raises ``ColdUnavailable``."""
    described = _ask_if_allowed(
        table, "DescribeTable", lambda client: client.describe_table(TableName=table.table)["Table"]
    )
    ttl = _ask_if_allowed(table, "DescribeTimeToLive", _describe_ttl(table.table))
    return TableState(
        items=described and (described["ItemCount"] or None),
        ttl=ttl and ttl["TimeToLiveStatus"] in TTL_ON and ttl["AttributeName"] == TTL_ATTRIBUTE,
        strong_consistency=bool(described) and described.get("MultiRegionConsistency") == "STRONG",
    )


def _ask_if_allowed(
    table: DynamoTable, operation: str, ask: Callable[["DynamoDBClient"], Any]
) -> Any:
    """Return the answer, None if these credentials lack the permission."""
    try:
        return _ask(table, operation, ask)
    except ColdMisconfigured as error:
        if str(error).endswith(": AccessDeniedException"):
            return None
        raise


def make_table(table: DynamoTable, until: float, say: Callable[[str], None]) -> TableMade:
    """Create the table unless it exists, wait until it is active, and turn its TTL on.

    Safe to run twice, and by two processes at once. ``say`` is called with a line for each step.
    Raises ``TableUnfit`` for an existing table that needs a person's hand, ``ColdUnavailable``
    when the server gives no answer or the table is not active by ``until``.
    """
    description = _ask(table, "DescribeTable", _describe(table.table))
    created = description is None and _ask(table, "CreateTable", _create(table.table))
    if created:
        say("table is being created")
    description = _wait_until_active(table, until)
    say("table is created" if created else "table exists")
    check_key(description)
    ttl = _turn_ttl_on(table)
    say(_TTL_LINES[ttl])
    return TableMade(created=created, ttl=ttl)


_TTL_LINES: dict[Ttl, str] = {
    "enabled": f"TTL is turned on for {TTL_ATTRIBUTE!r}",
    "was enabled": f"TTL is on for {TTL_ATTRIBUTE!r}",
    "unknown to the server": "TTL is unknown to this server: clearsessions_dynamo does its work",
    "refused by the server": "TTL is refused for this table: clearsessions_dynamo does its work",
}


def _ask(table: DynamoTable, operation: str, ask: Callable[["DynamoDBClient"], Any]) -> Any:
    return table.client.call(operation, ask, time.monotonic() + _STEP_SECONDS)


def _describe(name: str) -> Callable[["DynamoDBClient"], Any]:
    def ask(client: "DynamoDBClient") -> Any:
        try:
            return client.describe_table(TableName=name)["Table"]
        except client.exceptions.ResourceNotFoundException:
            return None

    return ask


def _create(name: str) -> Callable[["DynamoDBClient"], bool]:
    def ask(client: "DynamoDBClient") -> bool:
        try:
            client.create_table(
                TableName=name,
                KeySchema=[{"AttributeName": _KEY, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": _KEY, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except client.exceptions.ResourceInUseException:
            return False  # another process was faster, or the reply to our first attempt got lost
        return True

    return ask


def _wait_until_active(table: DynamoTable, until: float) -> Any:
    """Return the description of the table once it can be used."""
    pause = _FIRST_POLL
    while True:
        try:
            description = _ask(table, "DescribeTable", _describe(table.table))
        except ColdMisconfigured:
            raise
        except ColdUnavailable:
            if time.monotonic() + pause >= until:
                raise
            description = None  # a new table may be unknown to the server's next answer, too
        status = description["TableStatus"] if description else "CREATING"
        if status in ("ACTIVE", "UPDATING"):
            return description
        if status != "CREATING":
            raise TableUnfit(f"the table is in state {status}: try again when it is gone or active")
        if time.monotonic() + pause >= until:
            raise ColdUnavailable("the table is not active yet: run this again to go on")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL)


def check_key(description: Any) -> None:
    """Raise ``TableUnfit`` unless the key of a described table is that of a session table."""
    types = {d["AttributeName"]: d["AttributeType"] for d in description["AttributeDefinitions"]}
    key = [(part["AttributeName"], part["KeyType"]) for part in description["KeySchema"]]
    if key != [(_KEY, "HASH")]:
        found = ", ".join(f"{name!r} ({kind})" for name, kind in key)
        raise TableUnfit(
            f"the key of the existing table is {found}; it must be {_KEY!r} (HASH) alone."
            " Name another table in TABLE, or delete this one"
        )
    if types[_KEY] != "S":
        raise TableUnfit(
            f"the key {_KEY!r} of the existing table is of type {types[_KEY]}; it must be S"
            " (string). Name another table in TABLE, or delete this one"
        )


def _turn_ttl_on(table: DynamoTable) -> Ttl:
    if _ttl_is_on(table):
        return "was enabled"
    answer: Ttl | None = _ask(table, "UpdateTimeToLive", _enable_ttl(table.table))
    if answer is not None:
        return answer
    # Refused: another process was faster, or it is a global table of strong consistency.
    return "was enabled" if _ttl_is_on(table) else "refused by the server"


def _ttl_is_on(table: DynamoTable) -> bool:
    state = _ask(table, "DescribeTimeToLive", _describe_ttl(table.table))
    if state is None or state["TimeToLiveStatus"] not in TTL_ON:
        return False
    if state["AttributeName"] != TTL_ATTRIBUTE:
        raise TableUnfit(
            f"TTL is on for {state['AttributeName']!r}; it must be for {TTL_ATTRIBUTE!r}."
            " Turn it off for the one, wait an hour, and run this again"
        )
    return True


def _describe_ttl(name: str) -> Callable[["DynamoDBClient"], Any]:
    def ask(client: "DynamoDBClient") -> Any:
        try:
            return client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        except client.exceptions.ClientError as error:
            if _code(error) == "UnknownOperationException":
                return None
            raise

    return ask


def _enable_ttl(name: str) -> Callable[["DynamoDBClient"], Ttl | None]:
    def ask(client: "DynamoDBClient") -> Ttl | None:
        try:
            client.update_time_to_live(
                TableName=name,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE},
            )
        except client.exceptions.ClientError as error:
            if _code(error) == "UnknownOperationException":  # dynalite, though it describes TTL
                return "unknown to the server"
            if _code(error) == "ValidationException":
                return None
            raise
        return "enabled"

    return ask


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code"))
