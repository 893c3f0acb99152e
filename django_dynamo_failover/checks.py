"""System checks of the settings. No network. Ids are documented in ``docs/checks.rst``."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDbStore
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.utils.module_loading import import_string

from .conf import Config, problems
from .middleware import SessionMiddleware

ENGINE = "django_dynamo_failover.sessions"
MOVING_OUT = "django_dynamo_failover.moving_out"
MIDDLEWARE = "django_dynamo_failover.middleware.SessionMiddleware"
CACHE = "django_dynamo_failover.cache.MemcachedCache"

_DJANGO_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
_NOT_SHARED = {
    "django.core.cache.backends.locmem.LocMemCache",
    "django.core.cache.backends.dummy.DummyCache",
}
_UNPICKLING = {
    "django.core.cache.backends.memcached.PyMemcacheCache",
    "django.core.cache.backends.memcached.PyLibMCCache",
    "django.core.cache.backends.redis.RedisCache",
    "django.core.cache.backends.db.DatabaseCache",
    "django.core.cache.backends.filebased.FileBasedCache",
}
#: OPTIONS of pymemcache and of django-redis.
_HIDING = ("ignore_exc", "ignore_failures", "IGNORE_EXCEPTIONS")

#: Middlewares that look at the session, and so come after it.
_USING_SESSIONS = (AuthenticationMiddleware, MessageMiddleware)


@register(Tags.security)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check ``DYNAMO_FAILOVER`` and the settings of Django that it builds upon."""
    if settings.SESSION_ENGINE not in (ENGINE, MOVING_OUT):
        return []
    setting = getattr(settings, "DYNAMO_FAILOVER", {})
    found = [_error(p.id, p.message, p.hint) for p in problems(setting)]
    if found:
        return found
    config = Config.parse(setting)
    return [
        *_check_middleware(),
        *_check_cache(),
        *_check_config(config),
        *_check_fallback(config),
    ]


def _check_middleware() -> Iterator[CheckMessage]:
    paths = settings.MIDDLEWARE
    ours = [number for number, path in enumerate(paths) if _is(path, SessionMiddleware)]
    if not ours:
        yield _error(
            "E004",
            "MIDDLEWARE lacks the session middleware of django_dynamo_failover.",
            f"Put {MIDDLEWARE!r} in place of {_DJANGO_MIDDLEWARE!r}. Django's own answers 500 "
            "when neither tier can answer.",
        )
        return
    if sum(_is(path, DjangoSessionMiddleware) for path in paths) > 1:
        yield _error(
            "E009",
            "MIDDLEWARE has more than one session middleware.",
            f"Keep {paths[ours[0]]!r}; with two of them each request saves its session twice.",
        )
    early = [path for path in paths[: ours[0]] if _is(path, _USING_SESSIONS)]
    if early:
        yield _error(
            "E010",
            f"MIDDLEWARE has {early[0]!r} before the session middleware.",
            f"Put {paths[ours[0]]!r} before it: it looks at the session.",
        )


def _check_cache() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    if alias not in settings.CACHES:
        yield _error(
            "E005",
            f"SESSION_CACHE_ALIAS is {alias!r}, which is not in CACHES.",
            f'Add CACHES[{alias!r}] with "BACKEND": {CACHE!r} and a "LOCATION".',
        )
        return
    cache: Any = settings.CACHES[alias]
    backend = cache.get("BACKEND", "")
    try:
        caches.create_connection(alias)  # connects to nothing yet
    except Exception as error:
        # Any backend may be set, so any error may come.
        yield _error(
            "E011",
            # Its text may hold a password of LOCATION.
            f"CACHES[{alias!r}] makes no cache ({type(error).__name__}).",
            "Correct its BACKEND, LOCATION and OPTIONS.",
        )
        return
    hiding = [name for name in _HIDING if (cache.get("OPTIONS") or {}).get(name)]
    if hiding:
        yield _warning(
            "W006",
            f"CACHES[{alias!r}] has the option {hiding[0]!r}, which makes an outage look like a "
            "miss.",
            f"Remove it, or use {CACHE!r}.",
        )
    if backend in _NOT_SHARED and not settings.DEBUG:
        yield _warning(
            "W001",
            f"The hot tier is a {backend.rpartition('.')[2]}, which processes do not share.",
            f"Use {CACHE!r}; every process must see the same sessions.",
        )
    elif backend in _UNPICKLING:
        yield _warning(
            "W002",
            f"The hot tier is a {backend.rpartition('.')[2]}, which unpickles what it holds, "
            "has no compare-and-swap and may wait for ever.",
            f"Use {CACHE!r}.",
        )


def _check_config(config: Config) -> Iterator[CheckMessage]:
    if config.encrypt and find_spec("cryptography") is None:
        yield _error(
            "E006",
            "DYNAMO_FAILOVER['ENCRYPT'] is True, but cryptography is not installed.",
            'Run: pip install "django-dynamo-failover[encryption]"',
        )
    if config.boto_session is not None and not _is_callable(config.boto_session):
        yield _error(
            "E007",
            "DYNAMO_FAILOVER['BOTO_SESSION'] names nothing that can be called.",
            "Set it to the dotted path of a callable that returns a boto3 Session.",
        )
    if not config.regions and not settings.DEBUG:
        yield _warning(
            "W003",
            "DYNAMO_FAILOVER has no REGIONS: sessions are lost with the hot tier.",
            'Set "REGIONS" to a list of AWS regions, the nearest first.',
        )
    if config.write_interval >= settings.SESSION_COOKIE_AGE:
        yield _warning(
            "W004",
            "DYNAMO_FAILOVER['WRITE_INTERVAL'] is not below SESSION_COOKIE_AGE.",
            "Make it shorter: a session would be over before DynamoDB is written again.",
        )
    if config.connect_timeout + config.read_timeout > config.deadline:
        yield _warning(
            "W005",
            "DYNAMO_FAILOVER: one attempt (CONNECT_TIMEOUT + READ_TIMEOUT) outlasts DEADLINE.",
            "Raise DEADLINE or lower the timeouts.",
        )


def _check_fallback(config: Config) -> Iterator[CheckMessage]:
    problem = _problem_of_fallback(config.fallback_engine, config.fallback_cache_alias)
    if problem is not None:
        message, hint = problem
        yield _error("E008", f"DYNAMO_FAILOVER['FALLBACK_ENGINE'] {message}", hint)


def _problem_of_fallback(engine: str | None, alias: str | None) -> tuple[str, str] | None:
    """Return what is wrong with the engine that a site moves in from or out to, and a hint."""
    before = "Set it to what SESSION_ENGINE was before."
    if engine is None:
        if settings.SESSION_ENGINE == MOVING_OUT:
            return "is not set: where is the site to move out to?", "Set it to a session engine."
        return None
    if engine in (ENGINE, MOVING_OUT):
        return "is an engine of this package.", before
    try:
        store: Any = import_string(f"{engine}.SessionStore")
    except (ImportError, TypeError, ValueError):  # the latter two: ".name"
        return "names no module with a SessionStore.", before
    if not issubclass(store, CacheStore | CachedDbStore):
        return None
    alias = alias or settings.SESSION_CACHE_ALIAS
    options: Any = settings.CACHES.get(alias, {})
    if options.get("BACKEND", CACHE) == CACHE:
        return (
            f"has its sessions in a cache, which is not CACHES[{alias!r}].",
            "Set FALLBACK_CACHE_ALIAS to what SESSION_CACHE_ALIAS was before.",
        )
    return None


def _is(path: str, kind: type | tuple[type, ...]) -> bool:
    try:
        middleware = import_string(path)
    except ImportError:
        return False
    return isinstance(middleware, type) and issubclass(middleware, kind)


def _is_callable(path: str) -> bool:
    try:
        return callable(import_string(path))
    except (ImportError, ValueError):  # ValueError: ".name"
        return False


def _error(id: str, message: str, hint: str) -> CheckMessage:
    return Error(message, hint=hint, id=f"django_dynamo_failover.{id}")


def _warning(id: str, message: str, hint: str) -> CheckMessage:
    return Warning(message, hint=hint, id=f"django_dynamo_failover.{id}")
