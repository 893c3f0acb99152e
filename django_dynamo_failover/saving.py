"""How a request's change gets into the tiers: create and save."""

import contextlib
import logging
import random
import time
from collections.abc import Callable

from .changes import Change, Draft, Held, Pending
from .cold import ColdTier
from .conf import Config
from .exceptions import (
    ColdUnavailable,
    HotUnavailable,
    SessionEnded,
    SessionExists,
    SessionTooLarge,
    SessionUnavailable,
    ValueTooLarge,
)
from .hot import HotTier, State
from .keys import label
from .metrics import Metrics
from .payload import Merge
from .reconcile import TOMBSTONE_SECONDS, Outcome, Reconciler, Verdict
from .record import Record, new_record
from .singleflight import SingleFlight
from .writer import Writer

logger = logging.getLogger(__name__)

#: A save that loses so many races in a row gives up. One of the racers wins each round.
_ATTEMPTS = 20

#: After so many lost races a save waits a moment, so that not always the same one loses.
_PATIENCE = 3

#: DynamoDB's copy is written again when it has this many seconds left before it expires.
_EXPIRY_MARGIN = 5.0

NO_ANSWER = "no tier answers"


class Saver:
    """Creates and saves sessions.

    The hot tier orders the versions by compare-and-swap; where it has nothing to swap, the
    conditional write of DynamoDB does.
    """

    def __init__(
        self,
        config: Config,
        hot: HotTier,
        cold: ColdTier,
        reconciler: Reconciler,
        writer: Writer,
        flights: SingleFlight[Record | None],
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._hot = hot
        self._cold = cold
        self._reconciler = reconciler
        self._writer = writer
        self._flights = flights
        self._metrics = metrics
        self._now = now

    def create(self, id: str, draft: Draft) -> Held:
        """Store the first version of a session.

        Raises ``SessionExists``, ``SessionUnavailable``, ``SessionTooLarge``.
        """
        record = new_record(id, draft.payload, draft.expires, self._now())
        goes_cold = self._goes_cold(record)
        try:
            if not self._hot.add(record):
                raise SessionExists("the id is taken")
        except (HotUnavailable, ValueTooLarge) as error:
            return self._create_in_cold(record, error)
        self._metrics.count("created")
        if goes_cold and draft.through:
            try:
                self._write_through(record, None)
            except SessionUnavailable:
                # No browser will ever hear of this key.
                self._writer.forget(id)
                with contextlib.suppress(HotUnavailable):
                    self._hot.bury(id, TOMBSTONE_SECONDS)
                raise
        elif goes_cold:
            return self._write_behind(record, None, self._config.new_session_delay)
        return Held(record)

    def save(self, id: str, draft: Draft, held: Held, merge: Merge) -> Held:
        """Store a new version of a session, merged with what others saved since ``held``.

        Returns what was stored. Raises ``SessionEnded``, ``SessionUnavailable``,
        ``SessionTooLarge``.
        """
        self._metrics.count("saves")
        change = Change(draft, held, merge, self._metrics)
        try:
            record = self._save_in_hot(id, change)
        except ValueTooLarge as error:
            stored = self._save_in_cold(id, change, error)
            self._dig(id)
            return stored
        except HotUnavailable as error:
            return self._save_in_cold(id, change, error)
        if record is None:
            return self._save_in_cold(id, change, None)
        if self._goes_cold(record):
            if draft.through:
                return self._write_through(record, change)
            return self._write_behind(record, change, self._write_delay(record))
        return Held(record)

    def _write_behind(self, record: Record, change: Change | None, delay: float) -> Held:
        """Leave it to the writer to bring a version to DynamoDB, but write it while draining."""
        if self._writer.draining:
            with contextlib.suppress(SessionUnavailable):
                return self._write_through(record, change)
        self._writer.write_later(_pending(record, change), delay)
        return Held(record)

    def _save_in_hot(self, id: str, change: Change) -> Record | None:
        """Compare-and-swap until it holds; None if the hot tier has no entry to build on."""
        draft, held = change.draft, change.held
        payload, expires = draft.payload, draft.expires
        current, token = held.record, held.token
        for attempt in range(_ATTEMPTS):
            if attempt > _PATIENCE:
                if attempt == _PATIENCE + 1:
                    self._metrics.count("contended")
                    logger.warning("Session %s: many saves at the same time.", label(id))
                time.sleep(random.uniform(0, 0.005))  # noqa: S311
            if token is None:
                answer = self._hot.get(id)
                if answer.state is State.TOMBSTONE:
                    raise SessionEnded("it was deleted")
                if answer.state is State.UNREADABLE:
                    raise HotUnavailable("what it holds is not ours to replace")
                if answer.record is None:
                    return None
                current, token = answer.record, answer.token
                payload, expires = change.onto(current)
                if not change.goes_on_from(current):
                    current = held.record.reborn()  # the hot tier has forgotten that one
            current = self._reconciler.refreshed(current)
            record = current.changed(payload, expires, self._now())
            if self._config.oversize == "raise":
                self._goes_cold(record)
            if self._hot.swap(record, token):
                return record
            token = None
        logger.error("Session %s: a save lost %d races in a row.", label(id), _ATTEMPTS)
        raise SessionUnavailable("lost every race")

    def _write_delay(self, record: Record) -> float:
        shortest = self._config.new_session_delay
        if not record.base:
            return shortest
        due = record.dirty_since + self._config.write_interval
        # A session shorter than the interval: its copy must not expire while it goes on.
        due = min(due, record.base_expires - _EXPIRY_MARGIN)
        # Never at once: the hot tier may not have been told yet of a write just done.
        return max(shortest, due - self._now())

    def _goes_cold(self, record: Record) -> bool:
        """Tell whether DynamoDB is to get a record. Raises ``SessionTooLarge``."""
        if not self._cold.exists:
            return False
        if self._reconciler.fits(record):
            return True
        self._report_oversize(record, "DynamoDB's 400 KB")
        return False

    def _report_oversize(self, record: Record, limit: str) -> None:
        self._metrics.count("oversize")
        message = f"Session {label(record.id)} has {len(record.payload)} bytes, over {limit}."
        if self._config.oversize == "raise":
            raise SessionTooLarge(message + " Store less in it.")
        logger.warning("%s It will survive the loss of one tier less.", message)

    # -- DynamoDB inside the request

    def _write_through(self, record: Record, change: Change | None) -> Held:
        """Write a version that the hot tier has ordered; resolve it if another site moved on."""
        for _ in range(_ATTEMPTS):
            started = self._now()
            try:
                verdict = self._reconciler.write(record, ordered=True)
            except ColdUnavailable as error:
                # It stands in the hot tier, but it is not durable: the response must not say so.
                self._writer.write_later(_pending(record, change), 0.0)
                raise SessionUnavailable("DynamoDB does not answer") from error
            if verdict.outcome is Outcome.ENDED:
                self._reconciler.end(record)
                raise SessionEnded("DynamoDB says so")
            if verdict.outcome is not Outcome.DIVERGED:
                self._writer.note_later(record, started)
                return Held(record)
            if change is None:
                raise SessionExists("the id is taken")
            assert verdict.theirs is not None
            record = self._order(record, verdict.theirs, change)
        raise SessionUnavailable("lost every race")

    def _order(self, record: Record, theirs: Record, change: Change) -> Record:
        """Merge with another site's version, and let the hot tier order the result."""
        payload, expires = change.onto(theirs, record)
        merged = record.on_top_of(theirs, payload, expires, self._now())
        try:
            answer = self._hot.get(record.id)
            held = answer.record
            ordered = (
                held is not None and held.same_as(record) and self._hot.swap(merged, answer.token)
            )
        except (HotUnavailable, ValueTooLarge):
            return merged
        if answer.state is State.TOMBSTONE:
            raise SessionEnded("it was deleted")
        if ordered or held is None or not held.includes(record):
            return merged
        return held  # another request saved on top of ours: its version includes ours

    def _create_in_cold(self, record: Record, error: Exception) -> Held:
        verdict = self._write_alone(record, error)
        if verdict.outcome is not Outcome.WRITTEN:
            raise SessionExists("the id is taken")
        self._metrics.count("created")
        return Held(record.written())

    def _save_in_cold(self, id: str, change: Change, error: Exception | None) -> Held:
        """Save what the hot tier has no entry for (evicted), or with ``error`` cannot take.

        DynamoDB orders the versions then, and tells whether the session has ended.
        """
        self._require_cold(error)
        current = self._latest(id, change.held)
        if self._writer.is_revoked(id):
            raise SessionEnded("DynamoDB says so")
        payload, expires = change.onto(current)
        # Reborn: another process may have gone on in that lineage before the hot tier lost it.
        record = alone = current.reborn().changed(payload, expires, self._now())
        for _ in range(_ATTEMPTS):
            verdict = self._write_alone(record, error)
            if verdict.outcome is Outcome.ENDED:
                raise SessionEnded("DynamoDB says so")
            if verdict.theirs is None:
                break
            payload, expires = change.onto(verdict.theirs, record)
            record = record.on_top_of(verdict.theirs, payload, expires, self._now())
        else:
            raise SessionUnavailable("lost every race")
        self._flights.forget(id)
        now = self._now()
        written = record.written()
        if record is alone:  # else what was pending before is still to be merged in
            self._writer.settled(current)
        if not record.base:
            self._check_revoked(id)
        if error is None:
            self._fill(written, now)
        elif isinstance(error, HotUnavailable):
            self._writer.note_later(written, now)  # when it answers again: it has an older one
        return Held(written)

    def _latest(self, id: str, held: Held) -> Record:
        """Return the latest version that this process knows of."""
        pending = self._writer.pending(id)
        if pending is None or pending.version <= held.record.version:
            return held.record
        return pending

    def _require_cold(self, error: Exception | None) -> None:
        if self._cold.exists:
            return
        if isinstance(error, HotUnavailable):
            raise SessionUnavailable(NO_ANSWER) from error
        if isinstance(error, ValueTooLarge):
            self._metrics.count("oversize")
            raise SessionTooLarge("The session is too large. Store less in it.") from error
        raise SessionEnded("it is not there")

    def _write_alone(self, record: Record, error: Exception | None) -> Verdict:
        """Write to DynamoDB a version that no hot tier has ordered, for the reason of ``error``."""
        self._require_cold(error)
        too_large = isinstance(error, ValueTooLarge)
        if too_large:
            self._report_oversize(record, "the limit of the hot tier")
        try:
            return self._reconciler.write(record, ordered=False)
        except ValueTooLarge:
            self._metrics.count("oversize")
            if too_large or self._config.oversize == "raise":
                raise SessionTooLarge("The session is too large. Store less in it.") from error
            raise SessionUnavailable("too large for DynamoDB, and no hot tier") from error
        except ColdUnavailable as cold_error:
            raise SessionUnavailable(NO_ANSWER) from cold_error

    def _check_revoked(self, id: str) -> None:
        # An update fails where a logout deleted the item; the first write of a session does not.
        try:
            self._reconciler.read(id)
        except ColdUnavailable as error:
            raise SessionUnavailable(NO_ANSWER) from error

    def _fill(self, record: Record, started: float) -> None:
        with contextlib.suppress(HotUnavailable, ValueTooLarge):  # DynamoDB has it
            if not self._hot.add(record.reborn()):
                self._reconciler.note(record, started)  # somebody refilled an earlier version

    def _dig(self, id: str) -> None:
        # What the hot tier holds is older than what it refuses.
        try:
            answer = self._hot.get(id)
            if answer.state is State.TOMBSTONE:
                raise SessionEnded("it was deleted")
            if answer.record is not None:
                self._hot.dig(id, answer.token)
        except HotUnavailable:
            pass


def _pending(record: Record, change: Change | None) -> Pending:
    return change.pending(record) if change else Pending(record)
