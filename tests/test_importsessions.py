"""``importsessions_dynamo``: the rows of a database engine, copied over none that is there."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from importlib import import_module
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore as DbStore
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.utils import timezone
from servers import Dynalite

from django_dynamo_failover import importing
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.keys import storage_id
from django_dynamo_failover.users import revoke_user_sessions

from .configurations import BOTO_SESSION, LOGIN, later, quieten
from .test_createtable import MANAGE, nobody

# The threads of the command do not ask the database: its rows are read in this one.
pytestmark = pytest.mark.django_db

NOTHING = {
    "copied": 0,
    "expired": 0,
    "undecodable": 0,
    "already_there": 0,
    "ended_here": 0,
    "too_large": 0,
}
COMMAND = import_module("django_dynamo_failover.management.commands.importsessions_dynamo")


@pytest.fixture
def site(engine, settings, monkeypatch):
    quieten(monkeypatch)
    engine.configure(
        BOTO_SESSION=BOTO_SESSION, FALLBACK_ENGINE="django.contrib.sessions.backends.db"
    )
    return engine


def begin(**data):
    session = DbStore()
    session.update(data)
    session.save()
    return session.session_key


def rows(number, **data):
    """Make many sessions at once; return their keys in order."""
    text = DbStore().encode(data)
    made = [
        Session(
            session_key=DbStore()._get_new_session_key(),
            session_data=text,
            expire_date=timezone.now() + timedelta(days=1),
        )
        for _ in range(number)
    ]
    Session.objects.bulk_create(made)
    return sorted(row.session_key for row in made)


def run(**options):
    """Run the command; return what it counted that is not 0."""
    out = StringIO()
    try:
        call_command("importsessions_dynamo", json=True, stdout=out, **options)
    finally:
        run.report = json.loads(out.getvalue() or "{}")
    return {name: number for name, number in run.report.items() if name in NOTHING and number}


def data(site, session_key):
    session = site.store(session_key)
    data = dict(session.items())
    return data if session.session_key else None


class TestWhatItCopies:
    def test_a_session_goes_on_here(self, site):
        key = begin(cart=["tea"])
        assert run() == {"copied": 1}
        Session.objects.all().delete()
        assert data(site, key) == {"cart": ["tea"]}

    def test_it_expires_when_it_would_have(self, site):
        key = begin(cart=1)
        Session.objects.update(expire_date=timezone.now() + timedelta(seconds=100))
        run()
        Session.objects.all().delete()
        with later(90):
            assert data(site, key)
        with later(110):
            assert data(site, key) is None

    def test_sealed_with_encrypt(self, site):
        site.configure(ENCRYPT=True)
        key = begin(card="4111")
        run()
        Session.objects.all().delete()
        assert b"4111" not in site.items()[storage_id(key)]["data"]["B"]
        assert data(site, key) == {"card": "4111"}

    def test_not_what_has_expired(self, site):
        begin(cart=1)
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
        assert run() == {"expired": 1}
        assert site.items() == {}

    def test_not_what_cannot_be_decoded(self, site):
        begin(cart=1)
        Session.objects.update(session_data="nonsense")
        begin(cart=2)
        assert run() == {"copied": 1, "undecodable": 1}

    def test_not_what_dynamodb_cannot_hold(self, site):
        begin(big=os.urandom(500_000).hex())
        assert run() == {"too_large": 1}

    def test_not_over_a_session_that_is_there(self, site):
        session = site.store(key := begin(cart=1))
        session["cart"] = 2
        session.save()
        site.restart()
        assert run() == {"already_there": 1}
        assert data(site, key) == {"cart": 2}

    def test_not_over_one_that_has_expired_there(self, site):
        session = site.store(key := begin(cart=1))
        session.load()
        with later(-100):
            run()
        item = {**site.items()[storage_id(key)], "expires": {"N": "1"}}
        site.put_item(item)
        assert run() == {"already_there": 1}

    def test_not_one_that_was_logged_out_here(self, site):
        key = begin(cart=1)
        row = Session.objects.get()
        site.store(key).delete()
        row.save(force_insert=True)
        assert run() == {"ended_here": 1}
        assert storage_id(key) not in site.items()
        assert data(site, key) is None

    def test_not_one_whose_user_was_logged_out_everywhere(self, site):
        user = get_user_model().objects.create_user("mia")
        key = begin(**{**LOGIN, "_auth_user_id": str(user.pk)})
        other = begin(**{**LOGIN, "_auth_user_id": "4711"})
        revoke_user_sessions(user)
        assert run() == {"copied": 1, "ended_here": 1}
        assert data(site, key) is None
        assert data(site, other)

    def test_a_logout_during_the_import_wins(self, site, monkeypatch):
        key = begin(cart=1)
        logout = site.store(key).delete
        put_new = DynamoTable.put_new

        def slow(table, *args):
            put_new(table, *args)
            logout()

        monkeypatch.setattr(DynamoTable, "put_new", slow)
        monkeypatch.setattr("django_dynamo_failover.fallback.OldEngine.delete", lambda *args: None)
        assert run() == {"ended_here": 1}
        assert storage_id(key) not in site.items()

    def test_twice_changes_nothing(self, site):
        rows(40, cart=1)
        assert run() == {"copied": 40}
        before = site.items()
        assert run() == {"already_there": 40}
        assert site.items() == before

    def test_nothing_in_a_dry_run(self, site, tmp_path):
        begin(cart=1)
        user = get_user_model().objects.create_user("mia")
        begin(**{**LOGIN, "_auth_user_id": str(user.pk)})
        revoke_user_sessions(user)
        before = site.items()
        file = tmp_path / "import.json"
        file.write_text("of a run that goes on")
        assert run(dry_run=True, resume=file) == {"copied": 1, "ended_here": 1}
        assert site.items() == before
        assert file.read_text() == "of a run that goes on"


class TestWhereItCopiesFrom:
    @pytest.mark.parametrize("source", ["db", "cached_db", "django.contrib.sessions.backends.db"])
    def test_any_engine_that_has_a_table(self, site, source):
        site.configure(FALLBACK_ENGINE=None)
        begin(cart=1)
        assert run(engine=source) == {"copied": 1}

    def test_an_engine_of_the_sites_own(self, site):
        begin(cart=1)
        assert run(engine=__name__) == {"copied": 1}

    @pytest.mark.parametrize("source", ["cache", "file", "signed_cookies"])
    def test_not_from_one_that_cannot_list_its_sessions(self, site, source):
        with pytest.raises(CommandError, match=r"cannot list its sessions.*FALLBACK_ENGINE") as no:
            run(engine=source)
        assert no.value.returncode == 1

    @pytest.mark.parametrize("source", ["no_such", "no.such", "django_dynamo_failover"])
    def test_not_from_one_that_there_is_not(self, site, source):
        with pytest.raises(CommandError) as no:
            run(engine=source)
        assert no.value.returncode == 1

    def test_not_from_anywhere_without_a_word(self, site):
        site.configure(FALLBACK_ENGINE=None)
        with pytest.raises(CommandError, match="Say --from") as no:
            run()
        assert no.value.returncode == 1


class SessionStore(DbStore):
    """An engine of a site's own."""


class TestGoingOn:
    @pytest.fixture(autouse=True)
    def _small_batches(self, monkeypatch):
        monkeypatch.setattr(COMMAND, "_BATCH", 10)

    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "import.json"

    def test_a_limit_and_the_rest(self, site, file):
        rows(35, cart=1)
        assert run(resume=file, limit=15) == {"copied": 15}
        assert run(resume=file, limit=15) == {"copied": 14, "already_there": 1}
        assert run(resume=file) == {"copied": 6, "already_there": 1}
        assert len(site.items()) == 35
        assert not file.exists()

    def test_a_failure_and_the_rest(self, site, file, monkeypatch):
        monkeypatch.setattr(importing, "ATTEMPTS", 1)
        keys = rows(35, cart=1)
        copy = importing.Importer.copy

        def fail(importer, row):
            if row.session_key == keys[24]:
                site.cold.fail("PutItem", "AccessDeniedException", times=None)
            return copy(importer, row)

        monkeypatch.setattr(importing.Importer, "copy", fail)
        with pytest.raises(CommandError, match="lack the permission") as no:
            run(resume=file)
        assert no.value.returncode == 2
        assert 20 <= run.report["copied"] < 35
        assert json.loads(file.read_text())["after"] == keys[19][:8]
        site.cold.heal()
        monkeypatch.undo()
        assert run(resume=file)["already_there"] >= 1
        assert len(site.items()) == 35

    def test_the_file_holds_no_session_key(self, site, file):
        [key] = rows(1, cart=1)
        run(resume=file, limit=1)
        assert key[:8] in file.read_text()
        assert key[:9] not in file.read_text()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"after": "a"}', "nonsense"])
    def test_a_file_of_something_else_is_left_alone(self, site, file, text):
        begin(cart=1)
        file.write_text(text)
        with pytest.raises(CommandError, match=r"import\.json") as no:
            run(resume=file)
        assert no.value.returncode == 1
        assert file.read_text() == text

    def test_a_file_that_cannot_be_written_is_told(self, site, tmp_path):
        begin(cart=1)
        with pytest.raises(CommandError, match="No such file") as no:
            run(resume=tmp_path / "no" / "where")
        assert no.value.returncode == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_after_what_has_begun(self, site, file, monkeypatch, number):
        keys = rows(35, cart=1)
        copy = importing.Importer.copy

        def interrupt(importer, row):
            if row.session_key == keys[12]:
                os.kill(os.getpid(), number)
            return copy(importer, row)

        monkeypatch.setattr(importing.Importer, "copy", interrupt)
        handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
        with pytest.raises(CommandError, match="Interrupted") as no:
            run(resume=file)
        assert no.value.returncode == 1
        assert run.report["copied"] == 20
        assert handlers == [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
        monkeypatch.undo()
        run(resume=file)
        assert len(site.items()) == 35

    def test_plain_lines_tell_how_far_it_is(self, site, monkeypatch):
        monkeypatch.setattr(COMMAND, "_TELL_SECONDS", 0)
        rows(25, cart=1)
        out = StringIO()
        call_command("importsessions_dynamo", stdout=out)
        *told, counts, total = out.getvalue().splitlines()
        assert told == ["10 rows, 15 to go", "20 rows, 5 to go", "25 rows, 0 to go"]
        assert counts.startswith("25 copied, 0 expired, 0 undecodable, 0 already there, ")
        assert total == "25 rows in 0 seconds"


class TestNoAnswer:
    def test_an_unknown_table_also_if_there_is_nothing_to_copy(self, site):
        site.configure(TABLE="no-such-table")
        with pytest.raises(CommandError, match="us-east-1: there is no such table") as no:
            run()
        assert no.value.returncode == 2

    @pytest.mark.parametrize("operation", ["BatchGetItem", "PutItem"])
    def test_no_permission(self, site, operation):
        rows(100, cart=1)
        site.cold.fail(operation, "AccessDeniedException", times=None)
        began = time.monotonic()
        with pytest.raises(CommandError, match="lack the permission") as no:
            run()
        assert no.value.returncode == 2
        assert time.monotonic() - began < 3

    def test_a_throttle_that_passes_is_waited_for(self, site):
        rows(10, cart=1)
        site.cold.fail("PutItem", "ProvisionedThroughputExceededException", times=5)
        assert run() == {"copied": 10}

    def test_no_database(self, site, monkeypatch):
        monkeypatch.setattr(SessionStore, "get_model_class", lambda: Missing)
        with pytest.raises(CommandError, match=r"The database of .*: OperationalError") as no:
            run(engine=__name__)
        assert no.value.returncode == 2
        assert "\n" not in str(no.value)

    def test_no_cold_tier(self, site):
        site.configure(REGIONS=[])
        with pytest.raises(CommandError, match="no cold tier") as no:
            run()
        assert no.value.returncode == 1


class Missing:
    """A model whose table there is not."""

    class _default_manager:  # noqa: N801
        @staticmethod
        def filter(**lookups):
            return Session.objects.extra(tables=["no_such_table"])


def manage(*arguments, **environ):
    """Run the command as a person does; return the exit code, stdout, stderr and the seconds."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, MANAGE, "importsessions_dynamo", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(MANAGE.parent.parent), **environ},
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


class TestItsSurface:
    def test_help_has_an_example_and_the_exit_codes(self):
        code, out, _, _ = manage("--help")
        assert code == 0
        assert "  $ python manage.py importsessions_dynamo --from cached_db --resume" in out
        assert "exit status: 0 " in out
        for option in ("--from ENGINE", "--resume FILE", "--limit N", "--dry-run", "--json"):
            assert option in out

    def test_a_region_that_cannot_be_reached(self):
        code, _, err, seconds = manage("--from", "db", SHOP_DYNAMODB_ENDPOINT=nobody())
        assert code == 2
        assert err == (
            "CommandError: us-east-1: cannot be reached (BatchGetItem: EndpointConnectionError)\n"
        )
        assert seconds < 5

    def test_a_region_that_does_not_answer(self, start):
        server = start(Dynalite)
        server.freeze()
        code, _, err, seconds = manage("--from", "db", SHOP_DYNAMODB_ENDPOINT=server.endpoint_url)
        assert (code, err.count("\n")) == (2, 1)
        assert "does not answer" in err
        assert seconds < 5

    def test_no_credentials(self, dynamodb):
        environ = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        code, _, err, seconds = manage(
            "--from", "db", SHOP_DYNAMODB_ENDPOINT=dynamodb.endpoint_url, **environ
        )
        assert (code, err.count("\n")) == (2, 1)
        assert "no AWS credentials found" in err
        assert seconds < 5
