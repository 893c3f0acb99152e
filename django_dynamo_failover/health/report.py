"""What a health check has found, for a command, a page or a monitoring system to show."""

from dataclasses import dataclass
from typing import Literal

#: What each finding is about. Documented in ``docs/health.rst``.
FindingId = Literal[
    "settings",
    "hot.reachable",
    "hot.keeps",
    "hot.swap",
    "region.reachable",
    "region.table",
    "region.key",
    "region.ttl",
    "region.recovery",
    "region.replicas",
    "region.clock",
    "region.permissions",
    "region.clearing",
    "session.hot",
    "session.region",
    "session.replication",
    "sessions.served",
    "sessions.backlog",
    "sessions.oversize",
    "sessions.lost",
    "processes.heard",
    "sites.label",
    "sites.heard",
    "sites.secret-key",
]

#: "error": in a failover users would be logged out, or wait. "warning": something else is worse
#: than it need be. "unknown": it could not be found out.
Level = Literal["ok", "warning", "error", "unknown"]

Verdict = Literal["ready", "degraded", "not ready"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do about it; ``remedy`` is "" for nothing.

    ``subject`` is what was looked at: a region, a server of the hot tier, a site, a system check.
    No field has a secret, a session or the name of the table in it.
    """

    id: FindingId
    level: Level
    subject: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of one check in the order of its sections, and how many seconds it took.

    ``asked``: some region of DynamoDB has let itself be asked. Otherwise little is known.
    """

    findings: tuple[Finding, ...]
    asked: bool
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """Whether a failover right now would go well: worse than ready by the worst finding."""
        if self.count("error"):
            return "not ready"
        return "degraded" if self.count("warning") else "ready"

    def count(self, level: Level) -> int:
        """Return how many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)
