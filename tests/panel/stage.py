"""Two sites of the shop over one table: each a memcached and gunicorn, for a browser to look at."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import requests
from servers import Dynalite, Memcached, boto3_client, create_table

from tests.web import PASSWORD, USER, Till, WebProcess, prepare_site, run_python, until

TABLE = "sessions"
PANEL = "/admin/django_dynamo_failover/failoverhealth/"

#: Staff: who may look, who may not even that; and a user who is to be logged out.
VIEWER, CLERK, CUSTOMER = "vera", "carl", "uma"

_PEOPLE = f"""
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
make = get_user_model().objects.create_user
make({CLERK!r}, password={PASSWORD!r}, is_staff=True)
make({CUSTOMER!r}, password={PASSWORD!r}, is_staff=True, is_superuser=True)
make({VIEWER!r}, password={PASSWORD!r}, is_staff=True).user_permissions.add(
    Permission.objects.get(codename="view_failoverhealth")
)
"""


class Site:
    """A memcached, and gunicorn with its workers."""

    def __init__(self, name: str, environment: dict[str, str], workers: int) -> None:
        self.name = name
        self.memcached = Memcached()
        site = {"SHOP_SITE": name, "SHOP_MEMCACHED": self.memcached.address}
        self.web = WebProcess({**environment, **site}, workers=workers)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return self.web.url

    @property
    def panel(self) -> str:
        """Where a browser finds the panel."""
        return self.url + PANEL

    @property
    def workers(self) -> list[int]:
        """The process ids of gunicorn's workers."""
        master = self.web.pid
        return [
            int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()
        ]

    @property
    def slots(self) -> list[str]:
        """Where processes tell of themselves, in memcached."""
        keys = self.memcached.keys()
        return [key for key in keys if "session-process:" in key]


class Stage:
    """The sites ``east``, of two workers, and ``west``. ``changed``: the environment of a site."""

    def __init__(self, folder: Path, **changed: dict[str, str]) -> None:
        self.dynalite = Dynalite(path=folder / "dynalite")
        self._shop = prepare_site(folder)
        common = {
            **self._shop,
            "DJANGO_SETTINGS_MODULE": "tests.panel.settings",
            "SHOP_DYNAMODB_ENDPOINT": self.dynalite.endpoint_url,
            "SHOP_TABLE": TABLE,
        }
        self.east = Site("east", common | changed.get("east", {}), workers=2)
        self.west = Site("west", common | changed.get("west", {}), workers=1)
        self._ended = ExitStack()

    @staticmethod
    def missing() -> list[str]:
        """What is not installed."""
        return [
            needed.__name__
            for needed in (Memcached, Dynalite, WebProcess)
            if not needed.available()
        ]

    def __enter__(self) -> Self:
        """Start all of it."""
        run_python(self._shop, _PEOPLE)
        with ExitStack() as stack:
            stack.enter_context(self.dynalite)
            create_table(self.dynalite.endpoint_url, TABLE)
            for site in (self.east, self.west):
                stack.enter_context(site.memcached)
                stack.enter_context(site.web)
            self._ended = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop all of it."""
        self.heal()
        self._ended.close()

    def heal(self) -> None:
        """Start what does not run, and thaw what is frozen."""
        for server in (self.dynalite, self.east.memcached, self.west.memcached):
            if server.pid is None:
                server.start()
            server.thaw()

    def settle(self) -> None:
        """Wait until each process serves logins, and has seen that memcached is another one.

        It tells of itself right after it has: until then it writes at once what is pending.
        """
        for site in (self.east, self.west):
            served: set[int] = set()
            until(lambda site=site, served=served: self._serves(site, served), within=20.0)
            until(lambda site=site: len(site.slots) >= len(site.workers), within=20.0)

    def _serves(self, site: Site, served: set[int]) -> bool:
        till = Till(site.url)
        with suppress(AssertionError, requests.RequestException):
            till.enter()
            served.add(till.status(site.url)["pid"])
        return served >= set(site.workers)

    def tills(self, site: Site) -> list[Till]:
        """Return browsers that have changed their carts, so that each worker has pending changes.

        Any worker may answer, so there is one more of them until all have.
        """
        tills: list[Till] = []
        changed_at: set[int] = set()
        while not changed_at >= set(site.workers):
            till = Till(site.url)
            till.enter()
            till.change("mug")
            changed_at.add(till.status(site.url)["pid"])
            tills.append(till)
            assert len(tills) < 100, "one of the workers never answers"
        return tills

    def plant_expired(self, number: int) -> None:
        """Put so many items into the table that expired long ago."""
        for each in range(number):
            boto3_client(self.dynalite.endpoint_url).put_item(
                TableName=TABLE,
                Item={"id": {"S": f"{each:064}"}, "expires": {"N": "1"}, "data": {"B": b"x"}},
            )

    def items(self) -> set[str]:
        """The ids in the table."""
        answer = boto3_client(self.dynalite.endpoint_url).scan(TableName=TABLE, ConsistentRead=True)
        return {item["id"]["S"] for item in answer["Items"]}

    def log_entries(self) -> list[str]:
        """What the admin's log has, the oldest first."""
        code = (
            "from django.contrib.admin.models import LogEntry\n"
            "for e in LogEntry.objects.order_by('pk'): print(e.user, e, sep=': ')"
        )
        return run_python(self._shop, code).stdout.splitlines()


__all__ = ["CLERK", "CUSTOMER", "PANEL", "PASSWORD", "USER", "VIEWER", "Site", "Stage"]
