"""What a failover right now would restore: sessions of DynamoDB against this site's hot tier.

Nothing is written.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .dynamo import DynamoTable, fits
from .dynamo_sample import SessionPage, scan_sessions
from .exceptions import Unreadable, ValueTooLarge
from .hot import HotTier, State
from .keys import Keyring
from .record import ColdItem, Record, decode_cold, encode_cold

#: The ids are hashes, so that any part of the table is a random sample of it.
_SEGMENTS = 64
_CALL_SECONDS = 5.0


@dataclass
class Tally:
    """How the sessions of a sample would fare.

    Not restored as they are: ``undecodable`` ones, of which DynamoDB has nothing authentic;
    ``oversize`` ones, with changes that are too large for DynamoDB; ``lost`` ones, of which it has
    an earlier version than it had confirmed. ``ages`` has for each other one in this site's hot
    tier for how many seconds DynamoDB has lacked a change, 0 if it lacks none. Those that have
    ``expired``, or have ``ended`` here, are not in the sample.
    """

    sampled: int = 0
    undecodable: int = 0
    oversize: int = 0
    lost: int = 0
    expired: int = 0
    ended: int = 0
    ages: list[float] = field(default_factory=list)

    @property
    def restorable(self) -> int:
        """How many would be restored, as they were ``ages`` ago."""
        return self.sampled - self.undecodable - self.oversize - self.lost

    def age(self, share: float) -> float | None:
        """Return the age that so many are not above: 0.99 for 99 %, 1 for the maximum."""
        if not self.ages:
            return None
        return sorted(self.ages)[max(0, math.ceil(share * len(self.ages)) - 1)]


class Drill:
    """Compares sessions of a table with a hot tier. ``size`` is how many at most.

    Raises ``ColdUnavailable`` and ``HotUnavailable``.
    """

    def __init__(
        self,
        table: DynamoTable,
        hot: HotTier,
        keyring: Keyring,
        size: int,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._hot = hot
        self._keyring = keyring
        self._size = size
        self._now = now
        self.tally = Tally()

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Look at the sample; ``watch`` is called now and then."""
        for page in self._pages():
            self.tally.undecodable += page.malformed
            self.tally.sampled += page.malformed
            for item in page.items:
                if self.tally.sampled >= self._size:
                    return
                self._look(item)
            watch()

    def _pages(self) -> Iterator[SessionPage]:
        for segment in random.sample(range(_SEGMENTS), _SEGMENTS):
            after = None
            while True:
                until = time.monotonic() + _CALL_SECONDS
                page = scan_sessions(self._table, segment, _SEGMENTS, after, until)
                yield page
                after = page.last
                if after is None:
                    break

    def _look(self, item: ColdItem) -> None:
        now = self._now()
        if item.expires <= now:
            self.tally.expired += 1
            return
        answer = self._hot.get(item.id)
        if answer.state is State.TOMBSTONE:
            self.tally.ended += 1
            return
        self.tally.sampled += 1
        try:
            backup = decode_cold(item, self._keyring, now)
            if answer.record is not None:
                self._compare(answer.record, backup, now)
        except Unreadable:
            self.tally.undecodable += 1

    def _compare(self, held: Record, backup: Record, now: float) -> None:
        """Compare what the hot tier holds with what DynamoDB does."""
        if held.dirty and not self._fits(held):
            self.tally.oversize += 1
        elif _is_before(backup, held) and self._is_lost(held):
            self.tally.lost += 1
        else:
            self.tally.ages.append(max(0.0, now - held.dirty_since) if held.dirty else 0.0)

    def _fits(self, record: Record) -> bool:
        try:
            return fits(encode_cold(record, self._keyring, ordered=True))
        except ValueTooLarge:
            return False

    def _is_lost(self, held: Record) -> bool:
        """Look again: it may have been written since the scan."""
        answer = self._table.read(held.id, time.monotonic() + _CALL_SECONDS)
        if answer.item is None or answer.revoked:
            return False  # it has ended since
        return _is_before(decode_cold(answer.item, self._keyring, self._now()), held)


def _is_before(backup: Record, held: Record) -> bool:
    """Tell whether DynamoDB holds an earlier version than it had confirmed."""
    return backup.version < held.base and backup.modified < held.modified
