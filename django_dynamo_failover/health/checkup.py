"""The whole check: the settings, then each tier and region by itself, then between them."""

import time
from functools import partial

from .canary import Canary, check_replication
from .configuration import Parts, look_at_settings
from .hot_tier import check_hot_tier
from .region import check_region, is_usable
from .report import Finding, Report
from .sections import Section, run
from .sites import check_sites

#: After its deadline a section may need so long to say what it has found.
_GRACE_SECONDS = 1.0


def check(timeout: float = 10.0, replication_timeout: float = 5.0) -> Report:
    """Return what would go wrong if this site or a region failed now. Raises nothing.

    It takes ``timeout`` seconds at most, and stores nothing but what is its own. ``replication_
    timeout`` is how many seconds a session may take from one region to another.
    """
    began = time.monotonic()
    parts, found = look_at_settings()
    if parts is not None:
        found += _Checkup(parts, replication_timeout).run(began, timeout)
    return Report(
        findings=tuple(found),
        asked=any(f.id == "region.reachable" and f.level == "ok" for f in found),
        seconds=time.monotonic() - began,
    )


class _Checkup:
    """Puts the sections together."""

    def __init__(self, parts: Parts, replication_timeout: float) -> None:
        self._parts = parts
        self._replication_timeout = replication_timeout
        self._canary = partial(Canary, parts.keyring, parts.codec, parts.serializer)

    def run(self, began: float, timeout: float) -> list[Finding]:
        """Look at each tier and region by itself, and then between the regions that are usable.

        The first may take half of the time: a region that is throttled takes all that it gets.
        """
        half, end = began + timeout / 2, began + timeout
        found = run(self._each_by_itself(half), min(half + _GRACE_SECONDS, end))
        return found + run(self._between(found, end), end)

    def _each_by_itself(self, until: float) -> list[Section]:
        names = [table.name for table in self._parts.tables]
        hot = partial(check_hot_tier, self._parts.hot, self._canary)
        return [
            Section("hot.reachable", "hot tier", hot),
            *(
                Section(
                    "region.reachable",
                    table.name,
                    partial(check_region, table, names, self._canary, until),
                )
                for table in self._parts.tables
            ),
        ]

    def _between(self, found: list[Finding], until: float) -> list[Section]:
        usable = [table for table in self._parts.tables if is_usable(table.name, found)]
        if not usable:
            return []
        nearest, *others = usable
        site, fingerprints = self._parts.config.site, self._parts.keyring.fingerprints
        patience = self._replication_timeout
        return [
            *(
                Section(
                    "session.replication",
                    f"{nearest.name} to {table.name}",
                    partial(check_replication, nearest, table, self._canary, patience, until),
                )
                for table in others
            ),
            Section(
                "sites.secret-key",
                "other sites",
                partial(check_sites, nearest, site, fingerprints, until),
            ),
        ]
