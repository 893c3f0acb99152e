"""What the commands have in common."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)

from django_dynamo_failover import runtime
from django_dynamo_failover.fleet import Fleet

FOUND_A_PROBLEM = 1
COULD_NOT_ASK = 2


class _HelpFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


class DynamoCommand(BaseCommand):
    """A command with an example in its ``--help``, and ``--json``.

    It ends with 0 done, 1 found a problem, 2 could not ask.
    """

    example = ""
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = _HelpFormatter
        parser.epilog = self.example
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object instead of lines"
        )

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.stdout.write(line)
        self.stdout.flush()


def fleet() -> Fleet:
    """Return the fleet of this site, without joining it. Raises ``CommandError``."""
    with settings_errors():
        run = runtime.build(runtime.config())
    if not run.cold.exists:
        raise no_cold_tier()
    return run.fleet


@contextmanager
def settings_errors() -> Iterator[None]:
    """Turn what is wrong with the settings into a ``CommandError``."""
    try:
        yield
    except (ImproperlyConfigured, ImportError) as error:  # BOTO_SESSION is imported
        raise CommandError(str(error), returncode=FOUND_A_PROBLEM) from None


def no_cold_tier() -> CommandError:
    return CommandError(
        'DYNAMO_FAILOVER["REGIONS"] is empty: there is no cold tier to work on.',
        returncode=FOUND_A_PROBLEM,
    )


def no_hot_tier() -> CommandError:
    return CommandError(
        "The hot tier does not answer. Look after the cache that SESSION_CACHE_ALIAS names.",
        returncode=COULD_NOT_ASK,
    )


def unheard(fleet: Fleet) -> str:
    """Return what to add where some processes may not be heard of."""
    if fleet.sees_all:
        return ""
    return (
        " A server of the cache does not answer: those that tell of themselves there are missing."
    )


def seconds(text: str) -> float:
    """Return the value of an option. Raises ``ValueError``."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def open_bar(**options: Any) -> Any:
    """Return a bar of tqdm, or None where it is not installed or there is no terminal."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(leave=False, **options)


class Countdown:
    """Shows a number that is to fall to 0: as a bar on a terminal, where tqdm is installed.

    Elsewhere ``say`` gets a line whenever the text has changed.
    """

    def __init__(self, command: DynamoCommand, unit: str, *, quiet: bool) -> None:
        self._say = (lambda line: None) if quiet else command.say
        self._bar = None if quiet else open_bar(total=0, unit=unit)
        self._last = ""

    def show(self, left: int, text: str) -> None:
        """Show what is left, and what else there is to say."""
        if self._bar is not None:
            self._bar.total = max(self._bar.total, left)
            self._bar.n = self._bar.total - left
            self._bar.set_description(text)
        elif text != self._last:
            self._say(text)
        self._last = text

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
