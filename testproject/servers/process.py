"""One process on one port: start, stop, kill, freeze, and no orphans."""

from __future__ import annotations

import atexit
import http.client
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from typing import IO, Self

HOST = "127.0.0.1"
START_TIMEOUT = 20.0  # seconds until a server must answer


def free_port() -> int:
    """A free port below the ephemeral range (up there a client could connect to itself)."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


class _Janitor:
    """A shell that kills the process groups it knows once its standard input ends: we are gone."""

    SCRIPT = """
        trap '' HUP INT TERM
        groups=
        while read -r verb group; do
            rest=
            for other in $groups; do [ "$other" = "$group" ] || rest="$rest $other"; done
            groups=$rest
            [ "$verb" = release ] || groups="$groups $group"
        done
        for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._shell: subprocess.Popen[bytes] | None = None

    def tell(self, verb: str, group: int) -> None:
        with self._lock:
            if self._shell is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._shell = subprocess.Popen(
                    ["sh", "-c", self.SCRIPT], stdin=subprocess.PIPE, start_new_session=True
                )
            if self._shell.stdin is not None:
                self._shell.stdin.write(f"{verb} {group}\n".encode())
                self._shell.stdin.flush()

    def close(self) -> None:
        if self._shell is not None and self._owner == os.getpid():
            self._shell.communicate()


_janitor = _Janitor()
_running: set[ServerProcess] = set()


@atexit.register
def _stop_all() -> None:
    for server in list(_running):
        server.kill()
    _janitor.close()


class ServerProcess:
    """A process group that listens on one port. A subclass says what to run in `argv`."""

    user: int | None = None  # run as this user and group
    group: int | None = None

    def __init__(self, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._log: IO[bytes] | None = None

    def argv(self) -> list[str]:
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        return dict(os.environ)

    def is_ready(self) -> bool:
        """Whether the server answers; may raise OSError instead of False."""
        socket.create_connection((HOST, self.port), timeout=1).close()
        return True

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> Self:
        """Start, on the same port each time; return when the server answers.

        Raises:
            RuntimeError: it ended instead, or said nothing for 20 s; with its output.
        """
        if self._process is not None:
            raise RuntimeError(f"{self} runs already")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            self.argv(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=self.environ(),
            start_new_session=True,  # a group of its own: no Ctrl-C; kill() reaches its children
            user=self.user,
            group=self.group,
            extra_groups=[] if self.user is not None else None,
        )
        self._owner = os.getpid()
        _running.add(self)
        _janitor.tell("adopt", self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = self.output()
                self.kill()
                raise RuntimeError(f"{self} did not start: {output or 'no output'}")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            return self.is_ready()
        except (OSError, http.client.HTTPException):
            return False

    def output(self) -> str:
        """What the server has printed since it started (the last 4 KB)."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), 4096, max(0, size - 4096))
        return tail.decode(errors="replace").strip()

    def stop(self) -> None:
        """SIGTERM, and kill() after five seconds. Nothing happens if it does not run."""
        if self._process is not None:
            self.thaw()
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.kill()

    def kill(self) -> None:
        """SIGKILL the whole group, also when frozen. Nothing happens if it does not run."""
        process, self._process = self._process, None
        _running.discard(self)
        if process is None or self._owner != os.getpid():
            return  # a forked child does not end its parent's servers
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _janitor.tell("release", process.pid)
        if self._log is not None:
            self._log.close()
            self._log = None

    def restart(self) -> None:
        """kill() and start() on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: the port still accepts connections, nothing answers."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:  # the signal is not there at once
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT: go on after freeze()."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"
