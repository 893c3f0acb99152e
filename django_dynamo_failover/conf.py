"""The settings: one frozen ``Config``, and one function that finds what is wrong with a dict.

This module does not read Django's settings; ``runtime`` and ``checks`` pass them in.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

OnUnavailable = Literal["raise", "anonymous"]
Oversize = Literal["hot-only", "raise"]

#: What is due waits so long at most while DynamoDB answers, in seconds.
_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Region:
    """One DynamoDB region. ``endpoint_url`` is None for the one of AWS."""

    name: str
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The ``DYNAMO_FAILOVER`` setting. Field names are the keys of the dict in lower case.

    Durations are in seconds. ``regions`` is ordered, the nearest first; empty means that there is
    no cold tier at all, for tests and development.
    """

    table: str = "django_sessions"
    regions: tuple[Region, ...] = ()
    site: str | None = None
    write_interval: float = 900
    new_session_delay: float = 1
    write_through_keys: tuple[str, ...] = (
        "_auth_user_id",
        "_auth_user_backend",
        "_auth_user_hash",
        "_session_expiry",
    )
    background: bool = True
    shutdown_timeout: float = 5
    on_unavailable: OnUnavailable = "raise"
    connect_timeout: float = 0.5
    read_timeout: float = 1.0
    deadline: float = 2.5
    max_connections: int = 50
    encrypt: bool = False
    oversize: Oversize = "hot-only"
    boto_session: str | None = None
    fallback_engine: str | None = None
    fallback_cache_alias: str | None = None
    health_token: str | None = field(default=None, repr=False)

    @property
    def late_after(self) -> float:
        """How old a change that DynamoDB lacks is when something is wrong, in seconds."""
        return self.write_interval + _GRACE_SECONDS

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> "Config":
        """Return the config of a ``DYNAMO_FAILOVER`` dict in which ``problems`` finds nothing."""
        values = {name.lower(): value for name, value in settings.items()}
        values["regions"] = tuple(_region(region) for region in settings.get("REGIONS", ()))
        if "WRITE_THROUGH_KEYS" in settings:
            values["write_through_keys"] = tuple(settings["WRITE_THROUGH_KEYS"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the settings, and what to do about it. ``id`` is that of the check."""

    id: str
    message: str
    hint: str


SETTINGS = tuple(each.name.upper() for each in dataclasses.fields(Config))


def problems(settings: object) -> list[Problem]:
    """Return what is wrong with a ``DYNAMO_FAILOVER`` setting; nothing when it can be parsed."""
    if not isinstance(settings, Mapping):
        return [Problem("E001", "DYNAMO_FAILOVER is not a dict.", "Set it to a dict, or to {}.")]
    return [*_unknown_keys(settings), *_wrong_values(settings)]


def _unknown_keys(settings: Mapping[Any, Any]) -> Iterator[Problem]:
    for key in settings:
        if key in SETTINGS:
            continue
        nearest = difflib.get_close_matches(str(key).upper(), SETTINGS, n=1, cutoff=0.0)[0]
        yield Problem(
            "E002", f"DYNAMO_FAILOVER has an unknown key {key!r}.", f"Did you mean {nearest!r}?"
        )


def _wrong_values(settings: Mapping[Any, Any]) -> Iterator[Problem]:
    for key, (is_right, expected) in _RULES.items():
        if key in settings and not is_right(settings[key]):
            # The value is not shown: it may be a secret put in the wrong place.
            yield Problem(
                "E003", f"DYNAMO_FAILOVER[{key!r}] has a wrong value.", f"Set it to {expected}."
            )


def _is_number(least: float, *, above: bool = False) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and (value > least if above else value >= least)

    return check


def _is_region(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return (
        isinstance(value, Mapping)
        and set(value) <= {"NAME", "ENDPOINT_URL"}
        and _is_name(value.get("NAME"))
        and (value.get("ENDPOINT_URL") is None or _is_url(value["ENDPOINT_URL"]))
    )


def _are_regions(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(_is_region(region) for region in value)
        and len({_region(region).name for region in value}) == len(value)
    )


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and re.match("https?://.", value) is not None


def _is_table(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[a-zA-Z0-9_.-]{3,255}", value) is not None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_name_or_none(value: Any) -> bool:
    return value is None or _is_name(value)


def _is_token_or_none(value: Any) -> bool:
    # As a header of HTTP carries it.
    is_token = isinstance(value, str) and re.fullmatch("[!-~]{16,}", value) is not None
    return value is None or is_token


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(map(_is_name, value))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_one_of(choices: Any) -> Callable[[Any], bool]:
    return lambda value: value in get_args(choices)


def _region(value: str | Mapping[str, str]) -> Region:
    if isinstance(value, str):
        return Region(value)
    return Region(value["NAME"], value.get("ENDPOINT_URL"))


_POSITIVE = (_is_number(0, above=True), "a number of seconds above 0")
_NOT_NEGATIVE = (_is_number(0), "a number of seconds, 0 or more")

_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "TABLE": (
        _is_table,
        "the name of a DynamoDB table: 3 to 255 letters, digits, hyphens, underscores and dots",
    ),
    "REGIONS": (
        _are_regions,
        'a list of different regions, nearest first: "us-east-1" or '
        '{"NAME": "us-east-1", "ENDPOINT_URL": "http://…"}; or to [] for no cold tier',
    ),
    "SITE": (_is_name_or_none, "a label for this datacenter, or None"),
    "WRITE_INTERVAL": _POSITIVE,
    "NEW_SESSION_DELAY": _NOT_NEGATIVE,
    "WRITE_THROUGH_KEYS": (_are_names, "a list of session keys"),
    "BACKGROUND": (_is_bool, "True or False"),
    "SHUTDOWN_TIMEOUT": _NOT_NEGATIVE,
    "ON_UNAVAILABLE": (_is_one_of(OnUnavailable), '"raise" or "anonymous"'),
    "CONNECT_TIMEOUT": _POSITIVE,
    "READ_TIMEOUT": _POSITIVE,
    "DEADLINE": _POSITIVE,
    "MAX_CONNECTIONS": (_is_count, "a whole number, 1 or more"),
    "ENCRYPT": (_is_bool, "True or False"),
    "OVERSIZE": (_is_one_of(Oversize), '"hot-only" or "raise"'),
    "BOTO_SESSION": (
        _is_name_or_none,
        "the dotted path of a callable that returns a boto3 Session, or None",
    ),
    "FALLBACK_ENGINE": (
        _is_name_or_none,
        'the dotted path of a session engine, as "django.contrib.sessions.backends.db", or None',
    ),
    "FALLBACK_CACHE_ALIAS": (_is_name_or_none, "a key of CACHES, or None"),
    "HEALTH_TOKEN": (
        _is_token_or_none,
        "a string of at least 16 characters, all of them ASCII and none a space, or None",
    ),
}
