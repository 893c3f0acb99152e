"""``createtable_dynamo``, and the table administration below it."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from servers import Dynalite, free_port

from django_dynamo_failover import dynamo_admin
from django_dynamo_failover.dynamo_admin import TableUnfit
from django_dynamo_failover.exceptions import ColdMisconfigured, ColdUnavailable
from django_dynamo_failover.table_making import TableMade, TableMaker
from django_dynamo_failover.table_spec import TableSpec

from .conftest import REGION_NAMES, client
from .test_dynamo import Scripted, connect, scripted, soon  # noqa: F401

MANAGE = Path(__file__).resolve().parent.parent / "testproject" / "manage.py"
OLD_KEY = [{"AttributeName": "session_key", "KeyType": "HASH"}]


@pytest.fixture
def run(settings, table_name, monkeypatch):
    """``run(server, …, option=…)``: the command on servers as regions; its lines of output."""

    monkeypatch.setattr(dynamo_admin, "_STEP_SECONDS", 30)  # for a machine that is busy

    def run(*servers, **options):
        settings.DYNAMO_FAILOVER = {
            "TABLE": table_name,
            "READ_TIMEOUT": 10,
            "REGIONS": [
                {"NAME": name, "ENDPOINT_URL": getattr(server, "endpoint_url", server)}
                for server, name in zip(servers, REGION_NAMES, strict=False)
            ],
        }
        run.out = StringIO()
        call_command("createtable_dynamo", stdout=run.out, **options)
        return run.out.getvalue().splitlines()

    return run


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


def describe(server, table, region="us-east-1"):
    return client(server.endpoint_url, region).describe_table(TableName=table)["Table"]


def create(server, table, key="id", key_type="S", sort=None):
    """Create a table that may be wrong."""
    names = [key, sort] if sort else [key]
    client(server.endpoint_url).create_table(
        TableName=table,
        KeySchema=[
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(names, ["HASH", "RANGE"], strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": key_type} for n in names],
        BillingMode="PAY_PER_REQUEST",
    )


def make_table(table, until, say):
    """Make the table that is asked for without any options."""
    spec = TableSpec(name=table.table, regions=(table.name,))
    return TableMaker(table=table, spec=spec, until=until, say=say).make()


# --- What it makes ----------------------------------------------------------------------------


def test_the_table_is_keyed_by_id_and_billed_on_demand(run, moto, table_name):
    run(moto)
    table = describe(moto, table_name)
    assert table["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "id", "AttributeType": "S"}]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


def test_items_expire_by_themselves(run, moto, table_name):
    assert run(moto) == [
        "us-east-1: table is being created",
        "us-east-1: table is created",
        "us-east-1: TTL is turned on for 'expires'",
    ]
    ttl = client(moto.endpoint_url).describe_time_to_live(TableName=table_name)
    assert ttl["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "expires",
    }


def test_it_may_be_run_again(run, moto):
    run(moto)
    moto.reset_requests()
    assert run(moto) == ["us-east-1: table exists", "us-east-1: TTL is on for 'expires'"]
    assert not moto.requests().keys() & {"CreateTable", "UpdateTimeToLive"}


def test_a_table_without_ttl_gets_it(run, moto, table_name):
    create(moto, table_name)
    assert run(moto)[-1] == "us-east-1: TTL is turned on for 'expires'"


def test_a_server_without_ttl_will_do(run, dynamodb):
    assert run(dynamodb)[-1].startswith("us-east-1: TTL is unknown to this server")


def test_the_table_can_be_used_when_the_command_is_done(run, start, table_name):
    server = start(Dynalite, create_table_ms=400)
    run(server)
    assert describe(server, table_name)["TableStatus"] == "ACTIVE"


def test_the_table_is_made_in_every_region(run, moto, table_name):
    lines = run(moto, moto)
    assert {line.partition(":")[0] for line in lines} == {"us-east-1", "us-west-2"}
    for region in ("us-east-1", "us-west-2"):
        assert describe(moto, table_name, region)["TableStatus"] == "ACTIVE"


def test_region_limits_it_to_one(run, moto, table_name):
    assert all(line.startswith("us-west-2: ") for line in run(moto, moto, region="us-west-2"))
    with pytest.raises(client(moto.endpoint_url, "us-east-1").exceptions.ResourceNotFoundException):
        describe(moto, table_name)


def test_two_processes_may_run_it_at_once(start, table_name):
    server = start(Dynalite, create_table_ms=300)
    tables = [connect(server.endpoint_url, table_name) for _ in range(8)]
    for table in tables:
        table.warm()
        table.client._own_maker().client(soon())
    with ThreadPoolExecutor(len(tables)) as pool:
        made = list(pool.map(lambda table: make_table(table, soon(10), lambda line: None), tables))
    assert sorted(each.created for each in made) == [False] * 7 + [True]


def test_another_process_may_turn_ttl_on_first(scripted):  # noqa: F811
    is_on = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLING", "AttributeName": "expires"}}
    scripted.answers = [TABLE, TABLE, TTL_IS_OFF, REFUSED, is_on]
    table = connect(scripted.endpoint_url, "sessions")
    assert make_table(table, soon(), print) == TableMade(created=False, ttl="was enabled")


def test_a_table_that_cannot_have_ttl_will_do(scripted):  # noqa: F811
    scripted.answers = [TABLE, TABLE, TTL_IS_OFF, REFUSED, TTL_IS_OFF]
    table = connect(scripted.endpoint_url, "sessions")
    assert make_table(table, soon(), print) == TableMade(created=False, ttl="refused by the server")


# --- Problems ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"key": "session_key"}, "the key of the existing table is 'session_key' (HASH)"),
        ({"sort": "expires"}, "'id' (HASH), 'expires' (RANGE)"),
        ({"key_type": "N"}, "the key 'id' of the existing table is of type N"),
    ],
)
def test_a_table_with_another_key_is_a_problem(run, dynamodb, table_name, wrong, says):
    create(dynamodb, table_name, **wrong)
    with pytest.raises(CommandError, match=re.escape(says)) as caught:
        run(dynamodb)
    assert caught.value.returncode == 1


def test_ttl_on_another_attribute_is_a_problem(run, moto, table_name):
    create(moto, table_name)
    client(moto.endpoint_url).update_time_to_live(
        TableName=table_name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"},
    )
    with pytest.raises(CommandError, match="TTL is on for 'ttl'") as caught:
        run(moto)
    assert caught.value.returncode == 1


def test_a_table_that_is_being_deleted_is_a_problem(scripted):  # noqa: F811
    scripted.answers = [{"Table": {**TABLE["Table"], "TableStatus": "DELETING"}}]
    with pytest.raises(TableUnfit, match="DELETING"):
        make_table(connect(scripted.endpoint_url, "sessions"), soon(), print)


def test_no_regions_is_a_problem(run):
    with pytest.raises(CommandError, match="no cold tier") as caught:
        run()
    assert caught.value.returncode == 1


def test_a_region_that_is_not_configured_is_a_problem(run, moto):
    with pytest.raises(CommandError, match="'mars' is not in DYNAMO_FAILOVER") as caught:
        run(moto, region="mars")
    assert caught.value.returncode == 1


@pytest.mark.parametrize("wrong", [{"TABEL": "x"}, {"REGIONS": ["x"], "BOTO_SESSION": "no.such"}])
def test_wrong_settings_are_a_problem(settings, wrong):
    settings.DYNAMO_FAILOVER = wrong
    with pytest.raises(CommandError) as caught:
        call_command("createtable_dynamo")
    assert caught.value.returncode == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", "these AWS credentials lack the permission"),
        ("UnrecognizedClientException", "AWS does not know these credentials"),
        ("InternalServerError", "DescribeTable: InternalServerError"),
        ("drop", "DescribeTable: ConnectionClosedError"),
    ],
)
def test_no_answer_is_told_from_a_problem(run, dynamodb, code, says):
    dynamodb.fail("*", code, times=None)
    with pytest.raises(CommandError, match=f"^us-east-1: {says}") as caught:
        run(dynamodb)
    assert caught.value.returncode == 2


def test_a_refusal_to_create_is_told(run, dynamodb):
    dynamodb.fail("CreateTable", "AccessDeniedException", times=None)
    with pytest.raises(CommandError, match="CreateTable: AccessDenied") as caught:
        run(dynamodb)
    assert caught.value.returncode == 2


def test_a_region_that_is_down_does_not_keep_the_others_from_it(run, moto, table_name):
    with pytest.raises(CommandError, match="cannot be reached") as caught:
        run(nobody(), moto)
    assert caught.value.returncode == 2
    assert describe(moto, table_name, "us-west-2")["TableStatus"] == "ACTIVE"


def test_no_answer_outweighs_a_problem(run, dynamodb, table_name):
    create(dynamodb, table_name, key_type="N")
    for servers in ([nobody(), dynamodb], [dynamodb, nobody()]):
        with pytest.raises(CommandError, match="of type N") as caught:
            run(*servers)
        assert caught.value.returncode == 2
        assert "cannot be reached" in str(caught.value)


def test_a_table_that_takes_too_long_is_told(run, start):
    server = start(Dynalite, create_table_ms=3000)
    started = time.monotonic()
    with pytest.raises(CommandError, match="not active yet: run this again") as caught:
        run(server, timeout=0.3)
    assert caught.value.returncode == 2
    assert time.monotonic() - started < 2


def test_a_failure_while_it_waits_is_not_the_end(dynamodb, table_name):
    table = connect(dynamodb.endpoint_url, table_name, attempts=1)
    lines = []

    def say(line):
        lines.append(line)
        if line == "table is being created":
            dynamodb.fail("DescribeTable", "InternalServerError", status=500, times=2)
            dynamodb.fail("DescribeTable", "ResourceNotFoundException")

    assert make_table(table, soon(), say).created
    assert lines[:2] == ["table is being created", "table is created"]


def test_a_failure_that_lasts_while_it_waits_ends_at_the_timeout(dynamodb, table_name):
    table = connect(dynamodb.endpoint_url, table_name, attempts=1)
    until = soon(0.3)
    with pytest.raises(ColdUnavailable, match="InternalServerError"):
        make_table(table, until, lambda line: dynamodb.fail("*", "InternalServerError", times=None))
    assert until - 0.2 < time.monotonic() < until + 1


def test_a_refusal_while_it_waits_is_the_end(dynamodb, table_name):
    table = connect(dynamodb.endpoint_url, table_name)
    with pytest.raises(ColdMisconfigured):
        make_table(
            table, soon(60), lambda line: dynamodb.fail("*", "AccessDeniedException", times=None)
        )


# --- Its surface ------------------------------------------------------------------------------


def test_json_is_one_object(run, moto, table_name):
    lines = run(moto, moto, json=True)
    ready = {
        "steps": ["table is being created", "table is created", "TTL is turned on for 'expires'"],
        "ready": True,
        "created": True,
        "ttl": "enabled",
        "differences": [],
        "error": None,
        "status": 0,
    }
    assert json.loads("\n".join(lines)) == {
        "table": table_name,
        "dry_run": False,
        "regions": [{"region": "us-east-1", **ready}, {"region": "us-west-2", **ready}],
    }


def test_json_tells_what_went_wrong(run):
    with pytest.raises(CommandError):
        run(nobody(), json=True)
    [region] = json.loads(run.out.getvalue())["regions"]
    assert (region["ready"], region["status"]) == (False, 2)
    assert region["error"].startswith("cannot be reached")


def manage(*arguments, **environ):
    """Run the command as a person does; return the exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, MANAGE, "createtable_dynamo", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(MANAGE.parent.parent), **environ},
    )
    return done.returncode, done.stdout, done.stderr


def test_help_has_an_example_and_the_exit_codes():
    code, out, _ = manage("--help")
    assert code == 0
    assert "  $ python manage.py createtable_dynamo\n" in out
    assert "exit status: 0 " in out
    for option in ("--region NAME", "--timeout SECONDS", "--json"):
        assert option in out


def test_done_is_exit_status_0(dynamodb, table_name):
    code, out, err = manage(SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, SHOP_TABLE=table_name)
    assert (code, err) == (0, "")
    assert out.startswith("us-east-1: table is being created\nus-east-1: table is created\n")


def test_a_problem_is_exit_status_1_and_one_line(dynamodb, table_name):
    create(dynamodb, table_name, key_type="N")
    code, _, err = manage(SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, SHOP_TABLE=table_name)
    assert (code, err.count("\n")) == (1, 1)


def test_no_server_is_exit_status_2_and_one_line():
    code, out, err = manage(SHOP_DYNAMODB_ENDPOINT=nobody())
    assert (code, out) == (2, "")
    assert err == (
        "CommandError: us-east-1: cannot be reached (DescribeTable: EndpointConnectionError)\n"
    )


def test_a_frozen_server_is_exit_status_2_in_time(start):
    server = start(Dynalite)
    server.freeze()
    started = time.monotonic()
    code, _, err = manage(SHOP_DYNAMODB_ENDPOINT=server.endpoint_url)
    assert (code, err.count("\n")) == (2, 1)
    assert "does not answer" in err
    assert time.monotonic() - started < 5


def test_no_credentials_are_exit_status_2_and_one_line(dynamodb):
    environ = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    code, _, err = manage(SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, **environ)
    assert code == 2
    assert err == (
        "CommandError: us-east-1: no AWS credentials found (CreateClient: NoCredentialsError)\n"
    )


def test_credentials_that_take_too_long_are_exit_status_2_in_time(start):
    """The container's credential endpoint accepts the connection and says nothing."""
    silent = start(Dynalite)
    silent.freeze()
    started = time.monotonic()
    code, _, err = manage(
        SHOP_REGIONS="us-east-1,us-west-2",
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{silent.endpoint_url}/",
    )
    assert code == 2
    assert err.count("still being looked up") == 2
    assert time.monotonic() - started < 7.5


TABLE = {
    "Table": {
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    }
}
TTL_IS_OFF = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
REFUSED = {"__type": "com.amazon.coral.validate#ValidationException", "message": "already on"}
