"""Session keys, storage ids and the secrets derived from ``SECRET_KEY``.

A session key (the cookie) carries a MAC, so that a made-up one is refused before any store is
asked. Stores see only its SHA-256, so that a dump of a store logs nobody in.
"""

import hashlib
import hmac
import secrets
import string
from collections.abc import Sequence

ALPHABET = string.digits + string.ascii_lowercase
RANDOM_LENGTH = 22  # 22 characters of 36 are 113 bits
MAC_LENGTH = 10  # 10 characters of 36 are 51 bits: enough against an online guess
KEY_LENGTH = RANDOM_LENGTH + MAC_LENGTH
TAG_BYTES = 16

_CHARACTERS = frozenset(ALPHABET)
_MAC_RANGE: int = len(ALPHABET) ** MAC_LENGTH


def storage_id(session_key: str) -> str:
    """Return the id under which both tiers hold a session: SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(session_key.encode()).hexdigest()


def is_well_formed(session_key: str) -> bool:
    """Tell whether a session key could be one of Django's engines, which have no MAC."""
    return len(session_key) == KEY_LENGTH and _CHARACTERS.issuperset(session_key)


def label(id: str) -> str:
    """Return the part of a storage id that a log may show."""
    return id[:8]


class Keyring:
    """The secrets of a site: makes with the first, accepts what any of them made.

    ``secret_keys`` is ``SECRET_KEY`` followed by ``SECRET_KEY_FALLBACKS``. BLAKE2b takes a key
    and a purpose ("person") of its own, so each use below has an independent key.
    """

    def __init__(self, secret_keys: Sequence[str | bytes]) -> None:
        roots = [_root(secret) for secret in secret_keys]
        self._cookie_macs = [_mac(root, b"session key", 8) for root in roots]
        self._hot_macs = [_mac(root, b"hot entry", TAG_BYTES) for root in roots]
        self._cold_macs = [_mac(root, b"cold item", TAG_BYTES) for root in roots]
        self._payload_macs = [_mac(root, b"payload", 32) for root in roots]
        self._owner_macs = [_mac(root, b"owner", TAG_BYTES) for root in roots]
        fingerprints = [_mac(root, b"fingerprint", TAG_BYTES) for root in roots]
        #: Tell whether another site has the same secrets, and nothing else: 32 hex digits for each
        #: secret, the current one first. They sign nothing.
        self.fingerprints = tuple(mac.hexdigest() for mac in fingerprints)

    def new_session_key(self) -> str:
        """Return a new session key: 22 random characters and 10 of a MAC over them."""
        random = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
        return random + _cookie_mac(self._cookie_macs[0], random)

    def is_genuine(self, session_key: str) -> bool:
        """Tell whether a session key was made with one of this site's secrets. No I/O."""
        if len(session_key) != KEY_LENGTH or not session_key.isascii():
            return False
        random, mac = session_key[:RANDOM_LENGTH], session_key[RANDOM_LENGTH:]
        if not mac.isalnum() or session_key != session_key.lower():
            return False  # int() would take more than our alphabet
        # As numbers: to spell out the expected MAC would take three times as long.
        given = int(mac, len(ALPHABET)).to_bytes(8, "big")
        return any(
            hmac.compare_digest(_cookie_number(secret, random).to_bytes(8, "big"), given)
            for secret in self._cookie_macs
        )

    def sign_hot(self, id: str, body: bytes) -> bytes:
        """Return the tag that binds the body of a hot entry to its id."""
        return _tag(self._hot_macs[0], id, body)

    def verify_hot(self, id: str, body: bytes, tag: bytes) -> bool:
        """Tell whether a hot entry was written by this site for this id."""
        return any(hmac.compare_digest(_tag(mac, id, body), tag) for mac in self._hot_macs)

    def sign_cold(self, id: str, body: bytes) -> bytes:
        """Return the tag that binds the body of a cold item to its id."""
        return _tag(self._cold_macs[0], id, body)

    def verify_cold(self, id: str, body: bytes, tag: bytes) -> bool:
        """Tell whether a cold item was written with one of this site's secrets for this id."""
        return any(hmac.compare_digest(_tag(mac, id, body), tag) for mac in self._cold_macs)

    def encryption_keys(self, session_key: str) -> list[bytes]:
        """Return the AES-256 keys of a session, the current one first.

        Each needs both a secret of the site and the session key, which no store holds.
        """
        return [_digest(mac, session_key.encode()) for mac in self._payload_macs]

    def owners(self, user_id: str) -> list[str]:
        """Return what stands for a user in both tiers, the current one first: 32 hex digits."""
        return [_digest(mac, user_id.encode()).hex() for mac in self._owner_macs]


def _root(secret: str | bytes) -> bytes:
    # BLAKE2b takes keys of up to 64 bytes; SECRET_KEY may be longer.
    return hashlib.sha512(secret.encode() if isinstance(secret, str) else secret).digest()


def _mac(root: bytes, purpose: bytes, size: int) -> "hashlib.blake2b":
    return hashlib.blake2b(key=root, person=purpose, digest_size=size)


def _digest(mac: "hashlib.blake2b", *parts: bytes) -> bytes:
    mac = mac.copy()  # the keyed state is computed once; a copy costs 0.3 µs
    for part in parts:
        mac.update(part)
    return mac.digest()


def _tag(mac: "hashlib.blake2b", id: str, body: bytes) -> bytes:
    return _digest(mac, id.encode(), body)


def _cookie_number(mac: "hashlib.blake2b", random: str) -> int:
    return int.from_bytes(_digest(mac, random.encode()), "big") % _MAC_RANGE


def _cookie_mac(mac: "hashlib.blake2b", random: str) -> str:
    number = _cookie_number(mac, random)
    characters = []
    for _ in range(MAC_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    return "".join(reversed(characters))
