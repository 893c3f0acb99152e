"""``manage.py createtable_dynamo``: makes the table of the sessions, or checks the one there is."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover import dynamo_admin, runtime
from django_dynamo_failover.conf import Config, Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_admin import TableUnfit
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.management import base
from django_dynamo_failover.management.table_options import add_table_options, spec
from django_dynamo_failover.reasons import explain
from django_dynamo_failover.table_making import TableMade, TableMaker, Ttl
from django_dynamo_failover.table_policies import policies
from django_dynamo_failover.table_spec import TableSpec
from django_dynamo_failover.table_templates import cloudformation, terraform

_EXAMPLE = """\
examples:
  one region, on demand:
  $ python manage.py createtable_dynamo
  us-east-1: table is being created
  us-east-1: table is created
  us-east-1: TTL is turned on for 'expires'

  a global table in all REGIONS, as a production site may want it; first what that would do:
  $ python manage.py createtable_dynamo --point-in-time-recovery --deletion-protection \\
      --kms-key alias/sessions --tag team=web --dry-run

  no session is lost with a region, at the price of slower writes and of a job for what expires:
  $ python manage.py createtable_dynamo --consistency strong --witness us-east-2

  what somebody else may deploy:
  $ python manage.py createtable_dynamo --print cloudformation > sessions.json
  $ python manage.py createtable_dynamo --print terraform > sessions.tf.json
  $ python manage.py createtable_dynamo --print iam > policies.json

A table that is there is only compared with what is asked: each difference is a line, and exit
status 1. Options that are not given are not compared, but the key, TTL and replicas always are.
TTL is turned on where it is off; --add-missing turns on or adds more. Nothing is ever taken away.

It is safe to run this at every deployment; a new global table only at one site first, as both would
begin one. --print iam tells the permissions that it needs.

exit status: 0 every table is as asked; 1 a table differs, or the settings or options are wrong;
2 a region gave no answer or refused.
"""

T = TypeVar("T")

_PRINTS = ("cloudformation", "terraform", "iam")
_TIMEOUT = 60.0
_GLOBAL_TIMEOUT = 900.0  # a replica takes minutes


class Command(base.DynamoCommand):
    help = (
        "Creates the DynamoDB table of the sessions in the REGIONS of DYNAMO_FAILOVER, and waits"
        " until it is active: on-demand billing, TTL on 'expires', replicas. A table that exists is"
        " compared with what is asked."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--region", metavar="NAME", help="only this one of the regions; no replicas"
        )
        add_table_options(parser)
        parser.add_argument(
            "--add-missing",
            action="store_true",
            help="also in a table that is there, turn on recovery and protection, set tags and add"
            " replicas where they are missing",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, and change nothing"
        )
        parser.add_argument(
            "--print",
            choices=_PRINTS,
            dest="template",
            help="print the table as a template, or the IAM policies of the web processes (web),"
            " clearsessions_dynamo (gc), healthcheck_dynamo and drillsessions_dynamo (check), and"
            " all other commands (admin), as JSON; ask nobody",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=base.seconds,
            help="how long to wait for a new table to be active"
            f" (default: {_TIMEOUT:g}; {_GLOBAL_TIMEOUT:g} for a global one)",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with base.settings_errors():
            config = runtime.config()
            tables = runtime.tables(config)
        regions = _regions(config, options["region"])
        asked = spec(config, regions, options)
        names = [region.name for region in regions]
        if options["template"]:
            self._print(asked, names, options["template"])
            return
        work = _Work(self, asked, options)
        chosen = [table for table in tables if table.name in names]
        results = work.make_global(chosen) if asked.replicas else work.make_each(chosen)
        if options["json"]:
            report = {
                "table": config.table,
                "dry_run": options["dry_run"],
                "regions": [dataclasses.asdict(result) for result in results],
            }
            self.say(json.dumps(report, indent=2))
        problems = [f"{each.region}: {text}" for each in results for text in each.problems]
        if problems:
            raise CommandError("\n".join(problems), returncode=max(r.status for r in results))

    def _print(self, asked: TableSpec, regions: Sequence[str], template: str) -> None:
        if template == "iam":
            printed: Any = policies(asked, regions)
        elif len(asked.regions) < len(regions):
            raise CommandError(
                "These are independent tables: print one at a time, with --region.",
                returncode=base.FOUND_A_PROBLEM,
            )
        else:
            printed = (cloudformation if template == "cloudformation" else terraform)(asked)
        self.say(json.dumps(printed, indent=2))


@dataclass(frozen=True, slots=True)
class _Result:
    """What has become of the table of one region. ``steps`` are the lines that told of it."""

    region: str
    steps: Sequence[str]
    ready: bool = False
    created: bool | None = None
    ttl: Ttl | None = None
    differences: Sequence[str] = ()
    error: str | None = None
    status: int = 0

    @property
    def problems(self) -> list[str]:
        return [*self.differences, *([self.error] if self.error else [])]


class _Work:
    """Makes tables, and reports on them as the options say."""

    def __init__(self, command: Command, asked: TableSpec, options: dict[str, Any]) -> None:
        self._command = command
        self._asked = asked
        self._options = options
        self._made: dict[str, TableMade] = {}
        timeout = options["timeout"]
        if timeout is None:
            timeout = _GLOBAL_TIMEOUT if asked.replicas else _TIMEOUT
        self._until = time.monotonic() + timeout

    def make_each(self, tables: Sequence[DynamoTable]) -> list[_Result]:
        """Make independent tables, all at once: to look for credentials takes seconds."""
        return _all(
            lambda table: self._do(table, self._asked.of_table(table.name), TableMaker.make), tables
        )

    def make_global(self, tables: Sequence[DynamoTable]) -> list[_Result]:
        """Make a table with replicas; nothing at all while a region does not answer."""
        looked = _all(self._look, tables)
        unheard = [look for look in looked if isinstance(look, _Result)]
        if unheard:
            return unheard
        # Another site may have made it, where another region is the first.
        by_region = {table.name: table for table in tables}
        there = [table.name for table, is_there in zip(tables, looked, strict=True) if is_there]
        asked = self._asked.of_home(there[0] if there else tables[0].name)
        home, *others = (by_region[name] for name in asked.regions)
        result = self._do(home, asked, TableMaker.make)
        if result.error:
            return [result]
        made = self._made[home.name]
        replicas = [table for table in others if table.name in made.replicas]
        return [
            result,
            *_all(
                lambda table: self._do(
                    table,
                    asked.of_replica(table.name),
                    lambda maker: maker.join(is_new=table.name in made.added),
                ),
                replicas,
            ),
        ]

    def _look(self, table: DynamoTable) -> "bool | _Result":
        """Return whether the table is there, the result if that cannot be told."""
        try:
            return dynamo_admin.describe(table) is not None
        except ColdUnavailable as error:
            return _unheard(table, [], error)

    def _do(
        self, table: DynamoTable, asked: TableSpec, do: Callable[[TableMaker], TableMade]
    ) -> _Result:
        steps: list[str] = []

        def say(line: str) -> None:
            steps.append(line)
            if not self._options["json"]:
                self._command.say(f"{table.name}: {line}")

        maker = TableMaker(
            table=table,
            spec=asked,
            until=self._until,
            say=say,
            add=self._options["add_missing"],
            dry_run=self._options["dry_run"],
        )
        try:
            made = self._made[table.name] = do(maker)
        except TableUnfit as error:
            return _Result(table.name, steps, error=str(error), status=base.FOUND_A_PROBLEM)
        except ColdUnavailable as error:
            return _unheard(table, steps, error)
        return _Result(
            table.name,
            steps,
            ready=made.exists and not made.differences,
            created=made.created,
            ttl=made.ttl,
            differences=made.differences,
            status=base.FOUND_A_PROBLEM if made.differences else 0,
        )


def _all(do: Callable[[DynamoTable], T], each: Sequence[DynamoTable]) -> list[T]:
    with ThreadPoolExecutor(len(each) or 1) as pool:
        return list(pool.map(do, each))


def _unheard(table: DynamoTable, steps: Sequence[str], error: ColdUnavailable) -> _Result:
    return _Result(table.name, steps, error=explain(error), status=base.COULD_NOT_ASK)


def _regions(config: Config, name: str | None) -> list[Region]:
    """Return the regions that are asked for."""
    if not config.regions:
        raise base.no_cold_tier()
    chosen = [region for region in config.regions if name in (None, region.name)]
    if not chosen:
        names = ", ".join(region.name for region in config.regions)
        raise CommandError(
            f"{name!r} is not in DYNAMO_FAILOVER: choose of {names}.",
            returncode=base.FOUND_A_PROBLEM,
        )
    return chosen
