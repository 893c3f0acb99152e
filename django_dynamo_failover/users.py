"""Log a user out everywhere."""

import time
from typing import Any

from . import runtime
from .sessions import SessionStore

#: Every process of a site hears of it within so many seconds, or is not told of.
_PATIENCE = 5.0


def revoke_user_sessions(*users: Any, keep: Any = None) -> bool:
    """End all sessions that these users have anywhere.

    ``users``: instances of ``AUTH_USER_MODEL``. Whatever was logged in before now is over: at this
    site once this returns, at any other within one lease (``WRITE_INTERVAL``). ``keep`` is the
    session of the request that asks for it, if its user is to stay.

    Waits up to 2 seconds until every process of this site knows; give it many users at a time.
    Returns False if after 5 seconds some process could not be told: that may take one lease too.
    Raises ``SessionUnavailable`` when DynamoDB does not answer: then nothing is promised.
    """
    run = runtime.current()
    ids = [user._meta.pk.value_to_string(user) for user in users]  # noqa: SLF001, as login() does
    owners = [owner for id in ids for owner in run.keyring.owners(id)]
    before = time.time()
    if isinstance(keep, SessionStore) and keep.session_key:
        # First: another request of this session would end it for good.
        keep.log_in_anew()
        keep.save()
    return run.store.revoke_users(owners, before, _PATIENCE)
