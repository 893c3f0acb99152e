"""``clearsessions_dynamo``, Django's ``clearsessions``, and the clearing below them.

``CLEARSESSIONS_ITEMS=200000`` in the environment runs the large tests at the size of a real table,
which takes some ten minutes; ``-s`` shows what they measure.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from servers import Dynalite, create_table, free_port

from django_dynamo_failover import clearing
from django_dynamo_failover.checkpoint import CheckpointFile, Progress, Tally
from django_dynamo_failover.clearing import Clearing
from django_dynamo_failover.dynamo_admin import TableState, look_at
from django_dynamo_failover.exceptions import ColdUnavailable
from django_dynamo_failover.management import progress as progress_bar
from django_dynamo_failover.management.commands import clearsessions_dynamo

from .conftest import client
from .test_dynamo import connect, scripted  # noqa: F401

MANAGE = Path(__file__).resolve().parent.parent / "testproject" / "manage.py"
ITEMS = int(os.environ.get("CLEARSESSIONS_ITEMS", "4000"))
LONG_AGO = int(time.time()) - 10 * 24 * 3600
IN_FUTURE = int(time.time()) + 10 * 24 * 3600


def seed(server, table, ids, expires, size=200):
    """Put items of that many bytes of data, in parallel."""
    dynamodb = client(server.endpoint_url)

    def put(ids):
        items = [
            {"id": {"S": id}, "expires": {"N": str(expires)}, "data": {"B": b"x" * size}}
            for id in ids
        ]
        left = [{"PutRequest": {"Item": item}} for item in items]
        while left:
            answer = dynamodb.batch_write_item(RequestItems={table: left})
            left = answer["UnprocessedItems"].get(table)

    ids = list(ids)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, [ids[start : start + 25] for start in range(0, len(ids), 25)]))


def seed_half(server, table, items=ITEMS):
    """Put items of which half have expired; return these, and the others."""
    ids = [f"{number:064x}" for number in range(items)]
    expired, alive = ids[::2], ids[1::2]
    seed(server, table, expired, LONG_AGO)
    seed(server, table, alive, IN_FUTURE)
    return expired, alive


def ids_in(server, table):
    pages = (
        client(server.endpoint_url)
        .get_paginator("scan")
        .paginate(TableName=table, ProjectionExpression="id", ConsistentRead=True)
    )
    return {item["id"]["S"] for page in pages for item in page["Items"]}


def configure(settings, table, *servers):
    settings.DYNAMO_FAILOVER = {
        "TABLE": table,
        "READ_TIMEOUT": 10,
        "REGIONS": [
            {"NAME": name, "ENDPOINT_URL": getattr(server, "endpoint_url", server)}
            for server, name in zip(servers, ["us-east-1", "us-west-2"], strict=False)
        ],
    }


@pytest.fixture
def run(settings, dynamodb, table):
    """``run(option=…)``: the command on the table; its lines of output, with json the object."""
    configure(settings, table, dynamodb)

    def run(**options):
        run.out = StringIO()
        call_command("clearsessions_dynamo", stdout=run.out, **options)
        text = run.out.getvalue()
        return json.loads(text) if options.get("json") else text.splitlines()

    return run


def environ(server, table):
    endpoint = getattr(server, "endpoint_url", server)
    return {
        **os.environ,
        "PYTHONPATH": str(MANAGE.parent.parent),
        "SHOP_DYNAMODB_ENDPOINT": endpoint,
        "SHOP_TABLE": table,
    }


@pytest.fixture
def popen():
    """``popen(server, table, …)``: the command as a person starts it; it does not outlive us."""
    started = []

    def popen(server, table, *arguments):
        process = subprocess.Popen(
            [sys.executable, MANAGE, "clearsessions_dynamo", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ(server, table),
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


def manage(server, table, *arguments, **more):
    """Return the exit status, stdout and stderr of the command."""
    done = subprocess.run(
        [sys.executable, MANAGE, "clearsessions_dynamo", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=1800,
        env={**environ(server, table), **more},
    )
    return done.returncode, done.stdout, done.stderr


def wait_for_deletes(server, number):
    """Wait until a command that runs has asked for so many."""
    give_up_at = time.monotonic() + 60 + ITEMS / 200
    while server.requests()["DeleteItem"] < number:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


# --- What it deletes --------------------------------------------------------------------------


def test_it_deletes_sessions_revocations_and_users_that_have_expired(run, dynamodb, table):
    seed(dynamodb, table, ["session", "revoked:session", "user:tag"], LONG_AGO)
    seed(dynamodb, table, ["session 2", "revoked:session 2", "user:tag 2"], IN_FUTURE)
    assert run(json=True)["deleted"] == 3
    assert ids_in(dynamodb, table) == {"session 2", "revoked:session 2", "user:tag 2"}


def test_it_keeps_for_one_lease_what_may_be_alive_without_its_copy(run, dynamodb, table):
    now = int(time.time())
    for age in (-60, 60, 840, 960):
        seed(dynamodb, table, [f"{age}"], now - age)
    run()
    assert ids_in(dynamodb, table) == {"-60", "60", "840"}
    run(grace=30)
    assert ids_in(dynamodb, table) == {"-60"}


def test_it_goes_through_all_pages_of_all_segments(run, dynamodb, table):
    ids = [f"{number}" for number in range(700)]
    seed(dynamodb, table, ids, LONG_AGO)
    assert run(segments=2, json=True)["deleted"] == 700
    assert dynamodb.requests()["Scan"] >= 4
    assert ids_in(dynamodb, table) == set()


def test_a_page_without_anything_expired_is_not_the_last_one(run, dynamodb, table):
    seed(dynamodb, table, [f"{number}" for number in range(300)], IN_FUTURE)
    last = client(dynamodb.endpoint_url).scan(TableName=table)["Items"][-1]["id"]["S"]
    seed(dynamodb, table, [last], LONG_AGO)
    assert run(segments=1, json=True)["deleted"] == 1


def test_it_deletes_exactly_what_has_expired_while_sessions_are_renewed(popen, dynamodb, table):
    expired, alive = seed_half(dynamodb, table)
    dynamodb.latency(2)
    renewed, over = set(), threading.Event()

    def renew():
        server = client(dynamodb.endpoint_url)
        some = random.Random(1).sample(expired, min(len(expired), 20_000))
        for id in some:
            if over.is_set() or len(renewed) == min(1000, ITEMS // 20):
                return
            try:
                server.update_item(
                    TableName=table,
                    Key={"id": {"S": id}},
                    UpdateExpression="SET expires = :later",
                    ConditionExpression="attribute_exists(id)",
                    ExpressionAttributeValues={":later": {"N": str(IN_FUTURE)}},
                )
            except server.exceptions.ConditionalCheckFailedException:
                continue  # deleted already: nothing is promised to it
            renewed.add(id)

    process = popen(dynamodb, table, "--json")
    wait_for_deletes(dynamodb, 1)
    writer = threading.Thread(target=renew)
    writer.start()
    out, err = process.communicate(timeout=1800)
    over.set()
    writer.join()
    dynamodb.heal()
    print(f"{len(renewed)} renewed; {out}")
    assert (process.returncode, err) == (0, "")
    assert len(renewed) >= ITEMS // 200
    assert ids_in(dynamodb, table) == renewed | set(alive)
    report = json.loads(out)
    assert report["deleted"] == len(expired) - len(renewed)
    assert report["scanned"] == ITEMS


def test_djangos_clearsessions_does_the_same(settings, dynamodb, table):
    configure(settings, table, dynamodb)
    settings.SESSION_ENGINE = "django_dynamo_failover.sessions"
    seed(dynamodb, table, ["old", "revoked:old"], LONG_AGO)
    seed(dynamodb, table, ["new"], IN_FUTURE)
    call_command("clearsessions")
    assert ids_in(dynamodb, table) == {"new"}


def test_djangos_clearsessions_has_nothing_to_do_without_a_cold_tier(settings):
    settings.DYNAMO_FAILOVER = {}
    settings.SESSION_ENGINE = "django_dynamo_failover.sessions"
    call_command("clearsessions")


def test_a_dry_run_deletes_nothing(run, dynamodb, table):
    seed_half(dynamodb, table, 20)
    assert run(dry_run=True)[-2].startswith("us-east-1: 20 items, 10 to delete, ")
    assert len(ids_in(dynamodb, table)) == 20
    assert dynamodb.requests()["DeleteItem"] == 0


# --- Fast, and not too fast -------------------------------------------------------------------


def delete_one_by_one(server, table, seconds):
    """Do what a script does that knows nothing of segments; return its deletes a second."""
    dynamodb = client(server.endpoint_url)
    now = {":now": {"N": str(int(time.time()))}}
    began = time.monotonic()
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=table,
        ProjectionExpression="id",
        FilterExpression="expires < :now",
        ExpressionAttributeValues=now,
    )
    deleted = 0
    for page in pages:
        for item in page["Items"]:
            dynamodb.delete_item(
                TableName=table,
                Key={"id": item["id"]},
                ConditionExpression="expires < :now",
                ExpressionAttributeValues=now,
            )
            deleted += 1
            if time.monotonic() - began > seconds:
                return deleted / seconds
    return deleted / (time.monotonic() - began)


def test_it_is_three_times_as_fast_as_one_by_one(run, dynamodb, table):
    """With 5 ms for each request, as DynamoDB has: without, the CPUs of this machine are all."""
    seed_half(dynamodb, table)
    dynamodb.latency(5)
    slow = delete_one_by_one(dynamodb, table, seconds=3 if ITEMS < 100_000 else 30)
    report = run(json=True)
    fast = report["deleted"] / report["seconds"]
    print(f"{slow:.0f} deletes a second one by one, {fast:.0f} with 16 segments")
    assert fast >= 3 * slow


PEAK = """
import sys, django
from django.core.management import call_command
django.setup()
call_command("clearsessions_dynamo")
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_table(dynamodb, table, start):
    def peak(table):
        done = subprocess.run(
            [sys.executable, "-c", PEAK],
            check=True,
            capture_output=True,
            text=True,
            timeout=1800,
            env={
                **environ(dynamodb, table),
                "PYTHONPATH": f"{MANAGE.parent.parent}:{MANAGE.parent}",
                "DJANGO_SETTINGS_MODULE": "shop.settings",
            },
        )
        return int(done.stdout.splitlines()[-1]) / 1024

    small = f"{table}-small"
    create_table(dynamodb.endpoint_url, small)
    seed_half(dynamodb, small, 2000 if ITEMS > 10_000 else 200)
    seed_half(dynamodb, table)
    peaks = peak(small), peak(table)
    print(f"peaks: {peaks[0]:.1f} and {peaks[1]:.1f} MB")
    assert peaks[1] - peaks[0] < 20


@pytest.mark.parametrize(("size", "cost"), [(200, 1), (2500, 3)])
def test_a_budget_of_write_units_is_held(run, dynamodb, table, size, cost):
    number = 600 // cost
    seed(dynamodb, table, [f"{number}" for number in range(number)], LONG_AGO, size)
    report = run(json=True, max_write_units=200)
    print(report)
    assert report["write_units"] == 600
    assert dynamodb.requests()["DeleteItem"] == number
    assert report["write_units"] / report["seconds"] == pytest.approx(200, rel=0.1)


def test_a_budget_of_read_units_is_held(run, dynamodb, table):
    seed(dynamodb, table, [f"{number}" for number in range(3000)], IN_FUTURE)
    report = run(json=True, max_read_units=30, segments=2)
    assert report["read_units"] == pytest.approx(3000 * 250 / 4096 / 2, rel=0.2)
    # The first request waits for nobody, and has been paid for when the others go.
    assert report["read_units"] / report["seconds"] < 45


# --- It stops ---------------------------------------------------------------------------------


def test_a_limit_is_not_exceeded(run, dynamodb, table):
    seed_half(dynamodb, table, 200)
    with pytest.raises(CommandError, match="Stopped before the end by --limit") as caught:
        run(limit=30)
    assert caught.value.returncode == 1
    assert len(ids_in(dynamodb, table)) == 170
    assert dynamodb.requests()["DeleteItem"] == 30


def test_a_limit_that_suffices_is_no_problem(run, dynamodb, table):
    seed_half(dynamodb, table, 60)
    assert run(limit=30, json=True)["stopped_by"] is None


def test_it_stops_after_max_seconds(run, dynamodb, table):
    seed_half(dynamodb, table, 400)
    began = time.monotonic()
    with pytest.raises(CommandError, match="Stopped before the end by --max-seconds"):
        run(max_seconds=1, max_write_units=20)
    assert 0.9 < time.monotonic() - began < 4
    assert 380 - 15 <= len(ids_in(dynamodb, table)) <= 390


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_partial_summary(popen, dynamodb, table, number):
    seed_half(dynamodb, table, 400)
    process = popen(dynamodb, table, "--max-write-units", 20)
    wait_for_deletes(dynamodb, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err == "CommandError: Stopped before the end by a signal. Run it again.\n"
    left = len(ids_in(dynamodb, table))
    assert f"us-east-1: 400 items, {400 - left} deleted, 0 renewed or gone meanwhile\n" in out


def test_a_second_signal_is_fatal(popen, dynamodb, table):
    seed_half(dynamodb, table, 400)
    process = popen(dynamodb, table)
    dynamodb.fail("DeleteItem", "hang", times=None)
    wait_for_deletes(dynamodb, 1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


# --- And goes on ------------------------------------------------------------------------------


def test_a_killed_run_is_finished_by_another(popen, dynamodb, table, tmp_path):
    expired, alive = seed_half(dynamodb, table)
    file = tmp_path / "clear.json"
    dynamodb.reset_requests()
    process = popen(dynamodb, table, "--resume", file, "--segments", 4)
    wait_for_deletes(dynamodb, len(expired) * 3 // 4)
    process.kill()
    process.communicate()
    saved = json.loads(file.read_text())
    assert saved["tally"]["scanned"] >= ITEMS * 5 / 8
    assert len(ids_in(dynamodb, table)) > len(alive)
    dynamodb.reset_requests()

    code, out, err = manage(dynamodb, table, "--resume", file, "--segments", 4, "--json")
    print(f"killed after {saved}; then {out}")
    assert (code, err) == (0, "")
    # It has not begun anew: each segment reads its last page again, and one at its end.
    assert dynamodb.requests()["Scan"] <= (ITEMS - saved["tally"]["scanned"]) / 250 + 8
    assert ids_in(dynamodb, table) == set(alive)
    assert not file.exists()


def test_a_stopped_run_goes_on_and_counts_on(run, dynamodb, table, tmp_path):
    seed_half(dynamodb, table, 1000)
    file = tmp_path / "clear.json"
    with pytest.raises(CommandError, match=r"Run it again with the same --resume to go on\.$"):
        run(resume=file, segments=2, limit=200)
    report = run(resume=file, segments=2, json=True)
    assert report["deleted"] == 500
    assert 1000 <= report["scanned"] <= 1000 + 2 * 250
    assert not file.exists()


def test_a_limit_is_for_each_run(run, dynamodb, table, tmp_path):
    seed_half(dynamodb, table, 100)
    for left in (80, 60):
        with pytest.raises(CommandError):
            run(resume=tmp_path / "clear.json", limit=20)
        assert len(ids_in(dynamodb, table)) == left


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path):
    file = CheckpointFile(tmp_path / "clear.json", "sessions", "us-east-1", 3)
    progress = Progress({0: None, 2: "revoked:x"}, Tally(5, 4, 1, 2.5, 5.0, 0.25))
    assert file.load() is None
    file.save(progress)
    assert file.load() == progress
    assert list(tmp_path.iterdir()) == [file.path]
    file.remove()
    assert file.load() is None


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    file = CheckpointFile(tmp_path / "clear.json", "sessions", "us-east-1", 3)
    file.save(Progress.start(3))

    def write_half(path, text):
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="No space"):
        file.save(Progress({1: "x"}))
    assert file.load() == Progress.start(3)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"table": "other"}, "the checkpoint of a run with table 'other', not "),
        ({"region": "mars"}, "the checkpoint of a run with region 'mars', not 'us-east-1'"),
        ({"segments": 8}, "the checkpoint of a run with segments 8, not 16"),
        ({"left": None}, "is not a checkpoint"),
        ({"tally": {"items": 1}}, "is not a checkpoint"),
    ],
)
def test_a_checkpoint_of_other_work_is_refused(run, dynamodb, table, tmp_path, changed, says):
    path = tmp_path / "clear.json"
    CheckpointFile(path, table, "us-east-1", 16).save(Progress.start(16))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(CommandError, match=says) as caught:
        run(resume=path)
    assert caught.value.returncode == 1
    assert path.exists()
    assert not dynamodb.requests()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"null"])
def test_a_file_that_is_no_checkpoint_is_refused(run, tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    with pytest.raises(CommandError, match="notes is not a checkpoint") as caught:
        run(resume=tmp_path / "notes")
    assert caught.value.returncode == 1
    assert (tmp_path / "notes").read_bytes() == content


def test_a_file_that_cannot_be_written_is_told_before_anything_is_deleted(
    run, dynamodb, table, tmp_path
):
    seed_half(dynamodb, table, 20)
    with pytest.raises(CommandError, match="No such file or directory") as caught:
        run(resume=tmp_path / "missing" / "clear.json")
    assert caught.value.returncode == 1
    assert dynamodb.requests()["Scan"] == 0


def test_a_dry_run_cannot_be_resumed(run, tmp_path):
    with pytest.raises(CommandError, match="exclude each other") as caught:
        run(resume=tmp_path / "clear.json", dry_run=True)
    assert caught.value.returncode == 1


# --- What goes wrong --------------------------------------------------------------------------


def test_it_is_patient_with_throttling(run, dynamodb, table):
    seed_half(dynamodb, table, 20)
    dynamodb.fail("Scan", "ThrottlingException", times=40)
    dynamodb.fail("DeleteItem", "ProvisionedThroughputExceededException", times=40)
    assert run(json=True)["deleted"] == 10


def test_it_is_not_patient_for_ever(dynamodb, table, monkeypatch):
    monkeypatch.setattr(clearing, "_PATIENCE_SECONDS", 0.2)
    dynamodb.fail("Scan", "InternalServerError", status=500, times=None)
    with pytest.raises(ColdUnavailable, match="Scan: InternalServerError"):
        Clearing(connect(dynamodb.endpoint_url, table), time.time()).run()


def test_a_signal_ends_its_patience(dynamodb, table):
    dynamodb.fail("Scan", "InternalServerError", status=500, times=None)
    run = Clearing(connect(dynamodb.endpoint_url, table), time.time())
    run.run(lambda: run.stop("signal"))
    assert run.stopped == "signal"


def test_a_stop_that_comes_too_late_is_none(dynamodb, table):
    run = Clearing(connect(dynamodb.endpoint_url, table), time.time())
    run.run(lambda: run.progress.left or run.stop("signal"))
    assert run.stopped is None


def test_a_failure_in_the_middle_tells_what_was_done_and_can_be_resumed(
    run, dynamodb, table, tmp_path
):
    seed_half(dynamodb, table, 1000)
    path = tmp_path / "clear.json"
    with pytest.raises(CommandError):
        run(resume=path, segments=1, limit=200)
    dynamodb.fail("DeleteItem", "AccessDeniedException", times=None)
    with pytest.raises(CommandError, match=r"^us-east-1: these AWS credentials lack") as caught:
        run(resume=path, segments=1, json=True)
    assert caught.value.returncode == 2
    report = json.loads(run.out.getvalue())
    assert (report["deleted"], report["stopped_by"]) == (200, "error")
    dynamodb.heal()
    assert run(resume=path, segments=1, json=True)["deleted"] == 500


def one_line(done):
    code, _, err = done
    assert (code, err.count("\n")) == (2, 1)
    return err


def test_an_unknown_table_is_exit_status_2_and_one_line(dynamodb):
    assert one_line(manage(dynamodb, "no-such-table")) == (
        "CommandError: us-east-1: there is no such table: run createtable_dynamo"
        " (DescribeTable: ResourceNotFoundException)\n"
    )


def test_no_credentials_are_exit_status_2_and_one_line(dynamodb, table):
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    assert "no AWS credentials" in one_line(manage(dynamodb, table, **none))


def test_no_server_is_exit_status_2_and_one_line(table_name):
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in one_line(manage(nobody, table_name))


def test_a_frozen_server_is_exit_status_2_and_one_line(start, table_name):
    server = start(Dynalite)
    server.freeze()
    assert "does not answer" in one_line(manage(server, table_name))


def test_a_frozen_server_is_told_within_5_seconds(start, settings, table_name):
    server = start(Dynalite)
    server.freeze()
    configure(settings, table_name, server)
    del settings.DYNAMO_FAILOVER["READ_TIMEOUT"]
    began = time.monotonic()
    with pytest.raises(CommandError, match="does not answer"):
        call_command("clearsessions_dynamo")
    assert time.monotonic() - began < 4.5  # and half a second to start Python and Django


@pytest.mark.parametrize("operation", ["*", "Scan", "DeleteItem"])
def test_denied_access_is_exit_status_2_and_one_line(dynamodb, table, operation):
    seed_half(dynamodb, table, 20)
    dynamodb.fail(operation, "AccessDeniedException", times=None)
    err = one_line(manage(dynamodb, table))
    assert "these AWS credentials lack the permission" in err


def test_no_regions_is_a_problem(settings):
    settings.DYNAMO_FAILOVER = {}
    with pytest.raises(CommandError, match="no cold tier") as caught:
        call_command("clearsessions_dynamo")
    assert caught.value.returncode == 1


@pytest.mark.parametrize(
    "wrong",
    ["--segments=0", "--segments=257", "--limit=0", "--max-write-units=0", "--max-seconds=-1"],
)
def test_a_wrong_option_is_refused(dynamodb, table, wrong):
    code, _, err = manage(dynamodb, table, wrong)
    assert code == 2
    assert f"argument {wrong.partition('=')[0]}: invalid" in err


# --- TTL --------------------------------------------------------------------------------------


DESCRIBED = {"Table": {"ItemCount": 5}}
TTL_ON = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}}
TTL_ELSEWHERE = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}}
TTL_OFF = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
DENIED = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": "no"}
UNKNOWN = {"__type": "com.amazonaws.dynamodb.v20120810#UnknownOperationException"}
STRONG = {"Table": {"ItemCount": 5, "MultiRegionConsistency": "STRONG"}}


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([DESCRIBED, TTL_ON], TableState(items=5, ttl=True)),
        ([DESCRIBED, TTL_OFF], TableState(items=5, ttl=False)),
        ([DESCRIBED, TTL_ELSEWHERE], TableState(items=5, ttl=False)),
        ([DESCRIBED, DENIED], TableState(items=5)),
        ([DESCRIBED, UNKNOWN], TableState(items=5)),
        ([DENIED, TTL_ON], TableState(ttl=True)),
        ([STRONG, TTL_OFF], TableState(items=5, ttl=False, strong_consistency=True)),
    ],
)
def test_the_state_of_a_table_is_what_may_be_asked(scripted, answers, state):  # noqa: F811
    scripted.answers = answers
    assert look_at(connect(scripted.endpoint_url, "sessions")) == state


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (TableState(ttl=True), "TTL is on: DynamoDB deletes what has expired within days"),
        (TableState(ttl=False), "TTL is off: nothing else deletes"),
        (TableState(), "whether TTL is on is unknown"),
        (TableState(ttl=False, strong_consistency=True), "has no TTL: nothing else deletes"),
    ],
)
def test_it_says_whether_anything_else_deletes(run, monkeypatch, state, says):
    monkeypatch.setattr(clearsessions_dynamo, "look_at", lambda table: state)
    assert says in run()[0]


# --- Its surface ------------------------------------------------------------------------------


def test_it_needs_no_more_than_the_right_to_scan_and_to_delete(run, dynamodb, table):
    seed_half(dynamodb, table, 20)
    dynamodb.fail("DescribeTable", "AccessDeniedException", times=None)
    dynamodb.fail("DescribeTimeToLive", "AccessDeniedException", times=None)
    assert run()[-2].startswith("us-east-1: 20 items, 10 deleted, 0 renewed or gone meanwhile")


def test_help_has_an_example_and_the_exit_statuses(dynamodb, table):
    code, out, _ = manage(dynamodb, table, "--help")
    assert code == 0
    assert "  $ python manage.py clearsessions_dynamo " in out
    assert "exit status: 0 " in out


def test_json_is_one_object(run, dynamodb, table):
    seed_half(dynamodb, table, 20)
    report = run(json=True)
    assert report.pop("seconds") > 0
    assert report.pop("read_units") > 0
    assert report == {
        "table": table,
        "region": "us-east-1",
        "ttl": False,
        "dry_run": False,
        "stopped_by": None,
        "scanned": 20,
        "deleted": 10,
        "spared": 0,
        "write_units": 10.0,
    }


@pytest.fixture
def of_600(dynamodb, table, monkeypatch):
    """Items that DynamoDB has counted, as it does every few hours, and dynalite never."""
    seed_half(dynamodb, table, 600)
    monkeypatch.setattr(clearsessions_dynamo, "look_at", lambda table: TableState(items=600))


def test_lines_tell_how_far_it_has_come(run, of_600, monkeypatch):
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0.2)
    lines = run(segments=1, max_write_units=300)
    line = r"250 of about 600 items, [\d,]+/s, \d+ s left, \d+ deleted"
    assert any(re.fullmatch(line, each) for each in lines), lines


def test_a_line_without_a_count_has_no_estimate(run, dynamodb, table, monkeypatch):
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0.2)
    seed_half(dynamodb, table, 600)
    lines = run(segments=1, max_write_units=300)
    assert any(re.fullmatch(r"250 items, [\d,]+/s, \d+ deleted", each) for each in lines), lines


def test_json_is_not_mixed_with_lines(run, of_600, monkeypatch):
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0)
    assert run(json=True)["deleted"] == 300


class Terminal(StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_with_rate_and_estimate(run, of_600, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    lines = run(segments=1, max_write_units=300)
    shown = sys.stderr.getvalue()
    bar = r"250/600 \[00:\d\d<00:\d\d, +[\d.]+\w?item/s, \d+ deleted\]"
    assert re.search(bar, shown), shown
    assert len(lines) == 3


def test_a_terminal_without_tqdm_gets_lines(run, of_600, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0)
    assert len(run()) > 3
    assert not sys.stderr.getvalue()
