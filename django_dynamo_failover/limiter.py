"""A limit on calls at the same time that follows what a service takes; who comes later waits."""

import threading
import time
from collections import deque
from collections.abc import Callable

#: How much one call moves the average of what a call takes.
_WEIGHT = 0.2

#: Who has his turn should have time left for so many calls of average length.
_CALLS_LEFT = 4


class Limiter:
    """Lets up to ``most`` calls through at a time, first come first served.

    Halved when the service throttles, and slowly raised while it does not. Who could not have a
    turn in time is refused at once: a pile of workers that wait in vain serves nobody.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(most)
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = self._most
        self._inside = 0
        self._line: deque[threading.Event] = deque()
        self._takes = 0.0  # seconds, on average
        self._cut_at = 0.0

    def enter(self, until: float) -> bool:
        """Wait for a turn; False when there is none before then, which may be told at once.

        ``until`` is a time of the clock.
        """
        with self._lock:
            if not self._line and self._inside < int(self._limit):
                self._inside += 1
                return True
            # A call whose time is nearly over when its turn comes is throttled once and fails, and
            # two of these in a row look like an outage.
            now = self._clock()
            latest = until - min(_CALLS_LEFT * self._takes, (until - now) / 4)
            if now + (len(self._line) + 1) * self._takes / self._limit >= latest:
                return False
            turn = threading.Event()
            self._line.append(turn)
        turn.wait(latest - now)
        with self._lock:
            if turn.is_set():
                return True  # it may be at the last moment
            self._line.remove(turn)
            return False

    def leave(self, took: float, *, throttled: bool) -> None:
        """Report that a call is over, how many seconds it took, and if the service throttled it."""
        with self._lock:
            self._inside -= 1
            self._takes += _WEIGHT * (took - self._takes)
            if not throttled:
                self._limit = min(self._most, self._limit + 1 / self._limit)
            elif (now := self._clock()) >= self._cut_at + self._takes:
                # Once for all that were on their way together.
                self._limit, self._cut_at = max(1.0, self._limit / 2), now
            self._let_in()

    def step_out(self) -> None:
        """Report that no call was made, which tells nothing of the service."""
        with self._lock:
            self._inside -= 1
            self._let_in()

    def _let_in(self) -> None:
        while self._line and self._inside < int(self._limit):
            self._inside += 1
            self._line.popleft().set()
