"""Pictures of the panel for the documentation, in each of its states.

Run by ``python -m tests.panel.screenshots``, which writes ``docs/images/panel-*.png``. All numbers
in them are of real traffic: tills sell for some minutes first, so that the charts have a shape.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
TILLS = 6
PAUSE_SECONDS = 0.4  # between two sales of a till, about
SKUS = ("espresso", "flat-white", "croissant", "beans-250", "filter-papers", "mug")


def main() -> int:
    """Take all pictures; exit 2 where something is not installed."""
    options = _options()
    _prepare()
    from tests.panel.browser import Chromium, Playwright, chromium
    from tests.panel.stage import Stage

    missing = Stage.missing()
    missing += [each.__name__ for each in (Playwright, Chromium) if not each.available()]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    options.images.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
            photographer = Photographer(browser, stage, options.images)
            with Traffic(stage):
                photographer.wait(options.seconds)
                photographer.take_all()
        with tempfile.TemporaryDirectory() as folder:
            other = {"SHOP_SECRET_KEY": "the key of another site"}
            with Stage(Path(folder), west=other) as stage:
                Photographer(browser, stage, options.images).take_another_key()
    return 0


class Traffic:
    """Tills that sell at both sites, most of them at ``east``, and never give up."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._sell, args=(number,), daemon=True)
            for number in range(TILLS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _sell(self, number: int) -> None:
        import requests

        from tests.web import Till

        chance = random.Random(number)
        site = self._stage.west if number == TILLS - 1 else self._stage.east
        till = None
        while not self._ended.wait(chance.expovariate(1 / self._pause)):
            try:
                if till is None:
                    till = Till(site.url)
                    till.enter()
                if chance.random() < 0.3:
                    till.change(chance.choice(SKUS))
                else:
                    till.status(site.url)
                if chance.random() < 0.02:
                    till.logout(site.url)
                    till = None
            except (AssertionError, requests.RequestException):
                continue  # a 503 while no tier answers

    @property
    def _pause(self) -> float:
        """Customers come in waves."""
        return PAUSE_SECONDS * (1 + 2 * (int(time.time() / 60) % 3))


class Photographer:
    """A window on the panel of ``east``."""

    def __init__(self, browser: Any, stage: Any, images: Path) -> None:
        from tests.panel.browser import Window

        self._stage = stage
        self._images = images
        self._window = Window(browser, stage.east)
        self._page = self._window.page
        self._window.log_in()
        self._window.open_panel()

    def wait(self, seconds: float) -> None:
        """Look at the panel for so long."""
        print(f"tills sell for {seconds:.0f} s", flush=True)
        self._page.wait_for_timeout(seconds * 1000)

    def take_all(self) -> None:
        """Take what one site with its key in order can show."""
        window, page, stage = self._window, self._page, self._stage
        window.until("ready", within_ms=30_000)
        self._take("ready")
        page.set_viewport_size({"width": 1100, "height": 900})
        self._take("page", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="dark")
        self._take("dark")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 390, "height": 844})
        self._take("narrow")
        page.set_viewport_size({"width": 1280, "height": 900})

        page.click("#failover-drain-on")
        self._take("confirmation")
        page.click("#content input[type=submit]")
        page.wait_for_selector("text=2 of 2 processes have nothing left", timeout=30_000)
        self._take("draining")
        window.do("drain-off")
        window.do("probe")
        page.wait_for_selector("#content [role=status]")
        self._take("probe")
        page.click("text=Back to the panel")

        with self._broken(stage.east.memcached):
            window.until("degraded", within_ms=30_000)
            page.wait_for_selector("#failover-tiers tr:has-text('open in')")
            self._take("memcached-down")
        window.until("ready", within_ms=30_000)
        with self._broken(stage.dynalite):
            window.until("degraded", within_ms=30_000)
            self._take("dynamodb-down")
            with self._broken(stage.east.memcached):
                window.until("not-ready", within_ms=30_000)
                self._take("neither-tier")

    def take_another_key(self) -> None:
        """Take what a site shows whose SECRET_KEY another one does not have."""
        self._page.wait_for_selector("#failover-sites tr:has-text('another one')", timeout=60_000)
        self._window.until("not-ready")
        self._take("another-key")

    @contextmanager
    def _broken(self, server: Any) -> Iterator[None]:
        server.kill()
        yield
        server.start()

    def _take(self, name: str, *, full_page: bool = False) -> None:
        path = self._images / f"panel-{name}.png"
        self._page.evaluate("document.activeElement.blur()")
        self._page.screenshot(path=path, full_page=full_page, animations="disabled")
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB", flush=True)


def _prepare() -> None:
    """Set up Django, and what the shop's processes need of the environment."""
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        DJANGO_SETTINGS_MODULE="shop.settings",
    )
    sys.path.insert(0, str(ROOT / "testproject"))
    import django

    django.setup()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.panel.screenshots", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="how long the tills sell first (300)"
    )
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the pictures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
