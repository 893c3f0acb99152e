"""What ``createtable_dynamo --print`` says, against what the command makes."""

from io import StringIO

import boto3
import pytest
from django.core.management import call_command

from .conftest import REGION_NAMES
from .moto_gaps import aws, facts  # noqa: F401

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
    "a witness": (["--global-table", "--consistency=strong", "--witness=us-east-2"], 2),
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
