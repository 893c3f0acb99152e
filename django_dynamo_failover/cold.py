"""The cold tier: one DynamoDB table in ordered regions, each behind a breaker.

A call goes to the nearest region that answers, inside one deadline.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TypeVar

from .breaker import Breaker
from .dynamo import DynamoTable
from .exceptions import ColdMisconfigured, ColdThrottled, ColdUnavailable
from .limiter import Limiter
from .metrics import Metrics
from .reasons import code_of
from .record import ColdAnswer, ColdItem

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: What is to be done in a region, until when.
_Operation = Callable[[DynamoTable, float], _T]

#: The id of no session, to see whether DynamoDB answers.
_NOBODY = "0" * 64


#: Also a request that has used up its time may ask for so long, in seconds: a healthy DynamoDB
#: answers in less.
_LEAST_SECONDS = 0.1


class Waited:
    """How long a request has waited for DynamoDB so far, in seconds."""

    seconds = 0.0


#: That of the request under way, so that all its calls together have one deadline. The middleware
#: sets it; in the background there is none.
waited: ContextVar[Waited | None] = ContextVar("waited", default=None)


def _line() -> Limiter:
    return Limiter(50)


@dataclass(frozen=True, slots=True)
class GuardedRegion:
    """A table, the breaker in front of it, and who may ask it at the same time."""

    table: DynamoTable
    breaker: Breaker
    reads: Limiter = field(default_factory=_line)
    writes: Limiter = field(default_factory=_line)


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
        """Whether no region is thought to answer. ``probe`` is what finds out."""
        return not any(region.breaker.closed for region in self._regions)

    @property
    def is_up(self) -> bool:
        """Whether every region is thought to answer."""
        return all(region.breaker.closed for region in self._regions)

    @property
    def up(self) -> dict[str, bool]:
        """Which region is thought to answer, nearest first."""
        return {region.table.name: region.breaker.closed for region in self._regions}

    @property
    def tables(self) -> list[DynamoTable]:
        """The table in each region, nearest first; what asks them here opens no breaker."""
        return [region.table for region in self._regions]

    def warm(self) -> None:
        """Start making the clients, off the request path. Returns at once."""
        for region in self._regions:
            region.table.warm()

    def wait(self, timeout: float) -> None:
        """Wait until no client is being made, ``timeout`` seconds for each region at most."""
        for region in self._regions:
            region.table.client.wait(timeout)

    def probe(self) -> bool:
        """Ask each region that is thought to be down, if that is due; tell if one answers again."""
        back = False
        for region in self._regions:
            if not region.breaker.closed and region.breaker.allow_probe():
                until = self._monotonic() + self._deadline
                with contextlib.suppress(ColdUnavailable):
                    self._ask(region, until, "cold_reads", _look_for_nobody)
                    back = True
        return back

    def read(self, id: str, owner: str | None = None) -> ColdAnswer:
        """Return what DynamoDB knows of a session, and with ``owner`` of that user.

        A region that was written to a moment ago may not have replicated yet, so that "no item"
        is believed only when every region that can be reached says so.
        """
        answers = []
        for region, until in self._shares():
            try:
                answer = self._read(
                    region, until, lambda table, until: table.read(id, until, owner)
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
        for region, until in self._shares():
            with contextlib.suppress(ColdUnavailable):
                return self._read(region, until, lambda table, until: table.read_user(owner, until))
        raise ColdUnavailable("no region answers")

    def put_new(self, item: ColdItem) -> None:
        """Write the first item of a session. Raises ``ConditionFailed`` if there is one."""
        self._put(lambda table, until: table.put_new(item, self._now(), until))

    def put_first(self, item: ColdItem) -> None:
        """Write an item. Raises ``ConditionFailed`` if there is any, also one that has expired."""
        self._put(lambda table, until: table.put_new(item, 0.0, until))

    def put_over(self, item: ColdItem, base: int, site: str) -> None:
        """Write an item over version ``base``, or over any earlier one that ``site`` wrote.

        An empty ``site`` matches none. Raises ``ConditionFailed``.
        """
        self._put(lambda table, until: table.put_over(item, base, site, until))

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

    def _shares(self) -> Iterator[tuple[GuardedRegion, float]]:
        """Yield each region, and until when to ask it: what is left, shared with those to come."""
        request = waited.get() or Waited()
        began = self._monotonic()
        end = began + max(self._deadline - request.seconds, _LEAST_SECONDS)
        try:
            for number, region in enumerate(self._regions):
                others = sum(other.breaker.closed for other in self._regions[number + 1 :])
                now = self._monotonic()
                yield region, now + (end - now) / (1 + others)
        finally:
            request.seconds += self._monotonic() - began

    def _put(self, operation: _Operation[None]) -> None:
        for region, until in self._shares():
            with contextlib.suppress(ColdUnavailable):
                self._in_line(region.writes, region, until, "cold_writes", operation)
                return
        raise ColdUnavailable("no region answers")

    def _everywhere(self, operation: _Operation[None]) -> bool:
        done = 0
        reason: ColdUnavailable | None = None
        for region, until in self._shares():
            try:
                self._admit(region, until)
                self._ask(region, until, "cold_writes", operation)  # a logout waits in no line
            except ColdUnavailable as error:
                reason = error
            else:
                done += 1
        if not done:
            raise ColdUnavailable("no region answers") from reason
        return done == len(self._regions)

    def _read(self, region: GuardedRegion, until: float, operation: _Operation[_T]) -> _T:
        return self._in_line(region.reads, region, until, "cold_reads", operation)

    def _in_line(
        self,
        line: Limiter,
        region: GuardedRegion,
        until: float,
        counter: str,
        operation: _Operation[_T],
    ) -> _T:
        if not line.enter(until):
            self._metrics.count("cold_refused")
            raise ColdUnavailable("not asked: too many are waiting")
        try:
            self._admit(region, until)
        except ColdUnavailable:
            line.step_out()
            raise
        client = region.table.client
        began, throttles = self._monotonic(), client.throttles
        try:
            return self._ask(region, until, counter, operation)
        finally:
            took = self._monotonic() - began
            line.leave(took, throttled=client.throttles != throttles)

    def _admit(self, region: GuardedRegion, until: float) -> None:
        """Raise ``ColdUnavailable`` if a region is not to be asked."""
        if self._monotonic() >= until:  # which is no fault of this region
            raise ColdUnavailable("the deadline has passed")
        if not region.breaker.allow():
            raise ColdUnavailable("not asked: it was down a moment ago")

    def _ask(
        self, region: GuardedRegion, until: float, counter: str, operation: _Operation[_T]
    ) -> _T:
        self._metrics.count(counter)
        began = self._monotonic()
        try:
            result = operation(region.table, until)
        except ColdUnavailable as error:
            throttled = isinstance(error, ColdThrottled)
            self._metrics.count("cold_throttled" if throttled else "cold_errors")
            self._metrics.failed(region.table.name, code_of(error))
            level = logging.ERROR if isinstance(error, ColdMisconfigured) else logging.WARNING
            logger.log(level, "DynamoDB in %s: %s", region.table.name, error)
            region.breaker.failure()
            raise
        except Exception:
            # An answer, though not the hoped one: a failed condition, an item too large.
            region.breaker.success()
            raise
        finally:
            call = "read" if counter == "cold_reads" else "write"
            self._metrics.took(f"{region.table.name} {call}", self._monotonic() - began)
        region.breaker.success()
        return result


def _look_for_nobody(table: DynamoTable, until: float) -> None:
    table.read(_NOBODY, until)
