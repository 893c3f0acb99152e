"""``manage.py revalidatesessions_dynamo``: trust nothing that this site's cache still holds."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover.exceptions import HotUnavailable
from django_dynamo_failover.management import base

_EXAMPLE = """\
example, when a datacenter comes back with a memcached that ran on:
  $ python manage.py revalidatesessions_dynamo
  4 processes have answered: no session is served before it has agreed with DynamoDB anew.

Without it an entry from before the failover is served until its lease is over, WRITE_INTERVAL
after it last agreed. Each session that is used again costs one read of DynamoDB. Run it before
users come back.

exit status: 0 done; 1 some process has not answered after --timeout seconds; 2 the hot tier does
not answer.
"""


class Command(base.DynamoCommand):
    help = (
        "Lets every session in this site's hot tier agree with DynamoDB before it is trusted again:"
        " run it before users come back to a datacenter that had failed over."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=base.seconds,
            default=15.0,
            help="how long to wait for the processes (default: %(default)g)",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        fleet = base.fleet()
        try:
            version = fleet.revalidate()
            done = fleet.wait(version, options["timeout"])
            members = fleet.members()
        except HotUnavailable:
            raise base.no_hot_tier() from None
        answered = sum(member.orders >= version for member in members)
        if options["json"]:
            self.say(json.dumps({"processes": len(members), "answered": answered}, indent=2))
        if not done:
            raise CommandError(
                f"{answered} of {len(members)} processes have answered after"
                f" {options['timeout']:g} seconds. The order stands, and they will follow."
                f"{base.unheard(fleet)}",
                returncode=base.FOUND_A_PROBLEM,
            )
        if not options["json"]:
            self.say(
                f"{answered} processes have answered: no session is served before it has agreed"
                " with DynamoDB anew."
            )
