"""One session against its item in DynamoDB: the conditional write, and what its failure means."""

import contextlib
import enum
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import signals
from .changes import Pending
from .cold import ColdTier
from .dynamo import MAX_ITEM_BYTES
from .exceptions import (
    ColdUnavailable,
    ConditionFailed,
    HotUnavailable,
    SessionEnded,
    ValueTooLarge,
)
from .hot import HotAnswer, HotTier, State
from .keys import Keyring, label
from .metrics import Metrics
from .reader import Reader
from .record import MAX_PAYLOAD_BYTES, Record, encode_cold

logger = logging.getLogger(__name__)

#: The hot tier, not we, decides who is first: this often a lost race is run again.
_ATTEMPTS = 4

#: A tombstone outlives every request that may have begun before the logout.
TOMBSTONE_SECONDS = 60

#: Of so many writes a process remembers that it could not note them in the hot tier.
_MAX_UNNOTED = 10_000

#: What an item has besides the payload: names of attributes, id, numbers, tag. In bytes.
ITEM_OVERHEAD_BYTES = 300


class Outcome(enum.Enum):
    """What became of a conditional write."""

    WRITTEN = enum.auto()
    #: DynamoDB holds this version or a later one of its lineage, which includes it.
    SUPERSEDED = enum.auto()
    #: DynamoDB holds a version of another lineage.
    DIVERGED = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and unless WRITTEN or ENDED what DynamoDB holds instead."""

    outcome: Outcome
    theirs: Record | None = None


class Reconciler:
    """Makes the two tiers agree on a session.

    All methods raise ``ColdUnavailable`` when DynamoDB does not answer and ``SessionUnreadable``
    when what it holds cannot be trusted; both prove nothing about the session.
    """

    def __init__(
        self,
        hot: HotTier,
        cold: ColdTier,
        keyring: Keyring,
        metrics: Metrics,
        *,
        lease: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hot = hot
        self._cold = cold
        self._reader = Reader(cold, keyring, metrics, now=now)
        self._keyring = keyring
        self._metrics = metrics
        self._lease = lease
        self._now = now
        self._unnoted: dict[str, tuple[Record, float]] = {}
        #: Called with what is to be noted in the hot tier once that answers again.
        self.on_unnoted: Callable[[Record, float], None] = lambda written, started: None

    def read(self, id: str, known: Record | None = None) -> Record | None:
        """Return what DynamoDB holds of a session. See ``Reader.read``."""
        return self._reader.read(id, known)

    def write(self, record: Record, *, ordered: bool) -> Verdict:
        """Write a record unless DynamoDB has moved on, or the session has ended.

        ``ordered``: the hot tier has ordered this version. Raises ``ValueTooLarge``.
        """
        for _ in range(_ATTEMPTS):
            item = encode_cold(record, self._keyring, ordered=ordered)
            try:
                if record.base:
                    self._cold.put_over(item, record.base, item.site)
                else:
                    self._cold.put_new(item)
            except ConditionFailed:
                pass
            else:
                return _WRITTEN
            try:
                theirs, found = self._reader.look(record.id, record, is_known=bool(record.base))
            except SessionEnded:
                return _ENDED
            if found is not None and found.nonce == item.nonce:
                return _WRITTEN  # the first attempt of a put that was repeated
            if theirs is None and (found is not None or not self._outlived(record)):
                return _ENDED
            if theirs is None:
                record = replace(record, base=0)
            elif not ordered or found is None or found.site != item.site:
                return Verdict(Outcome.DIVERGED, theirs)
            elif theirs.version >= record.version:
                return Verdict(Outcome.SUPERSEDED, theirs)
            else:  # an earlier write of this lineage, which the record did not know of
                record = replace(record, base=theirs.version)
        raise ColdUnavailable("lost every race")

    def _outlived(self, record: Record) -> bool:
        # While DynamoDB could not be told that the session goes on, its copy has expired.
        return record.base_expires <= self._now() < record.expires

    def fits(self, record: Record) -> bool:
        """Tell whether a record is small enough for DynamoDB."""
        if len(record.payload) + ITEM_OVERHEAD_BYTES <= MAX_ITEM_BYTES:
            return True
        if len(record.payload) > MAX_PAYLOAD_BYTES:
            return False
        item = encode_cold(record, self._keyring, ordered=False)
        return len(item.data) + ITEM_OVERHEAD_BYTES <= MAX_ITEM_BYTES

    def renew(self, answer: HotAnswer, pending: Pending | None = None) -> Record | None:
        """Make a live hot entry agree with DynamoDB; return what stands now, None if it is over.

        The lease begins anew. The hot entry is replaced by compare-and-swap only. ``pending`` is
        what DynamoDB lacks, and how to merge it: without, a conflict keeps one side whole.
        """
        record, token = answer.record, answer.token
        assert record is not None
        self._metrics.count("renewed")
        started = self._now()
        try:
            found, item = self._reader.look(record.id, record, is_known=bool(record.base))
        except SessionEnded:
            self.end(record)
            return None
        if found is None or item is None:
            if record.base and not self._outlived(record):
                self.end(record)
                return None
            return self._write_back(record, token, pending)
        if found.same_as(record):
            return self._settle(record.agreed(started), token, started)
        record = replace(record, agreed_at=started)
        if found.version == record.base and record.dirty:
            if started < record.dirty_since + self._lease:
                return self._keep(record, token)  # it is written when it is due
            return self._write_back(record, token, pending)
        if found.version > record.version and item.site == record.lineage.hex():
            return found  # a save of this moment, which the hot tier has by now
        if found.version < record.base and found.modified <= record.modified:
            # This region lacks what another one acknowledged.
            return self._write_back(replace(record, base=found.version), token, pending)
        if record.dirty:
            return self._write_back(record, token, pending)
        return self._adopt(found, token)

    def flush(self, pending: Pending) -> None:
        """Bring a change to DynamoDB, or a later one that the hot tier has by now."""
        record = pending.record
        try:
            answer = self._hot.get(record.id)
        except HotUnavailable:
            answer = _UNKNOWN
        if answer.state is State.TOMBSTONE:
            return
        held = answer.record
        if held is None or not held.includes(record):
            # The hot tier does not answer, or had dropped our change and was filled again.
            self._write_back(record, None, pending)
        elif held.dirty:
            # Without compare-and-swap the background thread does not write the hot tier.
            self._write_back(held, answer.token if self._hot.atomic else None, pending)

    def _write_back(
        self, record: Record, token: object, pending: Pending | None = None
    ) -> Record | None:
        """Write what the hot tier ordered, or put it onto what another site wrote meanwhile."""
        for _ in range(_ATTEMPTS):
            started = self._now()
            try:
                verdict = self.write(record, ordered=True)
            except ValueTooLarge:
                return self._keep(record, token)
            if verdict.outcome is Outcome.ENDED:
                self.end(record)
                return None
            if verdict.outcome is not Outcome.DIVERGED:
                return self._settle(record, token, started)
            assert verdict.theirs is not None
            record = self._resolve(record, verdict.theirs, pending)
            if record is verdict.theirs:
                return self._adopt(record, token)
            # The hot tier first: it orders the versions, and may hold a later one by now.
            if token is not None and not self._swap(record, token):
                break
            token = None
        raise ColdUnavailable("lost every race")

    def _resolve(self, ours: Record, theirs: Record, pending: Pending | None) -> Record:
        """Return what is to stand of two versions that do not include each other."""
        merged = pending.merged(ours, theirs) if pending is not None else None
        if merged is not None:
            kept, stands = "merged", ours.on_top_of(theirs, *merged, self._now())
        elif theirs.modified > ours.modified:
            kept, stands = "theirs", theirs
        else:
            kept = "ours"
            stands = ours.on_top_of(theirs, ours.payload, ours.expires, self._now())
        self.report_conflict(ours.id, kept)
        return stands

    def _settle(self, record: Record, token: object, started: float) -> Record:
        written = record.written()
        if token is None or not self._swap(written, token):
            try:
                self.note(record, started)
            except HotUnavailable:
                self.on_unnoted(record, started)
        return written

    def note(self, written: Record, started: float) -> None:
        """Note in the hot tier that DynamoDB held ``written`` at ``started``.

        Where that has lost the session it is put back: else somebody who had read an earlier
        version from DynamoDB would do that next. Raises ``HotUnavailable``.
        """
        for _ in range(_ATTEMPTS if self._hot.atomic else 0):
            answer = self._hot.get(written.id)
            held = answer.record
            if held is None:
                if answer.state is not State.MISS or self._put_back(written):
                    return
                continue
            noted = held.knowing(written, started)
            if noted is held or self._swap(noted, answer.token):
                return
        if len(self._unnoted) >= _MAX_UNNOTED:
            self._unnoted.clear()
        self._unnoted[written.id] = written, started

    def _put_back(self, written: Record) -> bool:
        try:
            return self._hot.add(written.written().unagreed())
        except ValueTooLarge:
            return True

    def refreshed(self, record: Record) -> Record:
        """Return a record from the hot tier with what this process could not note there."""
        if record.id not in self._unnoted:
            return record
        written, started = self._unnoted.pop(record.id, (record, record.agreed_at))
        return record.knowing(written, started) if record.includes(written) else record

    def _keep(self, record: Record, token: object) -> Record:
        """Begin a new lease of an entry that DynamoDB has not ended, though it lacks changes."""
        kept = replace(record, agreed_at=self._now())
        if token is not None and not self._swap(kept, token):
            with contextlib.suppress(HotUnavailable):
                self._prolong(kept)
        return kept

    def _prolong(self, kept: Record) -> None:
        # Saved while DynamoDB was asked. A session that always is would never be renewed.
        answer = self._hot.get(kept.id)
        if answer.record is not None and answer.record.includes(kept):
            self._swap(replace(answer.record, agreed_at=kept.agreed_at), answer.token)

    def _adopt(self, theirs: Record, token: object) -> Record:
        self.report_restored(theirs.id)
        if token is not None:
            self._swap(theirs, token)
        return theirs

    def end(self, record: Record) -> None:
        """Note in the hot tier that DynamoDB says a session is over."""
        self.report_ended(record.id)
        # For as long as a process may remember what it has to write of it. Where that fails the
        # lease is over all the same: whoever reads the entry asks DynamoDB.
        seconds = max(TOMBSTONE_SECONDS, record.expires - self._now())
        with contextlib.suppress(HotUnavailable):
            self._hot.bury(record.id, seconds)

    def _swap(self, record: Record, token: object) -> bool:
        try:
            return self._hot.swap(record, token)
        except (HotUnavailable, ValueTooLarge):
            return False

    def report_ended(self, id: str) -> None:
        """Count and signal that DynamoDB says a session is over."""
        self._metrics.count("ended")
        signals.session_ended.send_robust(sender=type(self), id=label(id))

    def report_restored(self, id: str) -> None:
        """Count and signal that a session came from DynamoDB."""
        self._metrics.count("restored")
        signals.session_restored.send_robust(sender=type(self), id=label(id))

    def report_conflict(self, id: str, kept: str) -> None:
        """Count, log and signal that two sites had changed a session."""
        self._metrics.count("conflicts")
        logger.warning("Session %s was changed by two sites; kept: %s.", label(id), kept)
        signals.session_conflict.send_robust(sender=type(self), id=label(id), kept=kept)


_WRITTEN = Verdict(Outcome.WRITTEN)
_ENDED = Verdict(Outcome.ENDED)
_UNKNOWN = HotAnswer(State.MISS)
