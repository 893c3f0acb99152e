"""Whether sessions can be served right now, and whether a failover right now would lose nothing.

Both from what this process knows already: it may be asked every second, by many.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .cold import ColdTier
from .fleet import SLOTS, Fleet, Member
from .hot import HotTier
from .writer import Writer

logger = logging.getLogger(__name__)

#: What the other processes tell is read so often at most, in seconds.
FRESH_SECONDS = 1.0

#: What was read longer ago is not believed: whoever reads it has been stuck.
STALE_SECONDS = 3.0

#: Who comes while it is read for the first time waits so long for that, in seconds.
_FIRST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Failover:
    """What a failover right now would find. It would lose nothing if there are no ``reasons``.

    ``pending`` counts the changes and logouts of all ``processes`` of the site that DynamoDB has
    still to be told; ``logouts`` only the latter. ``oldest`` is since when a change waits, in epoch
    seconds, 0 if none does.
    """

    reasons: tuple[str, ...]
    pending: int
    oldest: float
    logouts: int
    processes: int
    draining: bool


@dataclass(frozen=True, slots=True)
class _Heard:
    """The processes of the site at one moment; ``all``: there can be no others."""

    at: float
    members: Sequence[Member]
    all: bool


class Readiness:
    """That of one process. Nothing here raises, and only ``failover`` asks anyone anything."""

    def __init__(
        self,
        hot: HotTier,
        cold: ColdTier,
        fleet: Fleet,
        writer: Writer,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hot = hot
        self._cold = cold
        self._fleet = fleet
        self._writer = writer
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._reading = False
        self._read_again_at = float("-inf")
        self._heard: _Heard | None = None
        self._has_read = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether each session can be had: all of the hot tier, or some region, is up."""
        return self._hot.is_up or not self._cold.is_down

    @property
    def tiers(self) -> dict[str, bool]:
        """Which tier is thought to answer: "hot" and each region, nearest first."""
        return {"hot": self._hot.is_up, **self._cold.up}

    def failover(self) -> Failover:
        """Tell what a failover would find; asks the hot tier every ``FRESH_SECONDS`` at most."""
        heard = self._listen()
        members = heard.members if heard else ()
        # What this process holds is known better than it was told.
        others = [member for member in members if member.id != self._fleet.id]
        pending = self._writer.pending_count + sum(member.pending for member in others)
        oldest = [self._writer.oldest, *(member.oldest for member in others)]
        return Failover(
            reasons=tuple(self._reasons(heard, pending)),
            pending=pending,
            oldest=min(filter(None, oldest), default=0.0),
            logouts=self._writer.untold + sum(member.logouts for member in others),
            processes=len(members),
            draining=self._fleet.draining,
        )

    def _reasons(self, heard: _Heard | None, pending: int) -> Iterator[str]:
        if not self._cold.exists:
            yield "There is no cold tier: REGIONS is empty."
        elif self._cold.is_down:
            yield "No region of DynamoDB answers."
        if not self._fleet.sees_all:
            yield "Not every server of the hot tier answers, so that processes may be unheard."
        elif heard is None:
            yield "The processes of the site could not be asked."
        elif not heard.all:
            yield "A moment ago not every server of the hot tier answered."
        elif not heard.members:
            yield "No process of the site tells of itself."
        elif len(heard.members) >= SLOTS:
            yield f"There may be more than {SLOTS} processes, and no more are heard."
        if pending:
            yield f"DynamoDB has still to be told of changes or logouts: {pending}."
        if heard is not None and self._fleet.draining:
            # What is pending was told up to 2 s ago; who has drained makes no more of it.
            undrained = sum(not member.drained for member in heard.members)
            if undrained:
                yield f"Processes that have not drained yet: {undrained} of {len(heard.members)}."

    def _listen(self) -> _Heard | None:
        """Return what is heard of the processes, None if that is not known well enough."""
        if self._is_my_turn():
            try:
                self._heard = self._read()
            except Exception as error:
                # Any cache may be set, so any error may come; its text may hold a password.
                logger.error(  # noqa: TRY400
                    "The processes of the site could not be asked (%s).", type(error).__name__
                )
            finally:
                self._reading = False
                self._has_read.set()
        elif self._heard is None:
            self._has_read.wait(_FIRST_SECONDS)
        heard = self._heard
        if heard is None or self._monotonic() - heard.at > STALE_SECONDS:
            return None
        return heard

    def _is_my_turn(self) -> bool:
        with self._lock:
            now = self._monotonic()
            if self._reading or now < self._read_again_at:
                return False
            self._reading = True
            self._read_again_at = now + FRESH_SECONDS
            return True

    def _read(self) -> _Heard:
        began = self._monotonic()
        saw_all = self._fleet.sees_all
        members = self._fleet.members()
        return _Heard(began, members, saw_all and self._fleet.sees_all)
