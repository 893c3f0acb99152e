"""What a session knows about itself: when it began and who sells."""

import time

from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase

OPENED_AT = "opened_at"
ASSOCIATE = "associate"


def connect() -> None:
    """Date each session at its login."""
    user_logged_in.connect(_date, dispatch_uid="shop.session")


def age(session: SessionBase) -> float | None:
    """Return the seconds since the login, by whichever site it was."""
    opened_at = session.get(OPENED_AT)
    return None if opened_at is None else max(0.0, time.time() - opened_at)


def _date(request, **_):
    request.session[OPENED_AT] = time.time()
