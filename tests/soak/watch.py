"""Memory and threads of the web workers while they live, and what is in the logs in the end."""

import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.soak.sites import THREADS, World

#: What a worker may have at most: those of gunicorn, the main one and the listener's, and the
#: engine's: one that polls, four that write, one that makes a client.
MOST_THREADS = THREADS + 2 + 6

#: What a worker may take at most, and by how much it may grow once it is warm, in MB.
MOST_MEMORY, MOST_GROWTH = 200.0, 64.0

#: After so many seconds a worker is warm.
_WARM = 10.0

_BAD = re.compile(r"Traceback|Exception ignored|Unhandled|Fatal|core dumped|Internal Server Error")

#: How many lines of a log an incident is shown with.
_CONTEXT = 25


@dataclass
class Worker:
    """What one process of a site took. Memory in MB."""

    site: str
    pid: int
    since: float
    memory: float = 0.0
    warm_memory: float = 0.0
    most_memory: float = 0.0
    threads: int = 0
    most_threads: int = 0

    def see(self, now: float, memory: float, threads: int) -> None:
        """Note what it takes now."""
        self.memory, self.threads = memory, threads
        if now < self.since + _WARM:
            self.warm_memory = memory
        self.most_memory = max(self.most_memory, memory)
        self.most_threads = max(self.most_threads, threads)

    def problems(self) -> Iterator[str]:
        """Yield what was too much."""
        if self.most_threads > MOST_THREADS:
            yield f"worker {self.pid} of {self.site} had {self.most_threads} threads"
        if self.most_memory > MOST_MEMORY:
            yield f"worker {self.pid} of {self.site} took {self.most_memory:.0f} MB"
        if self.most_memory - self.warm_memory > MOST_GROWTH:
            yield (
                f"worker {self.pid} of {self.site} grew from {self.warm_memory:.0f} "
                f"to {self.most_memory:.0f} MB"
            )


class Watch:
    """Looks at all workers once a second, in a thread."""

    def __init__(self, world: World) -> None:
        self.workers: dict[int, Worker] = {}
        self._world = world
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            now = time.monotonic()
            for site in self._world.sites.values():
                for pid in site.workers:
                    seen = _status(pid)
                    if seen:
                        self.workers.setdefault(pid, Worker(site.name, pid, now)).see(now, *seen)


def incidents(log: Path) -> list[str]:
    """Return the parts of a log that tell of an exception that nobody handled."""
    if not log.exists():
        return []
    lines = log.read_text(errors="replace").splitlines()
    return list(_incidents(lines))


def _incidents(lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    shown = -1
    for number, line in enumerate(lines):
        if number > shown and _BAD.search(line):
            shown = number + _CONTEXT
            yield "\n".join(lines[max(0, number - 2) : shown])


def _status(pid: int) -> tuple[float, int] | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    if "VmRSS" not in values:
        return None  # it has ended
    return int(values["VmRSS"].split()[0]) / 1024, int(values["Threads"])
