"""The session dict as bytes: serialized, and with ``ENCRYPT`` sealed.

Both tiers hold the same payload, so that a failover never changes a type.
"""

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .exceptions import SessionTooLarge, Unreadable
from .keys import Keyring
from .record import MAX_PAYLOAD_BYTES

#: The key of a session that says whose it is: SESSION_KEY of django.contrib.auth.
USER_ID = "_auth_user_id"

#: Merges three payloads of a session: as loaded, ours, theirs. Returns the result, and when it
#: expires.
Merge = Callable[[bytes, bytes, bytes], tuple[bytes, float]]

_PLAIN = b"p"
_SEALED = b"e"
_LOGIN = b"u"  # comes before one of these
_LOGIN_HEADER = struct.Struct("!c16sd")  # format, owner, since
_NONCE_BYTES = 12


class Serializer(Protocol):
    """What ``SESSION_SERIALIZER`` names."""

    def dumps(self, obj: Any) -> bytes: ...
    def loads(self, data: bytes) -> Any: ...


@dataclass(frozen=True, slots=True)
class Login:
    """Whose session it is, and since when: kept outside of what may be sealed.

    ``owner`` is a keyed hash of the user's id as 32 hexadecimal digits, ``since`` in epoch seconds.
    """

    owner: str
    since: float


def login_of(payload: bytes) -> Login | None:
    """Return the login of a session, None if nobody is logged in."""
    if payload[:1] != _LOGIN:
        return None
    _, owner, since = _LOGIN_HEADER.unpack_from(payload)
    return Login(owner.hex(), since)


@dataclass(frozen=True, slots=True)
class PayloadCodec:
    """Turns the dict of a session into its payload and back.

    A sealed payload is AES-256-GCM under a key made from the site's secret and the session key,
    so that a stolen table and a stolen SECRET_KEY still lack the user's cookie. Whether a
    payload is sealed is read from it: ``encrypt`` can be switched with sessions alive.
    """

    keyring: Keyring
    encrypt: bool

    def dumps(
        self,
        data: dict[str, Any],
        session_key: str,
        serializer: Serializer,
        login: Login | None = None,
    ) -> bytes:
        """Return the payload of a session dict. Raises what the serializer raises.

        Also ``SessionTooLarge``, beyond what is ever inflated.
        """
        body = self._dumps(data, session_key, serializer)
        if login is None:
            return body
        return _LOGIN_HEADER.pack(_LOGIN, bytes.fromhex(login.owner), login.since) + body

    def _dumps(self, data: dict[str, Any], session_key: str, serializer: Serializer) -> bytes:
        plain = serializer.dumps(data)
        if not self.encrypt:
            return _PLAIN + plain
        if len(plain) > MAX_PAYLOAD_BYTES:
            raise SessionTooLarge(f"The session has {len(plain)} bytes. Store less in it.")
        # Sealed bytes do not compress, so what is to shrink must shrink first.
        nonce = os.urandom(_NONCE_BYTES)
        key = self.keyring.encryption_keys(session_key)[0]
        sealed: bytes = _aesgcm(key).encrypt(nonce, zlib.compress(plain, level=1), None)
        return _SEALED + nonce + sealed

    def loads(self, payload: bytes, session_key: str, serializer: Serializer) -> dict[str, Any]:
        """Return the session dict of a payload. Raises ``Unreadable``."""
        if payload[:1] == _LOGIN:
            payload = payload[_LOGIN_HEADER.size :]
        plain = payload[1:] if payload[:1] == _PLAIN else self._open(payload, session_key)
        try:
            data = serializer.loads(plain)
        except Exception as error:
            # Any serializer may be set, so any error may come; the payload is authentic.
            raise Unreadable(f"SESSION_SERIALIZER: {type(error).__name__}") from None
        if not isinstance(data, dict):
            raise Unreadable("the payload is not a dict")
        return data

    def _open(self, payload: bytes, session_key: str) -> bytes:
        if payload[:1] != _SEALED:
            raise Unreadable("payload of an unknown format")
        nonce, sealed = payload[1 : 1 + _NONCE_BYTES], payload[1 + _NONCE_BYTES :]
        from cryptography.exceptions import InvalidTag

        for key in self.keyring.encryption_keys(session_key):
            try:
                packed = _aesgcm(key).decrypt(nonce, sealed, None)
            except (InvalidTag, ValueError):
                continue
            return zlib.decompressobj().decompress(packed, MAX_PAYLOAD_BYTES)
        raise Unreadable("payload fails decryption")


def _aesgcm(key: bytes) -> Any:
    # Imported here: cryptography is the extra "encryption".
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
