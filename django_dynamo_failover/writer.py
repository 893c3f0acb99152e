"""What the background thread does: bring changes to DynamoDB, renew leases, watch the hot tier."""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

from . import signals
from .changes import Pending, of_others
from .cold import ColdTier
from .exceptions import ColdUnavailable, HotUnavailable, SessionUnreadable
from .fleet import Fleet
from .hot import HotAnswer, HotTier
from .keys import label
from .metrics import Metrics
from .payload import Merge
from .reconcile import Reconciler
from .record import Record
from .scheduler import Action, Scheduler
from .snapshot import Snapshot

logger = logging.getLogger(__name__)

#: How often a process looks whether the hot tier lost its contents, in seconds.
POLL_SECONDS = 2.0

#: A failed job is tried again after this many seconds. It does not reach the network while a
#: breaker is open, so that it can be short.
_RETRY_SECONDS = 1.0

#: Due work inside one request takes no longer than this, and one job, in seconds.
_INLINE_BUDGET = 0.05

#: How often it is asked whether a tier that is down is due for a probe, in seconds.
_PROBE_SECONDS = 0.5

#: Pending payloads beyond this many bytes in one process are written early.
MAX_PENDING_BYTES = 64 * 1024 * 1024


class Writer:
    """Holds what DynamoDB does not have yet of this process's changes, until it does.

    One a process, never shared with a fork. With ``background=False`` (AWS Lambda and the like)
    there is no thread, and ``run_due`` does the due work inside requests.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        hot: HotTier,
        cold: ColdTier,
        fleet: Fleet,
        metrics: Metrics,
        *,
        background: bool,
        threads: int = 4,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reconciler = reconciler
        reconciler.on_unnoted = self.note_later
        #: Returns what this process has to tell of itself at its end.
        self.last_words: Callable[[], Snapshot | None] = lambda: None
        self._hot = hot
        self._cold = cold
        self._fleet = fleet
        self._metrics = metrics
        self._background = background
        self._now = now
        self._jobs = Scheduler(threads=threads if background else 0, clock=monotonic)
        # A thread of its own: a poll that waited behind thousands of writes would be late.
        self._polls = Scheduler(threads=min(threads, 1) if background else 0, clock=monotonic)
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._pending_bytes = 0
        self._apart: dict[Hashable, float] = {}  # since when it waits
        self._revoking: dict[str, bool] = {}  # whether any region knows already

    def start(self) -> None:
        """Learn what is ordered, and begin to watch the hot tier."""
        with contextlib.suppress(HotUnavailable):
            if self._cold.exists:
                self._fleet.tell(0)  # first: who gives an order now is to wait for this process
            self._fleet.look()
        if self._cold.exists:
            # Vital: it goes on after whatever error.
            self._polls.put("poll", 0.0, self._poll, vital=True)

    @property
    def draining(self) -> bool:
        """Whether all is to be written through."""
        return self._fleet.draining

    def pending(self, id: str) -> Record | None:
        """Return this process's change of a session that DynamoDB does not have yet."""
        pending = self._pending.get(id)
        return pending.record if pending else None

    def change(self, id: str) -> Pending | None:
        """Return the same with what it is to be merged by."""
        return self._pending.get(id)

    def is_revoked(self, id: str) -> bool:
        """Tell whether this process has still to tell DynamoDB that a session is over."""
        return id in self._revoking

    @property
    def untold(self) -> int:
        """How many logouts of this process no region of DynamoDB has been told of yet."""
        return list(self._revoking.values()).count(False)

    @property
    def oldest(self) -> float:
        """Since when the oldest change of this process waits for DynamoDB, 0 if none does."""
        since = [pending.record.dirty_since for pending in list(self._pending.values())]
        return min(since + list(self._apart.values()), default=0.0)

    @property
    def pending_count(self) -> int:
        """How many changes and logouts of this process DynamoDB has still to be told."""
        return len(self._pending) + len(self._apart) + self.untold

    def write_later(self, pending: Pending, delay: float) -> None:
        """Bring a change to DynamoDB within ``delay`` seconds.

        A later version of the session takes its place, and still knows where it started from.
        """
        record = pending.record
        # Jitter, so that the sessions of a morning's rush do not stay in step all day.
        delay *= random.uniform(0.9, 1.0)  # noqa: S311
        with self._lock:
            earlier = self._pending.get(record.id)
            if earlier is not None:
                self._pending_bytes -= earlier.size
                if earlier.record.includes(record):
                    pending = earlier  # two saves of this process have overtaken each other
                elif not record.includes(earlier.record):
                    self._write_apart(earlier)
                elif earlier.merge is not None:
                    pending = replace(earlier, record=record)
            self._pending[record.id] = pending
            self._pending_bytes += pending.size
            if self._pending_bytes > MAX_PENDING_BYTES or self.draining:
                delay = 0.0
            self._jobs.put(("write", record.id), delay, partial(self._write, record.id), vital=True)

    def write_now(self, id: str) -> None:
        """Bring what is pending of a session to DynamoDB, if that answers."""
        self._write(id)

    def _write_apart(self, pending: Pending) -> None:
        # The hot tier had lost this one before the next was made: neither has the other's change.
        key = ("write", pending.record.id, pending.record.lineage)
        self._apart[key] = pending.record.dirty_since
        self._jobs.put(key, 0.0, partial(self._bring_apart, key, pending), vital=True)

    def reborn(self, record: Record) -> None:
        """Take it that the hot tier, filled with ``record``, has what is pending of it again.

        Else that would be written as a version that those to come do not include.
        """
        with self._lock:
            pending = self._pending.get(record.id)
            if pending is not None and record.same_as(pending.record):
                self._pending[record.id] = replace(pending, record=record)

    def note_later(self, written: Record, started: float) -> None:
        """Note in the hot tier that DynamoDB held ``written`` at ``started``."""
        self.settled(written)
        self._jobs.put(("note", written.id), 0.0, partial(self._note, written, started))

    def renew_later(self, id: str, merge: Merge | None = None) -> None:
        """Renew the lease of a session before its user has to wait for it. See ``of_others``."""
        if self._background and self._hot.atomic and ("renew", id) not in self._jobs:
            self._jobs.put(("renew", id), 0.0, partial(self._renew, id, merge))

    def revoke_later(self, id: str, expires: int, *, told: bool) -> None:
        """Tell every region of a logout as soon as it answers. ``told``: one of them knows."""
        self._revoking[id] = told
        self._jobs.put(
            ("revoke", id), _RETRY_SECONDS, partial(self._revoke, id, expires), vital=True
        )

    def revoke_user_later(self, owner: str, before: float, expires: int) -> None:
        """Tell the rest of the regions that a user was logged out everywhere."""
        action = partial(self._revoke_user, owner, before, expires)
        self._jobs.put(("revoke user", owner), _RETRY_SECONDS, action, vital=True)

    def bury_later(self, id: str, expires: int) -> None:
        """Put a tombstone as soon as the hot tier answers: it may still hold the session."""
        self._jobs.put(("bury", id), _RETRY_SECONDS, partial(self._bury, id, expires))

    def forget(self, id: str) -> None:
        """Drop what is pending of a session that has ended."""
        with self._lock:
            self._forget(id)

    def settled(self, written: Record) -> None:
        """Drop what is pending of a session up to the version that DynamoDB holds now."""
        with self._lock:
            pending = self._pending.get(written.id)
            if pending is not None and written.includes(pending.record):
                self._forget(written.id)

    def listen(self) -> None:
        """Without a background thread: hear now of what was ordered since the last request."""
        if not self._background:
            self._polls.run_due(_INLINE_BUDGET)

    def run_due(self) -> None:
        """Without a background thread: do the due work now."""
        if not self._background:
            self._polls.run_due(_INLINE_BUDGET)
            self._jobs.run_due(_INLINE_BUDGET)

    def every_now_and_then(self, name: str, delay: float, action: Action) -> None:
        """Run something that is no work on sessions in the thread that polls, first in ``delay``.

        It returns after how many seconds it is to be run again.
        """
        self._polls.put(name, delay, action, vital=True)

    def probe_later(self) -> None:
        """Find out when a tier that has gone down answers again: no request is to wait for that."""
        self._polls.put("probe", _PROBE_SECONDS, self._probe, vital=True)

    def hurry(self) -> None:
        """Write what is pending now: the hot tier, which has it too, is down or empty."""
        self._jobs.hurry()

    def flush(self, timeout: float) -> int:
        """Write all that is pending; return how much could not be, within ``timeout`` seconds."""
        return self._jobs.drain(timeout)

    def close(self, timeout: float) -> None:
        """Flush and stop. What DynamoDB did not take in time stays in the hot tier only."""
        self._polls.close()
        left = self.flush(timeout)
        if left:
            self._metrics.count("lost_writes", left)
            logger.error("%d changes did not reach DynamoDB before this process ended.", left)
        self._fleet.leave(self.last_words(), missed=left > 0)
        self._jobs.close()

    def _poll(self) -> float:
        if self._hot.check_tokens():
            self._metrics.count("hot_lost")
            logger.warning("The hot tier lost its contents; writing what is pending.")
            self.hurry()
        with contextlib.suppress(HotUnavailable):
            self._fleet.look()
        if self.draining:
            self.hurry()
        with contextlib.suppress(HotUnavailable):
            self._fleet.tell(self.pending_count, self.oldest, self.untold)
        return POLL_SECONDS

    def _probe(self) -> float | None:
        self._hot.probe()
        if self._cold.probe():
            self.hurry()  # what has waited for it
        return None if self._hot.is_up and self._cold.is_up else _PROBE_SECONDS

    def _write(self, id: str) -> float | None:
        pending = self._pending.get(id)
        if pending is None:
            return None
        again = self._bring(pending)
        if again is None:
            self.settled(pending.record)
        return again

    def _bring_apart(self, key: Hashable, pending: Pending) -> float | None:
        again = self._bring(pending)
        if again is None:
            self._apart.pop(key, None)
        return again

    def _bring(self, pending: Pending) -> float | None:
        if self._cold.is_down:
            return _RETRY_SECONDS
        try:
            self._reconciler.flush(pending)
        except SessionUnreadable:
            pass  # logged; a retry would read the same, and the hot tier still has the session
        except (ColdUnavailable, HotUnavailable) as error:
            signals.cold_write_failed.send_robust(
                sender=type(self), id=label(pending.record.id), error=type(error).__name__
            )
            return _RETRY_SECONDS
        return None

    def _forget(self, id: str) -> None:
        self._jobs.cancel(("write", id))
        pending = self._pending.pop(id, None)
        if pending is not None:
            self._pending_bytes -= pending.size

    def _note(self, written: Record, started: float) -> float | None:
        try:
            self._reconciler.note(written, started)
        except HotUnavailable:
            return _RETRY_SECONDS
        return None

    def _renew(self, id: str, merge: Merge | None) -> None:
        try:
            answer: HotAnswer = self._hot.get(id)
            if answer.record is not None:
                pending = self.change(id) or of_others(answer.record, merge)
                self._reconciler.renew(answer, pending)
        except (HotUnavailable, ColdUnavailable, SessionUnreadable):
            pass  # the next hit asks again; past the lease the request does it itself

    def _revoke(self, id: str, expires: int) -> float | None:
        try:
            if not self._cold.revoke(id, expires):
                self._revoking[id] = True
                return _RETRY_SECONDS
        except ColdUnavailable:
            return _RETRY_SECONDS
        self._revoking.pop(id, None)
        return None

    def _revoke_user(self, owner: str, before: float, expires: int) -> float | None:
        with contextlib.suppress(ColdUnavailable):
            if self._cold.revoke_user(owner, before, expires):
                return None
        return _RETRY_SECONDS

    def _bury(self, id: str, expires: int) -> float | None:
        if self._now() >= expires:
            return None
        try:
            self._hot.bury(id, expires - self._now())
        except HotUnavailable:
            return _RETRY_SECONDS
        return None
