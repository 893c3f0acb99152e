"""The session engine: ``SESSION_ENGINE = "django_dynamo_failover.sessions"``."""

import copy
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from . import runtime
from .changes import Draft, Held
from .clearing import Clearing
from .exceptions import (
    SessionEnded,
    SessionExists,
    SessionUnavailable,
    SessionUnreadable,
    Unreadable,
)
from .fallback import OldEngine, draft_of
from .keys import is_well_formed, label, storage_id
from .merge import merge
from .payload import USER_ID, Login, Merge, PayloadCodec, Serializer, login_of


class SessionStore(SessionBase):
    """A session in two tiers.

    ``load``, ``save``, ``exists`` and ``delete`` raise ``SessionUnavailable`` when no tier can
    answer; the session key stays. The ``a…`` twins of ``SessionBase`` run these in one hop of a
    thread.
    """

    #: Whether it is that of a request, to which ``ON_UNAVAILABLE`` applies. Set by the middleware.
    in_request = False
    #: Whether this session had to be done without.
    done_without = False
    #: What the last call raised because no tier could answer. The middleware looks here for
    #: what it has no way to catch.
    failure: SessionUnavailable | None = None
    #: Whether a session that neither tier knows is looked up in FALLBACK_ENGINE, if that is set.
    looks_elsewhere = True

    _held: Held | None = None
    _fresh_key: str | None = None
    _cycling = False
    _anew = False

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._loaded_through: dict[str, Any] = {}

    def load(self) -> dict[str, Any]:
        """Return the data of the session; without a session, {} and no session key any more."""
        run = runtime.current()
        try:
            held = self._find(run, self.session_key)
            data = self._loads(held) if held else {}
        except SessionUnavailable as error:
            run.metrics.count("unavailable")
            if not self.in_request or run.config.on_unavailable != "anonymous":
                self.failure = error
                raise
            self.done_without = True
            return {}
        if held is None:
            self._session_key = None
        self.failure = None
        self._remember(held, data)
        return data

    def create(self) -> None:
        """Save the data under a new session key."""
        if self.done_without:
            return
        old_key = self.session_key
        while True:
            self._session_key = self._get_new_session_key()
            try:
                self.save(must_create=True)
            except CreateError:
                continue
            except BaseException:
                self._session_key = old_key
                raise
            self.modified = True
            return

    def save(self, must_create: bool = False) -> None:
        """Save the data. Raises ``UpdateError`` on proof that the session is over.

        Also raises ``SessionUnavailable``, ``SessionTooLarge`` and what the serializer raises.
        """
        if self.session_key is None:
            self.create()
            return
        data: dict[str, Any] = self._get_session(no_load=must_create)  # type: ignore[attr-defined]
        if self.done_without:
            return
        if self.session_key is None:
            raise UpdateError
        id = self._id(self.session_key)
        if id is None:  # somebody made the key up, and cleared the session without a look at it
            self.create()
            return
        run = runtime.current()
        with self._noting_failure():
            if not must_create and (self._held is None or self._held.record.id != id):
                # Cleared without a look at it: what there is decides what is changed.
                held = self._find(run, self.session_key)
                if held is None:
                    raise UpdateError
                self._remember(held, self._loads(held))
            through = {} if must_create else self._loaded_through
            login = _login(run.codec, data, self._login_so_far(must_create=must_create))
            draft = Draft(
                payload=run.codec.dumps(data, self.session_key, self.serializer(), login),
                expires=time.time() + self.get_expiry_age(expiry=data.get("_session_expiry")),
                through=self._cycling or self._anew or self._through(data) != through,
            )
            if run.old_engine is not None and draft.through and not must_create:
                # Its copy there must not come back after what this save ends.
                run.old_engine.delete(self.session_key)
            held = self._store(id, draft, must_create=must_create)
            if held.record.payload != draft.payload:
                self._session_cache = data = self._loads(held)
        self._anew = False
        self._remember(held, data)

    def _store(self, id: str, draft: Draft, *, must_create: bool) -> Held:
        run = runtime.current()
        try:
            if must_create or self._held is None:
                return run.store.create(id, draft, fresh=self._fresh_key == self.session_key)
            merging = self._merging(run, self.session_key or "")
            return run.store.save(id, draft, self._held, merging)
        except SessionExists:
            raise CreateError from None
        except SessionEnded:
            raise UpdateError from None

    def exists(self, session_key: str | None) -> bool:
        """Tell whether a session is alive. Raises ``SessionUnavailable``."""
        with self._noting_failure():
            return self._find(runtime.current(), session_key) is not None

    def delete(self, session_key: str | None = None) -> None:
        """End a session, at all sites. Raises ``SessionUnavailable`` if that cannot be promised."""
        session_key = session_key or self.session_key
        id = self._id(session_key)
        if session_key is None or id is None:
            return
        run = runtime.current()
        expires = time.time() + self.get_session_cookie_age()
        if self._held is not None:
            expires = max(expires, self._held.record.expires)
        with self._noting_failure():
            if self.done_without:
                raise SessionUnavailable("what was not there cannot be ended")
            run.store.delete(id, expires)
            # Then there: whoever is moving the session over meanwhile finds that it has ended.
            if run.old_engine is not None:
                run.old_engine.delete(session_key)

    def cycle_key(self) -> None:
        """Give the session a new key. The new one is durable before the old one is deleted."""
        self._cycling = self.session_key is not None
        try:
            super().cycle_key()
        finally:
            self._cycling = False

    async def acycle_key(self) -> None:
        """Give the session a new key. See ``cycle_key``."""
        self._cycling = self.session_key is not None
        try:
            await super().acycle_key()
        finally:
            self._cycling = False

    @property
    def unavailable(self) -> bool:
        """Whether the page has to do without the session. For views and templates: it is loaded."""
        self._get_session()  # type: ignore[attr-defined]
        return self.done_without

    def do_without(self) -> None:
        """Go on without the session, for which no tier can answer: nothing is saved.

        The cookie is left alone.
        """
        self.done_without = True
        self.failure = None
        self._session_cache = {}

    def log_in_anew(self) -> None:
        """Take the user for one who has logged in just now: see ``revoke_user_sessions``."""
        self._anew = self.modified = True

    @classmethod
    def clear_expired(cls) -> None:
        """Delete what has expired in the nearest region: see ``clearsessions_dynamo``.

        Raises ``ColdUnavailable``.
        """
        config = runtime.config()
        for table in runtime.tables(config)[:1]:
            Clearing(table, time.time() - config.write_interval).run()

    def _get_new_session_key(self) -> str:
        # No look whether it exists, as the create is conditional.
        self._fresh_key = runtime.current().keyring.new_session_key()
        return self._fresh_key

    async def _aget_new_session_key(self) -> str:
        return self._get_new_session_key()

    def _find(self, run: runtime.Runtime, session_key: str | None) -> Held | None:
        """Return a session, None if there is none. Raises ``SessionUnavailable``."""
        id = self._id(session_key)
        if session_key is None or id is None:
            return None
        elsewhere = None
        if run.old_engine is not None and self.looks_elsewhere:
            elsewhere = partial(self._look_elsewhere, session_key, run.old_engine)
        return run.store.load(id, elsewhere, lambda: self._merging(run, session_key))

    def _merging(self, run: runtime.Runtime, session_key: str) -> Merge:
        return partial(_merge, run.codec, session_key, self.serializer())

    def _look_elsewhere(self, session_key: str, old_engine: OldEngine) -> Draft | None:
        found = old_engine.take(session_key)
        if found is None:
            return None
        return draft_of(found, session_key, runtime.current().codec, self.serializer())

    def _id(self, session_key: str | None) -> str | None:
        """Return the storage id of a session key, None for one that this site never made."""
        if not session_key:
            return None
        run = runtime.current()
        if run.keyring.is_genuine(session_key):
            return storage_id(session_key)
        if run.old_engine is not None and is_well_formed(session_key):
            run.metrics.count("old_keys")
            return storage_id(session_key)
        run.metrics.count("forged_keys")
        return None

    def _login_so_far(self, *, must_create: bool) -> list[Login | None]:
        if self._held is None or self._anew or (must_create and not self._cycling):
            return []
        return [login_of(self._held.record.payload)]

    def _through(self, data: dict[str, Any]) -> dict[str, Any]:
        keys = runtime.current().config.write_through_keys
        return {key: data[key] for key in keys if key in data}

    def _remember(self, held: Held | None, data: dict[str, Any]) -> None:
        self._held = held
        # A copy: a list among them may be changed in place.
        self._loaded_through = copy.deepcopy(self._through(data))

    def _loads(self, held: Held) -> dict[str, Any]:
        codec = runtime.current().codec
        return _loads(codec, self.session_key or "", self.serializer(), held.record.payload)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except SessionUnavailable as error:
            self.failure = error
            raise
        self.failure = None


def _loads(
    codec: PayloadCodec, session_key: str, serializer: Serializer, payload: bytes
) -> dict[str, Any]:
    try:
        return codec.loads(payload, session_key, serializer)
    except Unreadable as error:
        raise SessionUnreadable(f"Session {label(storage_id(session_key))}: {error}") from None


def _merge(
    codec: PayloadCodec,
    session_key: str,
    serializer: Serializer,
    base: bytes,
    ours: bytes,
    theirs: bytes,
) -> tuple[bytes, float]:
    # Not a method: the writer keeps it, and would keep the whole session with it.
    payloads = (base, ours, theirs)
    merged = merge(*(_loads(codec, session_key, serializer, payload) for payload in payloads))
    login = _login(codec, merged, (login_of(ours), login_of(theirs)))
    return codec.dumps(merged, session_key, serializer, login), _expires(merged)


def _login(
    codec: PayloadCodec, data: dict[str, Any], known: Iterable[Login | None]
) -> Login | None:
    """Return whose session this is, and since when: for as long as it is the same user's."""
    user_id = data.get(USER_ID)
    if user_id is None:
        return None
    owners = codec.keyring.owners(str(user_id))
    logins = [login for login in known if login is not None and login.owner in owners]
    return max(logins, key=lambda login: login.since, default=Login(owners[0], time.time()))


def _expires(data: dict[str, Any]) -> float:
    age = SessionStore().get_expiry_age(expiry=data.get("_session_expiry"))
    return time.time() + age
