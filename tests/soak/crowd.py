"""Log people in by the thousand, in a process of a site: ``python -m tests.soak.crowd 5000``.

Prints their session keys, one a line.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

THREADS = 8


def main(number: int) -> None:
    """Make so many sessions of the manager, as the login view does."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from shop import people
    from shop.session import OPENED_AT

    from django_dynamo_failover.sessions import SessionStore

    user = get_user_model().objects.get(username=people.MANAGER)
    login = {
        "_auth_user_id": str(user.pk),
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": user.get_session_auth_hash(),
        OPENED_AT: time.time(),
    }

    def enter(_: int) -> str:
        session = SessionStore()
        session.update(login)
        session.save()
        return str(session.session_key)

    with ThreadPoolExecutor(THREADS) as pool:
        for key in pool.map(enter, range(number)):
            print(key)


if __name__ == "__main__":
    main(int(sys.argv[1]))
