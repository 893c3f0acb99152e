"""The documentation against the code: settings, check ids, commands, signals, the README."""

import ast
import dataclasses
import re
from pathlib import Path
from typing import get_args

import django.dispatch
import pytest

from django_dynamo_failover import checks, conf, deploy_checks, health, signals

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_dynamo_failover"
README = (ROOT / "README.rst").read_text()


def page(name):
    return (ROOT / "docs" / f"{name}.rst").read_text()


def documented_settings():
    return dict(re.findall(r"^``([A-Z_]+): .*? = (.*)``$", page("settings"), re.MULTILINE))


def as_documented(default):
    return list(default) if isinstance(default, tuple) else default


@pytest.mark.parametrize("field", dataclasses.fields(conf.Config), ids=lambda field: field.name)
def test_each_setting_is_documented_with_its_default(field):
    documented = ast.literal_eval(documented_settings()[field.name.upper()])
    assert documented == as_documented(field.default)


def test_no_setting_is_documented_that_there_is_not():
    assert set(documented_settings()) == set(conf.SETTINGS)


def test_each_check_is_documented_and_no_other():
    ids = set()
    for module in (checks, conf, deploy_checks):
        ids |= set(re.findall(r'["\.]([EW]\d{3})"', Path(module.__file__).read_text()))
    documented = re.findall(
        r"^``django_dynamo_failover\.([EW]\d{3})``$", page("checks"), re.MULTILINE
    )
    assert sorted(documented) == sorted(ids)


def test_each_finding_of_a_health_check_is_documented_and_no_other():
    documented = re.findall(r"^``([a-z.-]+)``$", page("health"), re.MULTILINE)
    assert documented == list(get_args(health.FindingId))


def test_each_command_is_documented_and_no_other():
    ours = {path.stem for path in (PACKAGE / "management/commands").glob("[!_]*.py")}
    documented = set(re.findall(r"^``(\w+)(?: .*)?``$", page("commands"), re.MULTILINE))
    assert documented - {"clearsessions"} == ours


def test_each_signal_is_documented_and_no_other():
    sent = {
        name for name, value in vars(signals).items() if isinstance(value, django.dispatch.Signal)
    }
    lines = re.findall(r"^``.*``$", page("signals"), re.MULTILINE)
    assert {name for line in lines for name in re.findall(r"\w+", line)} == sent


def test_the_readme_has_the_demo_line_and_then_the_test_line():
    lines = [line.strip() for line in README.splitlines() if "python3 -m venv" in line]
    assert [line.rpartition(" ")[2] for line in lines] == ["failover_demo", "pytest"]


@pytest.mark.parametrize(
    "name", ["INSTALLED_APPS", "MIDDLEWARE", "CACHES", "SESSION_ENGINE", "DYNAMO_FAILOVER"]
)
def test_the_readme_shows_each_part_of_the_setup(name):
    assert f"    {name} = " in README


def test_the_settings_of_the_readme_are_right():
    snippet = README.split("DYNAMO_FAILOVER = ")[1].split("}\n")[0] + "}"
    assert conf.problems(ast.literal_eval(snippet)) == []
