"""What DynamoDB says of a session: its item, and whether it or its user's logins are over."""

import logging
import time
from collections.abc import Callable

from .cold import ColdTier
from .exceptions import ColdUnavailable, SessionEnded, SessionUnreadable, Unreadable
from .keys import Keyring, label
from .metrics import Metrics
from .payload import Login, login_of
from .record import ColdItem, Record, decode_cold

logger = logging.getLogger(__name__)

#: Of so many sessions a process remembers whose they are.
_MOST_OWNERS = 10_000


class Reader:
    """Reads sessions from the cold tier.

    All methods raise ``ColdUnavailable`` when DynamoDB does not answer and ``SessionUnreadable``
    when what it holds cannot be trusted; both prove nothing about the session.
    """

    def __init__(
        self,
        cold: ColdTier,
        keyring: Keyring,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cold = cold
        self._keyring = keyring
        self._metrics = metrics
        self._now = now
        self._owners: dict[str, str] = {}

    def read(self, id: str, known: Record | None = None) -> Record | None:
        """Return what DynamoDB holds of a session; None if there is none, or it has expired.

        Raises ``SessionEnded`` if it is revoked, or the login of its user. With ``known``, a
        record that DynamoDB is known to have held, "none" is believed only if every region says so.
        """
        return self.look(id, known, is_known=known is not None)[0]

    def look(
        self, id: str, held: Record | None, *, is_known: bool
    ) -> tuple[Record | None, ColdItem | None]:
        """Return the same, and the item, also if it has expired.

        ``held`` tells whose session it is likely to be, which saves a request.
        """
        login = login_of(held.payload) if held is not None else None
        try:
            return self._ask(id, login, is_known=is_known)
        except Unreadable as error:
            self._metrics.count("cold_unreadable")
            logger.error(  # noqa: TRY400
                "Session %s: %s; refused, and left as it is.", label(id), error
            )
            raise SessionUnreadable(str(error)) from None

    def _ask(
        self, id: str, login: Login | None, *, is_known: bool
    ) -> tuple[Record | None, ColdItem | None]:
        asked = login.owner if login is not None else self._owners.get(id)
        answer = self._cold.read(id, asked)
        item = answer.item
        if answer.revoked:
            raise SessionEnded("it was revoked")
        if item is None and is_known and not answer.complete:
            raise ColdUnavailable("the region that knows may be one that does not answer")
        record = None
        if item is not None:
            record = decode_cold(item, self._keyring, self._now())  # also an expiry may be forged
            login = login_of(record.payload)
        if login is not None:
            # Before the second request: should that fail, the next try asks for both in one.
            self._remember(id, login.owner)
            asked_already = login.owner == asked
            over = answer.logins_over if asked_already else self._cold.read_user(login.owner)
            if login.since < over:
                raise SessionEnded("its user was logged out everywhere")
        return (record if record is not None and record.expires > self._now() else None), item

    def _remember(self, id: str, owner: str) -> None:
        # While the hot tier is down each page reads: once, and not once more for the user.
        if len(self._owners) >= _MOST_OWNERS:
            self._owners.clear()
        self._owners[id] = owner
