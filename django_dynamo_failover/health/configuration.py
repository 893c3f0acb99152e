"""The settings of this site, by the system checks of the package, and what they make."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.core.checks import ERROR
from django.core.exceptions import ImproperlyConfigured

from django_dynamo_failover import checks, runtime
from django_dynamo_failover.conf import Config
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.hot import HotTier
from django_dynamo_failover.keys import Keyring
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.payload import PayloadCodec, Serializer
from django_dynamo_failover.sessions import SessionStore

from .report import Finding, Level

#: One lost packet is no outage.
_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a site that only look: nothing that they find opens a breaker of the real ones."""

    config: Config
    keyring: Keyring
    codec: PayloadCodec
    serializer: Serializer
    hot: HotTier
    tables: list[DynamoTable]


def look_at_settings() -> tuple[Parts | None, list[Finding]]:
    """Return the parts that the settings make, None if they make none, and what is found."""
    found = list(system_checks())
    parts = None
    try:
        parts = _parts()
    except (ImproperlyConfigured, ImportError) as error:
        broken = str(error)
    except Exception as error:
        # Any cache may be set, so any error may come; its text may hold a password.
        broken = f"the cache of SESSION_CACHE_ALIAS cannot be made: {type(error).__name__}"
    else:
        broken = "" if parts.tables else "REGIONS is empty: there is nothing to fail over to"
    if broken and not any(finding.level == "error" for finding in found):
        found.append(Finding("settings", "error", "settings", broken, "Run: manage.py check."))
    return parts, found or [Finding("settings", "ok", "settings", "the system checks find nothing")]


def _parts() -> Parts:
    config = runtime.config()
    keyring = runtime.keyring()
    return Parts(
        config=config,
        keyring=keyring,
        codec=PayloadCodec(keyring, config.encrypt),
        serializer=SessionStore().serializer(),
        hot=runtime.hot_tier(keyring, Metrics()),
        tables=runtime.tables(config, _ATTEMPTS),
    )


def system_checks() -> Iterator[Finding]:
    for check in checks.check_settings(None):
        level: Level = "error" if check.level >= ERROR else "warning"
        yield Finding("settings", level, str(check.id), check.msg, check.hint or "")
    if settings.SESSION_ENGINE not in (checks.ENGINE, checks.MOVING_OUT):
        message = "names another engine: sessions are not in what is checked here"
        remedy = f"Set it to {checks.ENGINE!r}."
        yield Finding("settings", "warning", "SESSION_ENGINE", message, remedy)
