"""redis as a process."""

from __future__ import annotations

import shutil
import socket

from .process import HOST, ServerProcess


class Redis(ServerProcess):
    """A redis-server that stores nothing on disk."""

    @staticmethod
    def available() -> bool:
        return shutil.which("redis-server") is not None

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def argv(self) -> list[str]:
        address = ["--bind", HOST, "--port", str(self.port)]
        return ["redis-server", *address, "--save", "", "--appendonly", "no"]

    def is_ready(self) -> bool:
        return self._ask("PING") == b"+PONG\r\n"

    def stop(self) -> None:
        """kill(): there is nothing to save."""
        self.kill()

    def flush(self) -> None:
        """Forget everything."""
        self._ask("FLUSHALL")

    def _ask(self, command: str) -> bytes:
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096)
