"""What ``createtable_dynamo --print`` says, against what the command makes."""

import json
from io import StringIO

import boto3
import pytest
from django.core.management import CommandError, call_command

from django_dynamo_failover.dynamo_client import DynamoClient

from .conftest import REGION_NAMES, require
from .moto_gaps import CloudFormation, aws, facts, needs_witness  # noqa: F401

EVERYTHING = [
    "--point-in-time-recovery",
    "--deletion-protection",
    "--kms-key=alias/sessions",
    "--tag=team=web",
    "--tag=stage=live",
    "--warm-throughput=13000:5000",
]
#: Options, and how many regions.
TABLES = {
    "plain": ([], 1),
    "provisioned": (["--provisioned=7:9"], 1),
    "no TTL": (["--no-ttl"], 1),
    "everything": (EVERYTHING, 1),
    "said to be off": (["--no-point-in-time-recovery", "--no-deletion-protection"], 1),
    "global": (["--global-table"], 3),
    "global, everything": (["--global-table", *EVERYTHING], 3),
    "strong": (["--global-table", "--consistency=strong"], 3),
    "strong, everything": (["--global-table", "--consistency=strong", *EVERYTHING], 3),
    "a witness": pytest.param(
        ["--global-table", "--consistency=strong", "--witness=us-east-2"], 2, marks=needs_witness
    ),
}
each_table = pytest.mark.parametrize(("options", "number"), TABLES.values(), ids=TABLES)


@pytest.fixture
def run(settings, table_name):
    """``run(server, regions, …)``: the command; what it prints."""

    def run(server, number, *options, table=table_name):
        endpoint = {"ENDPOINT_URL": server.endpoint_url} if server else {}
        settings.DYNAMO_FAILOVER = {
            "TABLE": table,
            "READ_TIMEOUT": 10,
            "REGIONS": [{"NAME": name, **endpoint} for name in REGION_NAMES[:number]],
        }
        out = StringIO()
        call_command("createtable_dynamo", *options, stdout=out)
        return out.getvalue()

    return run


def deploy(server, template):
    require(CloudFormation)
    cloudformation = boto3.client(
        "cloudformation",
        region_name="us-east-1",
        endpoint_url=server.endpoint_url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    cloudformation.create_stack(StackName="sessions", TemplateBody=template)
    [stack] = cloudformation.describe_stacks(StackName="sessions")["Stacks"]
    cloudformation.delete_stack(StackName="sessions")  # its table stays
    assert stack["StackStatus"] == "CREATE_COMPLETE"


@each_table
def test_the_table_of_a_stack_is_the_one_that_the_command_makes(
    run,
    aws,  # noqa: F811
    table_name,
    options,
    number,
):
    run(aws, number, *options)
    other = f"{table_name}-stack"
    deploy(aws, run(aws, number, *options, "--print=cloudformation", table=other))
    regions = REGION_NAMES[:number]
    assert facts(aws, table_name, *regions) == facts(aws, other, *regions)


@each_table
def test_nobody_is_asked_for_a_template(run, options, number, monkeypatch):
    monkeypatch.setattr(DynamoClient, "_make", None)
    for template in ("cloudformation", "terraform", "iam"):
        assert json.loads(run(None, number, *options, f"--print={template}"))


PLAIN = {
    "region": "us-east-1",
    "hash_key": "id",
    "attribute": [{"name": "id", "type": "S"}],
    "billing_mode": "PAY_PER_REQUEST",
    "ttl": {"attribute_name": "expires", "enabled": True},
    "lifecycle": {"prevent_destroy": True},
}
STREAM = {"stream_enabled": True, "stream_view_type": "NEW_AND_OLD_IMAGES"}
ARN = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"


def alias_in(region):
    return f"${{data.aws_kms_alias.sessions_{region}.target_key_arn}}"


@pytest.mark.parametrize(
    ("number", "options", "adds"),
    [
        (1, [], {}),
        (
            1,
            ["--provisioned=7:9"],
            {"billing_mode": "PROVISIONED", "read_capacity": 7, "write_capacity": 9},
        ),
        (1, ["--point-in-time-recovery"], {"point_in_time_recovery": {"enabled": True}}),
        (1, ["--no-point-in-time-recovery"], {"point_in_time_recovery": {"enabled": False}}),
        (1, ["--deletion-protection"], {"deletion_protection_enabled": True}),
        (1, ["--tag=team=web", "--tag=note=a=b"], {"tags": {"team": "web", "note": "a=b"}}),
        (
            1,
            ["--warm-throughput=13000:5000"],
            {
                "warm_throughput": {
                    "read_units_per_second": 13000,
                    "write_units_per_second": 5000,
                }
            },
        ),
        (
            1,
            [f"--kms-key={ARN}"],
            {"server_side_encryption": {"enabled": True, "kms_key_arn": ARN}},
        ),
        (2, [], {"replica": [{"region_name": "us-west-2"}], **STREAM}),
        (
            2,
            ["--point-in-time-recovery", "--deletion-protection", "--tag=a=b", "--kms-key=alias/k"],
            {
                "point_in_time_recovery": {"enabled": True},
                "deletion_protection_enabled": True,
                "tags": {"a": "b"},
                "server_side_encryption": {"enabled": True, "kms_key_arn": alias_in("us-east-1")},
                "replica": [
                    {
                        "region_name": "us-west-2",
                        "point_in_time_recovery": True,
                        "deletion_protection_enabled": True,
                        "propagate_tags": True,
                        "kms_key_arn": alias_in("us-west-2"),
                    }
                ],
                **STREAM,
            },
        ),
        (
            2,
            ["--consistency=strong", "--witness=us-east-2"],
            {
                "ttl": None,
                "replica": [{"region_name": "us-west-2", "consistency_mode": "STRONG"}],
                "global_table_witness": {"region_name": "us-east-2"},
            },
        ),
    ],
)
def test_terraform_gets_the_same_table(run, table_name, number, options, adds):
    template = json.loads(run(None, number, *options, "--print=terraform"))
    expected = {**PLAIN, "name": table_name, **adds}
    expected = {name: value for name, value in expected.items() if value is not None}
    assert template["resource"] == {"aws_dynamodb_table": {"sessions": expected}}


def test_terraform_looks_an_alias_up_in_each_region(run):
    template = json.loads(run(None, 2, "--kms-key=alias/k", "--print=terraform"))
    assert template["data"]["aws_kms_alias"] == {
        "sessions_us-east-1": {"name": "alias/k", "region": "us-east-1"},
        "sessions_us-west-2": {"name": "alias/k", "region": "us-west-2"},
    }


def test_a_stack_that_is_deleted_leaves_the_table(run):
    [table] = json.loads(run(None, 1, "--print=cloudformation"))["Resources"].values()
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize("template", ["cloudformation", "terraform"])
def test_independent_tables_are_printed_one_at_a_time(run, table_name, template):
    with pytest.raises(CommandError, match="print one at a time, with --region") as caught:
        run(None, 2, "--no-global-table", f"--print={template}")
    assert caught.value.returncode == 1
    assert '"us-west-2' in run(None, 2, "--region=us-west-2", "--print=terraform")
