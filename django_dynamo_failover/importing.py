"""Copies the sessions of a database engine into DynamoDB, one row at a time."""

import enum
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .changes import Draft
from .checkpoint import write_whole
from .dynamo import DynamoTable
from .exceptions import ConditionFailed, FailoverError, SessionUnreadable, ValueTooLarge
from .fallback import OldEngine, draft_of
from .keys import storage_id
from .payload import PayloadCodec, Serializer, login_of
from .record import ColdItem, encode_cold, new_record

#: Nobody waits for an import: it may be throttled for a while.
ATTEMPTS = 10
_ROW_SECONDS = 20.0
_CHECK_SECONDS = 2.0

#: Of a session key: too few of its characters to use it.
_NOTED_CHARACTERS = 8


class Fate(enum.StrEnum):
    """What became of a row."""

    COPIED = "copied"
    EXPIRED = "expired"
    UNDECODABLE = "undecodable"
    #: DynamoDB has an item of that session, which may be newer.
    ALREADY_THERE = "already there"
    #: It was logged out here, or its user was, everywhere.
    ENDED = "ended here"
    TOO_LARGE = "too large"


@dataclass(frozen=True, slots=True)
class Importer:
    """Copies rows to the table of one region. Safe among threads.

    ``lease`` is in seconds. ``dry_run`` only tells what would become of a row.
    """

    engine: OldEngine
    table: DynamoTable
    codec: PayloadCodec
    serializer: Serializer
    lease: float
    dry_run: bool

    def check(self) -> None:
        """Look whether the table can be read. Raises ``ColdUnavailable``, soon."""
        self.table.read_user("nobody", time.monotonic() + _CHECK_SECONDS)

    def copy(self, row: Any) -> Fate:
        """Copy a row of ``engine.model``, never over what is there. Raises ``ColdUnavailable``."""
        now = time.time()
        if row.expire_date.timestamp() <= now:
            return Fate.EXPIRED
        try:
            session = self.engine.read(row)
            draft = draft_of(session, row.session_key, self.codec, self.serializer)
            record = new_record(storage_id(row.session_key), draft.payload, draft.expires, now)
            item = encode_cold(record, self.codec.keyring, ordered=False)
            return self._look(item, draft) if self.dry_run else self._put(item, draft)
        except SessionUnreadable:
            return Fate.UNDECODABLE
        except ValueTooLarge:
            return Fate.TOO_LARGE

    def _put(self, item: ColdItem, draft: Draft) -> Fate:
        until = time.monotonic() + _ROW_SECONDS
        try:
            self.table.put_new(item, 0.0, until)  # nor over one that has expired
        except ConditionFailed:
            return Fate.ALREADY_THERE
        # After the write: a logout before it has left a revocation, one after it deletes the item.
        fate = self._look(item, draft)
        if fate is not Fate.ENDED:
            return Fate.COPIED
        self.table.revoke(item.id, int(item.expires + self.lease) + 1, until)
        return Fate.ENDED

    def _look(self, item: ColdItem, draft: Draft) -> Fate:
        login = login_of(draft.payload)
        owner = login.owner if login is not None else None
        answer = self.table.read(item.id, time.monotonic() + _ROW_SECONDS, owner)
        if answer.revoked or (login is not None and login.since < answer.logins_over):
            return Fate.ENDED
        return Fate.COPIED if answer.item is None else Fate.ALREADY_THERE


class CheckpointError(FailoverError):
    """The file of a checkpoint is of something else, or cannot be written."""


class Checkpoint:
    """How far an import is, in a file, if there is one; and of which import: ``what``.

    The file holds the beginning of the last session key. So a few rows may be done twice.
    """

    def __init__(self, path: Path | None, what: dict[str, str]) -> None:
        self._path = path
        self._what = what

    def read(self) -> str:
        """Return above which key to go on. Raises ``CheckpointError``."""
        if self._path is None:
            return ""
        try:
            noted = json.loads(self._path.read_text())
            after = str(noted.pop("after"))
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{self._path}: {type(error).__name__}") from error
        if noted != self._what:
            raise CheckpointError(f"{self._path} is of another import: {noted}")
        return after

    def write(self, key: str) -> None:
        """Note that all rows up to this key are done. Raises ``CheckpointError``."""
        if self._path is None:
            return
        noted = json.dumps({**self._what, "after": key[:_NOTED_CHARACTERS]})
        try:
            write_whole(self._path, noted)
        except OSError as error:
            raise CheckpointError(f"{self._path}: {error.strerror}") from error

    def remove(self) -> None:
        """Forget it: all rows are done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def batches(model: Any, after: str, size: int, limit: int | None = None) -> Iterator[list[Any]]:
    """Yield the rows with a key above ``after`` in the order of their keys, ``limit`` at most."""
    left = sys.maxsize if limit is None else limit
    while rows := list(_rows(model, after)[: min(size, left)]):
        yield rows
        left -= len(rows)
        after = rows[-1].pk


def count(model: Any, after: str, limit: int | None = None) -> int:
    """Return how many rows ``batches`` yields."""
    found = int(_rows(model, after).count())
    return found if limit is None else min(found, limit)


def _rows(model: Any, after: str) -> Any:
    return model._default_manager.filter(pk__gt=after).order_by("pk")  # noqa: SLF001
