"""Run Django's own session tests against this engine, on a real memcached and a real dynalite.

    python tests/django_suite/run.py [--engine MODULE] [-v]

The tests are in the sdist of the Django that is installed, not in its wheel. pip downloads it into
$DJANGO_SUITE_CACHE (default: .cache of this repository); nothing of it is kept anywhere else.
Exit status 0 if all of SessionTestsMixin ran and every test passed.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from importlib import import_module
from pathlib import Path

import django

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "testproject"), str(REPOSITORY)]

from servers import Dynalite, Memcached, create_table  # noqa: E402

AT_LEAST = 65  # tests in SessionTestsMixin of Django 5.2; a smaller number means that we lost some
ASKS_THE_DATABASE = {"test_empty_session_saved"}  # looks into the table django_session
PACKAGE = "django_dynamo_failover"
TABLE = "django-suite"


def sdist(cache: Path) -> Path:
    """Django's source distribution, of exactly the version that is installed."""
    path = cache / f"django-{django.__version__}.tar.gz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-deps", "--no-binary", "django", "--dest", str(cache)]
        command = [sys.executable, "-I", "-m", "pip", "download", *options]
        subprocess.run([*command, f"django=={django.__version__}"], check=True)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Put the package sessions_tests into the folder."""
    with tarfile.open(archive) as tar:
        members = [name for name in tar.getnames() if "/tests/sessions_tests/" in name]
        tar.extractall(folder, [tar.getmember(name) for name in members], filter="data")
    (found,) = folder.glob("*/tests/sessions_tests")
    found.rename(folder / "sessions_tests")


def configure(engine: str, memcached: Memcached, dynamodb: Dynalite) -> None:
    """Set Django up with the settings of testproject on these servers."""
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_EC2_METADATA_DISABLED="true",
        DJANGO_SETTINGS_MODULE="shop.settings",
        SHOP_MEMCACHED=memcached.address,
        SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url,
        SHOP_TABLE=TABLE,
    )
    from django.conf import settings
    from django.test.utils import setup_test_environment

    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "sessions_tests"]
    settings.SESSION_ENGINE = engine
    if not engine.startswith(PACKAGE):  # such an engine may pickle
        settings.CACHES["sessions"]["BACKEND"] = (
            "django.core.cache.backends.memcached.PyMemcacheCache"
        )
    create_table(dynamodb.endpoint_url, TABLE)
    django.setup()
    setup_test_environment()


def cases(engine: str) -> list[type[unittest.TestCase]]:
    """SessionTestsMixin over the engine, and Django's tests of the middleware over ours.

    SimpleTestCase refuses database queries: a session must not make any.
    """
    from django.test import SimpleTestCase

    django_tests = import_module("sessions_tests.tests")
    backend = import_module(engine).SessionStore
    mixin = type("Session", (django_tests.SessionTestsMixin, SimpleTestCase), {"backend": backend})
    django_tests.SessionMiddleware = import_module(f"{PACKAGE}.middleware").SessionMiddleware
    django_tests.DatabaseSession = backend
    tests = vars(django_tests.SessionMiddlewareTests).items()
    inherited = {name: test for name, test in tests if name not in ASKS_THE_DATABASE}
    return [mixin, type("Middleware", (SimpleTestCase,), inherited)]


def run(case: type[unittest.TestCase], verbosity: int) -> tuple[int, int]:
    """Return how many tests passed, and how many there are."""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TextTestRunner(verbosity=verbosity).run(tests)
    return result.testsRun - len(result.failures + result.errors + result.skipped), result.testsRun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default=f"{PACKAGE}.sessions", metavar="MODULE")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    missing = [server.__name__ for server in (Memcached, Dynalite) if not server.available()]
    if missing:
        print(f"Not installed: {' and '.join(missing)}.", file=sys.stderr)
        return 2
    cache = Path(os.environ.get("DJANGO_SUITE_CACHE", REPOSITORY / ".cache"))
    with tempfile.TemporaryDirectory() as folder, Memcached() as memcached, Dynalite() as dynamodb:
        unpack(sdist(cache), Path(folder))
        sys.path.insert(0, folder)
        configure(options.engine, memcached, dynamodb)
        dynamodb.reset_requests()
        session, middleware = [run(case, 1 + options.verbose) for case in cases(options.engine)]
        import_module(f"{PACKAGE}.runtime").reset()  # writes what is pending
        hot, cold = memcached.commands(), dynamodb.requests()
    print(
        f"Django {django.__version__}, Python {sys.version.split()[0]}, {options.engine}:\n"
        f"  SessionTestsMixin: {session[0]} of {session[1]} passed\n"
        f"  SessionMiddlewareTests: {middleware[0]} of {middleware[1]} passed\n"
        f"  memcached: {dict(+hot)}\n"
        f"  DynamoDB: {dict(cold)}"
    )
    if session[1] < AT_LEAST:
        print(f"Expected at least {AT_LEAST} tests in SessionTestsMixin.", file=sys.stderr)
        return 1
    return int(session[0] < session[1] or middleware[0] < middleware[1])


if __name__ == "__main__":
    sys.exit(main())
