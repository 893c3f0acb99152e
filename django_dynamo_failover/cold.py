"""The cold tier: one DynamoDB table in ordered regions, each behind a breaker.

A call goes to the nearest region that answers, inside one deadline.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from .breaker import Breaker
from .dynamo import DynamoTable
from .exceptions import ColdMisconfigured, ColdUnavailable
from .metrics import Metrics
from .record import ColdAnswer, ColdItem

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GuardedRegion:
    """A table and the breaker in front of it."""

    table: DynamoTable
    breaker: Breaker


class ColdTier:
    """The regions, nearest first. Every method raises ``ColdUnavailable`` when none answers.

    ``deadline`` is in seconds for a whole call across regions. With no regions there is no cold
    tier (``exists`` is False) and none of the other methods may be called.
    """

    def __init__(
        self,
        regions: Sequence[GuardedRegion],
        metrics: Metrics,
        *,
        deadline: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._regions = tuple(regions)
        self._metrics = metrics
        self._deadline = deadline
        self._now = now
        self._monotonic = monotonic

    @property
    def exists(self) -> bool:
        """Whether there is a cold tier at all."""
        return bool(self._regions)

    @property
    def is_down(self) -> bool:
        """Whether no region is thought to answer. ``read`` is what finds out."""
        return not any(region.breaker.closed for region in self._regions)

    def warm(self) -> None:
        """Start making the clients, off the request path. Returns at once."""
        for region in self._regions:
            region.table.warm()

    def wait(self, timeout: float) -> None:
        """Wait until no client is being made, ``timeout`` seconds for each region at most."""
        for region in self._regions:
            region.table.client.wait(timeout)

    def read(self, id: str, owner: str | None = None) -> ColdAnswer:
        """Return what DynamoDB knows of a session, and with ``owner`` of that user.

        A region that was written to a moment ago may not have replicated yet, so that "no item"
        is believed only when every region that can be reached says so.
        """
        until = self._monotonic() + self._deadline
        answers = []
        for region in self._regions:
            try:
                answer = self._call(
                    region, "cold_reads", until, lambda table: table.read(id, until, owner)
                )
            except ColdUnavailable:
                continue
            if answer.revoked or answer.item:
                return answer
            answers.append(answer)
        if not answers:
            raise ColdUnavailable("no region answers")
        return replace(answers[0], complete=len(answers) == len(self._regions))

    def read_user(self, owner: str) -> float:
        """Return before when a user's logins are over, 0 if they never were."""
        return self._first("cold_reads", lambda table, until: table.read_user(owner, until))

    def put_new(self, item: ColdItem) -> None:
        """Write the first item of a session. Raises ``ConditionFailed`` if there is one."""
        self._first("cold_writes", lambda table, until: table.put_new(item, self._now(), until))

    def put_over(self, item: ColdItem, base: int, site: str) -> None:
        """Write an item over version ``base``, or over any earlier one that ``site`` wrote.

        An empty ``site`` matches none. Raises ``ConditionFailed``.
        """
        self._first("cold_writes", lambda table, until: table.put_over(item, base, site, until))

    def revoke(self, id: str, expires: int) -> bool:
        """Delete a session and record until ``expires`` that it is revoked, in every region.

        Not only in the nearest: another one may answer next, before it has replicated. Return
        whether all of them have it; raises ``ColdUnavailable`` if none does.
        """
        return self._everywhere(lambda table, until: table.revoke(id, expires, until))

    def revoke_user(self, owner: str, before: float, expires: int) -> bool:
        """Record until ``expires`` that a user's logins from before a time are over.

        In every region; see ``revoke``.
        """
        return self._everywhere(
            lambda table, until: table.revoke_user(owner, before, expires, until)
        )

    def clear_expired(self) -> int:
        """Delete the items that have expired, in the nearest region; return how many."""
        table = self._regions[0].table
        now = self._now()
        return sum(table.delete_expired(id, now) for id in table.expired(now))

    def _first(self, counter: str, operation: Callable[[DynamoTable, float], _T]) -> _T:
        until = self._monotonic() + self._deadline
        for region in self._regions:
            with contextlib.suppress(ColdUnavailable):
                return self._call(region, counter, until, lambda table: operation(table, until))
        raise ColdUnavailable("no region answers")

    def _everywhere(self, operation: Callable[[DynamoTable, float], None]) -> bool:
        until = self._monotonic() + self._deadline
        done = 0
        for region in self._regions:
            with contextlib.suppress(ColdUnavailable):
                self._call(region, "cold_writes", until, lambda table: operation(table, until))
                done += 1
        if not done:
            raise ColdUnavailable("no region answers")
        return done == len(self._regions)

    def _call(
        self,
        region: GuardedRegion,
        counter: str,
        until: float,
        operation: Callable[[DynamoTable], _T],
    ) -> _T:
        if self._monotonic() >= until:  # which is no fault of this region
            raise ColdUnavailable("the deadline has passed")
        if not region.breaker.allow():
            raise ColdUnavailable("not asked: it was down a moment ago")
        self._metrics.count(counter)
        try:
            result = operation(region.table)
        except ColdUnavailable as error:
            self._metrics.count("cold_errors")
            level = logging.ERROR if isinstance(error, ColdMisconfigured) else logging.WARNING
            logger.log(level, "DynamoDB in %s: %s", region.table.name, error)
            region.breaker.failure()
            raise
        except Exception:
            # An answer, though not the hoped one: a failed condition, an item too large.
            region.breaker.success()
            raise
        region.breaker.success()
        return result
