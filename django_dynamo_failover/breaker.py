"""A circuit breaker: a service that is down costs one probe, not one timeout per request."""

import random
import threading
import time
from collections.abc import Callable


class Breaker:
    """Lets calls through until ``threshold`` in a row have failed, then one probe at a time.

    The first probe is due after ``first_wait`` seconds, then twice as long after each failed one
    up to ``longest_wait``, with 20 % of jitter so that processes do not probe in step. A probe
    that never reports back (its thread died) is given up after ``probe_timeout`` seconds.

    Does no I/O and never waits: ``allow()`` before the call, ``success()`` or ``failure()`` after.
    With ``probed_apart`` no caller is made the probe: somebody in the background asks
    ``allow_probe()`` instead.
    """

    def __init__(
        self,
        *,
        threshold: int = 1,
        first_wait: float = 1.0,
        longest_wait: float = 15.0,
        probe_timeout: float = 10.0,
        probed_apart: bool = False,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self._threshold = threshold
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._probe_timeout = probe_timeout
        self._probed_apart = probed_apart
        self._clock = clock
        #: Called with True when it closes and False when it opens, outside the lock.
        self.on_change = on_change
        self._lock = threading.Lock()
        self._failures = 0
        self._wait = first_wait
        self._closed = True
        self._probing = False
        self._next_probe = 0.0

    @property
    def closed(self) -> bool:
        """Whether calls go through freely."""
        return self._closed

    def allow(self) -> bool:
        """Tell whether to make the call; a True while open makes the caller the probe."""
        if self._closed:  # without the lock: the page hit of every healthy day
            return True
        return not self._probed_apart and self.allow_probe()

    def allow_probe(self) -> bool:
        """Tell whether to probe now. True also if it is closed by now."""
        with self._lock:
            now = self._clock()
            if self._closed:
                return True
            if now < self._next_probe:
                return False
            self._probing = True
            self._next_probe = now + self._probe_timeout
            return True

    def success(self) -> bool:
        """Report that a call went through; tell whether it is the first one after an outage."""
        if self._closed and not self._failures:
            return False
        with self._lock:
            was_open = not self._closed
            self._closed = True
            self._probing = False
            self._failures = 0
            self._wait = self._first_wait
        if was_open and self.on_change:
            self.on_change(True)
        return was_open

    def failure(self) -> None:
        """Report that a call failed."""
        with self._lock:
            if self._closed:
                self._failures += 1
                if self._failures < self._threshold:
                    return
                self._closed = False
                self._wait = self._first_wait
            elif self._probing:
                self._wait = min(self._wait * 2, self._longest_wait)
            else:
                return  # a call from before the breaker opened
            opened = not self._probing
            self._probing = False
            self._next_probe = self._clock() + self._wait * random.uniform(0.8, 1.2)  # noqa: S311
        if opened and self.on_change:
            self.on_change(False)
