"""What the processes of a site are told: to drain, to revalidate, whose logins are over."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .exceptions import Unreadable

#: For so many seconds a revoked user is named. DynamoDB knows for longer; a process asks it once
#: the lease of an entry is over, and only if it answers.
_NAMED_SECONDS = 86_400

#: More revoked users than this are not named: all entries have to be revalidated instead.
_MOST_USERS = 1_000


@dataclass(frozen=True, slots=True)
class Orders:
    """All that stands. Processes put together what they know, so that nothing has to be locked.

    ``version`` grows with each order that is added. ``drain_version`` is that of the last order to
    begin or to end draining. A hot entry that last agreed with DynamoDB before ``revalidated`` is
    not believed; nor is a login of one of ``users`` that was made before its time.
    """

    version: int = 0
    draining: bool = False
    drain_version: int = 0
    revalidated: float = 0.0
    users: Mapping[str, float] = field(default_factory=dict, repr=False)

    def drain(self, draining: bool, now: float) -> "Orders":
        """Return these orders and that one."""
        version = self._next(now)
        return replace(self, version=version, draining=draining, drain_version=version)

    def revalidate(self, now: float) -> "Orders":
        """Return these orders and that one."""
        return replace(self, version=self._next(now), revalidated=now)

    def revoke(self, users: Mapping[str, float], now: float) -> "Orders":
        """Return these orders, and that these users' logins from before their time are over."""
        return self.merged(replace(self, version=self._next(now), users=users)).pruned(now)

    def merged(self, other: "Orders") -> "Orders":
        """Return what is ordered here or there, under a version that says so."""
        newer = self if self.version > other.version else other
        drain = max(self, other, key=lambda orders: (orders.drain_version, orders.draining))
        users = dict(self.users)
        for user, before in other.users.items():
            users[user] = max(before, users.get(user, 0.0))
        merged = replace(
            newer,
            draining=drain.draining,
            drain_version=drain.drain_version,
            revalidated=max(self.revalidated, other.revalidated),
            users=users,
        )
        # Who knows only one of the two must not pass for one who knows what the other says.
        if self == other or (merged == newer and self.version != other.version):
            return merged
        return replace(merged, version=newer.version + 1)

    def pruned(self, now: float) -> "Orders":
        """Return these orders without what has served its time."""
        users = {user: at for user, at in self.users.items() if at > now - _NAMED_SECONDS}
        if len(users) > _MOST_USERS:
            # Not as of their times: DynamoDB was told of them a little later.
            return replace(self, revalidated=max(self.revalidated, now), users={})
        return self if len(users) == len(self.users) else replace(self, users=users)

    def encode(self) -> bytes:
        """Return these orders as a note in the hot tier."""
        return json.dumps(dataclasses.asdict(self)).encode()

    def _next(self, now: float) -> int:
        # By the clock, as all that knew the last version may have been lost.
        return max(self.version + 1, int(now * 1e6))


def decode_orders(note: bytes) -> Orders:
    """Return the orders of a note, as far as this release knows them. Raises ``Unreadable``."""
    try:
        told = json.loads(note)
        return Orders(**{field.name: told[field.name] for field in dataclasses.fields(Orders)})
    except (KeyError, TypeError, ValueError):
        raise Unreadable("orders of another release") from None
