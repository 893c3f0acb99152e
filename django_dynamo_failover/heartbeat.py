"""The heartbeat of this site in the table, by which the other sites know of it."""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence

from .cold import ColdTier
from .dynamo import DynamoTable
from .dynamo_sites import Site, note_site, put_heartbeat, read_sites
from .exceptions import (
    ColdMisconfigured,
    ColdUnavailable,
    HotUnavailable,
    Unreadable,
    ValueTooLarge,
)
from .hot import HotTier
from .reasons import explain

logger = logging.getLogger(__name__)

#: How often a site leaves its heartbeat, in seconds: one write unit each.
BEAT_SECONDS = 60.0

#: A site that has not been heard of for so long is forgotten.
KEPT_SECONDS = 4 * 7 * 24 * 3600

_TURN = "session-heartbeat"
_TURN_SECONDS = 50
_NOTED_SECONDS = 24 * 3600
_RETRY_SECONDS = 3600

#: All of a beat starts within this: meanwhile the thread does not look at the hot tier.
_BEAT_WITHIN = 2.5


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
        end = time.monotonic() + _BEAT_WITHIN
        up = self._cold.up
        tables = [table for table in self._cold.tables if up[table.name]]
        for number, table in enumerate(tables):
            now = time.monotonic()
            until = now + (end - now) / (len(tables) - number)
            with contextlib.suppress(ColdUnavailable):
                put_heartbeat(table, site, self._expires, until)
                self._note(table, site, end)
                return

    def _note(self, table: DynamoTable, site: Site, until: float) -> None:
        """Note the site among those to look for, once a day."""
        if site.seen < self._note_again_at:
            return
        self._note_again_at = site.seen + _NOTED_SECONDS
        try:
            sites = read_sites(table, until)
            known = {noted.label: noted for noted in sites if not _is_forgotten(noted, site.seen)}
            ours = known.get(site.label)
            if ours is not None and ours.fingerprints != site.fingerprints:
                return  # another key of the same site is for a health check to find
            if ours is not None and ours.seen > site.seen - _NOTED_SECONDS:
                return  # by another process
            forget = {noted.label for noted in sites} - {*known, site.label}
            note_site(table, site, sorted(forget), self._expires, until)
        except (ColdUnavailable, Unreadable) as error:
            if not isinstance(error, ColdMisconfigured | Unreadable):
                self._note_again_at = site.seen + _RETRY_SECONDS
            logger.warning(
                "This site cannot note itself in the table, so that the panel of another one does"
                " not show it: %s.",
                explain(error),
            )

    @property
    def _expires(self) -> int:
        return int(self._now()) + KEPT_SECONDS


def _is_forgotten(site: Site, now: float) -> bool:
    return site.seen <= now - KEPT_SECONDS
