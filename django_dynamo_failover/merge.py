"""The three-way merge of concurrent saves of one session."""

from typing import Any

_MISSING = object()
_AUTH_PREFIX = "_auth_"


def merge(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return ``theirs`` with the changes that ``ours`` made to ``base``, key by top-level key.

    A deletion is a change. The keys of Django's login (``_auth_…``) move together: where the
    other save changed any of them, all of theirs stand, so that an older save never undoes a
    login, a logout or a password change, nor mixes two users.
    """
    merged = dict(theirs)
    theirs_changed_auth = any(
        base.get(key, _MISSING) != theirs.get(key, _MISSING)
        for key in base.keys() | theirs.keys()
        if key.startswith(_AUTH_PREFIX)
    )
    for key in base.keys() | ours.keys():
        if theirs_changed_auth and key.startswith(_AUTH_PREFIX):
            continue
        value = ours.get(key, _MISSING)
        if value == base.get(key, _MISSING):
            continue
        if value is _MISSING:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
