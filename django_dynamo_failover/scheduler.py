"""Keyed jobs, each run at its time on a few daemon threads that start at first need.

Daemon threads of our own and not a ``ThreadPoolExecutor``: the executor refuses work once the
interpreter shuts down, which is just when pending changes have to be written.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

#: Does its work; returns after how many seconds to be run again, None when done.
Action = Callable[[], float | None]

#: While draining, a job that wants to be run again waits no longer than this, in seconds.
_DRAIN_RETRY = 0.1

#: A lock cannot wait for ever: threading.TIMEOUT_MAX.
_LONGEST_WAIT = 3600.0

#: A vital job that raised is run again after this many seconds.
_AFTER_ERROR = 10.0


@dataclass(order=True, slots=True)
class _Job:
    due: float
    number: int
    key: Hashable = field(compare=False)
    action: Action = field(compare=False)
    vital: bool = field(compare=False)


class Scheduler:
    """Runs jobs on up to ``threads`` threads, or with 0 only in ``run_due``.

    A key has one job: putting it again keeps the earlier time. ``vital`` jobs are those that
    ``drain`` waits for.
    """

    def __init__(self, *, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = threads
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[_Job] = []
        self._jobs: dict[Hashable, _Job] = {}
        self._running: dict[Hashable, bool] = {}
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._draining = False
        self._closed = False

    def put(self, key: Hashable, delay: float, action: Action, *, vital: bool = False) -> None:
        """Run ``action`` in ``delay`` seconds, or when the job of this key is due, if sooner."""
        with self._changed:
            due = self._clock() + (min(delay, _DRAIN_RETRY) if self._draining else delay)
            known = self._jobs.get(key)
            if known is not None and known.due <= due:
                known.action = action
                return
            job = _Job(due, next(self._numbers), key, action, vital)
            self._jobs[key] = job
            heapq.heappush(self._heap, job)
            self._get_help()

    def cancel(self, key: Hashable) -> None:
        """Forget the job of this key, unless it is already running."""
        with self._changed:
            self._jobs.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        """Tell whether the job of this key is waiting or running."""
        return key in self._jobs or key in self._running

    def hurry(self) -> None:
        """Make all vital jobs due now."""
        with self._changed:
            self._hurry()

    def run_due(self, budget: float) -> None:
        """Run what is due in the calling thread; start no job after ``budget`` seconds."""
        until = self._clock() + budget
        while self._clock() <= until and (job := self._take()) is not None:
            self._run(job)

    def drain(self, timeout: float) -> int:
        """Run all vital jobs now, with the calling thread's help; return how many are left."""
        until = self._clock() + timeout
        with self._changed:
            self._draining = True
            self._hurry()
        try:
            while self._clock() < until and self._vital():
                if (job := self._take()) is not None:
                    self._run(job)
                    continue
                with self._changed:
                    if self._vital():
                        self._changed.wait(min(_DRAIN_RETRY, until - self._clock()))
        finally:
            self._draining = False
        return self._vital()

    def close(self) -> None:
        """Let the threads end. Jobs that are not done are forgotten."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._jobs.clear()
            self._changed.notify_all()

    def _vital(self) -> int:
        with self._changed:
            waiting = sum(job.vital for job in self._jobs.values())
            return waiting + sum(self._running.values())

    def _hurry(self) -> None:
        now = self._clock()
        for job in self._jobs.values():
            if job.vital:
                job.due = now
        heapq.heapify(self._heap)
        self._get_help()
        self._changed.notify_all()

    def _get_help(self) -> None:
        """Wake an idle thread, or start one. Each that takes a job calls the next."""
        if self._idle:
            self._changed.notify()
            return
        if self._closed or len(self._threads) >= self._limit:
            return
        thread = threading.Thread(
            target=self._work, name=f"django-dynamo-failover-{len(self._threads)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is shutting down: drain() does the work
        self._threads.append(thread)

    def _work(self) -> None:
        while not self._closed:
            if (job := self._take()) is not None:
                self._run(job)
                continue
            with self._changed:
                self._idle += 1
                self._changed.wait(self._until_next())
                self._idle -= 1

    def _until_next(self) -> float | None:
        if self._closed:
            return 0.0
        if not self._heap:
            return None
        return min(max(0.0, self._heap[0].due - self._clock()), _LONGEST_WAIT)

    def _take(self) -> _Job | None:
        with self._changed:
            while self._heap and self._heap[0].due <= self._clock():
                job = heapq.heappop(self._heap)
                if self._jobs.get(job.key) is not job:
                    continue  # cancelled or replaced
                if job.key in self._running:
                    # One at a time for each key.
                    job.due = self._clock() + _DRAIN_RETRY
                    heapq.heappush(self._heap, job)
                    continue
                del self._jobs[job.key]
                self._running[job.key] = job.vital
                if self._heap:
                    self._get_help()  # somebody has to wait for the next one
                return job
        return None

    def _run(self, job: _Job) -> None:
        again: float | None = None
        try:
            again = job.action()
        except Exception:
            # A bug, not an outage: those are dealt with in the action. The thread must live on,
            # and what must be done is not forgotten.
            logger.exception("A background job failed.")
            again = _AFTER_ERROR if job.vital else None
        finally:
            with self._changed:
                del self._running[job.key]
                if again is not None and not self._closed:
                    newer = self._jobs.get(job.key, job)
                    self.put(job.key, again, newer.action, vital=newer.vital)
                self._changed.notify_all()
