"""Web processes of the shop, and whoever runs management commands beside them."""

from io import StringIO
from pathlib import Path

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from django.core.management import CommandError, call_command

from django_dynamo_failover import runtime
from django_dynamo_failover.keys import storage_id

from .web import Till, WebProcess, prepare_site, until

#: An application whose processes look for orders ten times as often.
HASTY = """
from django_dynamo_failover import fleet, writer
from shop.wsgi import application
writer.POLL_SECONDS = 0.2
fleet.SLOT_SECONDS = 2
"""


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The environment of the web processes: settings and a database with the manager."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "hasty.py").write_text(HASTY)
    return prepare_site(folder)


@pytest.fixture
def environment(shop, memcached, dynamodb, table):
    """The environment of the processes of one site."""
    return {
        **shop,
        "SHOP_MEMCACHED": memcached.address,
        "SHOP_DYNAMODB_ENDPOINT": dynamodb.endpoint_url,
        "SHOP_TABLE": table,
    }


@pytest.fixture
def serve(start, environment):
    """``serve(hot, **options)``: a web process, at a site of its own if ``hot`` is given."""

    def serve(hot=None, **options):
        changed = {"SHOP_MEMCACHED": hot.address} if hot else {}
        return start(WebProcess, environment={**environment, **changed}, **options)

    return serve


class Operator:
    """Runs commands at a site, and looks into DynamoDB. Is no process of it, and keeps nothing."""

    def __init__(self, engine):
        engine.configure(BOTO_SESSION="tests.web.boto_session")
        self.engine = engine
        self.onlooker = runtime.build(runtime.config())
        self.onlooker.cold.wait(10)

    def run(self, command, *arguments, **options):
        """Return what the command prints, as lines."""
        self.out = StringIO()
        call_command(f"{command}_dynamo", *arguments, stdout=self.out, **options)
        return self.out.getvalue().splitlines()

    def fail(self, command, *arguments, **options):
        """Return the exit status of a command that fails, and what it says."""
        with pytest.raises(CommandError) as caught:
            self.run(command, *arguments, **options)
        return caught.value.returncode, str(caught.value)

    @property
    def members(self):
        """The processes of the site."""
        return self.onlooker.fleet.members()

    def stored(self, cookie):
        """Return what DynamoDB has of a session."""
        record = self.onlooker.store._reconciler.read(storage_id(cookie))
        if record is None:
            return None
        return self.onlooker.codec.loads(record.payload, cookie, JSONSerializer())

    def carts(self, tills):
        """Return what DynamoDB has of these carts."""
        return [self.stored(till.cookie).get("cart", {}) for till in tills]


@pytest.fixture
def operator(make_engine, memcached, dynamodb, table):
    """The operator of the site on ``memcached``."""
    return Operator(make_engine(memcached, dynamodb, table=table))


def open_till(url, *skus):
    """Return a browser that has logged in, and has these products in its cart."""
    till = Till(url)
    till.enter()
    for sku in skus:
        till.change(sku)
    return till


def workers_of(web):
    """The process ids of gunicorn's workers."""
    children = Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


def wake_all(web, till, operator):
    """Visit until every worker has seen a session: only then it takes part."""

    def are_awake():
        till.status(web.url)
        return workers_of(web) <= {member.pid for member in operator.members}

    until(are_awake)
