"""A table that is there, against what ``createtable_dynamo`` is asked for; ``--add-missing``."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_dynamo_failover.table_spec import TableSpec
from django_dynamo_failover.table_state import TableFound, differences

from .conftest import REGION_NAMES
from .moto_gaps import aws, facts  # noqa: F401
from .test_createtable import create, nobody

ARN = "arn:aws:kms:us-east-1:123456789012:key/"
RECOVERY = "--point-in-time-recovery"
PROTECTION = "--deletion-protection"

#: How a table was made, what it is asked to be, and what is said then.
DIFFERENCES = {
    "billing": ([], ["--provisioned=5:6"], "billing is on-demand; asked for provisioned 5:6"),
    "units": (
        ["--provisioned=5:6"],
        ["--provisioned=7:6"],
        "billing is provisioned 5:6; asked for provisioned 7:6",
    ),
    "no units": (
        ["--provisioned=5:6"],
        ["--on-demand"],
        "billing is provisioned 5:6; asked for on-demand",
    ),
    "TTL": ([], ["--no-ttl"], "TTL is on for 'expires'; asked for off"),
    "recovery": ([], [RECOVERY], "point-in-time recovery is off; asked for on"),
    "no recovery": (
        [RECOVERY],
        ["--no-point-in-time-recovery"],
        "point-in-time recovery is on; asked for off",
    ),
    "protection": ([], [PROTECTION], "deletion protection is off; asked for on"),
    "no protection": (
        [PROTECTION],
        ["--no-deletion-protection"],
        "deletion protection is on; asked for off",
    ),
    "encryption": (
        [],
        ["--kms-key=alias/k"],
        "encryption is with a key that AWS owns; asked for alias/k",
    ),
    "key": (
        [f"--kms-key={ARN}one"],
        [f"--kms-key={ARN}other"],
        f"encryption is with {ARN}one; asked for {ARN}other",
    ),
    "tag": ([], ["--tag=team=web"], "tag 'team' is missing; asked for 'web'"),
    "value": (["--tag=team=app"], ["--tag=team=web"], "tag 'team' is 'app'; asked for 'web'"),
    "warmth": (
        ["--warm-throughput=13000:5000"],
        ["--warm-throughput=13000:6000"],
        "warm throughput is 13000:5000; asked for 13000:6000",
    ),
}
each_difference = pytest.mark.parametrize(
    ("made", "asked", "says"), DIFFERENCES.values(), ids=DIFFERENCES
)


@pytest.fixture
def run(settings, table_name):
    """``run(server, *options)``: the command in one region; its lines."""

    def run(server, *options, regions=1):
        settings.DYNAMO_FAILOVER = {
            "TABLE": table_name,
            "READ_TIMEOUT": 10,
            "REGIONS": [
                {"NAME": name, "ENDPOINT_URL": getattr(server, "endpoint_url", server)}
                for name in REGION_NAMES[:regions]
            ],
        }
        run.out = StringIO()
        call_command("createtable_dynamo", *options, stdout=run.out)
        return run.out.getvalue().splitlines()

    return run


@pytest.fixture
def complain(run):
    """``complain(server, *options)``: what it finds wrong, by line, and the exit status."""

    def complain(*arguments, **options):
        with pytest.raises(CommandError) as caught:
            run(*arguments, **options)
        return str(caught.value).splitlines(), caught.value.returncode

    return complain


@each_difference
def test_a_difference_is_a_line_and_exit_status_1(run, complain, aws, made, asked, says):  # noqa: F811
    run(aws, *made)
    assert complain(aws, *asked) == ([f"us-east-1: {says}"], 1)


@each_difference
def test_what_is_not_asked_is_not_compared(run, aws, made, asked, says):  # noqa: F811
    run(aws, *made)
    run(aws)


@each_difference
def test_what_is_as_asked_is_no_difference(run, aws, made, asked, says):  # noqa: F811
    run(aws, *made)
    run(aws, *made)


@each_difference
def test_to_compare_changes_nothing(run, complain, aws, table_name, made, asked, says):  # noqa: F811
    run(aws, *made)
    before = facts(aws, table_name, "us-east-1")
    complain(aws, *asked)
    assert facts(aws, table_name, "us-east-1") == before


def test_all_differences_are_told(run, complain, aws):  # noqa: F811
    run(aws)
    lines, _ = complain(aws, "--provisioned=5:6", RECOVERY, PROTECTION, "--tag=a=b", "--tag=c=d")
    assert [line.split()[1] for line in lines] == [
        "billing",
        "point-in-time",
        "deletion",
        "tag",
        "tag",
    ]


def test_of_a_table_with_another_key_nothing_else_is_told(complain, aws, table_name):  # noqa: F811
    create(aws, table_name, key="session_key")
    [line], status = complain(aws, RECOVERY, "--add-missing")
    assert "the key of the existing table is 'session_key' (HASH)" in line
    assert status == 1
    assert facts(aws, table_name, "us-east-1")["us-east-1"]["Recovery"] == "DISABLED"


def test_a_growing_warm_throughput_is_no_difference(run, aws):  # noqa: F811
    run(aws, "--warm-throughput=14000:6000")
    run(aws, "--warm-throughput=13000:5000")


def test_which_key_an_alias_stands_for_is_not_asked(run, aws):  # noqa: F811
    run(aws, f"--kms-key={ARN}one")
    run(aws, "--kms-key=alias/k")


def test_json_has_the_differences(run, complain, aws):  # noqa: F811
    run(aws)
    complain(aws, RECOVERY, "--json")
    [region] = json.loads(run.out.getvalue())["regions"]
    assert region["differences"] == ["point-in-time recovery is off; asked for on"]
    assert (region["ready"], region["status"], region["error"]) == (False, 1, None)


# --- What can be added ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([RECOVERY], "point-in-time recovery is turned on"),
        ([PROTECTION], "deletion protection is turned on"),
        (["--tag=team=web"], "tag 'team' is set to 'web'"),
    ],
)
def test_what_is_missing_can_be_added(run, aws, asked, says):  # noqa: F811
    run(aws)
    assert run(aws, *asked, "--add-missing")[-1] == f"us-east-1: {says}"
    assert run(aws, *asked, "--add-missing")[-1] == "us-east-1: TTL is on for 'expires'"


@pytest.mark.parametrize(
    "name", ["billing", "units", "TTL", "no recovery", "no protection", "encryption", "value"]
)
def test_nothing_else_is_changed(run, complain, aws, table_name, name):  # noqa: F811
    made, asked, says = DIFFERENCES[name]
    run(aws, *made)
    before = facts(aws, table_name, "us-east-1")
    assert complain(aws, *asked, "--add-missing") == ([f"us-east-1: {says}"], 1)
    assert facts(aws, table_name, "us-east-1") == before


def test_one_tag_is_added_without_changing_another(run, complain, aws, table_name):  # noqa: F811
    run(aws, "--tag=team=app")
    lines, _ = complain(aws, "--tag=team=web", "--tag=stage=live", "--add-missing")
    assert lines == ["us-east-1: tag 'team' is 'app'; asked for 'web'"]
    assert facts(aws, table_name, "us-east-1")["us-east-1"]["Tags"] == [
        ("stage", "live"),
        ("team", "app"),
    ]


def test_recovery_that_is_not_to_be_had_yet_is_waited_for(run, aws, monkeypatch):  # noqa: F811
    from moto.core.exceptions import JsonRESTError
    from moto.dynamodb.models import DynamoDBBackend

    update, busy = DynamoDBBackend.update_continuous_backups, [1, 2, 3]

    def update_later(*arguments):
        if busy:
            busy.pop()
            raise JsonRESTError("ContinuousBackupsUnavailableException", "being enabled")
        return update(*arguments)

    monkeypatch.setattr(DynamoDBBackend, "update_continuous_backups", update_later)
    assert run(aws, RECOVERY)[-1] == "us-east-1: point-in-time recovery is turned on"


def test_a_new_table_has_what_it_can_from_the_first_moment(run, aws):  # noqa: F811
    aws.reset_requests()
    run(aws, PROTECTION, "--tag=a=b", "--kms-key=alias/k", "--provisioned=5:6")
    assert {name for name in aws.requests() if not name.startswith(("Describe", "List"))} == {
        "CreateTable",
        "UpdateTimeToLive",
    }


# --- A dry run --------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_made(run, aws, table_name):  # noqa: F811
    aws.reset_requests()
    lines = run(aws, RECOVERY, PROTECTION, "--tag=a=b", "--dry-run")
    assert lines == [
        "us-east-1: table would be created",
        "us-east-1: TTL would be turned on for 'expires'",
        "us-east-1: point-in-time recovery would be turned on",
    ]
    assert {*aws.requests()} == {"DescribeTable"}


@pytest.mark.parametrize("options", [[RECOVERY, PROTECTION, "--tag=a=b"], ["--no-ttl"]])
@pytest.mark.parametrize("add", [[], ["--add-missing"]])
def test_a_dry_run_changes_nothing(run, aws, table_name, options, add):  # noqa: F811
    create(aws, table_name)
    before = facts(aws, table_name, "us-east-1")
    try:
        run(aws, *options, *add, "--dry-run")
    except CommandError:
        assert not add
    assert facts(aws, table_name, "us-east-1") == before


def test_a_dry_run_says_what_would_be_added(run, aws, table_name):  # noqa: F811
    create(aws, table_name)
    assert run(aws, RECOVERY, PROTECTION, "--tag=a=b", "--add-missing", "--dry-run") == [
        "us-east-1: table exists",
        "us-east-1: TTL would be turned on for 'expires'",
        "us-east-1: point-in-time recovery would be turned on",
        "us-east-1: deletion protection would be turned on",
        "us-east-1: tag 'a' would be set to 'b'",
    ]


def test_a_dry_run_finds_the_differences(run, complain, aws):  # noqa: F811
    run(aws)
    assert complain(aws, RECOVERY, "--dry-run")[1] == 1


# --- No answer, and no --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "option"),
    [("DescribeTimeToLive", "--on-demand"), ("ListTagsOfResource", "--tag=a=b")],
)
def test_denied_access_is_exit_status_2_and_one_line(
    complain, dynamodb, table_name, operation, option
):
    create(dynamodb, table_name)
    dynamodb.fail(operation, "AccessDeniedException", times=None)
    assert complain(dynamodb, option) == (
        [
            "us-east-1: these AWS credentials lack the permission"
            f" ({operation}: AccessDeniedException)"
        ],
        2,
    )


def test_a_server_that_lacks_something_is_exit_status_2_and_one_line(complain, dynamodb):
    assert complain(dynamodb, RECOVERY) == (
        [
            "us-east-1: this server does not know what is asked for"
            " (DescribeContinuousBackups: UnknownOperationException)"
        ],
        2,
    )


def test_dynamodb_says_itself_why_it_refuses(complain, dynamodb):
    dynamodb.fail("CreateTable", "ValidationException", times=None)
    assert complain(dynamodb) == (
        ["us-east-1: DynamoDB refuses to create table: ValidationException (injected)"],
        1,
    )


def test_a_boto3_that_is_too_old_is_told(complain, aws, monkeypatch):  # noqa: F811
    template = "django_dynamo_failover.table_making.create_request"
    monkeypatch.setattr(template, lambda spec: {"TableName": spec.name, "FromTheFuture": 1})
    [line], status = complain(aws)
    assert "this boto3 does not know all that is asked for: install a newer one" in line
    assert status == 2


def test_no_server_is_exit_status_2_and_one_line(complain):
    [line], status = complain(nobody(), RECOVERY, "--dry-run")
    assert "cannot be reached" in line
    assert status == 2


# --- What no server here tells ----------------------------------------------------------------

SPEC = TableSpec(name="sessions", regions=("us-east-1", "us-west-2"))
DESCRIBED = {
    "TableStatus": "ACTIVE",
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
}


def texts(spec, **described):
    found = TableFound.parse({**DESCRIBED, **described}, "us-east-1")
    return [difference.text for difference in differences(spec, found)]


@pytest.mark.parametrize("state", ["CREATION_FAILED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS"])
def test_a_replica_in_a_bad_state_is_a_difference(state):
    replicas = [{"RegionName": "us-west-2", "ReplicaStatus": state}]
    assert texts(SPEC, Replicas=replicas) == [f"the replica in us-west-2 is in state {state}"]


def test_a_region_may_be_told_among_its_own_replicas():
    replicas = [{"RegionName": name, "ReplicaStatus": "ACTIVE"} for name in SPEC.regions]
    assert texts(SPEC, Replicas=replicas) == []
