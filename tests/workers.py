"""Processes of a site that stop where a test tells them to, so that a race runs as it is written.

::

    with a.stopped("hot.add", "load", key) as load:  # has read DynamoDB, is about to refill
        b.do("logout", key)
    assert load.result() is None
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: What a process must answer within, in seconds.
PATIENCE = 120.0

#: Settings with which a busy machine is no outage.
PATIENT: dict[str, Any] = {"CONNECT_TIMEOUT": 10, "READ_TIMEOUT": 20, "DEADLINE": 30}
PATIENT_CACHE: dict[str, Any] = {
    "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
    "OPTIONS": {"connect_timeout": 10, "timeout": 20},
}

#: This part of the calls that are interleaved is disturbed.
DISTURBED = 0.05

_SETTINGS = [
    "SECRET_KEY",
    "CACHES",
    "SESSION_ENGINE",
    "SESSION_CACHE_ALIAS",
    "DYNAMO_FAILOVER",
    "USE_TZ",
]


class Call:
    """A command that a process is carrying out."""

    def __init__(self, worker: Worker, number: int, name: str) -> None:
        self._worker = worker
        self._number = number
        self._name = name

    @property
    def is_done(self) -> bool:
        return self._number in self._worker.answers

    def __repr__(self) -> str:
        return f"{self._name} in {self._worker}"

    def result(self) -> Any:
        """Wait for the answer; a session that is over is None. Raises ``AssertionError``."""
        while not self.is_done:
            self._worker.read_event()
        answer = self._worker.answers.pop(self._number)
        assert "error" not in answer, f"{self}:\n{answer['error']}"
        return answer["result"]


class Worker:
    """A process with the engine as the settings of this moment configure it."""

    def __init__(self, settings: Any) -> None:
        configured = json.dumps({name: getattr(settings, name) for name in _SETTINGS})
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._lines: deque[bytes] = deque()
        #: What commands have answered, by their number.
        self.answers: dict[int, dict[str, Any]] = {}
        #: Threads that are stopped, oldest first.
        self.stops: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker_process", configured],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def begin(self, name: str, *arguments: Any) -> Call:
        """Let the process begin a command of ``worker_process.Commands``."""
        number = next(self._numbers)
        self._send(run=number, name=name, arguments=arguments)
        return Call(self, number, name)

    def do(self, name: str, *arguments: Any) -> Any:
        """Let the process carry out a command; return what that does."""
        return self.begin(name, *arguments).result()

    @contextlib.contextmanager
    def stopped(self, before: str, name: str, *arguments: Any) -> Iterator[Call]:
        """Hold a command right before a call to a tier for as long as the block runs.

        It may also be a thread in the background that makes the call.
        """
        self.stop_next(before)
        call = self.begin(name, *arguments)
        self.wait_for_stop(call)
        try:
            yield call
        finally:
            self.go(self.stops[0])

    def stop_next(self, before: str) -> None:
        """Stop the next thread that is about to make a call to a tier."""
        self._send(stop=before)

    def wait_for_stop(self, call: Call | None = None) -> None:
        """Wait until a thread has stopped, before this call has ended."""
        while not self.stops:
            assert call is None or not call.is_done, f"{call} was not stopped"
            self.read_event()

    def stop_everywhere(self) -> None:
        """Stop each thread before each call to a tier."""
        self._send(stop="*")

    def run_free(self) -> None:
        """Let all go on that is stopped, and stop nothing any more."""
        self._send(stop=None)
        self.do("pending")  # what had been stopped by now has been told by now
        self.stops.clear()

    def go(self, stop: int) -> None:
        self.stops.remove(stop)
        self._send(go=stop)

    def read_event(self) -> None:
        """Wait for the next thing that the process says."""
        deadline = time.monotonic() + PATIENCE
        while not self._lines:
            ready, _, _ = select.select([self._output], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{self} says nothing"
            chunk = os.read(self._output, 65_536)
            assert chunk, f"{self} has ended"
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            self._lines.extend(lines)
        event = json.loads(self._lines.popleft())
        if "stopped" in event:
            self.stops.append(event["stopped"])
        else:
            self.answers[event["done"]] = event

    def end(self) -> None:
        """Let the process end, as one does that has nothing more to do."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    @property
    def _output(self) -> int:
        return self._process.stdout.fileno()

    def _send(self, **message: Any) -> None:
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def __repr__(self) -> str:
        return f"<Worker {self._process.pid}>"


@contextlib.contextmanager
def start_workers(settings: Any, number: int) -> Iterator[list[Worker]]:
    """Start processes of the site that the settings describe now; end them after the block."""
    workers = [Worker(settings) for _ in range(number)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()


def interleave(
    calls: Sequence[tuple[Worker, Sequence[Any]]],
    random: Random,
    disturb: Callable[[], object] = lambda: None,
) -> list[Any]:
    """Run commands at the same time, one call to a tier after the other, in a random order.

    Each is a worker with the name and the arguments of its command. Now and then, between two
    calls, something disturbs them. Returns their results.
    """
    for worker, _ in calls:
        worker.stop_everywhere()
    running = [(worker, worker.begin(*command)) for worker, command in calls]
    while active := [worker for worker, call in running if not call.is_done]:
        idle = [worker for worker in active if not worker.stops]
        if idle:
            idle[0].read_event()
            continue
        stops = [(worker, stop) for worker, _ in calls for stop in worker.stops]
        if random.random() < DISTURBED:
            disturb()
        worker, stop = random.choice(stops)
        worker.go(stop)
    for worker, _ in calls:
        worker.run_free()
    return [call.result() for _, call in running]
