"""``manage.py createtable_dynamo``: makes the table of every region that is configured."""

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover import runtime
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_admin import TableUnfit, Ttl, make_table
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.management.base import (
    COULD_NOT_ASK,
    FOUND_A_PROBLEM,
    DynamoCommand,
    no_cold_tier,
    settings_errors,
)
from django_dynamo_failover.reasons import explain

_EXAMPLE = """\
example:
  $ python manage.py createtable_dynamo
  us-east-1: table is being created
  us-east-1: table is created
  us-east-1: TTL is turned on for 'expires'

It is safe to run this at every deployment, and at both sites at once. It needs the permissions
dynamodb:DescribeTable, CreateTable, DescribeTimeToLive and UpdateTimeToLive.

A global table is made in one region (--region), then replicated to the others by AWS; after that,
this command checks all of them.

exit status: 0 every table is ready, 1 an existing table or the settings are wrong, 2 a region gave
no answer or refused.
"""


class Command(DynamoCommand):
    help = (
        "Creates the DynamoDB table of the sessions in every region of DYNAMO_FAILOVER: on-demand"
        " billing, TTL on 'expires'. Waits until it is active. A table that exists is checked."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--region", metavar="NAME", help="only this one of the regions")
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=float,
            default=60.0,
            help="how long to wait for a new table to be active (default: %(default)g)",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        table_name, tables = _tables(options["region"])
        # All at once: to look for credentials takes seconds, to create a table more of them.
        with ThreadPoolExecutor(len(tables)) as pool:
            results = list(pool.map(lambda table: self._make(table, options), tables))
        if options["json"]:
            regions = [dataclasses.asdict(result) for result in results]
            self.stdout.write(json.dumps({"table": table_name, "regions": regions}, indent=2))
        errors = [f"{result.region}: {result.error}" for result in results if result.error]
        if errors:
            raise CommandError("\n".join(errors), returncode=max(r.status for r in results))

    def _make(self, table: DynamoTable, options: dict[str, Any]) -> "_Result":
        def say(line: str) -> None:
            if not options["json"]:
                self.say(f"{table.name}: {line}")

        try:
            made = make_table(table, time.monotonic() + options["timeout"], say)
        except TableUnfit as error:
            return _Result(table.name, error=str(error), status=FOUND_A_PROBLEM)
        except ColdUnavailable as error:
            return _Result(table.name, error=explain(error), status=COULD_NOT_ASK)
        return _Result(table.name, ready=True, created=made.created, ttl=made.ttl)


@dataclass(frozen=True, slots=True)
class _Result:
    """What has become of the table of one region."""

    region: str
    ready: bool = False
    created: bool | None = None
    ttl: Ttl | None = None
    error: str | None = None
    status: int = 0


def _tables(region: str | None) -> tuple[str, list[DynamoTable]]:
    """Return the name of the table, and the table of each region that is asked for."""
    with settings_errors():
        config = runtime.config()
        tables = runtime.tables(config)
    if not tables:
        raise no_cold_tier()
    chosen = [table for table in tables if region in (None, table.name)]
    if not chosen:
        names = ", ".join(table.name for table in tables)
        raise CommandError(
            f"{region!r} is not in DYNAMO_FAILOVER: choose of {names}.", returncode=FOUND_A_PROBLEM
        )
    return config.table, chosen
