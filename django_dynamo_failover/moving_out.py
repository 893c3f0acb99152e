"""The way out: ``SESSION_ENGINE = "django_dynamo_failover.moving_out"``.

Sessions live in ``FALLBACK_ENGINE`` again. One that is not at home there yet is looked up in the
two tiers once.
"""

import contextlib
from typing import Any

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core.exceptions import ImproperlyConfigured

from . import runtime, sessions
from .exceptions import SessionUnavailable
from .fallback import AT_HOME, OldEngine


class SessionStore(SessionBase):
    """A session of ``FALLBACK_ENGINE``.

    ``load``, ``save``, ``exists`` and ``delete`` raise ``SessionUnavailable`` when that engine
    fails, or when it lacks a session and neither tier can answer for it.
    """

    def load(self) -> dict[str, Any]:
        """Return the data of the session; without a session, {} and no session key any more."""
        data = self._load(self.session_key) if self.session_key else None
        if data is None:
            self._session_key = None
            return {}
        return data

    def create(self) -> None:
        """Save the data under a new session key."""
        while True:
            self._session_key = runtime.current().keyring.new_session_key()
            try:
                self.save(must_create=True)
            except CreateError:
                continue
            self.modified = True
            return

    def save(self, must_create: bool = False) -> None:
        """Save the data. Raises ``UpdateError`` if the session is over."""
        if self.session_key is None:
            self.create()
            return
        data: dict[str, Any] = self._get_session(no_load=must_create)  # type: ignore[attr-defined]
        if self.session_key is None:
            raise UpdateError
        data[AT_HOME] = True
        _home().save(self.session_key, data, must_create=must_create)

    def exists(self, session_key: str | None) -> bool:
        """Tell whether a session is alive."""
        if session_key is None:
            return False
        return _home().exists(session_key) or _SessionHere().exists(session_key)

    def delete(self, session_key: str | None = None) -> None:
        """End a session: in the two tiers, and then in ``FALLBACK_ENGINE``."""
        sessions.SessionStore().delete(session_key or self.session_key)

    @classmethod
    def clear_expired(cls) -> None:
        """Delete what has expired in ``FALLBACK_ENGINE``."""
        _home().clear_expired()

    def _load(self, session_key: str) -> dict[str, Any] | None:
        there = _home().load(session_key)
        if there is not None and AT_HOME in there.data:
            return there.data
        here = _SessionHere(session_key)
        try:
            data = here.load()
        except SessionUnavailable:
            if there is None:
                raise
            return there.data
        if here.session_key is not None:
            return _bring_home(session_key, data, is_new=there is None)
        return None if there is None else there.data


class _SessionHere(sessions.SessionStore):
    """A session, looked up in the two tiers only."""

    looks_elsewhere = False


def _home() -> OldEngine:
    engine = runtime.current().old_engine
    if engine is None:
        raise ImproperlyConfigured("DYNAMO_FAILOVER lacks FALLBACK_ENGINE: where to move out to?")
    return engine


def _bring_home(session_key: str, data: dict[str, Any], *, is_new: bool) -> dict[str, Any] | None:
    data[AT_HOME] = True
    with contextlib.suppress(CreateError, UpdateError):  # another request was faster
        _home().save(session_key, data, must_create=is_new)
    # After the save: a logout ends the session here first, and then there.
    if _SessionHere().exists(session_key):
        return data
    _home().delete(session_key)
    return None
