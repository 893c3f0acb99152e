"""Questions that are asked in threads, each at most so often, and answered within a deadline.

A page shows what is known by its deadline. What takes longer is there for the next one, and is not
asked twice meanwhile: a cache may have no timeouts, and viewers no patience.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Question(Generic[T]):
    """Asks for something that every viewer of this process wants to know.

    ``ask`` returns it; what it raises is logged, and is no answer. An answer is good for ``fresh``
    seconds, and while the next one is awaited for ``kept`` seconds.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[], T],
        *,
        fresh: float,
        kept: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._ask = ask
        self._fresh = fresh
        self._kept = kept
        self._clock = clock
        self._changed = threading.Condition()
        self._asking = False
        self._answer: T | None = None
        self._answered_at = float("-inf")

    def begin(self) -> None:
        """Have it asked, unless it is being asked or the answer is still good."""
        with self._changed:
            if self._asking or self._clock() < self._answered_at + self._fresh:
                return
            self._asking = True
        try:
            threading.Thread(target=self._run, name=f"panel: {self._name}", daemon=True).start()
        except RuntimeError:
            # The machine has no thread left: not asked this time, and asked again at the next.
            logger.exception("The panel could not ask: %s", self._name)
            with self._changed:
                self._answer, self._asking = None, False
                self._changed.notify_all()

    def answer(self, until: float) -> T | None:
        """Return the answer, None if there is none by this time of the clock."""
        with self._changed:
            while self._asking and (left := until - self._clock()) > 0:
                self._changed.wait(left)
            late = self._asking and self._clock() >= self._answered_at + self._kept
            return None if late else self._answer

    def _run(self) -> None:
        answer: T | None = None
        try:
            answer = self._ask()
        except Exception as error:
            # Any cache may be set, so any error may come; its text may hold a password.
            logger.error(  # noqa: TRY400
                "The panel could not ask: %s (%s)", self._name, type(error).__name__
            )
        finally:
            with self._changed:
                self._answer, self._answered_at = answer, self._clock()
                self._asking = False
                self._changed.notify_all()
