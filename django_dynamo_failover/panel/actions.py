"""What the buttons of the panel do. Each says in a sentence what has become of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.utils.text import capfirst

from django_dynamo_failover import health, runtime
from django_dynamo_failover.clearing import Clearing
from django_dynamo_failover.exceptions import (
    ColdUnavailable,
    HotUnavailable,
    SessionUnavailable,
)
from django_dynamo_failover.reasons import explain, explain_cause
from django_dynamo_failover.users import revoke_user_sessions

from .page import summary
from .verdict import LEVELS
from .words import duration, some

#: What one click may do, so that nobody waits for a page for long.
CLEAR_LIMIT = 10_000
CLEAR_SECONDS = 8.0
_PROBE_SECONDS = 8.0
_PATIENCE_SECONDS = 5.0
_SEGMENTS = 8


class ActionFailed(Exception):
    """It could not be done. The message says why, and what to do."""


class Nothing(forms.Form):
    """There is nothing to choose."""


class WhichUser(forms.Form):
    """A user by the name he logs in with."""

    username = forms.CharField(max_length=254, strip=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model: Any = get_user_model()
        name = model._meta.get_field(model.USERNAME_FIELD).verbose_name  # noqa: SLF001
        self.fields["username"].label = capfirst(name)

    def clean_username(self) -> Any:
        """Return the user. Raises ``ValidationError``."""
        model: Any = get_user_model()
        try:
            return model._default_manager.get_by_natural_key(  # noqa: SLF001
                self.cleaned_data["username"]
            )
        except model.DoesNotExist:
            raise ValidationError("There is no such user. Nobody was logged out.") from None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of it; ``report`` is what a health check has found."""

    message: str
    report: health.Report | None = None

    @property
    def findings(self) -> list[health.Finding]:
        """What the health check has found, the worst first."""
        found = self.report.findings if self.report is not None else ()
        return sorted(found, key=lambda finding: LEVELS.index(finding.level))


@dataclass(frozen=True, slots=True)
class Action:
    """A button: what it is called, what it will do, what to fill in, and what it runs."""

    label: str
    explanation: str
    run: Callable[[dict[str, Any]], Outcome]
    form: type[forms.Form] = Nothing


def _probe(data: dict[str, Any]) -> Outcome:
    report = health.check(timeout=_PROBE_SECONDS, replication_timeout=_PROBE_SECONDS / 2)
    return Outcome(f"{summary(report)}.", report)


def _drain(data: dict[str, Any]) -> Outcome:
    _order(lambda run: run.fleet.drain(True))
    return Outcome(
        "Draining has begun: every process writes what it holds to DynamoDB, and from now on each"
        " change at once. The panel shows what is left."
    )


def _undrain(data: dict[str, Any]) -> Outcome:
    _order(lambda run: run.fleet.drain(False))
    return Outcome("Draining is over: changes are written in the background again.")


def _revalidate(data: dict[str, Any]) -> Outcome:
    run = runtime.current()
    version = _order(lambda run: run.fleet.revalidate())
    told = run.fleet.wait(version, _PATIENCE_SECONDS)
    return Outcome(
        "No session is served here before it has agreed with DynamoDB anew."
        if told
        else "Ordered; not every process has answered yet, and they will follow."
    )


def _clear(data: dict[str, Any]) -> Outcome:
    config = runtime.config()
    tables = runtime.tables(config)
    if not tables:
        raise ActionFailed("REGIONS is empty: there is no table to clear.")
    clearing = Clearing(
        tables[0], time.time() - config.write_interval, segments=_SEGMENTS, limit=CLEAR_LIMIT
    )
    try:
        clearing.run(max_seconds=CLEAR_SECONDS)
    except ColdUnavailable as error:
        raise ActionFailed(f"DynamoDB: {explain(error)}.") from None
    if clearing.stopped and not clearing.progress.tally.scanned:
        raise ActionFailed("DynamoDB did not answer in time: nothing was deleted.")
    deleted = f"{some(clearing.progress.tally.deleted, 'expired item')} deleted"
    if clearing.stopped:
        return Outcome(f"{deleted}, and there may be more: do it again, or use the command.")
    return Outcome(f"{deleted}, to the end of the table.")


def _log_out(data: dict[str, Any]) -> Outcome:
    user = data["username"]
    try:
        told = revoke_user_sessions(user)
    except SessionUnavailable as error:
        raise ActionFailed(
            f"DynamoDB does not answer ({explain_cause(error)}): nothing is promised. Try again."
        ) from None
    lease = duration(runtime.config().write_interval)
    return Outcome(
        f"{user} is logged out: at this site now, at any other within {lease}."
        if told
        else f"{user} is logged out within {lease}: not every process here could be told."
    )


def _order(give: Callable[[runtime.Runtime], int]) -> int:
    try:
        return give(runtime.current())
    except HotUnavailable:
        raise ActionFailed(
            "The hot tier does not answer, so that the other processes cannot be told."
        ) from None


ACTIONS = {
    "probe": Action(
        "Probe now",
        "Tries what a failover needs, with sessions of its own: both tiers, each region, the"
        f" permissions, the other sites. It takes up to {duration(_PROBE_SECONDS)}, and a few"
        " requests to DynamoDB. Nobody is logged out.",
        _probe,
    ),
    "drain-on": Action(
        "Drain",
        "Every process of this site writes its pending changes to DynamoDB, and from then on each"
        " change inside its request, until draining is ended. Saves take some milliseconds longer."
        " Do this before a planned failover.",
        _drain,
    ),
    "drain-off": Action(
        "End draining",
        "The processes of this site go back to writing changes in the background.",
        _undrain,
    ),
    "revalidate": Action(
        "Revalidate",
        "No session that this site's hot tier still holds is served before it has agreed with"
        " DynamoDB: one read for each session that is used. Do this before users come back to a"
        " site that had failed over.",
        _revalidate,
    ),
    "clear": Action(
        "Clear expired",
        f"Deletes up to {CLEAR_LIMIT:,} expired items from the table in the nearest region, for"
        f" {duration(CLEAR_SECONDS)} at most. TTL does the same by itself within days.",
        _clear,
    ),
    "log-out": Action(
        "Log out a user",
        "Ends all sessions that a user has, at all sites. He or she may log in again at once.",
        _log_out,
        WhichUser,
    ),
}
