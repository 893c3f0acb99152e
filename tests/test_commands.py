"""What the commands for operators have in common, as a person runs them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from servers import Memcached

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import HotUnavailable

MANAGE = Path(__file__).resolve().parent.parent / "testproject" / "manage.py"

#: What ``--help`` must say besides.
COMMANDS = {
    "drainsessions_dynamo": ["  $ python manage.py drainsessions_dynamo on\n", "--timeout SECONDS"],
    "revalidatesessions_dynamo": [
        "  $ python manage.py revalidatesessions_dynamo\n",
        "--timeout SECONDS",
    ],
    "drillsessions_dynamo": ["  $ python manage.py drillsessions_dynamo\n", "--sample N"],
    "healthcheck_dynamo": ["  $ python manage.py healthcheck_dynamo\n", "--timeout SECONDS"],
    "logoutuser_dynamo": ["  $ python manage.py logoutuser_dynamo mia\n", "USERNAME"],
}


def manage(*arguments, **environment):
    """Return the exit status, stdout and stderr, as a person gets them."""
    done = subprocess.run(
        [sys.executable, MANAGE, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(MANAGE.parent.parent), **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(command):
    code, out, err = manage(command, "--help")
    assert (code, err) == (0, "")
    for words in (*COMMANDS[command], "--json", "exit status: 0 ", "\nexample"):
        assert words in out


@pytest.mark.parametrize("timeout", ["soon", "-1", "inf", "nan", ""])
@pytest.mark.parametrize(
    "command",
    [["drainsessions_dynamo", "on"], ["revalidatesessions_dynamo"], ["healthcheck_dynamo"]],
)
def test_a_timeout_is_a_number_of_seconds(command, timeout):
    with pytest.raises(CommandError, match=r"argument --timeout: invalid seconds value"):
        call_command(*command, f"--timeout={timeout}")


@pytest.mark.parametrize("action", [[], ["maybe"]])
def test_draining_is_on_or_off(action):
    with pytest.raises(CommandError, match="action"):
        call_command("drainsessions_dynamo", *action)


def test_a_wrong_option_is_one_line_and_how_to_use_it():
    code, out, err = manage("drainsessions_dynamo", "on", "--timeout=soon")
    assert (code, out) == (2, "")
    assert err.startswith("usage: manage.py drainsessions_dynamo ")


def test_wrong_settings_are_one_line(settings):
    settings.DYNAMO_FAILOVER = {"TABEL": "sessions"}
    for command in (["drainsessions_dynamo", "status"], ["revalidatesessions_dynamo"]):
        with pytest.raises(CommandError, match="TABLE") as caught:
            call_command(*command)
        assert caught.value.returncode == 1


@pytest.mark.parametrize("command", [["drainsessions_dynamo", "on"], ["revalidatesessions_dynamo"]])
def test_while_a_server_of_the_cache_is_down_some_may_be_missing(
    make_engine, start, dynamodb, table, command
):
    servers = [start(Memcached), start(Memcached)]
    cache = {
        "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
        "LOCATION": [server.address for server in servers],
    }
    make_engine(servers[0], dynamodb, table=table, cache=cache)
    servers[1].kill()
    fleet = runtime.build(runtime.config()).fleet
    while not fleet.members():
        with contextlib.suppress(HotUnavailable):
            fleet.tell(0)
    with pytest.raises(CommandError, match="A server of the cache does not answer") as caught:
        call_command(*command, timeout=0)
    assert caught.value.returncode == 1
