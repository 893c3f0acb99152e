"""What would go wrong in a failover, found out by trying it: ``check`` returns a ``Report``."""

from .checkup import check
from .report import Finding, FindingId, Level, Report, Verdict

__all__ = ["Finding", "FindingId", "Level", "Report", "Verdict", "check"]
