"""A short memory of ids."""

import time
from collections.abc import Callable


class Recent:
    """Remembers up to ``most`` ids, each for so many seconds."""

    def __init__(
        self, seconds: float, most: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._until: dict[str, float] = {}

    def add(self, id: str) -> None:
        """Remember an id from now on."""
        if len(self._until) >= self._most:
            self._until.clear()  # what is forgotten is asked once more
        self._until[id] = self._clock() + self._seconds

    def __contains__(self, id: str) -> bool:
        return self._clock() < self._until.get(id, 0.0)
