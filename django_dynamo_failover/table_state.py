"""A table as DynamoDB describes it, against what is asked of it. Asks nobody."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from .table_spec import KEY, TTL, Billing, TableSpec, Units

_OUR_KEY = ((KEY, "HASH", "S"),)
_CHANGING = ("CREATING", "UPDATING", "DELETING")
#: A replica in one of these states is in order, or will be.
_IN_ORDER = ("CREATING", "UPDATING", "ACTIVE")


@dataclass(frozen=True, slots=True)
class Change:
    """One request that makes a table more like what is asked.

    Args:
        line: what to say of it, with {} for "is" or "would be".
        operation: of DynamoDB's API, as its documentation writes it.
    """

    line: str
    operation: str
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as asked. ``change`` is None for what only a person should decide about."""

    text: str
    change: Change | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFound:
    """What DynamoDB says of one table. ``ttl`` is the attribute that it is on for.

    ``recovery`` and ``tags`` are None where nobody asked for them. ``replicas`` has the state of
    each other region, ``witnesses`` that of each which only votes.
    """

    arn: str
    status: str
    key: tuple[tuple[str, str, str], ...]
    billing: Billing
    protection: bool = False
    kms_key: str | None = None
    warm: Units | None = None
    strong: bool = False
    replicas: Mapping[str, str] = field(default_factory=dict)
    witnesses: Mapping[str, str] = field(default_factory=dict)
    ttl: str | None = None
    recovery: bool | None = None
    tags: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, described: Mapping[str, Any], region: str, **others: Any) -> Self:
        """Return what the answer of DescribeTable in a region, and ``others``, say."""
        types = {a["AttributeName"]: a["AttributeType"] for a in described["AttributeDefinitions"]}
        warm = described.get("WarmThroughput", {})
        return cls(
            arn=described.get("TableArn", ""),
            status=described["TableStatus"],
            key=tuple(
                (part["AttributeName"], part["KeyType"], types.get(part["AttributeName"], ""))
                for part in described["KeySchema"]
            ),
            billing=_billing(described),
            protection=described.get("DeletionProtectionEnabled", False),
            kms_key=described.get("SSEDescription", {}).get("KMSMasterKeyArn"),
            warm=Units(warm["ReadUnitsPerSecond"], warm["WriteUnitsPerSecond"]) if warm else None,
            strong=described.get("MultiRegionConsistency") == "STRONG",
            replicas={
                replica["RegionName"]: replica.get("ReplicaStatus", "ACTIVE")
                for replica in described.get("Replicas", ())
                if replica["RegionName"] != region
            },
            witnesses={
                witness["RegionName"]: witness.get("WitnessStatus", "ACTIVE")
                for witness in described.get("GlobalTableWitnesses", ())
            },
            **others,
        )

    @classmethod
    def fresh(cls, spec: TableSpec) -> Self:
        """Return what a table will be when CreateTable has done what it can."""
        return cls(
            arn="",
            status="ACTIVE",
            key=_OUR_KEY,
            billing=spec.billing or "on-demand",
            protection=bool(spec.protection),
            kms_key=spec.kms_key,
            warm=spec.warm,
            recovery=False,
            tags=spec.tags,
        )

    @property
    def has_our_key(self) -> bool:
        """Whether it can hold sessions at all."""
        return self.key == _OUR_KEY

    @property
    def is_changing(self) -> bool:
        """Whether something of it is being made or changed."""
        states = {self.status, *self.replicas.values(), *self.witnesses.values()}
        return not states.isdisjoint(_CHANGING)


def differences(spec: TableSpec, found: TableFound) -> list[Difference]:
    """Return each difference of a table from what is asked of it.

    TTL that is off is none: it is turned on without a question.
    """
    wrong_key = [Difference(text) for text in key_problems(found)]
    # With another key it is not our table: nothing else matters, and nothing may be changed.
    return wrong_key or [each for compare in _COMPARISONS for each in compare(spec, found)]


def key_problems(found: TableFound) -> Iterator[str]:
    """Yield why the key of a table is not that of sessions, if it is not."""
    if [part[:2] for part in found.key] != [(KEY, "HASH")]:
        is_there = ", ".join(f"{name!r} ({kind})" for name, kind, _ in found.key)
        yield (
            f"the key of the existing table is {is_there}; it must be {KEY!r} (HASH) alone."
            " Name another table in TABLE, or delete this one"
        )
    elif found.key[0][2] != "S":
        yield (
            f"the key {KEY!r} of the existing table is of type {found.key[0][2]}; it must be S"
            " (string). Name another table in TABLE, or delete this one"
        )


def _ttl(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    if found.ttl is None:
        return
    if not spec.has_ttl:
        yield Difference(f"TTL is on for {found.ttl!r}; asked for off")
    elif found.ttl != TTL:
        yield Difference(
            f"TTL is on for {found.ttl!r}; it must be for {TTL!r}."
            " Turn it off for the one, wait an hour, and run this again"
        )


def _capacity(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    if spec.billing is not None and found.billing != spec.billing:
        yield Difference(f"billing is {_bill(found.billing)}; asked for {_bill(spec.billing)}")
    if spec.warm and (
        found.warm is None or found.warm.read < spec.warm.read or found.warm.write < spec.warm.write
    ):
        yield Difference(
            f"warm throughput is {found.warm or 'not told'}; asked for {spec.warm}",
        )


def _recovery(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    if spec.recovery is None or spec.recovery == found.recovery:
        return
    yield Difference(
        f"point-in-time recovery is {_on(found.recovery)}; asked for {_on(spec.recovery)}",
        Change(
            "point-in-time recovery {} turned on",
            "UpdateContinuousBackups",
            {
                "TableName": spec.name,
                "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            },
        )
        if spec.recovery
        else None,
    )


def _protection(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    if spec.protection is None or spec.protection == found.protection:
        return
    yield Difference(
        f"deletion protection is {_on(found.protection)}; asked for {_on(spec.protection)}",
        Change(
            "deletion protection {} turned on",
            "UpdateTable",
            {"TableName": spec.name, "DeletionProtectionEnabled": True},
        )
        if spec.protection
        else None,
    )


def _encryption(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    # Which key an alias stands for is known to KMS alone: some key there will do.
    if spec.kms_key and (
        found.kms_key is None
        or (found.kms_key != spec.kms_key and not spec.kms_key.startswith("alias/"))
    ):
        is_now = f"is with {found.kms_key}" if found.kms_key else "is with a key that AWS owns"
        yield Difference(f"encryption {is_now}; asked for {spec.kms_key}")


def _tags(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    there = found.tags or {}
    for key, value in spec.tags.items():
        if key not in there:
            tag = {"Key": key, "Value": value}
            request = {"ResourceArn": found.arn, "Tags": [tag]}
            yield Difference(
                f"tag {key!r} is missing; asked for {value!r}",
                Change(f"tag {key!r} {{}} set to {value!r}", "TagResource", request),
            )
        elif there[key] != value:
            yield Difference(f"tag {key!r} is {there[key]!r}; asked for {value!r}")


def _replicas(spec: TableSpec, found: TableFound) -> Iterator[Difference]:
    for region, status in (*found.replicas.items(), *found.witnesses.items()):
        if region in (*spec.replicas, spec.witness) and status not in _IN_ORDER:
            yield Difference(f"the replica in {region} is in state {status}")
    for region in spec.replicas:
        if region not in found.replicas:
            change = _add_all(spec, found) if spec.strong else _add(spec, region)
            yield Difference(f"there is no replica in {region}", change)
    if spec.witness and spec.witness not in found.witnesses:
        yield Difference(f"there is no witness in {spec.witness}", _add_all(spec, found))
    if spec.consistency and found.replicas and found.strong != spec.strong:
        is_now = "strong" if found.strong else "eventual"
        yield Difference(f"consistency is {is_now}; asked for {spec.consistency}")


def _add(spec: TableSpec, region: str) -> Change:
    return Change(
        f"replica in {region} {{}} added",
        "UpdateTable",
        {"TableName": spec.name, "ReplicaUpdates": [_new_replica(spec, region)]},
    )


def _add_all(spec: TableSpec, found: TableFound) -> Change | None:
    """Return how to make it strongly consistent: in one go, while nothing is replicated."""
    if found.replicas:
        return None
    request: dict[str, Any] = {
        "TableName": spec.name,
        "MultiRegionConsistency": "STRONG",
        "ReplicaUpdates": [_new_replica(spec, region) for region in spec.replicas],
    }
    where = f"replicas of strong consistency in {' and '.join(spec.replicas)}"
    if spec.witness:
        request["GlobalTableWitnessUpdates"] = [{"Create": {"RegionName": spec.witness}}]
        where += f", with a witness in {spec.witness},"
    return Change(f"{where} {{}} added", "UpdateTable", request)


def _new_replica(spec: TableSpec, region: str) -> dict[str, Any]:
    key = {"KMSMasterKeyId": spec.kms_key} if spec.kms_key else {}
    return {"Create": {"RegionName": region, **key}}


_COMPARISONS: tuple[Callable[[TableSpec, TableFound], Iterator[Difference]], ...] = (
    _ttl,
    _capacity,
    _encryption,
    _recovery,
    _protection,
    _tags,
    _replicas,
)


def _billing(described: Mapping[str, Any]) -> Billing:
    mode = described.get("BillingModeSummary", {}).get("BillingMode")
    if mode == "PAY_PER_REQUEST":
        return "on-demand"
    units = described.get("ProvisionedThroughput", {})
    return Units(units.get("ReadCapacityUnits", 0), units.get("WriteCapacityUnits", 0))


def _bill(billing: Billing) -> str:
    return billing if isinstance(billing, str) else f"provisioned {billing}"


def _on(value: bool | None) -> str:
    return "on" if value else "off"
