"""Each command that asks DynamoDB, where that cannot be asked: one clear line, and soon."""

import time

import pytest
from django.core.management import get_commands
from servers import Dynalite, free_port

from .test_commands import manage

SOON = 5.0  # seconds

COMMANDS = {
    "clearsessions_dynamo": [],
    "createtable_dynamo": [],
    "drillsessions_dynamo": [],
    "importsessions_dynamo": ["--from", "db"],
    "logoutuser_dynamo": ["manager"],
}
#: These ask memcached only; and whatever this one meets is what it finds: see test_healthcheck.
OTHERS = {"drainsessions_dynamo", "revalidatesessions_dynamo", "healthcheck_dynamo"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with the shop's users in it."""
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite3"
    code, _, err = manage("setup_shop", SHOP_DATABASE=str(path))
    assert code == 0, err
    return str(path)


@pytest.fixture(params=COMMANDS)
def refused(request, database):
    """``refused(…)``: the line that a command ends with where the environment is like that."""

    def refused(**environment):
        command = request.param
        began = time.monotonic()
        code, out, err = manage(command, *COMMANDS[command], SHOP_DATABASE=database, **environment)
        took = time.monotonic() - began
        assert code == 2, out + err
        assert "Traceback" not in out + err
        *log, line = err.splitlines()
        assert line.startswith("CommandError: ")
        assert all(" django_dynamo_failover.cold: " in each for each in log)
        assert took < SOON
        return line

    refused.command = request.param
    return refused


def test_no_command_is_left_out():
    ours = {name for name, app in get_commands().items() if app == "django_dynamo_failover"}
    assert ours == COMMANDS.keys() | OTHERS


def test_an_unknown_table(refused, dynamodb):
    if refused.command == "createtable_dynamo":
        pytest.skip("it makes the table")
    line = refused(SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, SHOP_TABLE="nowhere")
    assert "no such table" in line


def test_no_credentials(refused, dynamodb):
    environment = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    line = refused(SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, **environment)
    assert "credentials" in line


def test_nobody_there(refused):
    line = refused(SHOP_DYNAMODB_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in line or "does not answer" in line


def test_somebody_who_does_not_answer(refused, start):
    server = start(Dynalite)
    server.freeze()
    line = refused(SHOP_DYNAMODB_ENDPOINT=server.endpoint_url)
    assert "does not answer" in line or "gave no answer" in line


def test_denied_access(refused, dynamodb, table):
    dynamodb.fail("*", "AccessDeniedException", times=None)
    line = refused(SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, SHOP_TABLE=table)
    assert "lack the permission" in line
