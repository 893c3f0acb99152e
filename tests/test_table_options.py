"""The options of ``createtable_dynamo`` that are wrong, or do not go together; and its help."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_dynamo_failover.dynamo_client import DynamoClient
from django_dynamo_failover.management.commands.createtable_dynamo import Command

from .conftest import REGION_NAMES
from .test_createtable import manage

ARN = "arn:aws:kms:us-west-2:123456789012:key/1234abcd"


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch):
    monkeypatch.setattr(DynamoClient, "_make", None)


@pytest.fixture
def run(settings):
    """``run(*options)``: the command, which is not to come so far that it asks anybody."""

    def run(*options, regions=1, endpoint=None, **others):
        names = REGION_NAMES[:regions]
        settings.DYNAMO_FAILOVER = {
            "REGIONS": [{"NAME": name, "ENDPOINT_URL": endpoint} for name in names],
            **others,
        }
        out = StringIO()
        call_command("createtable_dynamo", *options, stdout=out)
        return out.getvalue()

    return run


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--provisioned=5", "'5' is not READ:WRITE, two whole numbers from 1"),
        ("--provisioned=0:5", "'0:5' is not READ:WRITE"),
        ("--provisioned=5:x", "'5:x' is not READ:WRITE"),
        ("--warm-throughput=1:2:3", "'1:2:3' is not READ:WRITE"),
        ("--tag=team", "'team' is not KEY=VALUE, such as team=web"),
        ("--tag==web", "'=web' is not KEY=VALUE"),
        ("--consistency=weak", "invalid choice: 'weak'"),
        ("--print=pulumi", "invalid choice: 'pulumi'"),
        ("--timeout=soon", "invalid seconds value"),
    ],
)
def test_a_value_that_is_none_is_told(run, option, says):
    with pytest.raises(CommandError, match=says):
        run(option)


def test_it_is_billed_by_one_way(run):
    with pytest.raises(CommandError, match="not allowed with argument"):
        run("--on-demand", "--provisioned=1:1")


@pytest.mark.parametrize(
    ("regions", "options", "says"),
    [
        (1, ["--global-table"], "needs several regions"),
        (2, ["--global-table", "--region=us-east-1"], "give one of them"),
        (1, ["--consistency=eventual"], "it needs several REGIONS"),
        (1, ["--consistency=strong"], "it needs several REGIONS"),
        (2, ["--consistency=strong"], "exactly three REGIONS, or two and a --witness; there are 2"),
        (3, ["--consistency=strong", "--witness=us-east-2"], "there are 3 and a witness"),
        (2, ["--consistency=strong", "--witness=us-west-2"], "must be none of REGIONS"),
        (2, ["--consistency=strong", "--witness=Ohio"], "'Ohio' is no AWS region"),
        (2, ["--witness=us-east-2"], "--witness is for --consistency strong"),
        (2, ["--provisioned=5:5"], "--provisioned does not go with a global table"),
        (2, ["--consistency=strong", "--no-global-table"], "it needs several REGIONS"),
        (1, ["--kms-key=1234abcd"], "name an alias such as 'alias/sessions', or the ARN"),
        (1, ["--kms-key=alias/aws/dynamodb"], "that key is Amazon's"),
        (1, [f"--kms-key={ARN}"], "this is a key of us-west-2 alone"),
        (2, [f"--kms-key={ARN}"], "Name an alias that each of them has"),
        (2, ["--no-global-table", f"--kms-key={ARN}"], "this is a key of us-west-2 alone"),
        (1, ["--tag=aws:x=y"], "are Amazon's own"),
        (1, ["--tag=a=b", "--tag=a=c"], "each key can be given once only"),
        (1, ["--tag=a=b?"], "only letters, digits, spaces and"),
        (1, ["--tag=a=b\n"], "only letters, digits, spaces and"),
        (1, [f"--tag={'k' * 129}=b"], "a key has 1 to 128 characters"),
        (1, [f"--tag=a={'v' * 257}"], "a value up to 256"),
        (1, [f"--tag=t{number}=v" for number in range(51)], "can have 50 tags, not 51"),
        (1, ["--region=mars"], "'mars' is not in DYNAMO_FAILOVER"),
    ],
)
@pytest.mark.parametrize("template", [[], ["--print=terraform"]])
def test_what_does_not_go_together_is_told_before_anybody_is_asked(
    run, regions, options, says, template
):
    with pytest.raises(CommandError, match=says) as caught:
        run(*options, *template, regions=regions)
    assert caught.value.returncode == 1


@pytest.mark.parametrize("name", ["ab", "with space", "ü", "x" * 256, "arn:aws:dynamodb"])
def test_a_name_that_no_table_can_have_is_told(run, name):
    with pytest.raises(CommandError, match="the name of a DynamoDB table"):
        run(TABLE=name)


def test_all_that_is_wrong_is_told(run):
    with pytest.raises(CommandError) as caught:
        run("--tag=a=?", "--kms-key=x", "--witness=us-east-2")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("regions", "endpoint", "options", "type_"),
    [
        (1, None, [], "Table"),
        (2, None, [], "GlobalTable"),
        (2, None, ["--region=us-west-2"], "Table"),
        (2, "http://127.0.0.1:1", ["--global-table"], "GlobalTable"),
    ],
)
def test_several_regions_of_aws_are_one_global_table(run, regions, endpoint, options, type_):
    template = run(*options, "--print=cloudformation", regions=regions, endpoint=endpoint)
    assert f'"AWS::DynamoDB::{type_}"' in template


@pytest.mark.parametrize(
    ("endpoint", "options"), [("http://127.0.0.1:1", []), (None, ["--no-global-table"])]
)
def test_where_an_endpoint_is_given_or_on_demand_each_region_has_a_table_of_its_own(
    run, endpoint, options
):
    with pytest.raises(CommandError, match="These are independent tables"):
        run(*options, "--print=cloudformation", regions=2, endpoint=endpoint)


def test_every_option_is_explained():
    parser = Command().create_parser("manage.py", "createtable_dynamo")
    assert not [action.dest for action in parser._actions if not action.help]


def test_help_has_an_example_of_each_kind():
    code, out, err = manage("--help")
    assert (code, err) == (0, "")
    for option in ("--dry-run", "--witness", "--print cloudformation", "--print iam", "--tag"):
        assert f" {option}" in out.partition("examples:")[2]
