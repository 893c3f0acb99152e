"""A pass to look at the panel while no tier can answer for the session of who looks.

The panel is wanted most when no session can be read. So whoever was shown it gets a signed cookie
besides: good for a while, only for looking, only together with the session's own cookie (which a
logout takes away) and until the user's password changes.
"""

import hashlib
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare, salted_hmac

from django_dynamo_failover.exceptions import SessionUnavailable
from django_dynamo_failover.sessions import SessionStore

#: A working day: it is given anew each time that the panel is shown.
PASS_SECONDS = 12 * 3600

COOKIE = "failover_panel"
_SALT = "django_dynamo_failover.panel.passes"


def is_session_lost(request: HttpRequest) -> bool:
    """Tell whether no tier can answer for the session of a request."""
    session: Any = getattr(request, "session", None)
    if not isinstance(session, SessionStore):
        return False
    try:
        return session.unavailable
    except SessionUnavailable:
        return True


def give(request: HttpRequest, response: HttpResponse, path: str) -> None:
    """Give the user of a request a pass for what is below ``path``."""
    user: Any = request.user
    bound = _binding(request, user)
    if bound is None:
        return
    value = _signer().sign_object([user._meta.pk.value_to_string(user), bound])  # noqa: SLF001
    response.set_cookie(
        COOKIE,
        value,
        max_age=PASS_SECONDS,
        path=path,
        secure=request.is_secure() or settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )


def holder(request: HttpRequest) -> Any:
    """Return the user whose pass a request has, None without one that is good."""
    try:
        id, bound = _signer().unsign_object(request.COOKIES.get(COOKIE, ""), max_age=PASS_SECONDS)
        user = get_user_model()._default_manager.get(pk=id)  # noqa: SLF001
    except (signing.BadSignature, ValueError, get_user_model().DoesNotExist):
        return None
    expected = _binding(request, user)
    good = expected is not None and constant_time_compare(bound, expected)
    return user if good and user.is_active and user.is_staff else None


def _binding(request: HttpRequest, user: Any) -> str | None:
    """Return what changes with the session's cookie and with the user's password."""
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not cookie or not hasattr(user, "get_session_auth_hash"):
        return None
    key = f"{cookie} {user.get_session_auth_hash()}"
    return salted_hmac(_SALT, key, algorithm=hashlib.sha256().name).hexdigest()


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=_SALT)
