"""The table in one region: as DynamoDB describes it, by its clock, and with a session in it."""

import time
from collections.abc import Collection, Iterator, Mapping

from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_health import Clock, TableView, view
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.reasons import code_of, explain

from .canary import MakeCanary, check_in_region
from .report import Finding, FindingId

#: It is to be known after so long that nobody is there, also where credentials are looked up.
_CONTACT_SECONDS = 2.5
_CLOCK_WARNING = 5.0
_CLOCK_ERROR = 60.0

_NEED_CREDENTIALS = (
    "Give this process AWS credentials: in its environment, in ~/.aws, by the role of the machine"
    " or by BOTO_SESSION."
)
_REMEDIES = {
    "CredentialRetrievalError": _NEED_CREDENTIALS,
    "ExpiredTokenException": _NEED_CREDENTIALS,
    "NoCredentialsError": _NEED_CREDENTIALS,
    "PartialCredentialsError": _NEED_CREDENTIALS,
    "UnrecognizedClientException": _NEED_CREDENTIALS,
    "not ready yet": _NEED_CREDENTIALS,
}


def check_region(
    table: DynamoTable, regions: Collection[str], make_canary: MakeCanary, until: float
) -> Iterator[Finding]:
    """Look at the table in one of the ``regions``."""
    clock = Clock()
    try:
        seen = view(table, clock, min(until, time.monotonic() + _CONTACT_SECONDS))
    except ColdUnavailable as error:
        yield from no_table(table.name, error)
        yield from clock_of(table.name, clock.ahead)
        return
    yield Finding("region.reachable", "ok", table.name, "answers")
    yield from clock_of(table.name, clock.ahead)
    fit = True
    for finding in described(table.name, seen, regions):
        fit = fit and finding.level != "error"
        yield finding
    if fit:
        yield from check_in_region(table, make_canary(), has_ttl=bool(seen.ttl), until=until)


def is_usable(region: str, findings: Collection[Finding]) -> bool:
    """Tell whether a region has a table that can hold sessions, by what was found."""
    needed = ("region.reachable", "region.table", "region.key", "session.region")
    about = [finding for finding in findings if finding.subject == region]
    return bool(about) and not any(f.id in needed and f.level == "error" for f in about)


def no_table(region: str, error: ColdUnavailable) -> Iterator[Finding]:
    """Judge why a region did not describe the table."""
    code = code_of(error)
    if code == "ResourceNotFoundException":
        yield Finding("region.reachable", "ok", region, "answers")
        yield Finding(
            "region.table",
            "error",
            region,
            "there is no such table",
            "Run createtable_dynamo, or add a replica here to the table of another region.",
        )
        return
    remedy = _REMEDIES.get(code, "Look at the network, at REGIONS, and at what AWS says of itself.")
    yield Finding("region.reachable", "error", region, explain(error), remedy)


def clock_of(region: str, ahead: float | None) -> Iterator[Finding]:
    """Judge whether this machine and a region have the same time, if that is known."""
    if ahead is None:
        return
    apart = abs(ahead)
    if apart <= _CLOCK_WARNING:
        yield Finding("region.clock", "ok", region, "has the same time")
        return
    yield Finding(
        "region.clock",
        "error" if apart > _CLOCK_ERROR else "warning",
        region,
        f"this machine's clock is {apart:.0f} s {'ahead' if ahead > 0 else 'behind'}:"
        " sessions expire, and leases end, by the clock",
        "Let NTP or chrony set the clock of this machine.",
    )


def described(region: str, seen: TableView, regions: Collection[str]) -> Iterator[Finding]:
    """Judge what DynamoDB says of the table in one of the ``regions``."""
    if seen.status is None or seen.replicas is None:
        yield _not_told("region.table", region, "DescribeTable")
    else:
        yield _status(region, seen.status)
        yield _key(region, seen.unfit or "")
        yield from _replicas(region, seen.replicas, regions)
    yield _ttl(region, seen)
    yield _recovery(region, enabled=seen.recovery)


def _status(region: str, status: str) -> Finding:
    if status in ("ACTIVE", "UPDATING"):
        return Finding("region.table", "ok", region, "the table is active")
    return Finding(
        "region.table",
        "error",
        region,
        f"the table is in state {status}",
        "Wait until it is ACTIVE, and look at the AWS console if it does not get there.",
    )


def _key(region: str, unfit: str) -> Finding:
    if not unfit:
        return Finding("region.key", "ok", region, "the table has the right key")
    message, _, remedy = unfit.partition(". ")
    return Finding("region.key", "error", region, message, f"{remedy}.")


def _replicas(
    region: str, replicas: Mapping[str, str], regions: Collection[str]
) -> Iterator[Finding]:
    others = [name for name in regions if name != region]
    if not others:
        return
    lacking = [name for name in others if name not in replicas]
    unready = [
        f"{name} ({replicas[name]})" for name in others if replicas.get(name, "ACTIVE") != "ACTIVE"
    ]
    if lacking or unready:
        parts = []
        if lacking:
            parts.append(f"the table lists no replica in {', '.join(lacking)}")
        if unready:
            parts.append(f"replicas are not active: {', '.join(unready)}")
        yield Finding(
            "region.replicas",
            "warning",
            region,
            "; ".join(parts),
            "Make it a global table with a replica in each of REGIONS.",
        )
    else:
        yield Finding("region.replicas", "ok", region, f"replicates to {', '.join(others)}")


def _ttl(region: str, seen: TableView) -> Finding:
    if seen.strong_consistency:
        return Finding(
            "region.ttl",
            "warning",
            region,
            "a global table of strong consistency has no TTL: nothing deletes what has expired",
            "Run clearsessions_dynamo every night.",
        )
    if seen.ttl is None:
        return _not_told("region.ttl", region, "DescribeTimeToLive")
    if seen.ttl:
        return Finding("region.ttl", "ok", region, "TTL is on for 'expires'")
    return Finding(
        "region.ttl",
        "warning",
        region,
        "TTL is off for 'expires': nothing deletes what has expired",
        "Run createtable_dynamo, which turns it on; or clearsessions_dynamo every night.",
    )


def _recovery(region: str, *, enabled: bool | None) -> Finding:
    if enabled is None:
        return _not_told("region.recovery", region, "DescribeContinuousBackups")
    if enabled:
        return Finding("region.recovery", "ok", region, "point-in-time recovery is on")
    return Finding(
        "region.recovery",
        "warning",
        region,
        "point-in-time recovery is off: a table that is deleted or emptied is lost",
        "Turn it on: aws dynamodb update-continuous-backups.",
    )


def _not_told(id: FindingId, region: str, operation: str) -> Finding:
    return Finding(
        id,
        "unknown",
        region,
        f"the answer to {operation} is not for these credentials, or unknown to this server",
        f"To have it looked at, allow dynamodb:{operation}.",
    )
