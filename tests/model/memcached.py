"""A memcached in memory, and the way to it that can fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any


class Memcached:
    """What one server holds. Its contents outlive a freeze, and go with a restart."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, tuple[Any, float | None, bytes]] = {}
        self._numbers = itertools.count(1)

    def gets(self, key: str) -> tuple[Any, bytes] | None:
        if key not in self._entries:
            return None
        value, until, token = self._entries[key]
        if until is not None and until <= self._clock():
            del self._entries[key]
            return None
        return value, token

    def get(self, key: str, default: Any = None) -> Any:
        found = self.gets(key)
        return found[0] if found else default

    def get_many(self, keys: list[str]) -> dict[str, Any]:
        found = {key: self.gets(key) for key in keys}
        return {key: value[0] for key, value in found.items() if value}

    def set(self, key: str, value: Any, timeout: float | None = None) -> None:
        until = None if timeout is None else self._clock() + timeout
        self._entries[key] = value, until, b"%d" % next(self._numbers)

    def add(self, key: str, value: Any, timeout: float | None = None) -> bool:
        if self.gets(key):
            return False
        self.set(key, value, timeout)
        return True

    def cas(self, key: str, value: Any, token: bytes, timeout: float | None = None) -> bool:
        found = self.gets(key)
        if found is None or found[1] != token:
            return False
        self.set(key, value, timeout)
        return True

    def delete(self, key: str) -> bool:
        return self.gets(key) is not None and self._entries.pop(key) is not None

    def keys(self) -> list[str]:
        return [key for key in list(self._entries) if self.gets(key)]

    def clear(self) -> None:
        self._entries.clear()


class Socket:
    """The way of a site's processes to its memcached.

    While the server is frozen its kernel takes what is sent, so that nobody gets an answer and yet
    every write is carried out when the server thaws, in the order in which they were sent. A cut
    way loses them.
    """

    def __init__(self, server: Memcached) -> None:
        self.server = server
        self.frozen = False
        self.cut = False
        self._sent: list[Callable[[], object]] = []

    @property
    def up(self) -> bool:
        return not (self.frozen or self.cut)

    def ask(self, command: str, *args: Any) -> Any:
        run = partial(getattr(self.server, command), *args)
        if self.cut:
            raise ConnectionRefusedError
        if self.frozen:
            self._sent.append(run)
            raise TimeoutError
        return run()

    def thaw(self) -> None:
        self.frozen = False
        for run in self._sent:
            run()
        self._sent.clear()

    def restart(self) -> None:
        self.server.clear()
        self._sent.clear()
        self.frozen = False


class Cache:
    """The cache of one process: what it has of ``MemcachedCache``. ``crossing`` sees each call."""

    def __init__(self, socket: Socket, crossing: Callable[[], None]) -> None:
        self._socket = socket
        self._crossing = crossing

    def _ask(self, command: str, *args: Any) -> Any:
        self._crossing()
        return self._socket.ask(command, *args)

    def gets(self, key: str) -> tuple[Any, bytes] | None:
        return self._ask("gets", key)

    def get(self, key: str) -> Any:
        return self._ask("get", key)

    def get_many(self, keys: list[str]) -> dict[str, Any]:
        return self._ask("get_many", keys)

    def set(self, key: str, value: Any, timeout: float | None = None) -> None:
        self._ask("set", key, value, timeout)

    def add(self, key: str, value: Any, timeout: float | None = None) -> bool:
        return self._ask("add", key, value, timeout)

    def cas(self, key: str, value: Any, token: bytes, timeout: float | None = None) -> bool:
        return self._ask("cas", key, value, token, timeout)

    def delete(self, key: str) -> bool:
        return self._ask("delete", key)
