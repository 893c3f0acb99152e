"""Settings of the shop; environment variables point it at real servers.

Without any of them it runs by itself: the hot tier is in this process and there is no cold tier.

=========================  ===========================================================
``SHOP_SITE``              the name of this datacenter, shown on every page
``SHOP_MEMCACHED``         hot tier: ``host:port``, several with commas
``SHOP_REGIONS``           cold tier: AWS regions, nearest first, with commas
``SHOP_DYNAMODB_ENDPOINT`` cold tier: URL of any DynamoDB API server, for all regions
``SHOP_TABLE``             name of the DynamoDB table
``SHOP_WRITE_INTERVAL``    seconds between DynamoDB writes of a session; its lease
``SHOP_DATABASE``          path of the SQLite file
``SHOP_SECRET_KEY``        the same at all sites
``SHOP_HOSTS``             host names the site answers to, with commas
``SHOP_DEBUG``             ``0`` or ``1``
``SHOP_DEMO_CONTROLS``     ``1`` adds an address that empties the hot tier: demo only
=========================  ===========================================================
"""

import os
from pathlib import Path

from django.contrib.messages import constants as message_levels


def _list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def _flag(name: str, default: str) -> bool:
    return os.environ.get(name, default) == "1"


PROJECT_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "a demo key, known to everyone who reads this file")
DEBUG = _flag("SHOP_DEBUG", "1")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *_list("SHOP_HOSTS")]

INSTALLED_APPS = [
    "shop",
    "django_dynamo_failover",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django_dynamo_failover.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "shop.status.footer",
            ]
        },
    }
]

# --- Sessions ---------------------------------------------------------------------------------

SHOP_SITE = os.environ.get("SHOP_SITE", "here")
SHOP_DEMO_CONTROLS = _flag("SHOP_DEMO_CONTROLS", "0")

_memcached = _list("SHOP_MEMCACHED")
_endpoint = os.environ.get("SHOP_DYNAMODB_ENDPOINT")
_regions = _list("SHOP_REGIONS", "us-east-1" if _endpoint else "")

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "sessions": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "sessions",
        # LocMemCache drops entries past 300, which a hot tier should not.
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
}
if _memcached:
    CACHES["sessions"] = {
        "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
        "LOCATION": _memcached,
    }

SESSION_ENGINE = "django_dynamo_failover.sessions"
SESSION_CACHE_ALIAS = "sessions"
DYNAMO_FAILOVER = {
    "TABLE": os.environ.get("SHOP_TABLE", "shop_sessions"),
    "REGIONS": [
        {"NAME": name, "ENDPOINT_URL": _endpoint} if _endpoint else name for name in _regions
    ],
    "SITE": SHOP_SITE,
    "WRITE_INTERVAL": float(os.environ.get("SHOP_WRITE_INTERVAL", "900")),
    # Who sells weighs as much as who is logged in: DynamoDB has it before the browser.
    "WRITE_THROUGH_KEYS": [
        "_auth_user_id",
        "_auth_user_backend",
        "_auth_user_hash",
        "_session_expiry",
        "associate",
    ],
}

# --- The rest ---------------------------------------------------------------------------------

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", PROJECT_DIR / "shop.sqlite3"),
        "OPTIONS": {"timeout": 10},
    }
}
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    "shop.pins.PinHasher",
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "till"
LOGOUT_REDIRECT_URL = "login"

# A message needs no session: it would cost each cart change a second session write.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
MESSAGE_TAGS = {message_levels.ERROR: "bad", message_levels.SUCCESS: "good"}

STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"django_dynamo_failover": {"level": "INFO"}},
}
