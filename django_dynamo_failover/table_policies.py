"""What IAM has to allow to whom. ``tests/test_policies.py`` holds it against what they ask for."""

from collections.abc import Sequence
from typing import Any, Literal

from .table_spec import TableSpec

#: Web processes; ``clearsessions_dynamo``; ``healthcheck_dynamo`` and ``drillsessions_dynamo``;
#: whoever makes the table, imports, and logs users out.
Role = Literal["web", "gc", "check", "admin"]

#: The last for the note of the site, once a day where ``SITE`` is set.
_WEB = ["BatchGetItem", "BatchWriteItem", "PutItem", "UpdateItem"]
_GC = ["DeleteItem", "DescribeTable", "DescribeTimeToLive", "Scan"]
#: A check tries what web processes and ``clearsessions_dynamo`` do.
_CHECK = sorted({*_WEB, *_GC, "DescribeContinuousBackups"})
_ADMIN = ["BatchGetItem", "CreateTable", "DescribeTable", "DescribeTimeToLive", "PutItem"]

#: What DynamoDB does by itself, in the name of whoever adds a replica.
REPLICATION = [
    "BatchWriteItem",
    "CreateTableReplica",
    "DeleteItem",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "UpdateItem",
]
_WITNESS = "CreateGlobalTableWitness"
_REPLICATOR = "replication.dynamodb.amazonaws.com"

# What DynamoDB asks KMS for, in the name of its caller: to use a table, and to make one.
_KMS_USE = ["Decrypt"]
_KMS_MAKE = ["CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey*", "ReEncrypt*"]


def policies(spec: TableSpec, regions: Sequence[str]) -> dict[Role, dict[str, Any]]:
    """Return a policy for each role, for the tables of that name in these regions."""
    admin = [_on_tables(_admin_actions(spec), spec.name, regions)]
    if spec.witness:
        admin.append(_on_tables([_WITNESS], spec.name, [*regions, spec.witness]))
    if spec.replicas:
        admin.append(_replicator(regions[0]))
    return {
        "web": _policy(_on_tables(_WEB, spec.name, regions), *_key(spec, regions, _KMS_USE)),
        "gc": _policy(_on_tables(_GC, spec.name, regions), *_key(spec, regions, _KMS_USE)),
        "check": _policy(_on_tables(_CHECK, spec.name, regions), *_key(spec, regions, _KMS_USE)),
        "admin": _policy(*admin, *_key(spec, regions, _KMS_MAKE)),
    }


def _admin_actions(spec: TableSpec) -> list[str]:
    actions = {*_ADMIN}
    if spec.has_ttl:
        actions.add("UpdateTimeToLive")
    if spec.recovery is not None:
        actions |= {"DescribeContinuousBackups"}
    if spec.recovery:
        actions.add("UpdateContinuousBackups")
    if spec.tags:
        actions |= {"ListTagsOfResource", "TagResource"}
    if spec.protection or spec.replicas:
        actions.add("UpdateTable")
    if spec.replicas:
        actions |= {*REPLICATION}
    return sorted(actions)


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _on_tables(actions: Sequence[str], name: str, regions: Sequence[str]) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": [f"dynamodb:{action}" for action in actions],
        "Resource": [
            f"arn:{_partition(region)}:dynamodb:{region}:*:table/{name}" for region in regions
        ],
    }


def _replicator(region: str) -> dict[str, Any]:
    """Return the permission to make the role that replicates, once in an AWS account."""
    role = f"role/aws-service-role/{_REPLICATOR}/AWSServiceRoleForDynamoDBReplication"
    return {
        "Effect": "Allow",
        "Action": ["iam:CreateServiceLinkedRole"],
        "Resource": [f"arn:{_partition(region)}:iam::*:{role}"],
        "Condition": {"StringEquals": {"iam:AWSServiceName": _REPLICATOR}},
    }


def _key(spec: TableSpec, regions: Sequence[str], actions: Sequence[str]) -> list[dict[str, Any]]:
    """Return the permission to have DynamoDB use a key of KMS, and only through DynamoDB."""
    if not spec.kms_key:
        return []
    services = [f"dynamodb.{region}.amazonaws.com" for region in regions]
    condition: dict[str, Any] = {"StringEquals": {"kms:ViaService": services}}
    resources = [spec.kms_key]
    if spec.kms_key.startswith("alias/"):
        # IAM knows keys by ARN only: any that has the alias.
        resources = [f"arn:{_partition(region)}:kms:{region}:*:key/*" for region in regions]
        condition["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": spec.kms_key}
    return [
        {
            "Effect": "Allow",
            "Action": [f"kms:{action}" for action in actions],
            "Resource": resources,
            "Condition": condition,
        }
    ]


def _partition(region: str) -> str:
    for prefix, partition in {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}.items():
        if region.startswith(prefix):
            return partition
    return "aws"
