"""``healthcheck_dynamo``: what it prints, how it ends, and how soon."""

import json
import time
from io import StringIO

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from servers import free_port

from django_dynamo_failover.deploy_checks import check_failover
from django_dynamo_failover.keys import Keyring

from . import test_commands
from .test_health import EAST, WEST, lonely, place  # noqa: F401

SOON = 5.0  # seconds, within which nobody there is to be told


def run(**options):
    """Return the exit status of the command, what it prints, and the error that it ends with."""
    out = StringIO()
    try:
        call_command("healthcheck_dynamo", stdout=out, **options)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    return 0, out.getvalue(), ""


def manage(*arguments, **environment):
    """Return exit status, stdout, stderr and seconds of the command as a person runs it."""
    began = time.monotonic()
    return *test_commands.manage("healthcheck_dynamo", *arguments, **environment), (
        time.monotonic() - began
    )


def test_a_site_that_is_ready(place):  # noqa: F811
    code, out, error = run()
    lines = out.splitlines()
    assert (code, error) == (0, "")
    assert lines[-1] == "Ready."
    assert all(line.startswith("ok  ") for line in lines[:-1])


def test_what_is_well_can_be_left_out(place):  # noqa: F811
    assert run(verbosity=0)[1] == "Ready.\n"


def test_a_warning_is_a_line_with_its_remedy_and_no_failure(place):  # noqa: F811
    place.engine.configure(SITE=None)
    code, out, error = run(verbosity=0)
    (line, last) = out.splitlines()
    assert (code, error, last) == (0, "", "Degraded: 1 warning.")
    assert line.startswith("WARNING  this site: has no name, ")
    assert line.endswith(" at each site. [sites.label]")


def test_an_error_is_a_line_with_its_remedy_and_exit_1(place):  # noqa: F811
    place.deny("PutItem")
    code, out, error = run(verbosity=0)
    assert code == 1
    assert error == "Not ready: 2 errors."
    assert out.splitlines()[0] == (
        "ERROR    us-east-1: these credentials lack dynamodb:PutItem."
        " Allow dynamodb:PutItem on the table. [region.permissions]"
    )


def test_json_is_one_object_with_the_same(place):  # noqa: F811
    place.engine.configure(SITE=None)
    place.deny("PutItem", region=WEST)
    code, out, _ = run(json=True)
    report = json.loads(out)
    assert code == 1
    assert (report["verdict"], report["asked"]) == ("not ready", True)
    assert report["seconds"] > 0
    assert {
        "id": "region.permissions",
        "level": "error",
        "subject": WEST,
        "message": "these credentials lack dynamodb:PutItem",
        "remedy": "Allow dynamodb:PutItem on the table.",
    } in report["findings"]
    assert {f["level"] for f in report["findings"]} == {"ok", "warning", "error"}


def test_it_prints_no_secret_and_no_session(place):  # noqa: F811
    place.deny("Scan", "BatchWriteItem")
    place.engine.settings.SECRET_KEY = "another key"
    _, out, error = run(json=True)
    place.server.heal()
    secrets = ["another key", *Keyring(["another key"]).fingerprints]
    secrets += [key for key in place.engine.items() if key != "sites"]
    assert not [secret for secret in [*secrets, place.engine.table] if secret in out + error]
    assert len(secrets) > 2


def test_wrong_settings_are_told_and_nothing_is_asked(place):  # noqa: F811
    place.engine.settings.DYNAMO_FAILOVER = {"TABEL": "sessions"}
    code, out, error = run()
    assert code == 2
    assert "Did you mean 'TABLE'?" in out
    assert error == (
        "Could not ask. django_dynamo_failover.E002: DYNAMO_FAILOVER has an unknown key 'TABEL'."
    )


def test_no_region_answers(place):  # noqa: F811
    nobody = f"http://127.0.0.1:{free_port()}"
    place.engine.configure(
        REGIONS=[{"NAME": name, "ENDPOINT_URL": nobody} for name in (EAST, WEST)]
    )
    code, _, error = run()
    assert code == 2
    assert error.startswith("Could not ask. us-east-1, us-west-2: cannot be reached (")


@pytest.mark.parametrize("black_hole", [False, True])
def test_nobody_there_is_told_soon_and_in_one_line(black_hole, dynamodb):
    if black_hole:
        dynamodb.freeze()
    endpoint = dynamodb.endpoint_url if black_hole else f"http://127.0.0.1:{free_port()}"
    code, out, err, seconds = manage(SHOP_DYNAMODB_ENDPOINT=endpoint)
    assert code == 2
    assert err.startswith("CommandError: Could not ask. us-east-1: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in out
    assert seconds < SOON


def test_no_credentials_are_told_soon_and_in_one_line(dynamodb):
    code, out, err, seconds = manage(
        SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url,
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
    )
    assert code == 2
    assert err == (
        "CommandError: Could not ask. us-east-1: no AWS credentials found"
        " (CreateClient: NoCredentialsError).\n"
    )
    assert "Traceback" not in out
    assert seconds < SOON


def test_a_slow_look_for_credentials_is_told_soon(dynamodb):
    dynamodb.freeze()  # in the place of the container's address for credentials
    code, _, err, seconds = manage(
        SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url,
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{dynamodb.endpoint_url}/credentials",
    )
    assert code == 2
    assert "the AWS credentials " in err
    assert seconds < SOON


@pytest.mark.django_db
def test_as_a_system_check_it_has_to_be_asked_for(place):  # noqa: F811
    place.deny("PutItem")
    place.engine.configure(SITE=None)

    def found(**options):
        ids = [message.id or "" for message in run_checks(**options)]
        return [id for id in ids if id.startswith("django_dynamo_failover.")]

    assert found(databases=["default"]) == []
    assert found(include_deployment_checks=True) == []
    ids = found(include_deployment_checks=True, databases=["default"], tags=["dynamo"])
    assert ids == ["django_dynamo_failover.E101"] * 2 + ["django_dynamo_failover.W101"]


def test_a_system_check_says_what_to_do(place):  # noqa: F811
    place.deny("PutItem")
    message = check_failover(None, databases=["default"])[0]
    assert message.msg == (
        "us-east-1: these credentials lack dynamodb:PutItem (region.permissions)."
    )
    assert message.hint == "Allow dynamodb:PutItem on the table."


def test_a_site_with_another_engine_is_left_alone(place, settings):  # noqa: F811
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    place.deny("PutItem")
    assert check_failover(None, databases=["default"]) == []
