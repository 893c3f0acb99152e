"""memcached as a process, and a look inside it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import time
from collections import Counter
from urllib.parse import unquote_to_bytes

from .process import HOST, ServerProcess


class Memcached(ServerProcess):
    """A memcached. The methods that look inside speak its text protocol, without any client."""

    timeout = 5.0  # seconds that the methods below wait for an answer

    def __init__(self, *, port: int | None = None, options: tuple[str, ...] = ()) -> None:
        super().__init__(port=port)
        self.options = options
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user, self.group = nobody.pw_uid, nobody.pw_gid

    @staticmethod
    def available() -> bool:
        return shutil.which("memcached") is not None

    def argv(self) -> list[str]:
        return ["memcached", "-l", HOST, "-p", str(self.port), *self.options]

    def is_ready(self) -> bool:
        return self._ask("version").startswith(b"VERSION")

    def stop(self) -> None:
        """kill(): there is nothing to save, and a SIGTERM takes memcached up to a second."""
        self.kill()

    def stats(self) -> dict[str, int | str]:
        """`stats`, numbers as int."""
        stats: dict[str, int | str] = {}
        for line in self._ask("stats").decode().splitlines():
            if line.startswith("STAT "):
                _, name, value = line.split(" ", 2)
                stats[name] = int(value) if value.isdigit() else value
        return stats

    def commands(self) -> Counter[str]:
        """How often each command came since the start: subtract two of these.

        A multi-get counts one `get` per key, and `get` below counts too. `set` means set, add and
        cas, stored or not; `cas` says how many of these were a cas.
        """
        stats = {name: value for name, value in self.stats().items() if isinstance(value, int)}
        parts = {
            "get": ["cmd_get"],
            "set": ["cmd_set"],
            "cas": ["cas_hits", "cas_misses", "cas_badval"],
            "touch": ["cmd_touch"],
            "delete": ["delete_hits", "delete_misses"],
            "incr": ["incr_hits", "incr_misses", "decr_hits", "decr_misses"],
            "flush": ["cmd_flush"],
            "meta": ["cmd_meta"],
        }
        return Counter({name: sum(stats[part] for part in names) for name, names in parts.items()})

    def keys(self) -> list[str]:
        """The keys that are stored and not expired, sorted."""
        # No `quit`: memcached hands the connection to its crawler thread, which would not see it.
        while (answer := self._ask("lru_crawler metadump all", end=b"END\r\n")).startswith(b"BUSY"):
            time.sleep(0.01)
        lines = [line for line in answer.splitlines() if line.startswith(b"key=")]
        return sorted(unquote_to_bytes(line.split()[0][4:]).decode() for line in lines)

    def get(self, key: str) -> bytes | None:
        """The stored value. Counts as a `get` in commands()."""
        answer = self._ask(f"get {key}")
        if not answer.startswith(b"VALUE "):
            return None
        head, _, rest = answer.partition(b"\r\n")
        return rest[: int(head.split()[3])]

    def set(self, key: str, value: bytes, *, flags: int = 0, expire: int = 0) -> None:
        """Plant a value; `flags` 1 makes pymemcache's own serializer take it for a pickle."""
        answer = self._ask(f"set {key} {flags} {expire} {len(value)}\r\n".encode() + value)
        if answer != b"STORED\r\n":
            raise RuntimeError(answer.decode(errors="replace"))

    def delete(self, key: str) -> bool:
        """Whether the key was there."""
        return self._ask(f"delete {key}") == b"DELETED\r\n"

    def flush(self) -> None:
        """Forget everything."""
        self._ask("flush_all")

    def _ask(self, command: str | bytes, *, end: bytes | None = None) -> bytes:
        """The answer up to the line `end`; without one all of it, as `quit` ends the connection."""
        with socket.create_connection((HOST, self.port), timeout=self.timeout) as connection:
            line = command.encode() if isinstance(command, str) else command
            connection.sendall(line + (b"\r\n" if end else b"\r\nquit\r\n"))
            with connection.makefile("rb") as stream:
                if end is None:
                    return stream.read()
                lines = [stream.readline()]
                while lines[-1] not in (end, b"") and not lines[-1].startswith((b"BUSY", b"ERROR")):
                    lines.append(stream.readline())
                return b"".join(lines)
