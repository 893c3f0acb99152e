"""The policies of ``createtable_dynamo --print iam``, against what each role asks DynamoDB for."""

import json
import time
from contextlib import suppress
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from django_dynamo_failover.table_policies import REPLICATION, policies
from django_dynamo_failover.table_spec import TableSpec
from django_dynamo_failover.users import revoke_user_sessions

from .configurations import BOTO_SESSION, LOGIN, write_pending
from .conftest import create_table
from .moto_gaps import aws  # noqa: F401
from .test_importsessions import begin
from .test_templates import TABLES, run  # noqa: F401

pytestmark = pytest.mark.django_db

SPEC = TableSpec(name="sessions", regions=("us-east-1",))


def allowed(policy, service="dynamodb"):
    """Return the actions that a policy allows of a service."""
    actions = [action for statement in policy["Statement"] for action in statement["Action"]]
    return {name for prefix, name in (action.split(":") for action in actions) if prefix == service}


@pytest.fixture
def site(make_engine, memcached, moto):
    return make_engine(memcached, moto, BOTO_SESSION=BOTO_SESSION)


def log_in(site, **data):
    session = site.store()
    session.update({**LOGIN, **data})
    session.save()
    return session.session_key


def test_a_web_process_may_do_what_it_does_and_no_more(site, memcached, moto, beaten):
    site.configure(SITE="here")
    mia = get_user_model().objects.create(username="mia")
    key = log_in(site)
    session = site.store(key)
    session["cart"] = ["tea"]
    session.save()
    write_pending()
    memcached.flush()  # from DynamoDB
    assert site.store(key)["cart"] == ["tea"]
    site.store(key).flush()
    revoke_user_sessions(mia)
    log_in(site)
    assert beaten.wait(5)
    site.restart()  # what is pending is written
    assert {*moto.requests()} == allowed(policies(SPEC, SPEC.regions)["web"])


def test_whoever_clears_may_do_what_that_takes_and_no_more(site, moto):
    site.put_item({"id": {"S": "old"}, "expires": {"N": str(int(time.time()) - 10_000)}})
    moto.reset_requests()
    call_command("clearsessions_dynamo", stdout=StringIO())
    assert {*moto.requests()} == allowed(policies(SPEC, SPEC.regions)["gc"])


def test_whoever_checks_may_do_what_that_takes_and_no_more(site, moto):
    site.configure(SITE="here")
    log_in(site)
    moto.reset_requests()
    call_command("drillsessions_dynamo", stdout=StringIO())
    call_command("healthcheck_dynamo", stdout=StringIO())
    assert {*moto.requests()} == allowed(policies(SPEC, SPEC.regions)["check"])


#: What the commands do that work on sessions. They are in the policy of whoever makes the table.
OPERATING = {"BatchGetItem", "PutItem"}


def test_an_operator_may_import_and_log_out(site, moto):
    site.configure(FALLBACK_ENGINE="django.contrib.sessions.backends.db")
    get_user_model().objects.create(username="mia")
    begin(cart=1)
    for command in (
        ["importsessions_dynamo"],
        ["logoutuser_dynamo", "mia"],
        ["drainsessions_dynamo", "status"],
        ["revalidatesessions_dynamo"],
    ):
        call_command(*command, stdout=StringIO())
    assert {*moto.requests()} == OPERATING


@pytest.mark.parametrize(("options", "number"), TABLES.values(), ids=TABLES)
def test_whoever_makes_the_table_may_do_what_that_takes_and_no_more(
    run,  # noqa: F811
    aws,  # noqa: F811
    table_name,
    options,
    number,
):
    policy = json.loads(run(aws, number, *options, "--print=iam"))["admin"]
    aws.reset_requests()
    run(aws, number, *options)
    run(aws, number, *options)
    if number == 1:  # a table that was made without all that
        create_table(aws.endpoint_url, f"{table_name}-bare")
        with suppress(CommandError):  # some of it cannot be added
            run(aws, 1, *options, "--add-missing", table=f"{table_name}-bare")
    asked = {*aws.requests()}
    assert asked <= allowed(policy)
    # DynamoDB does these by itself, in the name of whoever adds a replica.
    by_itself = {*REPLICATION} if number > 1 else set()
    if "--witness=us-east-2" in options:
        by_itself.add("CreateGlobalTableWitness")
    assert allowed(policy) - asked == (OPERATING | by_itself) - asked


STRONG = TableSpec(
    name="sessions",
    regions=("us-east-1", "us-west-2"),
    consistency="strong",
    witness="us-east-2",
    kms_key="alias/sessions",
)


def statements(role, spec=STRONG):
    return policies(spec, spec.regions)[role]["Statement"]


@pytest.mark.parametrize("role", ["web", "gc", "check", "admin"])
def test_it_is_for_this_table_alone(role):
    assert statements(role)[0]["Resource"] == [
        "arn:aws:dynamodb:us-east-1:*:table/sessions",
        "arn:aws:dynamodb:us-west-2:*:table/sessions",
    ]


@pytest.mark.parametrize(
    ("region", "partition"),
    [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("eu-west-1", "aws")],
)
def test_it_is_for_the_partition_of_the_region(region, partition):
    spec = TableSpec(name="sessions", regions=(region,))
    [statement] = statements("web", spec)
    assert statement["Resource"] == [f"arn:{partition}:dynamodb:{region}:*:table/sessions"]


def test_whoever_adds_a_witness_may_do_so_where_it_is():
    _, witness, *_ = statements("admin")
    assert witness["Action"] == ["dynamodb:CreateGlobalTableWitness"]
    assert "arn:aws:dynamodb:us-east-2:*:table/sessions" in witness["Resource"]


@pytest.mark.parametrize("role", ["web", "gc", "check", "admin"])
def test_a_key_may_be_used_through_dynamodb_only(role):
    key = statements(role)[-1]
    assert {action.partition(":")[0] for action in key["Action"]} == {"kms"}
    assert key["Condition"]["StringEquals"]["kms:ViaService"] == [
        "dynamodb.us-east-1.amazonaws.com",
        "dynamodb.us-west-2.amazonaws.com",
    ]
    assert key["Condition"]["ForAnyValue:StringEquals"]["kms:ResourceAliases"] == "alias/sessions"


def test_a_key_that_is_named_is_the_only_one():
    arn = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
    spec = TableSpec(name="sessions", regions=("us-east-1",), kms_key=arn)
    assert statements("web", spec)[-1]["Resource"] == [arn]


def test_no_key_no_permission():
    spec = TableSpec(name="sessions", regions=("us-east-1",))
    assert all(len(statements(role, spec)) == 1 for role in ("web", "gc", "check", "admin"))
