"""The engine that a site moves in from, or out to: ``FALLBACK_ENGINE``."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from django.contrib.sessions.backends import cache, db
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core import signing
from django.core.cache import caches
from django.utils.module_loading import import_string

from .changes import Draft
from .exceptions import SessionUnavailable, SessionUnreadable
from .payload import USER_ID, Login, PayloadCodec, Serializer

#: In the data of a session that moved out, or began there: it lives in FALLBACK_ENGINE.
AT_HOME = "_moved_out"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class OldSession:
    """A session of another engine. ``expires`` is in epoch seconds."""

    data: dict[str, Any] = field(repr=False)
    expires: float


class OldEngine:
    """Sessions of another engine, by their session keys.

    ``path`` is what SESSION_ENGINE would be, ``cache_alias`` what SESSION_CACHE_ALIAS would be, if
    that is another one. Every method raises ``SessionUnavailable`` when the engine fails: that
    proves nothing about a session.
    """

    def __init__(self, path: str, cache_alias: str | None = None) -> None:
        self.path = path
        self._store_class: Any = import_string(f"{path}.SessionStore")
        self._cache_alias = cache_alias

    @cached_property
    def model(self) -> Any:
        """The model of the sessions, None unless they are in the database."""
        if not issubclass(self._store_class, db.SessionStore):
            return None
        return self._store_class.get_model_class()

    def load(self, session_key: str) -> OldSession | None:
        """Return a session, None if there is none. Raises ``SessionUnreadable``."""
        store = self._open(session_key)
        if self.model is not None:
            # Not by its load(): cached_db would read its cache first, and the row has the expiry.
            row = _ask(store._get_session_from_db)  # noqa: SLF001
            return None if row is None else self.read(row)
        if issubclass(self._store_class, cache.SessionStore):
            # Not by its load(), which takes a failure for a miss.
            data = _ask(lambda: store._cache.get(store.cache_key))  # noqa: SLF001
        else:
            data = _ask(store.load)
        if data is None or store.session_key is None:
            return None
        age = store.get_expiry_age(expiry=data.get("_session_expiry"))
        return OldSession(data, time.time() + age)

    def take(self, session_key: str) -> OldSession | None:
        """Return a session that moves in, as ``load`` does. It is not at home there any more."""
        found = self.load(session_key)
        if found is None or AT_HOME not in found.data:
            return found
        del found.data[AT_HOME]
        try:
            self.save(session_key, found.data, must_create=False)
        except UpdateError:  # it was logged out just now
            return None
        return self.load(session_key)  # a save may have put off its expiry

    def read(self, row: Any) -> OldSession:
        """Return the session of a row of ``model``. Raises ``SessionUnreadable``."""
        return OldSession(_decode(self._open(None), row.session_data), row.expire_date.timestamp())

    def save(self, session_key: str, data: dict[str, Any], *, must_create: bool) -> None:
        """Save a session. Raises ``CreateError``, ``UpdateError``."""
        store = self._open(session_key)
        store._session_cache = data  # noqa: SLF001
        _ask(lambda: store.save(must_create=must_create))

    def exists(self, session_key: str) -> bool:
        """Tell whether there is a session."""
        return bool(_ask(lambda: self._open(None).exists(session_key)))

    def delete(self, session_key: str) -> None:
        """Delete a session, if there is one."""
        _ask(lambda: self._open(None).delete(session_key))

    def clear_expired(self) -> None:
        """Delete what has expired."""
        _ask(self._open(None).clear_expired)

    def _open(self, session_key: str | None) -> Any:
        store = self._store_class(session_key)
        if self._cache_alias is not None and hasattr(store, "_cache"):
            store._cache = caches[self._cache_alias]  # noqa: SLF001
        return store


def draft_of(
    session: OldSession, session_key: str, codec: PayloadCodec, serializer: Serializer
) -> Draft:
    """Return a session of another engine as one to be stored here. Raises ``SessionUnreadable``."""
    login = None
    if (user_id := session.data.get(USER_ID)) is not None:
        # Nobody knows since when. From the beginning: whatever ended the user's logins ends it.
        login = Login(codec.keyring.owners(str(user_id))[0], since=0.0)
    try:
        payload = codec.dumps(session.data, session_key, serializer, login)
    except Exception as error:
        # Any serializer may be set. A cache holds pickles, which hold what JSON does not.
        raise SessionUnreadable(
            f"FALLBACK_ENGINE has what cannot be stored here: {type(error).__name__}"
        ) from error
    return Draft(payload, session.expires, through=True)


def _decode(store: Any, text: str) -> dict[str, Any]:
    if type(store).decode is not SessionBase.decode:
        return dict(store.decode(text))
    try:
        # What decode() does; but that makes an empty session of what it cannot read.
        return dict(signing.loads(text, salt=store.key_salt, serializer=store.serializer))
    except Exception as error:
        # Any serializer may be set, so any error may come.
        raise SessionUnreadable(
            f"FALLBACK_ENGINE has what cannot be read: {type(error).__name__}"
        ) from error


def _ask(operation: Callable[[], _T]) -> _T:
    try:
        return operation()
    except (CreateError, UpdateError):
        raise
    except Exception as error:
        # Any engine may be set, so any error may come.
        raise SessionUnavailable(f"FALLBACK_ENGINE: {type(error).__name__}") from error
