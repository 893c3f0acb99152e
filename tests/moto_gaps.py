"""What moto lacks: replicas, and in a stack of CloudFormation global tables, TTL and the like.

``aws`` is the shared moto server with all of that, as Amazon documents it: a new replica is being
made for a while, and nothing else can be changed meanwhile.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass, field
from typing import Any

import botocore.session
import pytest
from moto.core.common_models import CloudFormationModel
from moto.dynamodb.exceptions import MockValidationException, ResourceInUseException
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler, DynamoResult

from .conftest import MotoServer, client

#: How often a new replica is looked at until it is active.
LOOKS = 3
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}

_API = botocore.session.get_session().get_service_model("dynamodb")
needs_witness = pytest.mark.skipif(
    "GlobalTableWitnessUpdates" not in _API.operation_model("UpdateTable").input_shape.members,
    reason="this boto3 is from before witnesses",
)


@dataclass
class Group:
    """A global table."""

    home: str
    strong: bool
    witnesses: list[str]
    members: dict[str, Table] = field(default_factory=dict)
    making: int = LOOKS


@pytest.fixture
def aws(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> MotoServer:
    """The moto server, less its gaps."""
    groups: dict[str, Group] = {}
    describe, update = Table.describe, DynamoHandler.update_table
    from_stack = Table.create_from_cloudformation_json

    def describe_member(self: Table, base_key: str = "TableDescription") -> dict[str, Any]:
        answer = describe(self, base_key)
        if group := groups.get(self.name):
            answer[base_key].update(_describe(group, self))
        return answer

    def update_table(self: DynamoHandler) -> Any:
        table = self.dynamodb_backend.get_table(self.body["TableName"])
        group = groups.get(table.name)
        if group and group.making:
            raise ResourceInUseException("Table is being updated")
        if "ReplicaUpdates" not in self.body:
            return update(self)
        groups[table.name] = _replicate(table, group, self.body)
        return DynamoResult(table.describe())

    def create_table(resource_name: str, stack: dict[str, Any], *where: str, **_: Any) -> Table:
        return _complete(from_stack(resource_name, _sse(stack), *where), stack["Properties"])

    def create_global(
        resource_name: str, stack: dict[str, Any], account: str, region: str, **_: Any
    ) -> Table:
        properties = copy.deepcopy(stack["Properties"])
        stream = properties.pop("StreamSpecification", None)
        group = Group(
            home=region,
            strong=properties.get("MultiRegionConsistency") == "STRONG",
            witnesses=[each["Region"] for each in properties.get("GlobalTableWitnesses", ())],
            making=0,
        )
        for replica in properties["Replicas"]:
            own = {**properties, **replica}
            own["SSESpecification"] = {
                **properties.get("SSESpecification", {}),
                **replica.get("SSESpecification", {}),
            }
            where = (account, replica["Region"])
            table = create_table(resource_name, {"Properties": own}, *where)
            if not group.strong:
                assert stream == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
                table.stream_specification = STREAM
            group.members[replica["Region"]] = table
        groups[resource_name] = group
        return group.members[region]

    monkeypatch.setattr(Table, "describe", describe_member)
    monkeypatch.setattr(DynamoHandler, "update_table", update_table)
    monkeypatch.setattr(Table, "create_from_cloudformation_json", create_table)
    monkeypatch.setattr(GlobalTable, "create_from_cloudformation_json", create_global)
    return moto


class CloudFormation:
    """moto's, for which it needs more than for DynamoDB."""

    @staticmethod
    def available() -> bool:
        return all(importlib.util.find_spec(name) for name in ("joserfc", "openapi_spec_validator"))


class GlobalTable(CloudFormationModel):
    """The resource type, which moto finds among the subclasses."""

    @staticmethod
    def cloudformation_name_type() -> str:
        return "TableName"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::DynamoDB::GlobalTable"


def _describe(group: Group, table: Table) -> dict[str, Any]:
    state = "CREATING" if group.making else "ACTIVE"
    answer = {
        "MultiRegionConsistency": "STRONG" if group.strong else "EVENTUAL",
        "Replicas": [
            {"RegionName": region, "ReplicaStatus": state}
            for region in sorted(group.members)
            if region != table.region_name
        ],
        "GlobalTableWitnesses": [
            {"RegionName": region, "WitnessStatus": state} for region in group.witnesses
        ],
        "TableStatus": "UPDATING" if group.making else "ACTIVE",
    }
    group.making = max(0, group.making - 1)
    return answer


def _replicate(table: Table, group: Group | None, body: dict[str, Any]) -> Group:
    """Do what UpdateTable is asked for; return the global table then."""
    new = [update["Create"] for update in body["ReplicaUpdates"]]
    strong = body.get("MultiRegionConsistency") == "STRONG"
    witnesses = [each["Create"]["RegionName"] for each in body.get("GlobalTableWitnessUpdates", ())]
    if strong and (group or len(table) or table.ttl["TimeToLiveStatus"] == "ENABLED"):
        raise MockValidationException("Strong consistency needs an empty table without TTL")
    if strong and 1 + len(new) + len(witnesses) != 3:
        raise MockValidationException("Strong consistency needs three regions")
    if not strong and len(new) > 1:
        raise MockValidationException("Only one replica can be added at a time")
    if table.billing_mode != "PAY_PER_REQUEST":
        raise MockValidationException("Capacity should be Pay-Per-Request or AutoScaled")
    group = group or Group(table.region_name, strong, witnesses, {table.region_name: table})
    group.making = LOOKS
    for each in new:
        backend = dynamodb_backends[table.account_id][each["RegionName"]]
        if table.name in backend.tables:
            raise MockValidationException("One or more replicas already existed as tables")
        key = each.get("KMSMasterKeyId")
        sse = {"Enabled": True, "KMSMasterKeyId": key} if key else None
        replica = backend.create_table(
            table.name,
            schema=table.schema,
            attr=table.attr,
            throughput=None,
            indexes=[],
            global_indexes=[],
            streams=None,
            billing_mode=table.billing_mode,
            sse_specification=sse,
            tags=[],
            deletion_protection_enabled=False,
            warm_throughput=table.warm_throughput,
        )
        replica.ttl = table.ttl  # one setting for all of them
        group.members[each["RegionName"]] = replica
    if not group.strong:
        for member in group.members.values():
            member.stream_specification = STREAM
    return group


def _sse(stack: dict[str, Any]) -> dict[str, Any]:
    """Return the same, with the encryption as moto reads it: in the words of CreateTable."""
    stack = copy.deepcopy(stack)
    sse = stack["Properties"].pop("SSESpecification", {})
    if sse.pop("SSEEnabled", False):
        stack["Properties"]["SSESpecification"] = {"Enabled": True, **sse}
    return stack


def _complete(table: Table, properties: dict[str, Any]) -> Table:
    """Have the table be what moto does not read in a stack."""
    backend = dynamodb_backends[table.account_id][table.region_name]
    if ttl := properties.get("TimeToLiveSpecification"):
        backend.update_time_to_live(table.name, ttl)
    if recovery := properties.get("PointInTimeRecoverySpecification"):
        backend.update_continuous_backups(table.name, recovery)
    return table


def facts(server: MotoServer, name: str, *regions: str) -> dict[str, dict[str, Any]]:
    """Return all that DynamoDB tells of a table in each region, less names, ARNs and dates."""
    return {region: _facts(client(server.endpoint_url, region), name) for region in regions}


def _facts(dynamodb: Any, name: str) -> dict[str, Any]:
    table = dynamodb.describe_table(TableName=name)["Table"]
    tags = dynamodb.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"]
    recovery = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    for private in ("TableName", "TableArn", "CreationDateTime"):
        del table[private]
    return {
        **table,
        "TTL": dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"],
        "Recovery": recovery["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"],
        "Tags": sorted((tag["Key"], tag["Value"]) for tag in tags),
    }
