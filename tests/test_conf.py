"""The DYNAMO_FAILOVER dict: what is wrong with it, and the Config that a right one becomes."""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_dynamo_failover.conf import SETTINGS, Config, Region, problems

INFINITY, NAN = float("inf"), float("nan")

RIGHT = {
    "TABLE": ["sessions"],
    "REGIONS": [
        [],
        (),
        ["us-east-1"],
        ("us-east-1", "us-west-2"),
        [{"NAME": "us-east-1"}, "us-west-2"],
        [{"NAME": "us-east-1", "ENDPOINT_URL": "http://127.0.0.1:8000"}],
        [{"NAME": "us-east-1", "ENDPOINT_URL": None}],
    ],
    "SITE": [None, "east"],
    "WRITE_INTERVAL": [900, 0.5],
    "NEW_SESSION_DELAY": [0, 1, 0.5],
    "WRITE_THROUGH_KEYS": [[], ["a"], ("a", "b"), {"a"}, frozenset("a")],
    "BACKGROUND": [True, False],
    "SHUTDOWN_TIMEOUT": [0, 5, 0.5],
    "ON_UNAVAILABLE": ["raise", "anonymous"],
    "CONNECT_TIMEOUT": [1, 0.5],
    "READ_TIMEOUT": [1, 0.5],
    "DEADLINE": [1, 2.5],
    "MAX_CONNECTIONS": [1, 50],
    "ENCRYPT": [True, False],
    "OVERSIZE": ["hot-only", "raise"],
    "BOTO_SESSION": [None, "shop.boto.session"],
    "FALLBACK_ENGINE": [None, "django.contrib.sessions.backends.db"],
    "FALLBACK_CACHE_ALIAS": [None, "default"],
    "HEALTH_TOKEN": [None, "x" * 16, "e.g.+a/token=with~-_all"],
}
NOT_NAMES = [None, "", 1, b"name", ["name"]]
NOT_SECONDS = [None, "1", True, -1, -0.5, NAN, INFINITY, [1]]
NOT_BOOLS = [None, 0, 1, "True", []]
WRONG = {
    "TABLE": NOT_NAMES,
    "REGIONS": [
        None,
        "us-east-1",
        {"us-east-1"},
        {"NAME": "us-east-1"},
        [""],
        [None],
        ["us-east-1", "us-east-1"],
        ["us-east-1", {"NAME": "us-east-1", "ENDPOINT_URL": "http://127.0.0.1"}],
        [{}],
        [{"NAME": ""}],
        [{"NAME": None}],
        [{"ENDPOINT_URL": "http://127.0.0.1"}],
        [{"NAME": "us-east-1", "ENDPOINT_URL": 8000}],
        [{"NAME": "us-east-1", "URL": "http://127.0.0.1"}],
    ],
    "SITE": NOT_NAMES[1:],
    "WRITE_INTERVAL": [*NOT_SECONDS, 0],
    "NEW_SESSION_DELAY": NOT_SECONDS,
    "WRITE_THROUGH_KEYS": [None, "_auth_user_id", [1], [""], {"a": 1}],
    "BACKGROUND": NOT_BOOLS,
    "SHUTDOWN_TIMEOUT": NOT_SECONDS,
    "ON_UNAVAILABLE": [None, "", "Raise", True, ["raise"]],
    "CONNECT_TIMEOUT": [*NOT_SECONDS, 0],
    "READ_TIMEOUT": [*NOT_SECONDS, 0],
    "DEADLINE": [*NOT_SECONDS, 0],
    "MAX_CONNECTIONS": [None, 0, -1, True, 1.0, "50"],
    "ENCRYPT": NOT_BOOLS,
    "OVERSIZE": [None, "", "hot", True, {}],
    "BOTO_SESSION": NOT_NAMES[1:],
    "FALLBACK_ENGINE": NOT_NAMES[1:],
    "FALLBACK_CACHE_ALIAS": NOT_NAMES[1:],
    "HEALTH_TOKEN": [*NOT_NAMES[1:], "x" * 15, "x" * 16 + "\n", "two words in a token", "ü" * 16],
}


def pairs(values):
    return [
        pytest.param(key, value, id=f"{key}={value!r}") for key in values for value in values[key]
    ]


def test_every_setting_is_tried_here():
    assert set(RIGHT) == set(WRONG) == set(SETTINGS)


@pytest.mark.parametrize(("key", "value"), pairs(RIGHT))
def test_a_right_value_is_no_problem_and_can_be_parsed(key, value):
    assert problems({key: value}) == []
    Config.parse({key: value})


@pytest.mark.parametrize(("key", "value"), pairs(WRONG))
def test_a_wrong_value_is_a_problem_that_says_what_to_set(key, value):
    [problem] = problems({key: value})
    assert problem.id == "E003"
    assert repr(key) in problem.message
    assert problem.hint.startswith("Set it to ")
    assert problem.hint.endswith(".")


def test_a_wrong_value_is_not_shown_for_it_may_be_a_secret():
    [problem] = problems({"TABLE": ["s3cr3t"]})
    assert "s3cr3t" not in problem.message + problem.hint


@pytest.mark.parametrize("setting", [None, "x", [], 1, [("TABLE", "x")]])
def test_what_is_no_dict_is_a_problem(setting):
    [problem] = problems(setting)
    assert problem.id == "E001"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("TABEL", "TABLE"),
        ("region", "REGIONS"),
        ("table", "TABLE"),
        ("WRITE_INTERVALL", "WRITE_INTERVAL"),
        ("ENCRYPTION", "ENCRYPT"),
    ],
)
def test_an_unknown_key_is_a_problem_that_names_the_nearest_known_one(key, nearest):
    [problem] = problems({key: 1})
    assert problem.id == "E002"
    assert repr(key) in problem.message
    assert repr(nearest) in problem.hint


@settings(deadline=None)
@given(st.dictionaries(st.text() | st.integers() | st.none(), st.integers(), min_size=1))
def test_any_unknown_key_is_a_problem(setting):
    assume(not setting.keys() & set(SETTINGS))
    assert [problem.id for problem in problems(setting)] == ["E002"] * len(setting)


def test_all_problems_are_found_at_once():
    found = problems({"TABLE": "", "DEADLINE": 0, "x": 1, "y": 2})
    assert sorted(problem.id for problem in found) == ["E002", "E002", "E003", "E003"]


def test_a_token_is_not_shown_with_the_config():
    assert "s3cr3t" not in repr(Config.parse({"HEALTH_TOKEN": "s3cr3t, s3cr3t".replace(" ", "-")}))


def test_an_empty_dict_is_right_and_has_the_defaults():
    assert problems({}) == []
    assert Config.parse({}) == Config()


def test_the_defaults_are_right_themselves():
    defaults = {name: getattr(Config(), name.lower()) for name in SETTINGS}
    assert problems(defaults) == []
    assert Config.parse(defaults) == Config()


def test_a_dict_becomes_a_config():
    config = Config.parse(
        {
            "TABLE": "t",
            "REGIONS": ["a", {"NAME": "b", "ENDPOINT_URL": "http://b"}, {"NAME": "c"}],
            "WRITE_THROUGH_KEYS": ["x", "y"],
            "DEADLINE": 9,
        }
    )
    assert config == Config(
        table="t",
        regions=(Region("a"), Region("b", "http://b"), Region("c")),
        write_through_keys=("x", "y"),
        deadline=9,
    )


def test_a_config_is_frozen_all_the_way_down():
    config = Config.parse({"REGIONS": ["a"], "WRITE_THROUGH_KEYS": ["x"]})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.table = "other"
    hash(config)
