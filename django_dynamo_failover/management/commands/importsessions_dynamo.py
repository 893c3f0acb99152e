"""``manage.py importsessions_dynamo``: copies the live sessions of a database engine."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseFailure

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.importing import (
    ATTEMPTS,
    Checkpoint,
    CheckpointError,
    Fate,
    Importer,
    batches,
    count,
)
from django_dynamo_failover.management import base
from django_dynamo_failover.reasons import explain
from django_dynamo_failover.sessions import SessionStore

_EXAMPLE = """\
example, of a site that has moved in from "cached_db" with FALLBACK_ENGINE:
  $ python manage.py importsessions_dynamo --from cached_db --resume import.json
  96120 copied, 3790 expired, 2 undecodable, 88 already there, 0 ended here, 0 too large
  100000 rows in 180 seconds

It never writes over a session that DynamoDB has, nor over one that has ended there. So it may run
while the site does, and again at any time. What was interrupted goes on from the --resume file,
which holds no session key, only the first 8 characters of one.

Only engines that keep sessions in the database can list them. The sessions of any other one move
over as they are used: see FALLBACK_ENGINE.

exit status: 0 done; 1 interrupted, or the engine, the file or the settings are wrong; 2 DynamoDB
or the database gave no answer or refused.
"""

_BUILT_IN = "django.contrib.sessions.backends."
_BATCH = 500
_WORKERS = 16

#: So often it tells how far it is, in seconds.
_TELL_SECONDS = 2.0


class Command(base.DynamoCommand):
    help = "Copies the live sessions of another engine to DynamoDB, over none that is there."
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            dest="engine",
            metavar="ENGINE",
            help="db, cached_db, or what SESSION_ENGINE was (default: FALLBACK_ENGINE)",
        )
        parser.add_argument(
            "--resume",
            metavar="FILE",
            type=Path,
            help="note in this file how far it is, and go on from there",
        )
        parser.add_argument("--limit", metavar="N", type=_whole_number, help="stop after N rows")
        parser.add_argument("--dry-run", action="store_true", help="count, but write nothing")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        importer = _importer(options["engine"], dry_run=options["dry_run"])
        checkpoint = Checkpoint(
            None if options["dry_run"] else options["resume"],
            {"from": importer.engine.path, "table": importer.table.table},
        )
        fates: Counter[Fate] = Counter()
        began = time.monotonic()
        with _failures(importer), _signals() as stop:
            importer.check()
            try:
                self._copy(importer, checkpoint, fates, stop, options)
            finally:
                self._report(fates, time.monotonic() - began, options)
        if stop.is_set():
            raise CommandError("Interrupted: run it again.", returncode=base.FOUND_A_PROBLEM)

    def _copy(
        self,
        importer: Importer,
        checkpoint: Checkpoint,
        fates: Counter[Fate],
        stop: threading.Event,
        options: dict[str, Any],
    ) -> None:
        """Copy the rows from the checkpoint on, until there are no more or ``stop`` is set."""
        after = checkpoint.read()
        left = count(importer.engine.model, after, options["limit"])
        countdown = base.Countdown(self, "session", quiet=options["json"])
        tell_at = 0.0
        try:
            with ThreadPoolExecutor(_WORKERS) as pool:
                for rows in batches(importer.engine.model, after, _BATCH, options["limit"]):
                    if stop.is_set():
                        return
                    fates.update(pool.map(importer.copy, rows))
                    checkpoint.write(rows[-1].pk)
                    left -= len(rows)
                    if time.monotonic() >= tell_at:
                        countdown.show(max(0, left), f"{fates.total()} rows, {left} to go")
                        tell_at = time.monotonic() + _TELL_SECONDS
        finally:
            countdown.close()
        if options["limit"] is None:
            checkpoint.remove()

    def _report(self, fates: Counter[Fate], seconds: float, options: dict[str, Any]) -> None:
        if options["json"]:
            counts = {fate.value.replace(" ", "_"): fates[fate] for fate in Fate}
            report = {**counts, "seconds": round(seconds, 1), "dry_run": options["dry_run"]}
            self.say(json.dumps(report, indent=2))
            return
        self.say(", ".join(f"{fates[fate]} {fate}" for fate in Fate))
        self.say(f"{fates.total()} rows in {seconds:.0f} seconds")


def _whole_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _importer(engine: str | None, *, dry_run: bool) -> Importer:
    with base.settings_errors():
        config = runtime.config()
        path = _path(engine, config.fallback_engine)
        run = runtime.build(replace(config, fallback_engine=path))
        tables = runtime.tables(config, ATTEMPTS)
    if not tables:
        raise base.no_cold_tier()
    assert run.old_engine is not None
    if run.old_engine.model is None:
        raise CommandError(
            f"{path} cannot list its sessions. They move over as they are used:"
            " set DYNAMO_FAILOVER['FALLBACK_ENGINE'] to it.",
            returncode=base.FOUND_A_PROBLEM,
        )
    return Importer(
        engine=run.old_engine,
        table=tables[0],
        codec=run.codec,
        serializer=SessionStore().serializer(),
        lease=config.write_interval,
        dry_run=dry_run,
    )


def _path(engine: str | None, fallback_engine: str | None) -> str:
    engine = engine or fallback_engine
    if engine is None:
        raise CommandError(
            "Which engine? Say --from, or set DYNAMO_FAILOVER['FALLBACK_ENGINE'].",
            returncode=base.FOUND_A_PROBLEM,
        )
    return engine if "." in engine else _BUILT_IN + engine


@contextmanager
def _failures(importer: Importer) -> Iterator[None]:
    """Turn what DynamoDB, the database and the checkpoint may raise into a ``CommandError``."""
    try:
        yield
    except ColdUnavailable as error:
        message = f"{importer.table.name}: {explain(error)}"
        raise CommandError(message, returncode=base.COULD_NOT_ASK) from None
    except DatabaseFailure as error:
        message = f"The database of {importer.engine.path}: {type(error).__name__}: {error}"
        raise CommandError(message.splitlines()[0], returncode=base.COULD_NOT_ASK) from None
    except CheckpointError as error:
        raise CommandError(f"--resume: {error}", returncode=base.FOUND_A_PROBLEM) from None


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Let SIGINT and SIGTERM set an event, so that what has begun is done and noted."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
