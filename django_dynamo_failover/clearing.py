"""Deleting what has expired in a table: a parallel scan, and a conditional delete of each find.

One thread for each segment of the table scans a page, deletes what it has found there, and goes on
to the next page. So as many requests are under way as there are segments, and no more ids in memory
than a page each.
"""

import contextlib
import copy
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Literal, TypeVar

from .budget import Budget
from .checkpoint import Progress
from .dynamo import DynamoTable, ExpiredPage
from .exceptions import ColdMisconfigured, ColdUnavailable, ConditionFailed

T = TypeVar("T")

StopReason = Literal["limit", "max-seconds", "signal", "error"]

#: So many requests at once, which is what one CPU can ask of a region 5 to 10 ms away.
SEGMENTS = 16

_CALL_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0  # nobody waits for the result: a table may be throttled for a while
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_TICK_SECONDS = 0.2
_SCAN_UNITS = 32.0  # until the server says: a page of items of 1 KB
_DELETE_UNITS = 1.0


class Clearing:
    """One run over a table, which deletes what expired before a time (epoch seconds).

    ``limit`` is how many items to delete at most. ``read_units`` and ``write_units`` are budgets a
    second. With ``dry_run`` nothing is deleted, and ``deleted`` counts what would have been. With
    the ``progress`` of an earlier run it goes on from there.
    """

    def __init__(
        self,
        table: DynamoTable,
        before: float,
        *,
        segments: int = SEGMENTS,
        limit: int | None = None,
        read_units: float | None = None,
        write_units: float | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._table = table
        self._before = before
        self._progress = progress or Progress.start(segments)
        self._segments = segments
        self._limit = None if limit is None else self._progress.tally.deleted + limit
        self._dry_run = dry_run
        self._deleting = 0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._reads = Budget(read_units, _SCAN_UNITS, self._stop.wait)
        self._writes = Budget(write_units, _DELETE_UNITS, self._stop.wait)
        self.stopped: StopReason | None = None  #: Why it ended before the end of the table.

    @property
    def progress(self) -> Progress:
        """A copy of how far it has come."""
        with self._lock:
            progress = copy.deepcopy(self._progress)
        progress.tally.seconds += time.monotonic() - self._began
        return progress

    def stop(self, reason: StopReason) -> None:
        """Let the run end before its next request."""
        self.stopped = self.stopped or reason
        self._stop.set()

    def run(
        self, watch: Callable[[], None] = lambda: None, max_seconds: float | None = None
    ) -> None:
        """Return when nothing is left to do, or the run was stopped.

        ``watch`` is called in this thread five times a second. Raises ``ColdUnavailable`` when
        there was no answer for a minute, ``ColdMisconfigured`` when DynamoDB refuses.
        """
        until = None if max_seconds is None else time.monotonic() + max_seconds
        with ThreadPoolExecutor(max(1, len(self._progress.left))) as pool:
            try:
                segments = sorted(self._progress.left)
                running = {pool.submit(self._clear, segment) for segment in segments}
                while running:
                    done, running = wait(running, _TICK_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    if until is not None and time.monotonic() >= until and running:
                        self.stop("max-seconds")
                    watch()
            except BaseException:
                self.stop("error")  # or the pool would wait for the other segments
                raise
        if not self._progress.left:
            self.stopped = None  # too late: everything is done

    def _clear(self, segment: int) -> None:
        """Clear a segment page by page, from where it was left."""
        after = self._progress.left[segment]
        with contextlib.suppress(_Stopped):
            while True:
                page = self._scan(segment, after)
                for id in page.ids:
                    self._delete(id)
                after = page.last
                with self._lock:
                    if after is None:
                        del self._progress.left[segment]
                        return
                    self._progress.left[segment] = after

    def _scan(self, segment: int, after: str | None) -> ExpiredPage:
        charged = self._reads.reserve()
        page = self._patiently(
            lambda until: self._table.scan_expired(
                self._before, segment, self._segments, after, until
            )
        )
        self._reads.settle(charged, page.units)
        with self._lock:
            self._progress.tally.scanned += page.scanned
            self._progress.tally.read_units += page.units
        return page

    def _delete(self, id: str) -> None:
        tally = self._progress.tally
        with self._lock:
            if self._limit is not None and tally.deleted + self._deleting >= self._limit:
                self.stop("limit")
                raise _Stopped
            self._deleting += 1
        deleted, units = (True, 0.0) if self._dry_run else self._delete_if_expired(id)
        with self._lock:
            self._deleting -= 1
            tally.write_units += units
            if deleted:
                tally.deleted += 1
            else:
                tally.spared += 1

    def _delete_if_expired(self, id: str) -> tuple[bool, float]:
        """Return whether it was still there and expired, and the write units of asking."""
        charged = self._writes.reserve()
        try:
            units = self._patiently(
                lambda until: self._table.delete_expired(id, self._before, until)
            )
        except ConditionFailed:
            return False, _DELETE_UNITS  # it costs that much too, though the server does not say
        self._writes.settle(charged, units)
        return True, units

    def _patiently(self, ask: Callable[[float], T]) -> T:
        """Return the answer to a request that is given a deadline; ask again while there is none.

        Raises ``_Stopped`` when the run is to end, and what ``run`` says.
        """
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            try:
                return ask(time.monotonic() + _CALL_SECONDS)
            except ColdMisconfigured:
                raise
            except ColdUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
            self._stop.wait(random.uniform(0, pause))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise _Stopped


class _Stopped(Exception):
    """The run is to end, and this segment is not done."""
