"""The table in three languages: DynamoDB's own, CloudFormation, Terraform."""

from typing import Any

from .table_spec import KEY, TTL, TableSpec, Units

#: The first of Terraform's AWS providers that knows all of it.
_TERRAFORM_PROVIDER = ">= 6.22"


def create_request(spec: TableSpec) -> dict[str, Any]:
    """Return what to ask CreateTable for. TTL, recovery and replicas come after it."""
    request = {**_table(spec), **_capacity(spec)}
    if spec.protection is not None:
        request["DeletionProtectionEnabled"] = spec.protection
    if spec.kms_key:
        request["SSESpecification"] = {
            "Enabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": spec.kms_key,
        }
    if spec.tags:
        request["Tags"] = _tags(spec)
    return request


def cloudformation(spec: TableSpec) -> dict[str, Any]:
    """Return a template with the table, which stays when its stack is deleted."""
    kind = _global_table(spec) if spec.replicas else _single_table(spec)
    where = " or ".join(spec.regions)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Sessions of django_dynamo_failover. For a stack in {where}.",
        "Resources": {
            "Sessions": {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain", **kind}
        },
    }


def terraform(spec: TableSpec) -> dict[str, Any]:
    """Return a configuration in Terraform's JSON syntax, for a file named ``*.tf.json``."""
    table: dict[str, Any] = {
        "region": spec.regions[0],
        "name": spec.name,
        "hash_key": KEY,
        "attribute": [{"name": KEY, "type": "S"}],
        "billing_mode": "PAY_PER_REQUEST",
        "lifecycle": {"prevent_destroy": True},
    }
    if isinstance(spec.billing, Units):
        table["billing_mode"] = "PROVISIONED"
        table["read_capacity"] = spec.billing.read
        table["write_capacity"] = spec.billing.write
    if spec.has_ttl:
        table["ttl"] = {"attribute_name": TTL, "enabled": True}
    if spec.recovery is not None:
        table["point_in_time_recovery"] = {"enabled": spec.recovery}
    if spec.protection is not None:
        table["deletion_protection_enabled"] = spec.protection
    if spec.kms_key:
        table["server_side_encryption"] = {
            "enabled": True,
            "kms_key_arn": _terraform_key(spec, spec.regions[0]),
        }
    if spec.tags:
        table["tags"] = dict(spec.tags)
    if spec.warm:
        table["warm_throughput"] = {
            "read_units_per_second": spec.warm.read,
            "write_units_per_second": spec.warm.write,
        }
    if spec.replicas:
        table["replica"] = [_terraform_replica(spec, region) for region in spec.replicas]
        if not spec.strong:
            table |= {"stream_enabled": True, "stream_view_type": "NEW_AND_OLD_IMAGES"}
    if spec.witness:
        table["global_table_witness"] = {"region_name": spec.witness}
    providers = {"aws": {"source": "hashicorp/aws", "version": _TERRAFORM_PROVIDER}}
    return {
        "terraform": {"required_providers": providers},
        **_terraform_aliases(spec),
        "resource": {"aws_dynamodb_table": {"sessions": table}},
    }


def _table(spec: TableSpec) -> dict[str, Any]:
    """Return what DynamoDB and CloudFormation call the same."""
    return {
        "TableName": spec.name,
        "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
    }


def _capacity(spec: TableSpec) -> dict[str, Any]:
    capacity: dict[str, Any] = {"BillingMode": "PAY_PER_REQUEST"}
    if isinstance(spec.billing, Units):
        capacity = {
            "BillingMode": "PROVISIONED",
            "ProvisionedThroughput": {
                "ReadCapacityUnits": spec.billing.read,
                "WriteCapacityUnits": spec.billing.write,
            },
        }
    if spec.warm:
        capacity["WarmThroughput"] = {
            "ReadUnitsPerSecond": spec.warm.read,
            "WriteUnitsPerSecond": spec.warm.write,
        }
    return capacity


def _single_table(spec: TableSpec) -> dict[str, Any]:
    properties = {**_table(spec), **_capacity(spec), **_ttl(spec), **_own(spec)}
    if spec.kms_key:
        properties["SSESpecification"] = {
            "SSEEnabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": spec.kms_key,
        }
    return {"Type": "AWS::DynamoDB::Table", "Properties": properties}


def _global_table(spec: TableSpec) -> dict[str, Any]:
    properties = {**_table(spec), **_capacity(spec), **_ttl(spec)}
    properties["Replicas"] = [
        {
            "Region": region,
            **_own(spec),
            **({"SSESpecification": {"KMSMasterKeyId": spec.kms_key}} if spec.kms_key else {}),
        }
        for region in spec.regions
    ]
    if spec.kms_key:
        properties["SSESpecification"] = {"SSEEnabled": True, "SSEType": "KMS"}
    if spec.strong:
        properties["MultiRegionConsistency"] = "STRONG"
    else:
        properties["StreamSpecification"] = {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    if spec.witness:
        properties["GlobalTableWitnesses"] = [{"Region": spec.witness}]
    return {"Type": "AWS::DynamoDB::GlobalTable", "Properties": properties}


def _tags(spec: TableSpec) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in spec.tags.items()]


def _ttl(spec: TableSpec) -> dict[str, Any]:
    if not spec.has_ttl:
        return {}
    return {"TimeToLiveSpecification": {"AttributeName": TTL, "Enabled": True}}


def _own(spec: TableSpec) -> dict[str, Any]:
    """Return what CloudFormation wants of a table, and of each replica by itself."""
    own: dict[str, Any] = {}
    if spec.recovery is not None:
        own["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": spec.recovery}
    if spec.protection is not None:
        own["DeletionProtectionEnabled"] = spec.protection
    if spec.tags:
        own["Tags"] = _tags(spec)
    return own


def _terraform_replica(spec: TableSpec, region: str) -> dict[str, Any]:
    replica: dict[str, Any] = {"region_name": region}
    if spec.strong:
        replica["consistency_mode"] = "STRONG"
    if spec.recovery is not None:
        replica["point_in_time_recovery"] = spec.recovery
    if spec.protection is not None:
        replica["deletion_protection_enabled"] = spec.protection
    if spec.tags:
        replica["propagate_tags"] = True
    if spec.kms_key:
        replica["kms_key_arn"] = _terraform_key(spec, region)
    return replica


def _terraform_key(spec: TableSpec, region: str) -> str | None:
    if spec.kms_key and _is_alias(spec):
        return f"${{data.aws_kms_alias.sessions_{region}.target_key_arn}}"
    return spec.kms_key


def _terraform_aliases(spec: TableSpec) -> dict[str, Any]:
    """Return where Terraform, which wants ARNs, looks an alias up."""
    if not _is_alias(spec):
        return {}
    aliases = {
        f"sessions_{region}": {"name": spec.kms_key, "region": region} for region in spec.regions
    }
    return {"data": {"aws_kms_alias": aliases}}


def _is_alias(spec: TableSpec) -> bool:
    return bool(spec.kms_key and spec.kms_key.startswith("alias/"))
