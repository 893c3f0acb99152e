"""The system checks that use the network: ``check --deploy --database default --tag dynamo``."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from . import health
from .checks import ENGINE, MOVING_OUT


@register(Tags.database, "dynamo", deploy=True)
def check_failover(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Ask both tiers and every region what would go wrong in a failover.

    Only with ``--database``, as Django's own checks of databases: what builds a site and runs
    ``check --deploy`` need not reach what the site will.
    """
    if not databases or settings.SESSION_ENGINE not in (ENGINE, MOVING_OUT):
        return []
    # What is wrong with the settings the other checks say.
    found = [finding for finding in health.check().findings if finding.id != "settings"]
    return [_message(finding) for finding in found if finding.level in ("error", "warning")]


def _message(finding: health.Finding) -> CheckMessage:
    message = f"{finding.subject}: {finding.message} ({finding.id})."
    if finding.level == "error":
        return Error(message, hint=finding.remedy, id="django_dynamo_failover.E101")
    return Warning(message, hint=finding.remedy, id="django_dynamo_failover.W101")
