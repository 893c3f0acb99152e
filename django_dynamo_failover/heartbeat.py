"""The heartbeat of this site in the table, by which the other sites know of it."""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence

from .cold import ColdTier
from .dynamo import DynamoTable
from .dynamo_sites import Site, note_site, put_heartbeat, read_sites
from .exceptions import ColdUnavailable, HotUnavailable, Unreadable, ValueTooLarge
from .hot import HotTier
from .reasons import explain

logger = logging.getLogger(__name__)

#: How often a site leaves its heartbeat, in seconds: one write unit each.
BEAT_SECONDS = 60.0

#: A site that has not been heard of for so long is forgotten.
KEPT_SECONDS = 4 * 7 * 24 * 3600

_TURN = "session-heartbeat"
_TURN_SECONDS = 50
_NOTED_SECONDS = 86_400.0
_CALL_SECONDS = 2.5


class Heartbeat:
    """That of the site ``label``, which one of its processes leaves: whoever comes first."""

    def __init__(
        self,
        label: str,
        fingerprints: Sequence[str],
        hot: HotTier,
        cold: ColdTier,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._label = label
        self._fingerprints = tuple(fingerprints)
        self._hot = hot
        self._cold = cold
        self._now = now
        self._note_again_at = 0.0

    def beat(self) -> float:
        """Leave a heartbeat if it is this process's turn; return after how long to try again."""
        if self._is_our_turn():
            self._leave(Site(self._label, self._fingerprints, self._now()))
        return BEAT_SECONDS * random.uniform(0.9, 1.0)  # noqa: S311

    def _is_our_turn(self) -> bool:
        try:
            return self._hot.write_note(_TURN, self._label.encode(), None, _TURN_SECONDS)
        except (HotUnavailable, ValueTooLarge):
            return True  # rather all of them than none

    def _leave(self, site: Site) -> None:
        up = self._cold.up
        for table in self._cold.tables:
            if up[table.name]:
                with contextlib.suppress(ColdUnavailable):
                    put_heartbeat(table, site, self._expires, time.monotonic() + _CALL_SECONDS)
                    self._note(table, site)
                    return

    def _note(self, table: DynamoTable, site: Site) -> None:
        """Note the site among those to look for, once a day."""
        if self._now() < self._note_again_at:
            return
        self._note_again_at = self._now() + _NOTED_SECONDS
        until = time.monotonic() + _CALL_SECONDS
        try:
            known = {noted.label: noted for noted in read_sites(table, until)}.get(site.label)
            # Another key of the same site is for a health check to find.
            if known is None or known.fingerprints == site.fingerprints:
                note_site(table, site, [], self._expires, until)
        except (ColdUnavailable, Unreadable) as error:
            logger.warning(
                "This site cannot note itself in the table, so that the panel of another one does"
                " not show it: %s.",
                explain(error),
            )

    @property
    def _expires(self) -> int:
        return int(self._now()) + KEPT_SECONDS
