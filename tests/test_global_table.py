"""``createtable_dynamo`` for a global table: replicas, strong consistency, several sites."""

import json
from io import StringIO

import pytest
from django.core.management import call_command

from .conftest import REGION_NAMES, client
from .moto_gaps import aws, facts, needs_witness  # noqa: F401
from .test_createtable import create, nobody
from .test_table_differences import complain  # noqa: F401

STRONG = ["--consistency=strong", "--witness=us-east-2"]


@pytest.fixture
def run(settings, table_name):
    """``run(server, *options, regions=[…])``: the command for a global table; its lines."""

    def run(servers, *options, regions=REGION_NAMES[:2]):
        if not isinstance(servers, list):
            servers = [servers] * len(regions)
        settings.DYNAMO_FAILOVER = {
            "TABLE": table_name,
            "READ_TIMEOUT": 10,
            "REGIONS": [
                {"NAME": name, "ENDPOINT_URL": getattr(server, "endpoint_url", server)}
                for name, server in zip(regions, servers, strict=True)
            ],
        }
        run.out = StringIO()
        call_command("createtable_dynamo", "--global-table", *options, stdout=run.out)
        return run.out.getvalue().splitlines()

    return run


def there(server, table, region):
    return table in client(server.endpoint_url, region).list_tables()["TableNames"]


def test_the_first_region_makes_the_replicas_and_waits_for_them(run, aws, table_name):  # noqa: F811
    lines = run(aws, "--point-in-time-recovery", regions=REGION_NAMES)
    # The replicas are looked after at once.
    assert lines[:6] + sorted(lines[6:], key=lambda line: line.partition(":")[0]) == [
        "us-east-1: table is being created",
        "us-east-1: table is created",
        "us-east-1: TTL is turned on for 'expires'",
        "us-east-1: point-in-time recovery is turned on",
        "us-east-1: replica in us-west-2 is added",
        "us-east-1: replica in eu-west-1 is added",
        "eu-west-1: replica is created",
        "eu-west-1: point-in-time recovery is turned on",
        "us-west-2: replica is created",
        "us-west-2: point-in-time recovery is turned on",
    ]
    described = facts(aws, table_name, *REGION_NAMES)
    assert {each["TTL"]["TimeToLiveStatus"] for each in described.values()} == {"ENABLED"}
    states = [each["ReplicaStatus"] for each in described["us-east-1"]["Replicas"]]
    assert states == ["ACTIVE", "ACTIVE"]


def test_it_may_be_run_again(run, aws):  # noqa: F811
    run(aws, "--tag=a=b")
    assert run(aws, "--tag=a=b") == [
        "us-east-1: table exists",
        "us-east-1: TTL is on for 'expires'",
        "us-west-2: replica exists",
    ]


def test_another_site_finds_the_table_that_the_first_has_made(run, aws):  # noqa: F811
    run(aws)
    assert run(aws, regions=["us-west-2", "us-east-1"])[0] == "us-west-2: table exists"


def test_a_region_that_is_new_at_another_site_is_added_to_the_table_there_is(run, aws):  # noqa: F811
    run(aws)
    lines = run(aws, "--add-missing", regions=["eu-west-1", "us-west-2", "us-east-1"])
    assert "us-west-2: replica in eu-west-1 is added" in lines
    assert "eu-west-1: replica is created" in lines


def test_a_missing_replica_is_a_difference(run, complain, aws, table_name):  # noqa: F811
    create(aws, table_name)
    assert complain(aws) == (["us-east-1: there is no replica in us-west-2"], 1)
    assert not there(aws, table_name, "us-west-2")
    assert run(aws, "--add-missing")[-2:] == [
        "us-east-1: replica in us-west-2 is added",
        "us-west-2: replica is created",
    ]


def test_two_tables_are_no_global_table(complain, aws, table_name):  # noqa: F811
    for region in REGION_NAMES[:2]:
        client(aws.endpoint_url, region).create_table(
            TableName=table_name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    assert complain(aws) == (["us-east-1: there is no replica in us-west-2"], 1)
    [line], status = complain(aws, "--add-missing")
    assert "DynamoDB refuses to update table: One or more replicas already existed" in line
    assert status == 1


def test_each_replica_is_compared_by_itself(run, complain, aws, table_name):  # noqa: F811
    run(aws, "--point-in-time-recovery")
    client(aws.endpoint_url, "us-west-2").update_continuous_backups(
        TableName=table_name,
        PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False},
    )
    assert complain(aws, "--point-in-time-recovery") == (
        ["us-west-2: point-in-time recovery is off; asked for on"],
        1,
    )


def test_one_region_can_be_looked_at_alone(run, settings, aws):  # noqa: F811
    run(aws)
    out = StringIO()
    call_command("createtable_dynamo", "--region=us-west-2", stdout=out)
    assert out.getvalue().splitlines() == [
        "us-west-2: table exists",
        "us-west-2: TTL is on for 'expires'",
    ]


def test_nothing_is_made_while_a_region_does_not_answer(run, complain, aws, table_name):  # noqa: F811
    lines, status = complain([aws, nobody()])
    assert lines == [
        "us-west-2: cannot be reached (DescribeTable: EndpointConnectionError)",
    ]
    assert status == 2
    assert not there(aws, table_name, "us-east-1")


def test_a_replica_that_takes_too_long_is_told(complain, aws, monkeypatch):  # noqa: F811
    monkeypatch.setattr("tests.moto_gaps.LOOKS", 10_000)
    [line], status = complain(aws, "--timeout=1")
    assert line == (
        "us-east-1: the table is not active yet: run this again, with --add-missing, to go on"
    )
    assert status == 2


def test_what_was_cut_off_can_be_finished(run, complain, aws, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        patch.setattr("tests.moto_gaps.LOOKS", 8)
        complain(aws, "--timeout=0.3", "--tag=a=b", regions=REGION_NAMES)
    run(aws, "--tag=a=b", "--add-missing", regions=REGION_NAMES)
    run(aws, "--tag=a=b", regions=REGION_NAMES)  # no difference


def test_json_has_each_region(run, aws):  # noqa: F811
    lines = run(aws, "--json")
    regions = json.loads("\n".join(lines))["regions"]
    assert [(each["region"], each["ready"], each["created"], each["ttl"]) for each in regions] == [
        ("us-east-1", True, True, "enabled"),
        ("us-west-2", True, True, "was enabled"),
    ]


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(run, aws, table_name):  # noqa: F811
    assert run(aws, "--deletion-protection", "--dry-run") == [
        "us-east-1: table would be created",
        "us-east-1: TTL would be turned on for 'expires'",
        "us-east-1: replica in us-west-2 would be added",
        "us-west-2: deletion protection would be turned on",
    ]
    assert not there(aws, table_name, "us-east-1")


@needs_witness
def test_strong_consistency_has_no_ttl(run, aws, table_name):  # noqa: F811
    lines = run(aws, *STRONG)
    assert lines[2:4] == [
        "us-east-1: a global table of strong consistency has no TTL:"
        " clearsessions_dynamo does its work",
        "us-east-1: replicas of strong consistency in us-west-2, with a witness in us-east-2,"
        " is added",
    ]
    table = facts(aws, table_name, "us-east-1")["us-east-1"]
    assert table["MultiRegionConsistency"] == "STRONG"
    assert table["TTL"] == {"TimeToLiveStatus": "DISABLED"}
    assert [each["RegionName"] for each in table["GlobalTableWitnesses"]] == ["us-east-2"]
    run(aws, *STRONG)  # no difference
    aws.reset_requests()
    assert "no TTL" in run(aws)[1]  # also if nothing is said of consistency
    assert not aws.requests()["UpdateTimeToLive"]


def test_consistency_of_a_table_that_is_there_is_compared(run, complain, aws):  # noqa: F811
    run(aws, regions=REGION_NAMES)
    for add in ([], ["--add-missing"]):
        lines, status = complain(aws, "--consistency=strong", *add, regions=REGION_NAMES)
        assert "us-east-1: consistency is eventual; asked for strong" in lines
        assert status == 1


def test_a_table_with_replicas_is_not_made_strong(run, complain, aws):  # noqa: F811
    run(aws)
    aws.reset_requests()
    lines, _ = complain(
        aws, "--consistency=strong", "--no-ttl", "--add-missing", regions=REGION_NAMES
    )
    assert "us-east-1: there is no replica in eu-west-1" in lines
    assert not aws.requests()["UpdateTable"]


@needs_witness
def test_a_table_with_items_cannot_become_strong(complain, aws, table_name):  # noqa: F811
    create(aws, table_name)
    dynamodb = client(aws.endpoint_url)
    dynamodb.put_item(TableName=table_name, Item={"id": {"S": "1"}})
    lines, status = complain(aws, *STRONG)
    assert lines == [
        "us-east-1: there is no replica in us-west-2",
        "us-east-1: there is no witness in us-east-2",
    ]
    lines, status = complain(aws, *STRONG, "--add-missing")
    assert lines == [
        "us-east-1: DynamoDB refuses to update table:"
        " Strong consistency needs an empty table without TTL"
    ]
    assert status == 1
