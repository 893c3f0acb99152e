"""The way of a session through both tiers: load and delete here, create and save in ``saving``.

Sessions are named by their storage id and are opaque bytes. ``SessionUnavailable`` says that no
tier could answer; that is never taken for "there is no such session".
"""

import contextlib
import time
from collections.abc import Callable, Sequence

from .adopting import Adopter
from .changes import Draft, Held, of_others
from .cold import ColdTier
from .conf import Config
from .exceptions import (
    ColdUnavailable,
    HotUnavailable,
    SessionEnded,
    SessionExists,
    SessionUnavailable,
    SessionUnreadable,
    ValueTooLarge,
)
from .fleet import Fleet
from .hot import HotAnswer, HotTier, State
from .metrics import Metrics
from .payload import Merge
from .recent import Recent
from .reconcile import Reconciler
from .record import Record, new_record
from .saving import NO_ANSWER, Saver
from .singleflight import SingleFlight
from .writer import Writer

#: After this part of a lease the background thread renews it, so that no active user waits.
_RENEW_AFTER = 2 / 3

#: Asked for a session of which neither tier has a trace: returns one to begin with, if any.
Elsewhere = Callable[[], Draft | None]

#: Asked for what merges three payloads of the session, where that is needed.
Merging = Callable[[], Merge]

#: That part differs by up to this much, so that sessions restored together do not stay in step.
_RENEW_SPREAD = 1 / 6

#: A session that is revoked is not asked for again for so many seconds: not every client gives up
#: a cookie that it is told to. One that is not there may be on its way from another region.
_OVER_SECONDS = 60.0
_MOST_OVER = 10_000

#: No browser keeps a cookie longer than 400 days, so no session is older, in seconds.
_LONGEST_LIFE = 400 * 86_400


class TieredStore:
    """Sessions in two tiers. One a process, shared by its threads."""

    def __init__(
        self,
        config: Config,
        hot: HotTier,
        cold: ColdTier,
        reconciler: Reconciler,
        adopter: Adopter,
        fleet: Fleet,
        writer: Writer,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._lease = config.write_interval
        self._hot = hot
        self._cold = cold
        self._reconciler = reconciler
        self._adopter = adopter
        self._fleet = fleet
        self._writer = writer
        self._metrics = metrics
        self._now = now
        self._reads: SingleFlight[Record | None] = SingleFlight()
        self._over = Recent(_OVER_SECONDS, _MOST_OVER, clock=now)
        self._saver = Saver(config, hot, cold, reconciler, writer, self._reads, metrics, now=now)

    def load(
        self, id: str, elsewhere: Elsewhere | None = None, merging: Merging | None = None
    ) -> Held | None:
        """Return a session, None if it is proven that there is none.

        One hot round trip, and no DynamoDB request while the lease of the hot entry holds.
        What ``elsewhere`` returns is stored, unless the session has ended here. ``merging`` is for
        a conflict that is found at a renewal: without, one side stands as a whole. Raises
        ``SessionUnavailable``.
        """
        self._writer.listen()
        try:
            held = self._load(id, elsewhere, merging)
            if held is not None and self._fleet.has_ended(held.record):
                self._reconciler.end(held.record)
                return None
            return held
        finally:
            self._writer.run_due()

    def create(self, id: str, draft: Draft, *, fresh: bool) -> Held:
        """Store the first version of a session. ``fresh``: its key was made just now.

        Raises ``SessionExists``, ``SessionUnavailable``, ``SessionTooLarge``.
        """
        if not fresh and self.load(id) is not None:
            raise SessionExists("the id is taken")
        return self._saver.create(id, draft)

    def save(self, id: str, draft: Draft, held: Held, merge: Merge) -> Held:
        """Store a new version of a session, merged with what others saved since ``held``.

        Returns what was stored. Raises ``SessionEnded``, ``SessionUnavailable``,
        ``SessionTooLarge``.
        """
        try:
            return self._saver.save(id, draft, held, merge)
        finally:
            self._writer.run_due()

    def delete(self, id: str, expires: float) -> None:
        """End a session for good: tombstone here, revocation for all sites until ``expires``.

        ``expires`` is the latest that any site may think the session lives. Raises
        ``SessionUnavailable`` if the logout cannot be promised.
        """
        # Another site may be serving it, and may save it, for one lease from now.
        revoked_until = int(expires + self._lease) + 1
        # For as long: processes remember what they have to write of it, and a region that was not
        # told may be the one that answers next. It takes less memory than the entry did.
        buried = self._bury(id, revoked_until - self._now())
        if not self._cold.exists:
            if not buried:
                raise SessionUnavailable(NO_ANSWER)
            self._metrics.count("deleted")
            return
        try:
            complete, told = self._cold.revoke(id, revoked_until), True
        except ColdUnavailable as error:
            if not buried:
                raise SessionUnavailable(NO_ANSWER) from error
            complete = told = False
        if not complete:
            self._metrics.count("deletes_delayed")
            self._writer.revoke_later(id, revoked_until, told=told)
        if not buried:
            self._writer.bury_later(id, revoked_until)
        self._metrics.count("deleted")
        self._writer.forget(id)
        self._reads.forget(id)

    def revoke_users(self, owners: Sequence[str], before: float, timeout: float) -> bool:
        """End all sessions of users who logged in before a time, at all sites.

        Returns whether no process of this site serves one any more, which is waited for up to
        ``timeout`` seconds; any other ends them within a lease. Raises ``SessionUnavailable`` if
        that cannot be promised.
        """
        for owner in owners if self._cold.exists else ():
            expires = int(before + _LONGEST_LIFE + self._lease) + 1
            try:
                complete = self._cold.revoke_user(owner, before, expires)
            except ColdUnavailable as error:
                raise SessionUnavailable("DynamoDB does not answer") from error
            if not complete:
                self._writer.revoke_user_later(owner, before, expires)
        try:
            version = self._fleet.revoke(dict.fromkeys(owners, before))
            return self._fleet.wait(version, timeout)
        except HotUnavailable:
            return False

    def _load(self, id: str, elsewhere: Elsewhere | None, merging: Merging | None) -> Held | None:
        try:
            answer = self._hot.get(id)
        except HotUnavailable:
            return self._restore(id, elsewhere, refill=False)
        record = answer.record
        if record is None:
            if answer.state is State.TOMBSTONE:
                return None
            return self._restore(id, elsewhere, refill=answer.state is State.MISS)
        now = self._now()
        pending = self._pending(id)
        if pending is not None and not record.includes(pending):
            if _is_later(pending, record):
                return Held(pending, answer.token)  # the hot tier has forgotten our change
            answer = self._bring(id, answer)
            if answer.record is None:
                return None
            record = answer.record
        if not self._is_trusted(record, now):
            return self._renew(answer, record, merging)
        self._metrics.count("hot_hits")
        if self._cold.exists and now > record.agreed_at + self._lease * _RENEW_AFTER:
            spread = _RENEW_SPREAD * int(id[:4], 16) / 0x10000
            if now > record.agreed_at + self._lease * (_RENEW_AFTER + spread):
                self._writer.renew_later(id, merging() if merging else None)
        return Held(record, answer.token)

    def _bring(self, id: str, answer: HotAnswer) -> HotAnswer:
        """Bring what is pending, which an entry does not include; return what it is then.

        The page waits for it: its user is to see his own changes.
        """
        self._writer.write_now(id)
        try:
            later = self._hot.get(id)
        except HotUnavailable:
            return answer
        return later if later.state in (State.LIVE, State.TOMBSTONE) else answer

    def _is_trusted(self, record: Record, now: float) -> bool:
        if record.expires <= now:
            return False
        if not self._cold.exists:
            return True
        return now < record.agreed_at + self._lease and self._hot.trusts(record)

    def _renew(self, answer: HotAnswer, record: Record, merging: Merging | None) -> Held | None:
        if not self._cold.exists:
            return None  # it has expired: nothing else ends trust without a cold tier
        pending = self._writer.change(record.id)
        if pending is None and merging is not None:
            pending = of_others(record, merging())
        try:
            renewed = self._reads.run(
                ("renew", record.id), lambda: self._reconciler.renew(answer, pending)
            )
        except (ColdUnavailable, SessionUnreadable) as error:
            if record.expires <= self._now() or not record.agreed_at:
                raise SessionUnavailable(NO_ANSWER) from error
            self._metrics.count("trusted")
            return Held(record, answer.token)
        return Held(renewed) if renewed is not None and renewed.expires > self._now() else None

    def _restore(self, id: str, elsewhere: Elsewhere | None, *, refill: bool) -> Held | None:
        """Return a session that the hot tier cannot give, and give it back to the hot tier."""
        self._metrics.count("hot_misses")
        if not self._cold.exists:
            if refill:
                return self._adopt(id, elsewhere, refill=True)
            raise SessionUnavailable(NO_ANSWER)
        if self._writer.is_revoked(id):
            return None  # DynamoDB does not know yet
        # A change of this process that DynamoDB does not have yet must not be forgotten.
        pending = self._pending(id)
        if id in self._over:
            return None
        try:
            record = self._reads.run(id, lambda: self._reconciler.read(id))
        except SessionEnded:
            self._reconciler.report_ended(id)
            self._over.add(id)
            return None
        except ColdUnavailable as error:
            if pending is None:
                raise SessionUnavailable(NO_ANSWER) from error
            record = pending
        if record is None and pending is not None and not pending.base:
            record = pending  # a new session, on its way to DynamoDB
        if record is None:
            adopted = self._adopt(id, elsewhere, refill=refill)
            if adopted is None:
                self._reconciler.report_ended(id)
            return adopted
        if pending is not None and pending.version > record.version:
            record = pending
        self._reconciler.report_restored(id)
        return self._refill(record) if refill else Held(record)

    def _adopt(self, id: str, elsewhere: Elsewhere | None, *, refill: bool) -> Held | None:
        """Return a session that neither tier had, None if there is none elsewhere either."""
        draft = elsewhere() if elsewhere is not None else None
        if draft is None:
            return None
        record = new_record(id, draft.payload, draft.expires, self._now())
        try:
            record = self._adopter.adopt(record)
        except SessionEnded:
            return None
        except ColdUnavailable as error:
            raise SessionUnavailable(NO_ANSWER) from error
        return self._refill(record) if refill else Held(record)

    def _refill(self, record: Record) -> Held | None:
        # add, never set: a logout that came meanwhile has put its tombstone. What else stands
        # there may be older: of somebody who read DynamoDB earlier, and added sooner.
        record = record.reborn()
        try:
            if self._hot.add(record):
                self._writer.reborn(record)
                return Held(record)
            answer = self._hot.get(record.id)
            if answer.record is not None and answer.record.is_outdone_by(record):
                if self._hot.swap(record, answer.token):
                    self._writer.reborn(record)
                return Held(record)
        except HotUnavailable:
            return Held(record)
        except ValueTooLarge:
            # Where that fails the next load tries to refill once more.
            with contextlib.suppress(HotUnavailable):
                self._hot.dig(record.id, None)
            return Held(record)
        if answer.state is State.TOMBSTONE:
            return None
        return Held(record) if answer.record is None else Held(answer.record, answer.token)

    def _pending(self, id: str) -> Record | None:
        pending = self._writer.pending(id)
        return pending if pending is not None and pending.expires > self._now() else None

    def _bury(self, id: str, seconds: float) -> bool:
        try:
            self._hot.bury(id, seconds)
        except HotUnavailable:
            return False
        return True


def _is_later(pending: Record, record: Record) -> bool:
    return pending.version > record.version and pending.modified >= record.modified
