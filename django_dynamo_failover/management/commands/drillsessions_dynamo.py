"""``manage.py drillsessions_dynamo``: what a failover right now would restore."""

import dataclasses
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover import runtime
from django_dynamo_failover.drill import Drill, Tally
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.exceptions import ColdUnavailable, HotUnavailable
from django_dynamo_failover.management import base
from django_dynamo_failover.management.progress import ProgressBar
from django_dynamo_failover.metrics import Metrics
from django_dynamo_failover.reasons import explain

_EXAMPLE = """\
example:
  $ python manage.py drillsessions_dynamo
  us-east-1: 1,000 sessions, of which 1,000 (100.0 %) would be restored
  712 are in this site's hot tier: DynamoDB lacks changes of 0 s (p50), 412 s (p99), 880 s (max)
  not restored: 0 undecodable, 0 too large for DynamoDB, 0 of an earlier version than confirmed
  not looked at: 12 expired, 3 ended here

It reads a random part of the table in the nearest region, which costs half a read unit per 4 KB,
and each of these sessions in this site's hot tier. It needs the permissions dynamodb:Scan and
BatchGetItem, and writes nothing.

exit status: 0 all of them would be restored; 1 some would not, or the settings are wrong; 2
DynamoDB or the hot tier gave no answer or refused.
"""

_ATTEMPTS = 3  # there is time


class Command(base.DynamoCommand):
    help = (
        "Compares a sample of the sessions in DynamoDB with this site's hot tier, and says what a"
        " failover right now would restore. Writes nothing."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--sample",
            metavar="N",
            type=_count,
            default=1000,
            help="look at so many sessions at most (default: %(default)d)",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with base.settings_errors():
            config = runtime.config()
            keyring = runtime.keyring()
            hot = runtime.hot_tier(keyring, Metrics())
            tables = runtime.tables(config, _ATTEMPTS)
        if not tables:
            raise base.no_cold_tier()
        drill = Drill(tables[0], hot, keyring, options["sample"])
        self._run(drill, tables[0], options)
        tally = drill.tally
        if options["json"]:
            self.say(json.dumps(_public(tally, tables[0].name), indent=2))
        else:
            for line in _lines(tally, tables[0].name):
                self.say(line)
        if tally.restorable < tally.sampled:
            raise CommandError(
                f"{tally.sampled - tally.restorable} of {tally.sampled} sessions would not be"
                " restored as they are.",
                returncode=base.FOUND_A_PROBLEM,
            )

    def _run(self, drill: Drill, table: DynamoTable, options: dict[str, Any]) -> None:
        bar = ProgressBar(self, "session", options["sample"], 0, quiet=options["json"])
        try:
            drill.run(lambda: bar.show(drill.tally.sampled, f"{drill.tally.expired:,} expired"))
        except ColdUnavailable as error:
            raise CommandError(
                f"{table.name}: {explain(error)}", returncode=base.COULD_NOT_ASK
            ) from None
        except HotUnavailable:
            raise base.no_hot_tier() from None
        finally:
            bar.close()


def _lines(tally: Tally, region: str) -> list[str]:
    if not tally.sampled:
        return [f"{region}: no session that has not expired"]
    share = 100 * tally.restorable / tally.sampled
    lines = [
        f"{region}: {tally.sampled:,} sessions, of which {tally.restorable:,} ({share:.1f} %)"
        " would be restored"
    ]
    if tally.ages:
        lines.append(
            f"{len(tally.ages):,} are in this site's hot tier: DynamoDB lacks changes of"
            f" {tally.age(0.5):.0f} s (p50), {tally.age(0.99):.0f} s (p99),"
            f" {tally.age(1):.0f} s (max)"
        )
    lines.append(
        f"not restored: {tally.undecodable:,} undecodable, {tally.oversize:,} too large for"
        f" DynamoDB, {tally.lost:,} of an earlier version than confirmed"
    )
    lines.append(f"not looked at: {tally.expired:,} expired, {tally.ended:,} ended here")
    return lines


def _public(tally: Tally, region: str) -> dict[str, Any]:
    counts = dataclasses.asdict(tally)
    del counts["ages"]
    return {
        "region": region,
        **counts,
        "restorable": tally.restorable,
        "compared": len(tally.ages),
        "age_seconds": {"p50": tally.age(0.5), "p99": tally.age(0.99), "max": tally.age(1)},
    }


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value
