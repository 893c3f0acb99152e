"""All servers of the demo: two datacenters, the DynamoDB API, and the database of the users."""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

from servers import Dynalite, MotoServer, boto3_client, dynamodb_server, hot_server

from django_dynamo_failover.keys import storage_id
from shop.demo.datacenter import PROJECT_DIR, Datacenter

TABLE = "shop_sessions"

_PATIENCE_SECONDS = 20.0


class StageError(Exception):
    """A server did not start, or could not be prepared; says what it printed."""


class Cold:
    """The table as an onlooker sees it. The onlooker's own requests are not counted."""

    def __init__(self, server: Dynalite | MotoServer) -> None:
        self.server = server
        self._client = boto3_client(server.endpoint_url)
        self._own: Counter[str] = Counter()

    def requests(self) -> Counter[str]:
        """What the sites have asked since the start, by operation."""
        return self.server.requests() - self._own

    def holds(self, cookie: str, since: float) -> bool:
        """Whether the table has the changes that this session saw at or after ``since``."""
        item = self._item(storage_id(cookie))
        return item is not None and Decimal(item["modified"]["N"]) >= Decimal(since)

    def has_session(self, cookie: str) -> bool:
        """Whether there is an item of this session."""
        return self._item(storage_id(cookie)) is not None

    def has_revocation(self, cookie: str) -> bool:
        """Whether the table says that this session was logged out."""
        return self._item("revoked:" + storage_id(cookie)) is not None

    def knows(self, site: str) -> bool:
        """Whether a site has noted itself in the table, which each does soon after its start."""
        return f"site:{site}" in (self._item("sites") or {})

    def _item(self, id: str) -> dict | None:
        self._own["GetItem"] += 1
        answer = self._client.get_item(TableName=TABLE, Key={"id": {"S": id}}, ConsistentRead=True)
        return answer.get("Item")


@dataclass
class Stage:
    """Where the story plays. ``lease`` is in seconds."""

    east: Datacenter
    west: Datacenter
    cold: Cold
    lease: float

    @property
    def sites(self) -> tuple[Datacenter, Datacenter]:
        """Both datacenters."""
        return self.east, self.west

    @property
    def real(self) -> bool:
        """Whether each site has a memcached of its own."""
        return self.east.hot is not None


@contextmanager
def build(lease: float, *, embedded: bool = False) -> Iterator[Stage]:
    """Start everything, and leave nothing behind. Raises ``StageError``.

    ``embedded`` does without memcached and Node even where they are installed.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="failover-demo-"))
        dynamo = stack.enter_context(MotoServer() if embedded else dynamodb_server())
        environment = _environment(Path(folder), dynamo.endpoint_url, lease)
        stage = Stage(
            *(
                Datacenter(name, environment, None if embedded else hot_server())
                for name in ("east", "west")
            ),
            Cold(dynamo),
            lease,
        )
        for site in stage.sites:
            stack.callback(site.kill)
        _start(stage, environment)
        yield stage


def _start(stage: Stage, environment: dict[str, str]) -> None:
    with ThreadPoolExecutor() as pool:
        tasks = [
            pool.submit(_manage, environment, "createtable_dynamo"),
            pool.submit(_manage, environment, "setup_shop"),
            *(pool.submit(site.start) for site in stage.sites),
        ]
    for task in tasks:
        try:
            task.result()
        except RuntimeError as error:
            raise StageError(str(error)) from error
    for site in stage.sites:
        urlopen(f"{site.url}/login/", timeout=10).close()  # noqa: S310  # the first use of a session
    # Or what a site notes in the table would be taken for the cost of a page.
    patience = time.monotonic() + _PATIENCE_SECONDS
    while not all(stage.cold.knows(site.name) for site in stage.sites):
        if time.monotonic() > patience:
            raise StageError("A site did not note itself in the table.")
        time.sleep(0.05)


def _manage(environment: dict[str, str], command: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", command],
        cwd=PROJECT_DIR,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise StageError(f"manage.py {command} failed:\n{done.stderr[-4000:]}")


def _environment(folder: Path, endpoint: str, lease: float) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SHOP_", "AWS_"))
    }
    return {
        **kept,
        "PYTHONUNBUFFERED": "1",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SHOP_DEBUG": "0",
        "SHOP_DATABASE": str(folder / "shop.sqlite3"),
        "SHOP_DYNAMODB_ENDPOINT": endpoint,
        "SHOP_TABLE": TABLE,
        "SHOP_WRITE_INTERVAL": str(lease),
    }
