"""The system checks, one site per check."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core import checks as django_checks
from django.core.cache.backends.locmem import LocMemCache

from django_dynamo_failover import checks
from django_dynamo_failover.checks import CACHE, ENGINE, MIDDLEWARE, MOVING_OUT, check_settings
from django_dynamo_failover.middleware import SessionMiddleware

GOOD_CACHE = {"BACKEND": CACHE, "LOCATION": "127.0.0.1:11211"}
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DJANGO_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
BUILT_IN = "django.contrib.sessions.backends."
CALLABLE = "tests.configurations.boto_session"


ROOT = Path(__file__).parent.parent


class OwnCache(LocMemCache):
    """A cache of the site's own, of which nothing is known."""


class OwnMiddleware(SessionMiddleware):
    """A middleware of the site's own on top of ours."""


@pytest.fixture(autouse=True)
def site(settings):
    """A site with nothing to complain of; a test spoils it."""
    settings.DEBUG = False
    settings.SESSION_ENGINE = ENGINE
    settings.SESSION_CACHE_ALIAS = "sessions"
    settings.MIDDLEWARE = [MIDDLEWARE]
    settings.CACHES = {"default": {"BACKEND": LOCMEM}, "sessions": GOOD_CACHE}
    settings.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"]}
    return settings


def found():
    return [message.id.removeprefix("django_dynamo_failover.") for message in check_settings(None)]


def test_a_good_site_passes():
    assert found() == []


def test_manage_py_check_runs_the_checks(site):
    site.DYNAMO_FAILOVER = {"TABEL": "x"}
    messages = django_checks.run_checks(tags=[django_checks.Tags.security])
    assert "django_dynamo_failover.E002" in [message.id for message in messages]


def test_a_site_with_another_engine_is_left_alone(site):
    site.SESSION_ENGINE, site.DYNAMO_FAILOVER = "django.contrib.sessions.backends.db", None
    assert found() == []


def test_a_setting_that_is_no_dict_is_e001(site):
    site.DYNAMO_FAILOVER = ["us-east-1"]
    assert found() == ["E001"]


def test_a_setting_that_is_missing_means_the_defaults(site):
    del site.DYNAMO_FAILOVER
    assert found() == ["W003"]


def test_an_unknown_key_is_e002(site):
    site.DYNAMO_FAILOVER = {"TABEL": "x"}
    assert found() == ["E002"]


def test_a_wrong_value_is_e003(site):
    site.DYNAMO_FAILOVER = {"DEADLINE": "2 seconds"}
    assert found() == ["E003"]


def test_nothing_else_is_said_before_the_dict_is_right(site):
    site.DYNAMO_FAILOVER, site.MIDDLEWARE, site.CACHES = {"TABEL": "x"}, [], {}
    assert found() == ["E002"]


def test_djangos_own_middleware_is_e004(site):
    site.MIDDLEWARE = [DJANGO_MIDDLEWARE]
    assert found() == ["E004"]


def test_no_session_middleware_is_e004(site):
    site.MIDDLEWARE = []
    assert found() == ["E004"]


def test_a_middleware_that_builds_upon_ours_is_as_good(site):
    site.MIDDLEWARE = [f"{__name__}.OwnMiddleware"]
    assert found() == []


def test_two_session_middlewares_are_e009(site):
    site.MIDDLEWARE = [MIDDLEWARE, DJANGO_MIDDLEWARE]
    assert found() == ["E009"]


@pytest.mark.parametrize("name", ["auth.middleware.Authentication", "messages.middleware.Message"])
def test_a_middleware_that_comes_before_the_session_it_looks_at_is_e010(site, name):
    other = f"django.contrib.{name}Middleware"
    site.MIDDLEWARE = [other, MIDDLEWARE]
    assert found() == ["E010"]
    site.MIDDLEWARE = [MIDDLEWARE, other]
    assert found() == []


@pytest.mark.parametrize(
    "spoilt", [{"OPTIONS": {"ignore_exc": True}}, {"BACKEND": "no.such.Cache"}, {"LOCATION": []}]
)
def test_a_cache_that_cannot_be_made_is_e011(site, spoilt):
    site.CACHES = {**site.CACHES, "sessions": {**GOOD_CACHE, **spoilt}}
    assert found() == ["E011"]


def test_an_option_that_hides_outages_is_w006(site):
    own = {"BACKEND": f"{__name__}.OwnCache", "OPTIONS": {"IGNORE_EXCEPTIONS": True}}
    site.CACHES = {**site.CACHES, "sessions": own}
    assert found() == ["W006"]


def test_an_alias_without_a_cache_is_e005(site):
    site.SESSION_CACHE_ALIAS = "redis"
    assert found() == ["E005"]


def test_encryption_without_cryptography_is_e006(site, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "ENCRYPT": True}
    assert found() == ["E006"]


def test_without_encryption_cryptography_is_not_needed(site, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert found() == []


def test_encryption_with_cryptography_passes(site):
    pytest.importorskip("cryptography")
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "ENCRYPT": True}
    assert found() == []


@pytest.mark.parametrize("path", ["nodots", "no.such.module", "os.no_such_name", "os.sep", ".x"])
def test_a_boto_session_that_cannot_be_called_is_e007(site, path):
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "BOTO_SESSION": path}
    assert found() == ["E007"]


def test_a_boto_session_that_can_be_called_passes(site):
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "BOTO_SESSION": CALLABLE}
    assert found() == []


@pytest.mark.parametrize(
    "engine",
    [
        "no.such",
        ".db",
        "django.contrib.sessions.backends.none",
        "django.contrib.sessions",
        ENGINE,
        MOVING_OUT,
    ],
)
def test_a_fallback_engine_that_is_none_or_ours_is_e008(site, engine):
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "FALLBACK_ENGINE": engine}
    assert found() == ["E008"]


@pytest.mark.parametrize("alias", [None, "sessions", "nowhere"])
@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_a_fallback_engine_that_looks_into_the_wrong_cache_is_e008(site, engine, alias):
    site.DYNAMO_FAILOVER = {
        "REGIONS": ["us-east-1"],
        "FALLBACK_ENGINE": BUILT_IN + engine,
        "FALLBACK_CACHE_ALIAS": alias,
    }
    assert found() == ["E008"]
    site.DYNAMO_FAILOVER = {**site.DYNAMO_FAILOVER, "FALLBACK_CACHE_ALIAS": "default"}
    assert found() == []


@pytest.mark.parametrize("engine", ["db", "file"])
def test_a_fallback_engine_without_a_cache_passes(site, engine):
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "FALLBACK_ENGINE": BUILT_IN + engine}
    assert found() == []


def test_moving_out_to_nowhere_is_e008(site):
    site.SESSION_ENGINE = MOVING_OUT
    assert found() == ["E008"]
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "FALLBACK_ENGINE": BUILT_IN + "db"}
    assert found() == []


@pytest.mark.parametrize("name", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_a_cache_that_processes_do_not_share_is_w001(site, name):
    site.CACHES = {"sessions": {"BACKEND": f"django.core.cache.backends.{name}"}}
    assert found() == ["W001"]


def test_while_developing_a_cache_of_one_process_will_do(site):
    site.DEBUG, site.CACHES = True, {"sessions": {"BACKEND": LOCMEM}}
    assert found() == []


@pytest.mark.parametrize("name", sorted(checks._UNPICKLING))
def test_a_cache_that_unpickles_is_w002(site, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pylibmc", SimpleNamespace(NotFound=KeyError, Client=None))
    site.CACHES = {"sessions": {"BACKEND": name, "LOCATION": "anywhere"}}
    assert found() == ["W002"]


def test_a_cache_of_the_sites_own_passes(site):
    site.CACHES = {"sessions": {"BACKEND": f"{__name__}.OwnCache"}}
    assert found() == []


def test_the_cache_of_another_alias_is_no_concern(site):
    site.CACHES = {"default": {"BACKEND": LOCMEM}, "sessions": GOOD_CACHE}
    assert found() == []


def test_no_regions_is_w003(site):
    site.DYNAMO_FAILOVER = {}
    assert found() == ["W003"]


def test_while_developing_the_hot_tier_alone_will_do(site):
    site.DEBUG, site.DYNAMO_FAILOVER = True, {}
    assert found() == []


@pytest.mark.parametrize(("interval", "ids"), [(899, []), (900, ["W004"]), (901, ["W004"])])
def test_a_write_interval_not_below_the_cookies_age_is_w004(site, interval, ids):
    site.SESSION_COOKIE_AGE = 900
    site.DYNAMO_FAILOVER = {"REGIONS": ["us-east-1"], "WRITE_INTERVAL": interval}
    assert found() == ids


@pytest.mark.parametrize(("deadline", "ids"), [(1.5, []), (1.4, ["W005"])])
def test_an_attempt_that_outlasts_the_deadline_is_w005(site, deadline, ids):
    site.DYNAMO_FAILOVER = {
        "REGIONS": ["us-east-1"],
        "CONNECT_TIMEOUT": 0.5,
        "READ_TIMEOUT": 1,
        "DEADLINE": deadline,
    }
    assert found() == ids


def test_all_that_is_wrong_is_said_at_once(site):
    site.MIDDLEWARE, site.CACHES, site.DYNAMO_FAILOVER = [], {}, {"ENCRYPT": True}
    assert {"E004", "E005", "W003"} <= set(found())


def test_errors_stop_a_deployment_and_warnings_do_not(site):
    site.MIDDLEWARE, site.DYNAMO_FAILOVER = [], {}
    levels = {message.id[-4:]: message.is_serious() for message in check_settings(None)}
    assert levels == {"E004": True, "W003": False}


def test_every_message_says_what_to_do(site):
    site.MIDDLEWARE, site.CACHES, site.DYNAMO_FAILOVER = [], {}, {"DEADLINE": 0.1}
    messages = check_settings(None)
    assert messages
    assert all(message.hint for message in messages)


def test_the_messages_show_neither_table_nor_region(site):
    site.MIDDLEWARE, site.CACHES = [], {}
    site.DYNAMO_FAILOVER = {"TABLE": "secret-table", "REGIONS": ["secret-region"], "DEADLINE": 0.1}
    assert "secret" not in "".join(f"{message}" for message in check_settings(None))


CHECK = """
import sys
import django
from django.core.checks import run_checks
django.setup()
run_checks()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"boto3", "botocore"}))
"""


def test_the_checks_ask_no_network_and_load_no_boto3():
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'testproject'}",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_MEMCACHED": "127.0.0.1:1",
            "SHOP_REGIONS": "us-east-1",
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
