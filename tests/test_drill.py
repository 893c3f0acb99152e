"""``drillsessions_dynamo``: what it says a failover would restore, on real servers."""

import json
import random
import time
from io import StringIO

import pytest
import time_machine
from django.core.cache import caches
from django.core.management import CommandError, call_command
from servers import free_port

from django_dynamo_failover import drill, runtime
from django_dynamo_failover.drill import Tally
from django_dynamo_failover.keys import storage_id

from .configurations import BOTO_SESSION, hot_key, quieten, write_pending


@pytest.fixture
def site(engine, monkeypatch):
    quieten(monkeypatch)
    engine.configure(BOTO_SESSION=BOTO_SESSION, READ_TIMEOUT=10, DEADLINE=11)
    return engine


def save(site, **data):
    """Return the key of a session that both tiers hold."""
    session = site.store()
    session.update(data)
    session.save()
    write_pending()
    return session.session_key


def change(site, key, **data):
    """Change a session in the hot tier alone."""
    session = site.store(key)
    session.update(data)
    session.save()


def run(**options):
    """Return the exit status, what is printed (with json an object), and the error."""
    out, code, error = StringIO(), 0, ""
    try:
        call_command("drillsessions_dynamo", stdout=out, **options)
    except CommandError as raised:
        code, error = raised.returncode, str(raised)
    text = out.getvalue()
    return code, json.loads(text) if options.get("json") and text else text, error


def report(**options):
    return run(json=True, **options)[1]


def test_sessions_that_both_tiers_hold_are_restored(site):
    for number in range(5):
        save(site, a=number)
    assert run() == (
        0,
        "us-east-1: 5 sessions, of which 5 (100.0 %) would be restored\n"
        "5 are in this site's hot tier: DynamoDB lacks changes of 0 s (p50), 0 s (p99), 0 s (max)\n"
        "not restored: 0 undecodable, 0 too large for DynamoDB,"
        " 0 of an earlier version than confirmed\n"
        "not looked at: 0 expired, 0 ended here\n",
        "",
    )


def test_json_is_one_object(site):
    save(site, a=1)
    assert report() == {
        "region": "us-east-1",
        "sampled": 1,
        "restorable": 1,
        "undecodable": 0,
        "oversize": 0,
        "lost": 0,
        "expired": 0,
        "ended": 0,
        "compared": 1,
        "age_seconds": {"p50": 0.0, "p99": 0.0, "max": 0.0},
    }


def test_a_change_that_dynamodb_lacks_has_an_age(site):
    save(site, a=1)
    key = save(site, a=2)
    change(site, key, a=3)
    began = time.time()
    with time_machine.travel(began + 100, tick=False):
        ages = report()["age_seconds"]
    assert ages["p50"] == 0
    assert 99 < ages["max"] < 110


def test_a_session_that_is_not_here_is_restored_all_the_same(site):
    key = save(site, a=1)
    site.hot.delete(hot_key(key))
    found = report()
    assert (found["restorable"], found["compared"]) == (1, 0)


def test_what_has_expired_or_ended_is_not_looked_at(site):
    save(site, a=1)
    ended = save(site, a=2)
    item = site.items()[storage_id(ended)]
    with time_machine.travel(time.time() + 30 * 24 * 3600, tick=False):
        found = report()
        assert (found["sampled"], found["expired"]) == (0, 2)
        assert "no session that has not expired" in run()[1]
    site.store(ended).delete()
    site.put_item(item)  # as a region that was lost has it when it comes back
    found = report()
    assert (found["sampled"], found["ended"]) == (1, 1)


def test_revocations_and_notes_are_no_sessions(site):
    site.store(save(site, a=1)).delete()
    site.put_item({"id": {"S": "sites"}, "expires": {"N": "1"}})
    assert run()[:2] == (0, "us-east-1: no session that has not expired\n")


@pytest.mark.parametrize("attribute", ["version", "data", "nonce"])
def test_a_forged_or_malformed_item_is_undecodable(site, attribute):
    key = save(site, a=1)
    save(site, a=1)
    item = site.items()[storage_id(key)]
    forged = {"version": {"N": "9"}, "data": {"B": b"nothing"}, "nonce": {"N": "1"}}
    site.put_item({**item, attribute: forged[attribute]})
    code, found, error = run(json=True)
    assert code == 1
    assert (found["sampled"], found["undecodable"], found["restorable"]) == (2, 1, 1)
    assert error == "1 of 2 sessions would not be restored as they are."


def test_another_secret_key_would_restore_nothing(site):
    save(site, a=1)
    runtime.reset()
    site.settings.SECRET_KEY = "another key"
    assert run()[0] == 1


def test_changes_that_are_too_large_for_dynamodb_are_not_restored(site):
    key = save(site, a=1)
    change(site, key, a="".join(random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=700_000)))
    code, found, _ = run(json=True)
    assert (code, found["oversize"], found["restorable"]) == (1, 1, 0)


def test_a_table_that_was_put_back_from_a_backup(site):
    key = save(site, a=1)
    backup = site.items()[storage_id(key)]
    change(site, key, a=2)
    write_pending()
    site.put_item(backup)
    code, found, _ = run(json=True)
    assert (code, found["lost"], found["restorable"]) == (1, 1, 0)


def test_a_session_that_is_written_during_the_drill_is_not_lost(site, monkeypatch):
    key = save(site, a=1)
    scan = drill.scan_sessions

    def scan_and_write(*args):
        page = scan(*args)
        if page.items:
            change(site, key, a=2)
            write_pending()
        return page

    monkeypatch.setattr(drill, "scan_sessions", scan_and_write)
    assert report()["lost"] == 0


def test_a_sample_is_no_larger_than_asked_for(site):
    for number in range(20):
        save(site, a=number)
    assert report(sample=7)["sampled"] == 7


def test_it_writes_nothing(site, memcached, dynamodb):
    change(site, save(site, a=1), a=2)
    before = memcached.commands()
    dynamodb.reset_requests()
    run()
    assert {name for name, n in (memcached.commands() - before).items() if n} == {"get"}
    assert set(dynamodb.requests()) == {"Scan"}


def test_dynamodb_that_refuses_or_is_gone_is_one_line(site, dynamodb):
    dynamodb.fail("Scan", "AccessDeniedException", times=None)
    assert run()[::2] == (
        2,
        "us-east-1: these AWS credentials lack the permission (Scan: AccessDeniedException)",
    )
    nobody = f"http://127.0.0.1:{free_port()}"
    site.configure(REGIONS=[{"NAME": "us-east-1", "ENDPOINT_URL": nobody}])
    code, _, error = run()
    assert code == 2
    assert "cannot be reached" in error


def test_a_memcached_that_is_gone_is_one_line(site):
    save(site, a=1)
    site.settings.CACHES["sessions"]["LOCATION"] = f"127.0.0.1:{free_port()}"
    del caches["sessions"]
    code, _, error = run()
    assert (code, error.startswith("The hot tier does not answer.")) == (2, True)


def test_without_a_cold_tier_there_is_nothing_to_restore(site):
    site.configure(REGIONS=[])
    assert run()[0] == 1


@pytest.mark.parametrize("sample", ["0", "-1", "many"])
def test_a_sample_is_a_number(sample):
    with pytest.raises(CommandError, match="argument --sample: invalid _count value"):
        call_command("drillsessions_dynamo", f"--sample={sample}")


def test_an_age_is_one_that_a_session_has():
    tally = Tally(ages=[float(n) for n in range(100, 0, -1)])
    assert [tally.age(share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert Tally(ages=[3.0]).age(0.5) == 3
    assert Tally().age(1) is None
