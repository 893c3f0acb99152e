"""A budget of capacity units a second, kept from what the server says each request has cost."""

import threading
import time
from collections.abc import Callable

_CATCH_UP_SECONDS = 0.1  # threads wake up late; what an idle time would have allowed is lost


class Budget:
    """Spreads requests so that they cost ``rate`` units a second; None is no limit.

    What a request costs is known only afterwards. So each one is charged what the last one cost,
    ``first_cost`` if there was none, and corrected by ``settle``: the next ones wait that much
    more or less.

    ``sleep`` waits so many seconds, and returns True when waiting has become pointless.
    """

    def __init__(
        self,
        rate: float | None,
        first_cost: float,
        sleep: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._cost = first_cost
        self._sleep = sleep
        self._clock = clock
        self._next = clock()
        self._lock = threading.Lock()
        self._queue = threading.Lock()

    def reserve(self) -> float:
        """Wait for the turn of a request; return what it is charged, in units."""
        if self._rate is None:
            return 0.0
        # Only the first in the queue sleeps. The others have not been given a time yet, so that
        # what is settled meanwhile counts for them.
        with self._queue:
            while (seconds := self._next - self._clock()) > 0:
                if self._sleep(seconds):
                    return 0.0
            with self._lock:
                charged = self._cost
                self._next = max(self._next, self._clock() - _CATCH_UP_SECONDS)
                self._next += charged / self._rate
                return charged

    def settle(self, charged: float, units: float) -> None:
        """Correct what a request was charged to what the server says it has cost."""
        if self._rate is None:
            return
        with self._lock:
            self._next += (units - charged) / self._rate
            self._cost = units
