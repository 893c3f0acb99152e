"""How a session of another engine gets into DynamoDB: at most once, and never after its end."""

import contextlib
import logging
import time
from collections.abc import Callable

from .cold import ColdTier
from .exceptions import ConditionFailed, SessionEnded
from .keys import Keyring, label
from .metrics import Metrics
from .reconcile import Reconciler
from .record import Record, encode_cold

logger = logging.getLogger(__name__)


class Adopter:
    """Takes sessions over. ``lease`` is in seconds."""

    def __init__(
        self,
        cold: ColdTier,
        reconciler: Reconciler,
        keyring: Keyring,
        metrics: Metrics,
        *,
        lease: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cold = cold
        self._reconciler = reconciler
        self._keyring = keyring
        self._metrics = metrics
        self._lease = lease
        self._now = now

    def adopt(self, record: Record) -> Record:
        """Write a session to DynamoDB unless it has one of this id; return what stands.

        A session that is too large for DynamoDB is returned as it is: only the hot tier will have
        it. Raises ``SessionEnded``, ``ColdUnavailable``, ``SessionUnreadable``.
        """
        if not self._cold.exists:
            self._metrics.count("moved")
            return record
        if not self._reconciler.fits(record):
            self._metrics.count("oversize")
            logger.warning(
                "Session %s has %d bytes, over DynamoDB's 400 KB: it stays where it was, and is"
                " copied to the hot tier only.",
                label(record.id),
                len(record.payload),
            )
            return record
        with contextlib.suppress(ConditionFailed):
            self._cold.put_first(encode_cold(record, self._keyring, ordered=False))
        return self._what_stands(record)

    def _what_stands(self, record: Record) -> Record:
        # After the write: a logout before it has left a revocation, one after it deletes the item.
        try:
            found = self._reconciler.read(record.id, record)
        except SessionEnded:
            self._cold.revoke(record.id, int(record.expires + self._lease) + 1)
            raise
        if found is None:
            raise SessionEnded("it has expired here")
        if found.same_as(record):
            self._metrics.count("moved")
        return found
