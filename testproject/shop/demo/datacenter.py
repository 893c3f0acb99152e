"""One datacenter: a web server and its hot tier, which can be started, killed and frozen."""

import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

from servers import HOST, Memcached, ServerProcess

PROJECT_DIR = Path(__file__).resolve().parents[2]


class Web(ServerProcess):
    """The shop under gunicorn."""

    def __init__(self, environment: Mapping[str, str], workers: int) -> None:
        super().__init__()
        self.environment = environment
        self.workers = workers
        self.last_words = ""

    def argv(self) -> list[str]:
        """Threads, as a session is mostly waiting; no keep-alive, so that any process answers."""
        options = {
            "bind": self.address,
            "chdir": PROJECT_DIR,
            "workers": self.workers,
            "worker-class": "gthread",
            "threads": 8,
            "keep-alive": 0,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "gunicorn", *words, "--no-control-socket", "shop.wsgi"]

    def environ(self) -> dict[str, str]:
        """The settings of this site."""
        return dict(self.environment)

    def is_ready(self) -> bool:
        """Whether the shop answers. A connection alone proves nothing: the master accepts it."""
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL to all its processes; the log ends with them, so keep its tail."""
        self.last_words = self.output() or self.last_words
        super().kill()


class Datacenter:
    """A site. ``hot`` is None where its hot tier lives in the web process."""

    def __init__(self, name: str, environment: Mapping[str, str], hot: Memcached | None) -> None:
        self.name = name
        self.hot = hot
        tier = {"SHOP_MEMCACHED": hot.address} if hot else {"SHOP_DEMO_CONTROLS": "1"}
        self.web = Web(
            {**environment, "SHOP_SITE": name, **tier},
            # A hot tier inside the process cannot be shared by two.
            workers=2 if hot else 1,
        )

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{self.web.address}"

    def start(self) -> None:
        """Start what does not run."""
        for server in self._servers:
            if server.pid is None:
                server.start()

    def kill(self) -> None:
        """``kill -9`` to everything here."""
        for server in self._servers:
            server.kill()

    def freeze(self) -> None:
        """Cut the line: everything here stays as it is, and answers nobody."""
        for server in self._servers:
            server.freeze()

    def thaw(self) -> None:
        """Repair the line."""
        for server in self._servers:
            server.thaw()

    def log(self) -> str:
        """The end of the web server's log."""
        return self.web.output() or self.web.last_words

    @property
    def _servers(self) -> list[ServerProcess]:
        return [self.hot, self.web] if self.hot else [self.web]
