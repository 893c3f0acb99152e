"""How PINs are stored and how often a wrong one may be tried."""

import time

from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password
from django.contrib.sessions.backends.base import SessionBase
from django.utils.crypto import salted_hmac

MAX_FAILURES = 5
LOCK_SECONDS = 60


class PinHasher(PBKDF2PasswordHasher):
    """A fast hasher: no iteration count protects one of 10,000 PINs, the pepper below does."""

    algorithm = "pbkdf2_sha256_pin"
    iterations = 20_000  # 5 ms; the register must not feel slow


def hash_pin(pin: str) -> str:
    """Return what is stored of a PIN. It cannot be guessed at without ``SECRET_KEY``."""
    return make_password(_pepper(pin), hasher=PinHasher.algorithm)


def check_pin(pin: str, stored: str) -> bool:
    """Tell whether a PIN is the stored one."""
    return check_password(_pepper(pin), stored, preferred=PinHasher.algorithm)


def seconds_locked(session: SessionBase) -> int:
    """Return for how many seconds this session may not try another PIN; 0 = it may."""
    locked_until: float = session.get("pin_locked_until", 0)
    return max(0, round(locked_until - time.time()))


def note_failure(session: SessionBase) -> int:
    """Count a wrong PIN and return the tries that are left; the last one locks the session."""
    failures: int = session.get("pin_failures", 0) + 1
    if failures >= MAX_FAILURES:
        session["pin_locked_until"] = time.time() + LOCK_SECONDS
        failures = 0
        session["pin_failures"] = failures
        return 0
    session["pin_failures"] = failures
    return MAX_FAILURES - failures


def note_success(session: SessionBase) -> None:
    """Forget the wrong PINs."""
    session.pop("pin_failures", None)
    session.pop("pin_locked_until", None)


def _pepper(pin: str) -> str:
    return salted_hmac("shop.pins", pin, algorithm="sha256").hexdigest()
