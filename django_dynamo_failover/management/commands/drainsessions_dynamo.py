"""``manage.py drainsessions_dynamo``: brings all that is pending to DynamoDB before a failover."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover.exceptions import HotUnavailable
from django_dynamo_failover.fleet import SLOT_SECONDS, Fleet, Member
from django_dynamo_failover.management import base

_EXAMPLE = """\
example, before a planned failover:
  $ python manage.py drainsessions_dynamo on
  4 of 4 processes have answered; pending: 0
  Drained. Every change is written through until: drainsessions_dynamo off

Every process of this site, which is every one that uses the same cache, writes what it holds to
DynamoDB and from then on each change inside its request. It stays so until "off", also through
restarts. Processes with BACKGROUND=False hear of it only while they serve requests.

exit status: 0 done; 1 something is pending, or some process has not answered, after --timeout
seconds; 2 the hot tier does not answer, or no process tells of itself in it.
"""

_STEP_SECONDS = 0.25


class Command(base.DynamoCommand):
    help = (
        "Lets every process of this site write its pending sessions to DynamoDB, and each change"
        " inside its request until it is turned off: run it before a planned failover."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["on", "off", "status"])
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=base.seconds,
            default=60.0,
            help="how long to wait for the processes (default: %(default)g)",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        fleet = base.fleet()
        try:
            if options["action"] == "status":
                fleet.look()
                members = fleet.members()
                done = True
            else:
                version = fleet.drain(options["action"] == "on")
                members, done = self._wait(fleet, version, options)
        except HotUnavailable:
            raise base.no_hot_tier() from None
        self._report(fleet, members, options)
        if not members:
            raise CommandError(
                "No process of this site tells of itself in the cache that SESSION_CACHE_ALIAS"
                " names. Do any run, and with these settings?",
                returncode=base.COULD_NOT_ASK,
            )
        if not done:
            raise CommandError(
                f"Not done after {options['timeout']:g} seconds: is DynamoDB up, are all processes?"
                f" The order stands, and they go on.{base.unheard(fleet)}",
                returncode=base.FOUND_A_PROBLEM,
            )

    def _wait(
        self, fleet: Fleet, version: int, options: dict[str, Any]
    ) -> tuple[list[Member], bool]:
        """Wait until all processes have done as ordered; return them, and whether they have."""
        began = time.monotonic()
        draining = options["action"] == "on"
        countdown = base.Countdown(self, "session", quiet=options["json"])
        try:
            while True:
                with contextlib.suppress(HotUnavailable):
                    fleet.look()  # what was lost before anyone had heard of it is put back
                members = fleet.members()
                passed = time.monotonic() - began
                answered = sum(member.orders >= version for member in members)
                pending = sum(member.pending for member in members)
                if members:
                    countdown.show(
                        pending,
                        f"{answered} of {len(members)} processes have answered; pending: {pending}",
                    )
                done = all(_is_done(member, version, draining) for member in members)
                if members and done and fleet.sees_all:
                    return members, True
                if passed >= options["timeout"] or (not members and passed >= SLOT_SECONDS):
                    return members, False
                time.sleep(_STEP_SECONDS)
        finally:
            countdown.close()

    def _report(self, fleet: Fleet, members: Sequence[Member], options: dict[str, Any]) -> None:
        if options["json"]:
            report = {
                "draining": fleet.draining,
                "pending": sum(member.pending for member in members),
                "processes": [_public(member) for member in members],
            }
            self.say(json.dumps(report, indent=2))
        elif options["action"] == "status":
            self.say(f"Draining is {'on' if fleet.draining else 'off'}.")
            for member in members:
                drained = ", drained" if member.drained else ""
                site = f" ({member.site})" if member.site else ""
                self.say(f"{member.host} {member.pid}{site}: pending {member.pending}{drained}")
        elif members and all(member.drained for member in members):
            self.say("Drained. Every change is written through until: drainsessions_dynamo off")
        elif members and not fleet.draining:
            self.say("Changes are written in the background again.")


def _is_done(member: Member, version: int, draining: bool) -> bool:
    return member.orders >= version and member.drained == draining


def _public(member: Member) -> dict[str, Any]:
    return {
        name: value
        for name, value in dataclasses.asdict(member).items()
        if name not in ("id", "orders", "oldest", "logouts")
    }
