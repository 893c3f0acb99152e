"""One DynamoDB table in one region, on a real server; what no server does on demand is scripted."""

import copy
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore import exceptions as botocore
from servers import Dynalite, create_table, free_port

from django_dynamo_failover import dynamo_client
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import MAX_ITEM_BYTES, DynamoTable
from django_dynamo_failover.dynamo_client import _translate
from django_dynamo_failover.exceptions import (
    ColdMisconfigured,
    ColdThrottled,
    ColdUnavailable,
    ConditionFailed,
    FailoverError,
    Unreadable,
    ValueTooLarge,
)
from django_dynamo_failover.record import ColdAnswer, ColdItem

from .conftest import client

NOW = 1_800_000_000.0
ID = "5e5510" * 10 + "0000"
ITEM = ColdItem(
    id=ID,
    expires=int(NOW) + 100,
    data=b"\x01\x00\xff data",
    version=5,
    site="here",
    modified=NOW - 0.1,
    nonce="nonce",
)


def connect(endpoint_url: str, table: str, **options: Any) -> DynamoTable:
    values: dict[str, Any] = {
        "connect_timeout": 0.5,
        "read_timeout": 10.0,
        "attempts": 2,
        "max_connections": 10,
    }
    region = Region("us-east-1", endpoint_url)
    return DynamoTable(table, region, **{**values, **options})


def soon(seconds: float = 30.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def changed(item: ColdItem, **attributes: Any) -> ColdItem:
    return dataclasses.replace(item, **attributes)


@pytest.fixture(scope="module")
def connected(dynamodb_server: Dynalite) -> DynamoTable:
    return connect(dynamodb_server.endpoint_url, "another-table")


@pytest.fixture
def sessions(connected: DynamoTable, table: str) -> DynamoTable:
    sessions = copy.copy(connected)  # and its client, which takes 0.1 s to make
    sessions.table = table
    return sessions


class Scripted:
    """A server that gives the next of its answers to each request, and the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                operation = self.headers["X-Amz-Target"].partition(".")[2]
                scripted.requests.append((operation, body))
                keep = len(scripted.answers) == 1
                answer = json.dumps(scripted.answers[0] if keep else scripted.answers.pop(0))
                self.send_response(400 if "__type" in answer else 200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Scripted":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


# --- Reading and writing ----------------------------------------------------------------------


def test_an_unknown_session_has_no_item_and_is_not_revoked(sessions):
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=False)


@pytest.mark.parametrize("modified", [NOW + 0.1, 0.1 + 0.2, 5e-07, 1_799_999_999.999_999_8, 0.0])
@pytest.mark.parametrize("site", ["here", ""])
def test_an_item_comes_back_as_it_was_put(sessions, site, modified):
    item = changed(ITEM, site=site, modified=modified, data=bytes(range(256)))
    sessions.put_new(item, NOW, soon())
    assert sessions.read(ID, soon()) == ColdAnswer(item=item, revoked=False)


def test_each_call_is_one_request(dynamodb, sessions):
    sessions.put_new(ITEM, NOW, soon())
    sessions.put_over(changed(ITEM, version=6), 5, "here", soon())
    sessions.read(ID, soon())
    sessions.revoke(ID, ITEM.expires, soon())
    assert dynamodb.requests() == Counter(PutItem=2, BatchGetItem=1, BatchWriteItem=1)


def test_a_read_is_consistent(scripted):
    scripted.answers = [{"Responses": {"sessions": []}, "UnprocessedKeys": {}}]
    connect(scripted.endpoint_url, "sessions").read(ID, soon())
    [(operation, request)] = scripted.requests
    assert operation == "BatchGetItem"
    assert request["RequestItems"]["sessions"]["ConsistentRead"] is True


def test_a_new_session_does_not_replace_one_that_lives(sessions):
    sessions.put_new(ITEM, NOW, soon())
    with pytest.raises(ConditionFailed):
        sessions.put_new(changed(ITEM, nonce="other"), NOW, soon())
    assert sessions.read(ID, soon()).item == ITEM


def test_a_new_session_replaces_one_that_has_expired(sessions):
    sessions.put_new(ITEM, NOW, soon())
    other = changed(ITEM, nonce="other")
    sessions.put_new(other, ITEM.expires + 0.5, soon())
    assert sessions.read(ID, soon()).item == other


@pytest.mark.parametrize(
    ("version", "base", "site", "written"),
    [
        (6, 5, "here", True),
        (6, 4, "here", True),  # its own hot tier ordered them
        (6, 5, "elsewhere", True),  # this is the version it is based on
        (6, 4, "elsewhere", False),
        (5, 4, "here", False),
        (5, 5, "elsewhere", False),
        (4, 3, "here", False),
        (6, 5, "", True),
        (6, 4, "", False),
    ],
)
def test_a_put_over_wins_over_an_earlier_version_of_its_site_or_its_base(
    sessions, version, base, site, written
):
    sessions.put_new(ITEM, NOW, soon())
    item = changed(ITEM, version=version, site=site, nonce="other")
    if written:
        sessions.put_over(item, base, site, soon())
    else:
        with pytest.raises(ConditionFailed):
            sessions.put_over(item, base, site, soon())
    assert sessions.read(ID, soon()).item == (item if written else ITEM)


def test_an_empty_site_is_no_site_that_two_writes_have_in_common(sessions):
    stored = changed(ITEM, site="")
    sessions.put_new(stored, NOW, soon())
    with pytest.raises(ConditionFailed):
        sessions.put_over(changed(stored, version=7), 6, "", soon())


@pytest.mark.parametrize("site", ["here", ""])
def test_a_put_over_never_creates(sessions, site):
    with pytest.raises(ConditionFailed):
        sessions.put_over(changed(ITEM, site=site), 0, site, soon())
    assert sessions.read(ID, soon()).item is None


def test_revoke_deletes_the_item_and_leaves_a_revocation(dynamodb, table, sessions):
    sessions.put_new(ITEM, NOW, soon())
    sessions.revoke(ID, ITEM.expires, soon())
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=True)
    [item] = client(dynamodb.endpoint_url).scan(TableName=table)["Items"]
    assert item == {"id": {"S": f"revoked:{ID}"}, "expires": {"N": str(ITEM.expires)}}


def test_a_late_write_of_another_site_does_not_undo_a_revocation(sessions):
    sessions.revoke(ID, ITEM.expires, soon())
    sessions.put_new(ITEM, NOW, soon())
    assert sessions.read(ID, soon()) == ColdAnswer(item=ITEM, revoked=True)


def test_a_session_is_revoked_alone(sessions):
    other = changed(ITEM, id="other")
    sessions.put_new(other, NOW, soon())
    sessions.revoke(ID, ITEM.expires, soon())
    assert sessions.read("other", soon()) == ColdAnswer(item=other, revoked=False)


@pytest.mark.parametrize("excess", [0, 1])
def test_an_item_has_the_size_that_the_server_counts(dynamodb, sessions, excess):
    names = len("idexpiresdataversionsitemodifiednonce")
    numbers = (1 + 5) + (1 + 1) + (1 + 6)  # a byte, and one for two digits: 1800000100, 5, …99.9
    rest = names + numbers + len(ITEM.id + ITEM.site + ITEM.nonce)
    item = changed(ITEM, data=b"x" * (MAX_ITEM_BYTES - rest + excess))
    if not excess:
        sessions.put_new(item, NOW, soon())
        assert sessions.read(ID, soon()).item == item
    else:
        with pytest.raises(ValueTooLarge):
            sessions.put_new(item, NOW, soon())
        assert not dynamodb.requests()


# --- Items that are not ours ------------------------------------------------------------------


WRONG = {
    "expires": [None, {"S": "1"}, {"N": "1.5"}],
    "data": [None, {"S": "x"}, {"NULL": True}],
    "version": [None, {"S": "1"}, {"N": "1.5"}, {"NS": ["1"]}],
    "site": [None, {"N": "1"}, {"B": b"x"}],
    "modified": [None, {"S": "1"}, {"BOOL": True}],
    "nonce": [None, {"N": "1"}, {"B": b"x"}],
}


@pytest.mark.parametrize(
    ("attribute", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_an_item_with_a_wrong_attribute_is_unreadable(dynamodb, table, sessions, attribute, value):
    sessions.put_new(ITEM, NOW, soon())
    server = client(dynamodb.endpoint_url)
    item = server.get_item(TableName=table, Key={"id": {"S": ID}})["Item"]
    del item[attribute]
    server.put_item(TableName=table, Item=item | ({attribute: value} if value else {}))
    with pytest.raises(Unreadable):
        sessions.read(ID, soon())


@pytest.mark.parametrize("id", [{"S": "another"}, {"N": "1"}])
def test_an_item_that_was_not_asked_for_is_refused(scripted, id):
    item = {
        "id": id,
        "expires": {"N": "1800000100"},
        "data": {"B": "AAAA"},
        "version": {"N": "5"},
        "site": {"S": "here"},
        "modified": {"N": "1"},
        "nonce": {"S": "nonce"},
    }
    scripted.answers = [{"Responses": {"sessions": [item]}, "UnprocessedKeys": {}}]
    with pytest.raises(Unreadable):
        connect(scripted.endpoint_url, "sessions").read(ID, soon())


@pytest.mark.parametrize("answer", [{}, {"Responses": {}}, {"Responses": {"other-table": []}}])
def test_an_answer_that_says_nothing_does_not_mean_that_the_session_is_gone(scripted, answer):
    scripted.answers = [answer]
    with pytest.raises(ColdUnavailable):
        connect(scripted.endpoint_url, "sessions").read(ID, soon())


# --- Trying again -----------------------------------------------------------------------------

PASSING = ["ThrottlingException", "InternalServerError", "drop"]


@pytest.mark.parametrize("failure", PASSING)
def test_a_failure_that_passes_is_not_seen(dynamodb, sessions, failure):
    dynamodb.fail("BatchGetItem", failure, status=500 if "Server" in failure else 400)
    dynamodb.fail("PutItem", failure, status=500 if "Server" in failure else 400)
    sessions.put_new(ITEM, NOW, soon())
    assert sessions.read(ID, soon()).item == ITEM
    assert dynamodb.requests() == Counter(PutItem=2, BatchGetItem=2)


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("failure", ["InternalServerError", "drop"])
def test_a_failure_that_lasts_is_seen_after_so_many_attempts(dynamodb, table, failure, attempts):
    dynamodb.fail("BatchGetItem", failure, times=None)
    sessions = connect(dynamodb.endpoint_url, table, attempts=attempts)
    with pytest.raises(ColdUnavailable) as caught:
        sessions.read(ID, soon())
    assert type(caught.value) is ColdUnavailable
    assert dynamodb.requests() == Counter(BatchGetItem=attempts)


def test_what_is_throttled_is_tried_for_as_long_as_there_is_time(dynamodb, table):
    sessions = connect(dynamodb.endpoint_url, table, attempts=1)
    dynamodb.fail("BatchGetItem", "ProvisionedThroughputExceededException", times=3)
    assert sessions.read(ID, soon()).item is None
    assert sessions.client.throttles == 3

    dynamodb.fail("BatchGetItem", "ProvisionedThroughputExceededException", times=None)
    began = time.monotonic()
    with pytest.raises(ColdThrottled):
        sessions.read(ID, began + 0.5)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("failure", ["AccessDeniedException", "ResourceNotFoundException"])
def test_a_refusal_is_final(dynamodb, sessions, failure):
    dynamodb.fail("*", failure, times=None)
    with pytest.raises(ColdMisconfigured):
        sessions.read(ID, soon())
    assert dynamodb.requests() == Counter(BatchGetItem=1)


def test_a_condition_that_fails_is_final(dynamodb, sessions):
    with pytest.raises(ConditionFailed):
        sessions.put_over(ITEM, 4, "here", soon())
    assert dynamodb.requests() == Counter(PutItem=1)


def test_a_put_whose_reply_was_lost_fails_on_its_own_first_attempt(dynamodb, sessions):
    dynamodb.fail("PutItem", "drop", after=True)
    with pytest.raises(ConditionFailed):
        sessions.put_new(ITEM, NOW, soon())
    assert sessions.read(ID, soon()).item == ITEM  # its nonce tells


def test_a_revoke_whose_reply_was_lost_is_repeated(dynamodb, sessions):
    sessions.put_new(ITEM, NOW, soon())
    dynamodb.fail("BatchWriteItem", "drop", after=True)
    sessions.revoke(ID, ITEM.expires, soon())
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=True)


def test_what_a_batch_leaves_undone_is_asked_again(dynamodb, sessions):
    sessions.put_new(ITEM, NOW, soon())
    dynamodb.fail("BatchGetItem", "unprocessed", times=3)
    dynamodb.fail("BatchWriteItem", "unprocessed", times=3)
    assert sessions.read(ID, soon()) == ColdAnswer(item=ITEM, revoked=False)
    sessions.revoke(ID, ITEM.expires, soon())
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=True)


def test_a_revocation_that_was_left_unread_is_not_missed(scripted):
    revocation = {"id": {"S": f"revoked:{ID}"}}
    scripted.answers = [
        {"Responses": {"sessions": []}, "UnprocessedKeys": {"sessions": {"Keys": [revocation]}}},
        {"Responses": {"sessions": [{**revocation, "expires": {"N": "1"}}]}, "UnprocessedKeys": {}},
    ]
    answer = connect(scripted.endpoint_url, "sessions").read(ID, soon())
    assert answer == ColdAnswer(item=None, revoked=True)
    _, (_, second) = scripted.requests
    assert second["RequestItems"]["sessions"]["Keys"] == [revocation]
    assert second["RequestItems"]["sessions"]["ConsistentRead"] is True


def test_a_delete_that_was_left_undone_is_done(scripted):
    delete = {"DeleteRequest": {"Key": {"id": {"S": ID}}}}
    scripted.answers = [{"UnprocessedItems": {"sessions": [delete]}}, {"UnprocessedItems": {}}]
    connect(scripted.endpoint_url, "sessions").revoke(ID, 1, soon())
    (_, first), (_, second) = scripted.requests
    assert len(first["RequestItems"]["sessions"]) == 2
    assert second["RequestItems"]["sessions"] == [delete]


@pytest.mark.parametrize(
    "call", [lambda t, until: t.read(ID, until), lambda t, until: t.revoke(ID, 1, until)]
)
def test_a_batch_that_stays_undone_is_given_up_at_the_deadline(dynamodb, sessions, call):
    sessions.read(ID, soon())
    dynamodb.fail("*", "unprocessed", times=None)
    until = soon(0.3)
    with pytest.raises(ColdUnavailable, match="Unprocessed"):
        call(sessions, until)
    assert time.monotonic() < until + 0.5
    assert dynamodb.requests().total() > 2  # it did not give up at once


@pytest.mark.parametrize("failure", ["unprocessed", "ThrottlingException"])
def test_who_wakes_too_late_tells_of_the_throttling(dynamodb, sessions, failure, monkeypatch):
    """Not of a deadline that has passed, which would look like an outage."""
    sessions.read(ID, soon())
    dynamodb.fail("*", failure, times=None)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds + 0.5))
    with pytest.raises(ColdThrottled):
        sessions.revoke(ID, 1, soon(0.4))


# --- Deadlines --------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "requests"), [(0.5, 1), (2.0, 2)])
def test_a_timeout_is_repeated_only_while_there_is_time_for_another(
    dynamodb, table, seconds, requests
):
    sessions = connect(dynamodb.endpoint_url, table, read_timeout=0.3)
    sessions.read(ID, soon())
    dynamodb.reset_requests()
    dynamodb.fail("*", "hang", times=None)
    started = time.monotonic()
    with pytest.raises(ColdUnavailable, match="ReadTimeoutError"):
        sessions.read(ID, soon(seconds))
    assert 0.3 * requests < time.monotonic() - started < 0.3 * requests + 0.3
    assert dynamodb.requests() == Counter(BatchGetItem=requests)


def test_a_frozen_server_is_given_up_in_time(start, table_name):
    server = start(Dynalite)
    sessions = connect(server.endpoint_url, table_name, read_timeout=0.3)
    with pytest.raises(ColdMisconfigured):
        sessions.read(ID, soon())  # it answers that there is no such table
    server.freeze()
    until = soon(0.5)
    with pytest.raises(ColdUnavailable):
        sessions.read(ID, until)
    assert time.monotonic() < until + 0.3 + 0.1


def test_nothing_is_asked_after_the_deadline(dynamodb, sessions):
    sessions.read(ID, soon())
    dynamodb.reset_requests()
    with pytest.raises(ColdUnavailable):
        sessions.read(ID, time.monotonic())
    with pytest.raises(ColdUnavailable):
        sessions.put_new(ITEM, NOW, time.monotonic())
    assert not dynamodb.requests()


def test_a_server_that_is_down_is_known_at_once(table_name):
    sessions = connect(f"http://127.0.0.1:{free_port()}", table_name)
    sessions.warm()
    sessions.client.wait(10)
    started = time.monotonic()
    with pytest.raises(ColdUnavailable, match="BatchGetItem: EndpointConnectionError"):
        sessions.read(ID, soon())
    assert time.monotonic() - started < 1


def test_a_restarted_server_is_found_again(start, tmp_path):
    server = start(Dynalite, path=tmp_path)
    create_table(server.endpoint_url, "sessions")
    sessions = connect(server.endpoint_url, "sessions")
    sessions.put_new(ITEM, NOW, soon())
    server.restart()
    assert sessions.read(ID, soon()).item == ITEM


# --- What has expired -------------------------------------------------------------------------


def expired(sessions, before, segment=0, segments=1):
    """Return the ids that a scan of a segment finds, page by page."""
    ids, after = [], None
    while True:
        page = sessions.scan_expired(before, segment, segments, after, soon())
        ids += page.ids
        if (after := page.last) is None:
            return ids


def test_a_scan_finds_what_expired_before_a_time(sessions):
    for age in (-1, 0, 1):
        sessions.put_new(changed(ITEM, id=f"session {age}", expires=int(NOW) - age), NOW, soon())
        sessions.revoke(f"logout {age}", int(NOW) - age, soon())
    assert sorted(expired(sessions, NOW)) == ["revoked:logout 1", "session 1"]


def test_segments_share_the_table(sessions):
    ids = {f"session {number}" for number in range(12)}
    for id in ids:
        sessions.put_new(changed(ITEM, id=id), NOW, soon())
    parts = [expired(sessions, ITEM.expires + 1, segment, 3) for segment in range(3)]
    assert sorted(id for part in parts for id in part) == sorted(ids)
    assert max(map(len, parts)) < 12


def test_a_page_says_what_it_has_read_and_where_to_go_on(dynamodb, sessions):
    for number in range(10):  # a page is 1 MB
        item = changed(ITEM, id=f"session {number}", data=b"x" * 200_000)
        sessions.put_new(item, NOW, soon())
    page = sessions.scan_expired(NOW, 0, 1, None, soon())
    assert (page.ids, page.scanned) == ([], 6)
    assert page.units == pytest.approx(6 * 200_000 / 4096 / 2, rel=0.01)
    rest = sessions.scan_expired(NOW, 0, 1, page.last, soon())
    assert (rest.scanned, rest.last) == (4, None)


def test_delete_expired_says_what_it_has_cost(sessions):
    sessions.put_new(changed(ITEM, data=b"x" * 2500), NOW, soon())
    assert sessions.delete_expired(ID, ITEM.expires + 1, soon()) == 3
    assert sessions.read(ID, soon()).item is None


def test_delete_expired_spares_a_session_that_was_renewed(sessions):
    sessions.put_new(ITEM, NOW, soon())
    [id] = expired(sessions, ITEM.expires + 1)
    sessions.put_over(changed(ITEM, version=6, expires=ITEM.expires + 50), 5, "here", soon())
    with pytest.raises(ConditionFailed):
        sessions.delete_expired(id, ITEM.expires + 1, soon())
    assert sessions.read(ID, soon()).item is not None


def test_delete_expired_says_if_there_was_nothing(sessions):
    with pytest.raises(ConditionFailed):
        sessions.delete_expired(ID, NOW, soon())


# --- Errors -----------------------------------------------------------------------------------


def refused(code: str, message: str = "session 5e5510 in table sessions") -> botocore.ClientError:
    return botocore.ClientError({"Error": {"Code": code, "Message": message}}, "PutItem")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refused("ConditionalCheckFailedException"), ConditionFailed),
        (
            refused("ValidationException", "Item size has exceeded the maximum allowed size"),
            ValueTooLarge,
        ),
        (
            refused("ValidationException", "Item size to update has exceeded the maximum allowed"),
            ValueTooLarge,
        ),
        (refused("ValidationException"), ColdMisconfigured),
        (refused("ResourceNotFoundException"), ColdMisconfigured),
        (refused("AccessDeniedException"), ColdMisconfigured),
        (refused("UnrecognizedClientException"), ColdMisconfigured),
        (refused("InvalidSignatureException"), ColdMisconfigured),
        (botocore.NoCredentialsError(), ColdMisconfigured),
        (botocore.PartialCredentialsError(provider="env", cred_var="x"), ColdMisconfigured),
        (botocore.ProfileNotFound(profile="sessions"), ColdMisconfigured),
        (botocore.NoRegionError(), ColdMisconfigured),
        (botocore.InvalidRegionError(region_name="sessions"), ColdMisconfigured),
        (botocore.ParamValidationError(report="sessions"), ColdMisconfigured),
        (botocore.EndpointResolutionError(msg="sessions"), ColdMisconfigured),
        (ValueError("Invalid endpoint: sessions"), ColdMisconfigured),
        (ModuleNotFoundError("No module named 'boto3'"), ColdMisconfigured),
        (refused("ThrottlingException"), ColdThrottled),
        (refused("ProvisionedThroughputExceededException"), ColdThrottled),
        (refused("RequestLimitExceeded"), ColdThrottled),
        (refused("ExpiredTokenException"), ColdUnavailable),
        (refused("ReplicatedWriteConflictException"), ColdUnavailable),
        (refused("InternalServerError"), ColdUnavailable),
        (refused("503"), ColdUnavailable),
        (refused(""), ColdUnavailable),
        (botocore.ClientError({}, "PutItem"), ColdUnavailable),
        (botocore.ReadTimeoutError(endpoint_url="https://sessions"), ColdUnavailable),
        (botocore.ConnectTimeoutError(endpoint_url="https://sessions"), ColdUnavailable),
        (botocore.EndpointConnectionError(endpoint_url="https://sessions"), ColdUnavailable),
        (botocore.ConnectionClosedError(endpoint_url="https://sessions"), ColdUnavailable),
        (botocore.SSLError(endpoint_url="https://sessions", error="x"), ColdUnavailable),
        (botocore.CredentialRetrievalError(provider="x", error_msg="sessions"), ColdUnavailable),
        (botocore.MetadataRetrievalError(error_msg="sessions"), ColdUnavailable),
        (botocore.TokenRetrievalError(provider="sessions", error_msg="x"), ColdUnavailable),
        (OSError("sessions"), ColdUnavailable),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_error_becomes_one_of_ours_that_tells_nothing(error, expected):
    ours = _translate(error, "PutItem")
    assert type(ours) is expected
    assert str(ours).startswith("PutItem: ")
    assert "sessions" not in str(ours)


def test_an_error_of_the_server_is_named_by_its_code():
    assert str(_translate(refused("AccessDenied" + "x" * 900), "Scan")).startswith("Scan: Access")
    assert len(str(_translate(refused("x" * 900), "Scan"))) < 100


def test_an_error_carries_no_error_of_botocore(dynamodb, sessions, table):
    """Its text may name the endpoint and the table, and an error page shows the whole chain."""
    dynamodb.fail("*", "drop", times=None)
    for call in (
        lambda: sessions.read(ID, soon()),
        lambda: sessions.put_new(ITEM, NOW, soon()),
        lambda: sessions.revoke(ID, 1, soon()),
    ):
        with pytest.raises(FailoverError) as caught:
            call()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        for secret in (table, ID, dynamodb.address, "here"):
            assert secret not in str(caught.value)


# --- The client -------------------------------------------------------------------------------


class Sessions:
    """``make_session`` for a test: counts, and waits for or raises what the test says."""

    def __init__(self) -> None:
        self.made = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __call__(self) -> Any:
        self.made += 1
        self.gate.wait(10)
        if self.error:
            raise self.error
        return boto3.Session(aws_access_key_id="mine", aws_secret_access_key="secret")


@pytest.fixture
def make_session() -> Iterator[Sessions]:
    sessions = Sessions()
    yield sessions
    sessions.gate.set()


@pytest.fixture
def table_of(dynamodb: Dynalite, table: str, make_session: Sessions) -> Callable[..., DynamoTable]:
    return lambda **options: connect(
        dynamodb.endpoint_url, table, make_session=make_session, **options
    )


def test_importing_the_module_does_not_import_boto3():
    code = "import django_dynamo_failover.dynamo_admin, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert not {b"boto3", b"botocore"} & set(modules.stdout.split())


def test_the_client_is_made_once(table_of, make_session):
    sessions = table_of()
    make_session.gate.clear()
    sessions.warm()
    sessions.warm()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(sessions.read, ID, soon()) for _ in range(8)]
        make_session.gate.set()
        assert {answer.result() for answer in answers} == {ColdAnswer(None, revoked=False)}
    assert make_session.made == 1


def test_a_call_does_not_wait_for_the_client_beyond_its_deadline(table_of, make_session):
    sessions = table_of()
    make_session.gate.clear()
    started = time.monotonic()
    sessions.warm()
    assert time.monotonic() - started < 1
    with pytest.raises(ColdUnavailable):
        sessions.read(ID, soon(0.2))
    assert time.monotonic() - started < 2
    make_session.gate.set()
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=False)
    assert make_session.made == 1


def test_a_client_that_cannot_be_made_is_not_tried_at_each_call(table_of, make_session):
    sessions = table_of()
    make_session.error = botocore.CredentialRetrievalError(provider="x", error_msg="x")
    for _ in range(3):
        with pytest.raises(ColdUnavailable, match="CreateClient: CredentialRetrievalError"):
            sessions.read(ID, soon())
    assert make_session.made == 1


def test_a_client_that_could_not_be_made_is_tried_again_later(table_of, make_session, monkeypatch):
    monkeypatch.setattr(dynamo_client, "_MAKE_AGAIN_AFTER", 0.0)
    sessions = table_of()
    make_session.error = botocore.ProfileNotFound(profile="x")
    with pytest.raises(ColdMisconfigured):
        sessions.read(ID, soon())
    make_session.error = None
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=False)


def test_a_client_without_credentials_is_not_kept(dynamodb, table, monkeypatch):
    """It would never have any, though they were out of reach for a moment only."""
    monkeypatch.setattr(dynamo_client, "_MAKE_AGAIN_AFTER", 0.0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    sessions = connect(dynamodb.endpoint_url, table)
    with pytest.raises(ColdMisconfigured, match="CreateClient: NoCredentialsError"):
        sessions.read(ID, soon())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    assert sessions.read(ID, soon()) == ColdAnswer(item=None, revoked=False)


def test_the_default_session_of_boto3_is_left_alone(sessions):
    sessions.read(ID, soon())
    assert boto3.DEFAULT_SESSION is None


def test_the_client_has_the_limits_it_was_given(table_of):
    sessions = table_of(connect_timeout=0.7, read_timeout=1.3, max_connections=17)
    config = sessions.client._own_maker().client(soon()).meta.config
    assert (config.connect_timeout, config.read_timeout) == (0.7, 1.3)
    assert config.max_pool_connections == 17
    assert config.tcp_keepalive
    assert config.retries["total_max_attempts"] == 1  # the retries are ours


FORK = """
import os, sys, time
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.record import ColdItem

CHILDREN, READS = 4, 400
sessions = DynamoTable(sys.argv[2], Region("us-east-1", sys.argv[1]), connect_timeout=1,
                       read_timeout=5, attempts=1, max_connections=10)

def soon():
    return time.monotonic() + 20

def read(name):
    answer = sessions.read(name, soon())
    assert answer.item.id == name and answer.item.data == name.encode(), (name, answer)

def end(status):
    sys.stderr.flush()
    os._exit(status)

now = time.time()
names = [f"session {number}" for number in range(CHILDREN + 1)]
for name in names:
    sessions.put_new(ColdItem(name, int(now) + 99, name.encode(), 1, "", now, ""), now, soon())
children = []
for name in names[1:]:
    child = os.fork()
    if child == 0:
        try:
            for _ in range(READS):
                read(name)
        except BaseException as error:
            sys.stderr.write(f"{name}: {error!r}\\n")
            end(1)
        end(0)
    children.append(child)
for _ in range(READS):
    read(names[0])  # in the parent, whose connections the children must not touch
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_a_child_of_a_fork_reads_its_own_items(dynamodb, table):
    """Over a connection that two processes read, each gets answers to the other's questions."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(
        [*command, dynamodb.endpoint_url, table],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


EXIT = """
import atexit, sys, time
from django_dynamo_failover.conf import Region
from django_dynamo_failover.dynamo import DynamoTable

sessions = DynamoTable(sys.argv[2], Region("us-east-1", sys.argv[1]), connect_timeout=1,
                       read_timeout=5, attempts=1, max_connections=10)
atexit.register(lambda: print(sessions.read("x", time.monotonic() + 30)))
{warm}
"""


@pytest.mark.parametrize("warm", ["", "sessions.warm()", "sessions.warm(); time.sleep(1)"])
def test_a_process_that_exits_can_still_write(dynamodb, table, warm):
    command = [sys.executable, "-c", EXIT.replace("{warm}", warm)]
    done = subprocess.run(
        [*command, dynamodb.endpoint_url, table],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"{ColdAnswer(item=None, revoked=False)}\n", "")
