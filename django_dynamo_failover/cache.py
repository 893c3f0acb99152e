"""A Django cache backend for memcached that never passes an outage off as a miss."""

import math
import re
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, InvalidCacheKey
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.exceptions import ImproperlyConfigured
from pymemcache.client.base import normalize_server_spec

from .memcached import Address, Servers

#: OPTIONS. Times in seconds; ``max_pool_size`` is the most connections to a server kept idle.
_OPTIONS = {
    "connect_timeout": 0.25,
    "timeout": 0.5,
    "no_delay": True,
    "socket_keepalive": None,
    "tls_context": None,
    "max_pool_size": 16,
    # Less than firewalls remember a quiet connection for: one that they forgot ends in a timeout.
    "pool_idle_timeout": 60,
}
#: Options of pymemcache that say what is so anyway. With any other value they are refused.
_IMPLIED: dict[str, object] = {"ignore_exc": False, "default_noreply": False, "use_pooling": True}
_IMPLIED |= {"retry_attempts": 0, "dead_timeout": 0, "allow_unicode_keys": True}

_is_plain_key = re.compile("[!-~]{1,250}").fullmatch


class MemcachedCache(PyMemcacheCache):
    """Django's cache API on memcached servers, for values of ``bytes``, ``str`` and ``int``.

    A miss is always the server's own word. A server that gives no answer raises ``OSError`` or
    ``MemcacheError`` within about ``connect_timeout + timeout`` seconds (OPTIONS), in all methods.
    A value over the server's item size raises ``MemcacheServerError`` ("object too large").
    Any other type raises ``TypeError``, also None and bool; subclasses of str and int come back as
    plain ones. What others have stored, such as a pickle, is never decoded: ``Unreadable``.

    Connections outlive the request and are shared by the threads of a process. With several
    servers, a key has its server for good (by LOCATION's text, the same in all processes): while
    one is down its keys fail, all others work, and none moves.

    After a server's restart a command runs twice, the second time on a new connection. Should the
    first have been carried out and only its answer be lost (the connection broke, the server did
    not), then ``add``, ``cas`` and ``delete`` return False for what they did themselves. ``incr``
    and ``decr`` would count twice, so they raise instead. A write that timed out may still be
    carried out when the server wakes up: of those only an ``add`` or ``cas`` cannot overwrite.
    """

    def __init__(self, server: str | list[Any], params: dict[str, Any]) -> None:
        super().__init__(server, params)
        options = _checked_options(params.get("OPTIONS") or {})
        self._cache = Servers(_addresses(server), options)

    def gets(self, key: Any, version: int | None = None) -> tuple[Any, bytes] | None:
        """Return the value and the token that ``cas`` takes, None for a miss."""
        return self._cache.gets(self.make_and_validate_key(key, version))

    def cas(
        self,
        key: Any,
        value: Any,
        token: bytes,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Store the value if the key is as it was when ``gets`` returned ``token``.

        Return False if it has changed or is gone. ``timeout``: seconds, as for ``set``.
        """
        key = self.make_and_validate_key(key, version)
        return bool(self._cache.cas(key, value, token, self.get_backend_timeout(timeout)))

    @property
    def server_count(self) -> int:
        """How many servers there are. Each can fail, and lose its contents, by itself."""
        return len(self._cache.pools)

    def server_of(self, key: Any, version: int | None = None) -> int:
        """Return the number of the server that a key belongs to, for good."""
        return self._cache.place(self.make_key(key, version))

    def get_backend_timeout(self, timeout: float | None = DEFAULT_TIMEOUT) -> int:
        # memcached keeps 32 bits: past 2038 it would expire at once, below -2**31 never.
        return max(-1, min(int(super().get_backend_timeout(timeout) or 0), 2**31 - 1))

    def validate_key(self, key: str) -> None:
        if not _is_plain_key(key):
            super().validate_key(key)
            # The value of a key that is empty or too long would be run as memcached's next command.
            if not 0 < len(key.encode()) <= 250:
                raise InvalidCacheKey(f"Cache key is not 1 to 250 bytes long: {key!r}")

    def close(self, **kwargs: Any) -> None:
        """Do nothing: Django calls this at the end of every request. See ``disconnect``."""

    def disconnect(self) -> None:
        """Close this process's idle connections to these servers, as before a shutdown."""
        for pool in self._cache.pools:
            pool.disconnect()


def _addresses(location: Any) -> list[Address]:
    specs = re.split("[;,]", location) if isinstance(location, str) else location
    specs = [spec.strip() if isinstance(spec, str) else spec for spec in specs]
    try:
        addresses = dict.fromkeys(normalize_server_spec(spec) for spec in specs if spec)
    except ValueError as error:
        raise ImproperlyConfigured(f"CACHES LOCATION: {error}") from error
    if not addresses:
        raise ImproperlyConfigured("CACHES LOCATION names no server: give host:port or unix:/path.")
    return list(addresses)


def _checked_options(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in _OPTIONS and (name not in _IMPLIED or value != _IMPLIED[name]):
            raise ImproperlyConfigured(
                f"CACHES OPTIONS {name!r}: {value!r} is not for MemcachedCache, which raises every"
                " failure, moves no key to another server and reads no pickle. Remove it."
                f" There are: {', '.join(_OPTIONS)}."
            )
    options = {name: given.get(name, default) for name, default in _OPTIONS.items()}
    for name in ("connect_timeout", "timeout"):
        seconds = options[name]
        if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ImproperlyConfigured(
                f"CACHES OPTIONS {name!r} must be a number of seconds above 0, not {seconds!r}:"
                " a server that hangs would hang every request."
            )
    return options
