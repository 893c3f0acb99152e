"""Sections of a health check: each in a thread of its own, all within one deadline."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .report import Finding, FindingId

logger = logging.getLogger(__name__)


@dataclass
class Section:
    """Looks at one thing; yields what it finds.

    When it breaks, or is not done in time, that is a finding too: ``id`` and ``subject`` are for
    this one.
    """

    id: FindingId
    subject: str
    look: Callable[[], Iterable[Finding]]
    found: list[Finding] = field(default_factory=list)

    def run(self) -> None:
        """Look, and keep each finding when it is made."""
        try:
            for finding in self.look():
                self.found.append(finding)
        except Exception as error:
            # Any cache and any serializer may be set, so any error may come.
            logger.exception("Health check of %s", self.subject)
            self.found.append(
                Finding(
                    self.id,
                    "error",
                    self.subject,
                    f"the check broke off: {type(error).__name__}",
                    "The log has more.",
                )
            )


def run(sections: Sequence[Section], until: float) -> list[Finding]:
    """Return what all of them have found by a ``time.monotonic()`` time, in their order.

    Nobody waits for a thread that is not done then: a cache may have no timeouts at all.
    """
    threads = [
        threading.Thread(target=section.run, name="health-check", daemon=True)
        for section in sections
    ]
    for thread in threads:
        thread.start()
    found: list[Finding] = []
    for section, thread in zip(sections, threads, strict=True):
        thread.join(max(0.0, until - time.monotonic()))
        late = thread.is_alive()
        found += list(section.found)
        if late:
            found.append(
                Finding(
                    section.id,
                    "error",
                    section.subject,
                    "gave no answer in the time that the whole check has",
                    "Look whether it answers at all, or give the check more time.",
                )
            )
    return found
