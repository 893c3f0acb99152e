"""Log a user out everywhere."""

import time
from typing import Any

from . import runtime
from .sessions import SessionStore

#: Every process of a site hears of it within so many seconds, or is not told of.
_PATIENCE = 5.0


def revoke_user_sessions(*users: Any, keep: Any = None) -> bool:
    """End all sessions that these users have anywhere, except ``keep`` (a ``request.session``).

    What was logged in before now is over: at this site once this returns, at any other within one
    lease (``WRITE_INTERVAL``). Returns False if some process of this site could not be told in 5
    seconds and may take as long as another site. Takes about as long as the processes take to hear
    of it, 2 seconds; give it many users at a time.

    Raises ``SessionUnavailable`` when DynamoDB does not answer: nothing is promised then.
    """
    run = runtime.current()
    ids = [user._meta.pk.value_to_string(user) for user in users]  # noqa: SLF001, as login() does
    owners = [owner for id in ids for owner in run.keyring.owners(id)]
    told = run.store.revoke_users(owners, time.time(), _PATIENCE)
    if isinstance(keep, SessionStore):
        keep.log_in_anew()
    return told
