"""Debian's Chromium, driven by playwright, and axe-core to find what not everybody could use."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.panel.stage import PASSWORD, USER, Site

#: What the issue promises for each change of the verdict, in milliseconds.
PROMPT_MS = 10_000

_TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.body.querySelectorAll("*")]
    .filter(each => !each.parentElement.closest(".failover-scroll"))
    .filter(each => each.getBoundingClientRect().right > width)
    .map(each => each.outerHTML.slice(0, 200));
}"""


class Chromium:
    """The browser, of Debian's package."""

    @staticmethod
    def path() -> str | None:
        """Where it is."""
        return shutil.which("chromium")

    @staticmethod
    def available() -> bool:
        return Chromium.path() is not None


class Playwright:
    """What drives the browser."""

    @staticmethod
    def available() -> bool:
        return importlib.util.find_spec("playwright") is not None


class AxeCore:
    """Rules of accessibility, of npm."""

    @staticmethod
    @cache
    def path() -> Path | None:
        """Where its script is: NODE_PATH, or npm's global folder."""
        folders = [entry for entry in os.environ.get("NODE_PATH", "").split(os.pathsep) if entry]
        if npm := shutil.which("npm"):
            root = [npm, "root", "--global"]
            folders.append(subprocess.run(root, capture_output=True, text=True, check=False).stdout)
        scripts = (Path(folder.strip()) / "axe-core" / "axe.min.js" for folder in folders)
        return next((script for script in scripts if script.is_file()), None)

    @staticmethod
    def available() -> bool:
        return AxeCore.path() is not None


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=Chromium.path(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Window:
    """A window of a browser of its own: ``page``, and all that it has complained about."""

    def __init__(self, browser: Any, site: Site, **options: Any) -> None:
        self.site = site
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.sections: list[str] = []  # the addresses it has refreshed itself from
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._on_request)
        self._expected: tuple[str, ...] = ()

    def expect(self, *complaints: str) -> None:
        """Take no offence at complaints with one of these in it, from now on."""
        self._expected += complaints

    def close(self) -> None:
        """Close it."""
        self.context.close()

    def log_in(self, user: str = USER) -> None:
        """Log in at the admin."""
        self.page.goto(f"{self.site.url}/admin/login/?next=/admin/")
        self.page.fill("#id_username", user)
        self.page.fill("#id_password", PASSWORD)
        self.page.click("[type=submit]")
        self.page.wait_for_selector("#user-tools")

    def open_panel(self) -> None:
        """Go to the panel."""
        self.page.goto(self.site.panel)
        self.page.wait_for_selector("#failover-pause:visible")  # the script runs

    def until(self, verdict: str, within_ms: float = PROMPT_MS) -> None:
        """Wait until the page itself turns to "ready", "degraded" or "not-ready"."""
        self.page.wait_for_selector(f"#failover-verdict.failover-{verdict}", timeout=within_ms)

    def do(self, action: str) -> None:
        """Click a button of the panel, and confirm."""
        self.page.click(f"#failover-{action}")
        self.page.click("#content input[type=submit]")

    @property
    def message(self) -> str:
        """What the admin says of the action."""
        text: str = self.page.inner_text(".messagelist")
        return text

    def too_wide(self) -> list[str]:
        """Return what makes the page as a whole scroll sideways."""
        found: list[str] = self.page.evaluate(_TOO_WIDE)
        return found

    def violations(self) -> list[str]:
        """What axe-core finds serious or critical, with where."""
        script = AxeCore.path()
        assert script is not None
        self.page.evaluate(script.read_text())  # the policy forbids a script tag
        # The admin's links fade from one color to the other.
        self.page.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
        # Django 5.2's own breadcrumbs have links that only their color tells from text. Without
        # preload, as axe would put a style into the page for it, which the policy forbids.
        found = self.page.evaluate(
            "axe.run({exclude: [['.breadcrumbs']]}, {resultTypes: ['violations'], preload: false})"
        )
        return [
            f"{each['impact']}: {each['help']}: {node['target']} {node['failureSummary']}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(
            expected in message.text for expected in self._expected
        ):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith(self.site.url + "/"):
            self.complaints.append(f"a request to another host: {request.url}")
        if urlsplit(request.url).path.endswith("/sections/"):
            self.sections.append(request.url)
