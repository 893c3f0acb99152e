"""All servers of the soak: two sites of the shop and two regions of one global table.

Both regions are one dynalite, seen through two proxies: a global table without replication lag.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from servers import Dynalite, Memcached, create_table

from tests.soak import ROOT
from tests.soak.proxy import Proxy
from tests.web import WebProcess

#: Short, so that a run of two minutes sees many leases. In seconds.
WRITE_INTERVAL = 10.0

WORKERS = 2
THREADS = 8
TABLE = "soak"

#: Each site's own region is the first one it asks.
REGIONS = ("us-east-1", "us-west-2")
SITES = {"east": REGIONS, "west": REGIONS[::-1]}


class Site:
    """A memcached behind a proxy, and gunicorn with ``WORKERS`` processes."""

    def __init__(self, name: str, environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.memcached = Memcached(options=("-m", "256"))
        self.proxy = Proxy(self.memcached.port)
        self.environment = {
            **environment,
            "SHOP_SITE": name,
            "SHOP_MEMCACHED": self.proxy.address,
        }
        self.web = WebProcess(
            self.environment, workers=WORKERS, capture_output=True, error_logfile=log
        )

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return self.web.url

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers that live."""
        master = self.web.pid
        if master is None:
            return []
        try:
            children = Path(f"/proc/{master}/task/{master}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in children.split()]

    def command(self, *words: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py`` at this site."""
        return subprocess.run(
            [sys.executable, str(ROOT / "testproject" / "manage.py"), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )


class World:
    """Every server, running between ``__enter__`` and ``__exit__``. ``folder`` keeps the logs."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.dynamodb = Dynalite(path=scratch / "tables")
        self.regions = {name: Proxy(self.dynamodb.port) for name in REGIONS}
        self.sites: dict[str, Site] = {}
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SHOP_", "AWS_", "PYTHONWARNINGS"))
        }
        for name, order in SITES.items():
            environment = {
                **kept,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_EC2_METADATA_DISABLED": "true",
                "DJANGO_SETTINGS_MODULE": "tests.soak.settings",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
                "SHOP_DATABASE": str(scratch / "shop.sqlite3"),
                "SHOP_DEBUG": "0",
                "SHOP_TABLE": TABLE,
                "SHOP_WRITE_INTERVAL": str(WRITE_INTERVAL),
                "SOAK_REGIONS": ",".join(
                    f"{region}=http://{self.regions[region].address}" for region in order
                ),
            }
            self.sites[name] = Site(name, environment, folder / f"{name}.log")
        self._running = ExitStack()

    @staticmethod
    def missing() -> list[str]:
        """Return the servers that are not installed."""
        servers = (Memcached, Dynalite, WebProcess)
        return [server.__name__ for server in servers if not server.available()]

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.dynamodb)
            create_table(self.dynamodb.endpoint_url, TABLE)
            for proxy in self.regions.values():
                starting.enter_context(proxy)
            for site in self.sites.values():
                site.log.unlink(missing_ok=True)
                starting.enter_context(site.memcached)
                starting.enter_context(site.proxy)
            done = next(iter(self.sites.values())).command("setup_shop")
            if done.returncode:
                raise RuntimeError(done.stderr)
            for site in self.sites.values():
                starting.enter_context(site.web)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    def other(self, site: Site) -> Site:
        """Return where the users of a site go when it is lost."""
        return next(other for other in self.sites.values() if other is not site)

    def crowd(self, number: int) -> dict[str, list[str]]:
        """Log so many people in, half of them at each site; return their session keys by site."""
        share = -(-number // len(self.sites))
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "tests.soak.crowd", str(share)],
                env=site.environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name, site in self.sites.items()
        }
        keys = {name: process.communicate()[0].split() for name, process in processes.items()}
        if any(len(found) != share for found in keys.values()):
            raise RuntimeError("the crowd could not log in")
        return keys
