"""Which site each user goes to."""

import time
from dataclasses import dataclass, field

from tests.soak.sites import SITES


@dataclass
class Traffic:
    """Users are at home at one site, and at the other one while theirs is left."""

    _left: set[str] = field(default_factory=set)
    #: When users last moved without a plan, by the site they came to.
    _unplanned: dict[str, float] = field(default_factory=dict)

    def site_of(self, home: str) -> str:
        """Return where a user of this site goes now."""
        if home not in self._left:
            return home
        return next(name for name in SITES if name != home)

    def moved_without_plan(self, site: str) -> float:
        """Return when users last came to a site without a plan."""
        return self._unplanned.get(site, float("-inf"))

    def leave(self, site: str, *, by_plan: bool = False) -> None:
        """Send the users of a site to the other one."""
        self._left.add(site)
        if not by_plan:
            self._note(next(name for name in SITES if name != site))

    def come_back(self, site: str, *, by_plan: bool = False) -> None:
        """Send the users of a site home."""
        self._left.discard(site)
        if not by_plan:
            self._note(site)

    def _note(self, site: str) -> None:
        self._unplanned[site] = time.monotonic()
