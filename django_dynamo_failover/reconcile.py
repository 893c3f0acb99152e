"""One session against its item in DynamoDB: the conditional write, and what its failure means."""

import contextlib
import enum
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import signals
from .cold import ColdTier
from .dynamo import MAX_ITEM_BYTES
from .exceptions import (
    ColdUnavailable,
    ConditionFailed,
    HotUnavailable,
    SessionUnreadable,
    Unreadable,
    ValueTooLarge,
)
from .hot import HotAnswer, HotTier, State
from .keys import Keyring, label
from .metrics import Metrics
from .payload import Merge
from .record import ColdItem, Record, decode_cold, encode_cold

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
    #: DynamoDB holds this version or a later one, written by this hot tier.
    SUPERSEDED = enum.auto()
    #: DynamoDB holds a version that this hot tier did not order.
    DIVERGED = enum.auto()
    #: DynamoDB holds an earlier version of this hot tier, of which the record does not know.
    EARLIER = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and unless WRITTEN or ENDED what DynamoDB holds instead."""

    outcome: Outcome
    theirs: Record | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that DynamoDB does not have yet.

    ``loaded`` is the payload that the first of the pending saves of this process started from,
    and ``merge`` puts what they changed onto another version.
    """

    record: Record
    loaded: bytes = b""
    merge: Merge | None = None


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
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hot = hot
        self._cold = cold
        self._keyring = keyring
        self._metrics = metrics
        self._now = now
        self._unnoted: dict[str, tuple[Record, float]] = {}

    def read(self, id: str) -> Record | None:
        """Return what DynamoDB holds of a session, None if it proves that the session is over."""
        try:
            item = self._cold.read(id).alive(self._now())
            return None if item is None else decode_cold(item, self._keyring, self._now())
        except Unreadable as error:
            raise self._refused(id, error) from None

    def write(self, record: Record, site: str) -> Verdict:
        """Write a record unless DynamoDB has moved on, or the session has ended.

        ``site`` is the token of the hot tier that ordered this version; empty if none did.
        Raises ``ValueTooLarge``.
        """
        for _ in range(_ATTEMPTS):
            item = encode_cold(record, site, self._keyring)
            try:
                if record.base:
                    self._cold.put_over(item, record.base, site)
                else:
                    self._cold.put_new(item)
            except ConditionFailed:
                verdict = self._judge(record, item)
            else:
                return _WRITTEN
            if verdict.outcome is not Outcome.EARLIER:
                return verdict
            assert verdict.theirs is not None
            record = replace(record, base=verdict.theirs.version)
        raise ColdUnavailable("lost every race")

    def _judge(self, record: Record, item: ColdItem) -> Verdict:
        try:
            found = self._cold.read(record.id).alive(self._now())
            if found is None:
                return _ENDED
            if found.nonce == item.nonce:
                return _WRITTEN  # the first attempt of a put that botocore repeated
            theirs = decode_cold(found, self._keyring, self._now())
        except Unreadable as error:
            raise self._refused(record.id, error) from None
        if not item.site or found.site != item.site:
            return Verdict(Outcome.DIVERGED, theirs)
        if theirs.version >= record.version:
            return Verdict(Outcome.SUPERSEDED, theirs)
        return Verdict(Outcome.EARLIER, theirs)

    def fits(self, record: Record) -> bool:
        """Tell whether a record is small enough for DynamoDB."""
        if len(record.payload) + ITEM_OVERHEAD_BYTES <= MAX_ITEM_BYTES:
            return True
        item = encode_cold(record, "", self._keyring)
        return len(item.data) + ITEM_OVERHEAD_BYTES <= MAX_ITEM_BYTES

    def site(self) -> str:
        """Return the token of this hot tier, empty if it cannot be asked and never was."""
        try:
            return self._hot.site_token()
        except HotUnavailable:
            return ""

    def renew(self, answer: HotAnswer) -> Record | None:
        """Make a live hot entry agree with DynamoDB; return what stands now, None if it is over.

        The lease begins anew. The hot entry is replaced by compare-and-swap only.
        """
        record, token = answer.record, answer.token
        assert record is not None
        self._metrics.count("renewed")
        if record.dirty:
            return self._write_back(record, token)
        found = self.read(record.id)
        if found is None:
            self.end(record.id)
            return None
        if found.version < record.version:
            # This region has lost, or does not have yet, what another one acknowledged.
            return self._write_back(record.ahead_of(found, self._now()), token)
        if same(found, record):
            return self._settle(record, token, self._now())
        return self._adopt(found, token)

    def flush(self, pending: Pending) -> None:
        """Bring a change to DynamoDB, or a later one that the hot tier has by now."""
        newest, token = pending.record, None
        try:
            answer = self._hot.get(newest.id)
        except HotUnavailable:
            answer = _UNKNOWN
        if answer.state is State.TOMBSTONE:
            return
        held = answer.record
        if held is not None:
            # Without compare-and-swap the background thread does not write the hot tier.
            token = answer.token if self._hot.atomic else None
            if held.version < newest.version:
                newest = self._forgotten(held, pending)
            elif held.dirty:
                newest = held
            else:
                return  # another process was first
        self._write_back(newest, token)

    def _forgotten(self, held: Record, pending: Pending) -> Record:
        # The hot tier had dropped our change and was filled again with an earlier version.
        ours = pending.record
        base = replace(ours, base=max(held.base, ours.base))
        if held.modified <= ours.modified:
            return base
        if pending.merge is None:
            self._report_conflict(held.id, "theirs")
            return replace(held, version=ours.version + 1)
        self._metrics.count("merged")
        payload = pending.merge(pending.loaded, ours.payload, held.payload)
        return base.changed(payload, held.expires, self._now())

    def _write_back(self, record: Record, token: object) -> Record | None:
        for _ in range(_ATTEMPTS):
            started = self._now()
            try:
                verdict = self.write(record, self.site())
            except ValueTooLarge:
                return self._keep_oversize(record, token)
            if verdict.outcome is Outcome.ENDED:
                self.end(record.id)
                return None
            theirs = verdict.theirs
            if theirs is None or same(theirs, record):
                return self._settle(record, token, started)
            if verdict.outcome is Outcome.SUPERSEDED and token is None:
                return theirs  # the hot tier had ordered both
            if theirs.modified > record.modified:
                self._report_conflict(record.id, "theirs")
                return self._adopt(theirs, token)
            self._report_conflict(record.id, "ours")
            record = record.on_top_of(theirs, record.payload, started)
            # The hot tier first: it orders the versions, and may hold a later one by now.
            if token is not None and not self._swap(record, token):
                break
            token = None
        raise ColdUnavailable("lost every race")

    def _settle(self, record: Record, token: object, started: float) -> Record:
        agreed = record.agreed(started)
        if token is None or not self._swap(agreed, token):
            with contextlib.suppress(HotUnavailable):
                self.note(record, started)
        return agreed

    def note(self, written: Record, started: float) -> None:
        """Note in the hot tier that DynamoDB held ``written`` at ``started``.

        Raises ``HotUnavailable``.
        """
        for _ in range(_ATTEMPTS if self._hot.atomic else 0):
            answer = self._hot.get(written.id)
            held = answer.record
            if held is None or held.base >= written.version:
                return
            if held.version <= written.version and held.modified > written.modified:
                return  # a change made while the hot tier lacked ours; its own write decides
            if self._swap(_knowing(held, written, started), answer.token):
                return
        if len(self._unnoted) >= _MAX_UNNOTED:
            self._unnoted.clear()
        self._unnoted[written.id] = written, started

    def refreshed(self, record: Record) -> Record:
        """Return a record from the hot tier with what this process could not note there."""
        if record.id not in self._unnoted:
            return record
        written, started = self._unnoted.pop(record.id, (record, record.agreed_at))
        if written.version <= record.base or written.version > record.version:
            return record
        return _knowing(record, written, started)

    def _adopt(self, theirs: Record, token: object) -> Record:
        self.report_restored(theirs.id)
        if token is not None:
            self._swap(theirs, token)
        return theirs

    def end(self, id: str) -> None:
        """Note in the hot tier that DynamoDB says a session is over."""
        self.report_ended(id)
        # Where that fails the lease is over all the same: whoever reads the entry asks DynamoDB.
        with contextlib.suppress(HotUnavailable):
            self._hot.bury(id, TOMBSTONE_SECONDS)

    def _keep_oversize(self, record: Record, token: object) -> Record | None:
        # DynamoDB cannot hold this version, but it still knows whether the session has ended.
        if record.base and self.read(record.id) is None:
            self.end(record.id)
            return None
        kept = replace(record, agreed_at=self._now())
        if token is not None:
            self._swap(kept, token)
        return kept

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

    def _report_conflict(self, id: str, kept: str) -> None:
        self._metrics.count("conflicts")
        logger.warning("Session %s was changed by two sites; kept: %s.", label(id), kept)
        signals.session_conflict.send_robust(sender=type(self), id=label(id), kept=kept)

    def _refused(self, id: str, error: Unreadable) -> SessionUnreadable:
        self._metrics.count("cold_unreadable")
        logger.error("Session %s: %s; refused, and left as it is.", label(id), error)
        return SessionUnreadable(str(error))


def _knowing(held: Record, written: Record, started: float) -> Record:
    """Return a hot entry that knows that DynamoDB held ``written`` at ``started``."""
    if held.version > written.version:
        return held.ahead_of(written, started)
    return written.agreed(started)


def same(one: Record, other: Record) -> bool:
    """Tell whether two records are the same version and not only of the same number."""
    return one.version == other.version and one.modified == other.modified


_WRITTEN = Verdict(Outcome.WRITTEN)
_ENDED = Verdict(Outcome.ENDED)
_UNKNOWN = HotAnswer(State.MISS)
