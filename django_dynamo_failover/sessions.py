"""The session engine: ``SESSION_ENGINE = "django_dynamo_failover.sessions"``."""

import copy
import time
from typing import Any

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from . import runtime
from .exceptions import (
    SessionEnded,
    SessionExists,
    SessionUnavailable,
    SessionUnreadable,
    Unreadable,
)
from .keys import label, storage_id
from .merge import merge
from .saving import Draft, Held


class SessionStore(SessionBase):
    """A session in two tiers.

    ``load`` and ``save`` raise ``SessionUnavailable`` when no tier can answer; the session key
    stays. The ``a…`` twins of ``SessionBase`` run these methods in one hop of a thread.
    """

    #: Run without the session, and save nothing, when no tier can answer. Set by the middleware.
    anonymous_if_unavailable = False
    #: Whether this session had to be done without.
    unavailable = False
    #: Why the last call could not be answered. The middleware looks here for what was raised
    #: where it cannot catch it.
    failure: SessionUnavailable | None = None

    _held: Held | None = None
    _fresh_key: str | None = None

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._loaded_through: dict[str, Any] = {}

    def load(self) -> dict[str, Any]:
        """Return the data of the session; without a session, {} and no session key any more."""
        run = runtime.current()
        id = self._id(self.session_key)
        try:
            held = run.store.load(id) if id else None
            data = self._loads(held.record.payload) if held else {}
        except SessionUnavailable as error:
            run.metrics.count("unavailable")
            if not self.anonymous_if_unavailable:
                self.failure = error
                raise
            self.unavailable = True
            return {}
        if held is None:
            self._session_key = None
        self._remember(held, data)
        return data

    def create(self) -> None:
        """Save the data under a new session key."""
        if self.unavailable:
            return
        while True:
            self._session_key = self._get_new_session_key()
            try:
                self.save(must_create=True)
            except CreateError:
                continue
            self.modified = True
            return

    def save(self, must_create: bool = False) -> None:
        """Save the data. Raises ``UpdateError`` on proof that the session is over.

        Also raises ``SessionUnavailable``, ``SessionTooLarge`` and what the serializer raises.
        """
        if self.unavailable:
            return
        if self.session_key is None:
            self.create()
            return
        data: dict[str, Any] = self._get_session(no_load=must_create)  # type: ignore[attr-defined]
        if self.session_key is None:
            raise UpdateError
        id = self._id(self.session_key)
        if id is None:  # somebody made the key up, and cleared the session without a look at it
            self.create()
            return
        run = runtime.current()
        through = self._through(data)
        draft = Draft(
            payload=run.codec.dumps(data, self.session_key, self.serializer()),
            expires=time.time() + self.get_expiry_age(expiry=data.get("_session_expiry")),
            through=through != (self._loaded_through if not must_create else {}),
        )
        try:
            if must_create:
                fresh = self._fresh_key == self.session_key
                held = run.store.create(id, draft, fresh=fresh)
            else:
                held = run.store.save(id, draft, self._held, self._merge)
        except SessionExists:
            raise CreateError from None
        except SessionEnded:
            raise UpdateError from None
        if held.record.payload != draft.payload:
            self._session_cache = data = self._loads(held.record.payload)
        self._remember(held, data)

    def exists(self, session_key: str | None) -> bool:
        """Tell whether a session is alive. Raises ``SessionUnavailable``."""
        id = self._id(session_key)
        return id is not None and runtime.current().store.load(id) is not None

    def delete(self, session_key: str | None = None) -> None:
        """End a session, at all sites. Raises ``SessionUnavailable`` if that cannot be promised."""
        if self.unavailable:
            return
        id = self._id(session_key or self.session_key)
        if id is None:
            return
        expires = time.time() + self.get_session_cookie_age()
        if self._held is not None:
            expires = max(expires, self._held.record.expires)
        runtime.current().store.delete(id, expires)

    @classmethod
    def clear_expired(cls) -> None:
        """Delete the expired items of the table: TTL does the same, within days."""
        run = runtime.current()
        if run.cold.exists:
            run.cold.clear_expired()

    def _get_new_session_key(self) -> str:
        # No look whether it exists, as the create is conditional.
        self._fresh_key = runtime.current().keyring.new_session_key()
        return self._fresh_key

    async def _aget_new_session_key(self) -> str:
        return self._get_new_session_key()

    def _id(self, session_key: str | None) -> str | None:
        """Return the storage id of a session key, None for one that this site never made."""
        if not session_key:
            return None
        run = runtime.current()
        if run.keyring.is_genuine(session_key):
            return storage_id(session_key)
        run.metrics.count("forged_keys")
        return None

    def _through(self, data: dict[str, Any]) -> dict[str, Any]:
        keys = runtime.current().config.write_through_keys
        return {key: data[key] for key in keys if key in data}

    def _remember(self, held: Held | None, data: dict[str, Any]) -> None:
        self._held = held
        # A copy: a list among them may be changed in place.
        self._loaded_through = copy.deepcopy(self._through(data))

    def _loads(self, payload: bytes) -> dict[str, Any]:
        key = self.session_key or ""
        try:
            return runtime.current().codec.loads(payload, key, self.serializer())
        except Unreadable as error:
            raise SessionUnreadable(f"Session {label(storage_id(key))}: {error}") from None

    def _merge(self, base: bytes, ours: bytes, theirs: bytes) -> bytes:
        merged = merge(self._loads(base), self._loads(ours), self._loads(theirs))
        return runtime.current().codec.dumps(merged, self.session_key or "", self.serializer())
