"""``manage.py clearsessions_dynamo``: deletes what has expired, where TTL does not or not yet."""

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover import runtime
from django_dynamo_failover.checkpoint import CheckpointFile, CheckpointUnfit
from django_dynamo_failover.clearing import SEGMENTS, Clearing, StopReason
from django_dynamo_failover.conf import Config
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_admin import TableState, look_at
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.management import base
from django_dynamo_failover.management.progress import ProgressBar
from django_dynamo_failover.reasons import explain

_EXAMPLE = """\
example, every night where the table has no TTL, at the cost of at most 200 write units a second:
  $ python manage.py clearsessions_dynamo --max-write-units 200 --resume clear.json
  us-east-1: TTL is off: nothing else deletes what has expired. createtable_dynamo turns it on.
  us-east-1: 200,000 items, 100,000 deleted, 3 renewed or gone meanwhile
  us-east-1: 500.3 s, 7,202 read units, 100,003 write units

It works in the nearest region; a global table replicates the deletes. A session that is renewed
while this runs is not deleted. It needs the permissions dynamodb:Scan and DeleteItem, and
DescribeTable and DescribeTimeToLive to say how long it takes and whether it is needed.

exit status: 0 done; 1 stopped before the end, by --limit, --max-seconds or a signal, or the
settings or the file of --resume are wrong; 2 DynamoDB gave no answer or refused.
"""


class Command(base.DynamoCommand):
    help = (
        "Deletes the expired sessions and revocations from the DynamoDB table. TTL does the same by"
        " itself and for free, within days: this is for tables that have no TTL, or to have it done"
        " now."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--segments",
            metavar="N",
            type=_segments,
            default=SEGMENTS,
            help="scan so many parts of the table at once, 1 to 256 (default: %(default)d)",
        )
        parser.add_argument(
            "--max-read-units",
            metavar="UNITS",
            type=_units,
            help="read capacity to consume a second (default: no limit)",
        )
        parser.add_argument(
            "--max-write-units",
            metavar="UNITS",
            type=_units,
            help="write capacity to consume a second (default: no limit)",
        )
        parser.add_argument(
            "--grace",
            metavar="SECONDS",
            type=base.seconds,
            help="keep items so long after they have expired (default: WRITE_INTERVAL, as a"
            " session may be alive so much longer than its copy in DynamoDB says)",
        )
        parser.add_argument(
            "--limit", metavar="N", type=_count, help="stop when so many items are deleted"
        )
        parser.add_argument(
            "--max-seconds", metavar="SECONDS", type=base.seconds, help="stop after so long"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="delete nothing; count what would be deleted"
        )
        parser.add_argument(
            "--resume",
            metavar="FILE",
            type=Path,
            help="note here how far it has come; go on from there if the file exists. It is"
            " removed at the end of the table",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with base.settings_errors():
            config = runtime.config()
            table = _nearest_table(config, options["segments"])
        grace = config.write_interval if options["grace"] is None else options["grace"]
        file = _checkpoint_file(table, options)
        with _signals() as received, _reported(table):
            progress = file.load() if file else None
            state = look_at(table)
            self._say_if_needed(table, state, options)
            clearing = Clearing(
                table,
                time.time() - grace,
                segments=options["segments"],
                limit=options["limit"],
                read_units=options["max_read_units"],
                write_units=options["max_write_units"],
                dry_run=options["dry_run"],
                progress=progress,
            )
            try:
                self._run(clearing, file, received, state, options)
            finally:
                self._report(table, clearing, state, options)
        if clearing.stopped:
            again = "Run it again" + (" with the same --resume to go on." if file else ".")
            raise CommandError(
                f"Stopped before the end by {_STOPPED_BY[clearing.stopped]}. {again}",
                returncode=base.FOUND_A_PROBLEM,
            )

    def _run(
        self,
        clearing: Clearing,
        file: CheckpointFile | None,
        received: list[int],
        state: TableState,
        options: dict[str, Any],
    ) -> None:
        """Let it run until its end or a signal, and show and save how far it has come."""
        scanned = clearing.progress.tally.scanned
        bar = ProgressBar(self, "item", state.items, scanned, quiet=options["json"])

        def watch() -> None:
            if received:
                clearing.stop("signal")
            progress = clearing.progress
            bar.show(progress.tally.scanned, f"{progress.tally.deleted:,} {_deleted(options)}")
            if file is not None:
                file.save(progress)

        try:
            watch()  # a file that cannot be written is told before anything is deleted
            clearing.run(watch, options["max_seconds"])
        finally:
            bar.close()
        if file is not None and not clearing.stopped:
            file.remove()

    def _say_if_needed(
        self, table: DynamoTable, state: TableState, options: dict[str, Any]
    ) -> None:
        """Say whether anything else deletes what has expired."""
        if options["json"]:
            return
        if state.strong_consistency:
            line = (
                "a global table of strong consistency has no TTL: nothing else deletes what has"
                " expired. Run this regularly."
            )
        else:
            line = _TTL_LINES[state.ttl]
        self.say(f"{table.name}: {line}")

    def _report(
        self, table: DynamoTable, clearing: Clearing, state: TableState, options: dict[str, Any]
    ) -> None:
        tally = clearing.progress.tally
        if options["json"]:
            report = {
                "table": table.table,
                "region": table.name,
                "ttl": state.ttl,
                "dry_run": options["dry_run"],
                "stopped_by": clearing.stopped,
                **dataclasses.asdict(tally),
            }
            self.say(json.dumps(report, indent=2))
            return
        self.say(
            f"{table.name}: {tally.scanned:,} items, {tally.deleted:,} {_deleted(options)},"
            f" {tally.spared:,} renewed or gone meanwhile"
        )
        self.say(
            f"{table.name}: {tally.seconds:,.1f} s, {tally.read_units:,.0f} read units,"
            f" {tally.write_units:,.0f} write units"
        )


_TTL_LINES: dict[bool | None, str] = {
    True: "TTL is on: DynamoDB deletes what has expired within days; this only does it now.",
    False: "TTL is off: nothing else deletes what has expired. createtable_dynamo turns it on.",
    None: "whether TTL is on is unknown: it takes dynamodb:DescribeTimeToLive to ask.",
}
_STOPPED_BY: dict[StopReason, str] = {
    "limit": "--limit",
    "max-seconds": "--max-seconds",
    "signal": "a signal",
    "error": "an error",
}


def _nearest_table(config: Config, connections: int) -> DynamoTable:
    """Return the table in the nearest region, for that many requests at once."""
    connections = max(connections, config.max_connections)
    tables = runtime.tables(dataclasses.replace(config, max_connections=connections))
    if not tables:
        raise base.no_cold_tier()
    return tables[0]


def _checkpoint_file(table: DynamoTable, options: dict[str, Any]) -> CheckpointFile | None:
    if options["resume"] is None:
        return None
    if options["dry_run"]:
        raise CommandError(
            "--dry-run and --resume exclude each other: what was only counted is not done.",
            returncode=base.FOUND_A_PROBLEM,
        )
    return CheckpointFile(options["resume"], table.table, table.name, options["segments"])


@contextmanager
def _reported(table: DynamoTable) -> Iterator[None]:
    """Turn what ends a run into a ``CommandError``."""
    try:
        yield
    except ColdUnavailable as error:
        raise CommandError(
            f"{table.name}: {explain(error)}", returncode=base.COULD_NOT_ASK
        ) from None
    except (CheckpointUnfit, OSError) as error:
        raise CommandError(str(error), returncode=base.FOUND_A_PROBLEM) from None


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in a list, instead of dying of them; a second one is fatal again."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # where no handler can be set
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _deleted(options: dict[str, Any]) -> str:
    return "to delete" if options["dry_run"] else "deleted"


def _segments(text: str) -> int:
    value = _count(text)
    if value > 256:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _units(text: str) -> float:
    value = base.seconds(text)
    if not value:
        raise ValueError
    return value
