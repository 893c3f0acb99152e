"""How far a long command has come: a bar on a terminal, lines elsewhere."""

import time

from django_dynamo_failover.management.base import DynamoCommand, open_bar

_SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """A bar with rate and estimate on a terminal, where tqdm is installed.

    Elsewhere a line of the same every ten seconds, and nothing at all with ``quiet``. ``total`` is
    about how many there will be, None if nobody knows; ``done`` is where an earlier run stopped.
    """

    def __init__(
        self, command: DynamoCommand, unit: str, total: int | None, done: int, *, quiet: bool
    ) -> None:
        self._say = (lambda line: None) if quiet else command.say
        self._unit = unit
        self._total = total
        self._first = done
        self._began = self._last_line = time.monotonic()
        self._bar = (
            None if quiet else open_bar(total=total, unit=unit, unit_scale=True, initial=done)
        )

    def show(self, done: int, text: str) -> None:
        """Show how many are done, and what else there is to say."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(f"{self._line(done)}, {text}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, done: int) -> str:
        rate = (done - self._first) / (time.monotonic() - self._began)
        if self._total is None or done >= self._total or not rate:
            return f"{done:,} {self._unit}s, {rate:,.0f}/s"
        left = (self._total - done) / rate
        return f"{done:,} of about {self._total:,} {self._unit}s, {rate:,.0f}/s, {left:,.0f} s left"
