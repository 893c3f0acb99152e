"""The stage and the browser, one for all tests here: they take seconds to start.

They end with this package, as a thread that playwright has run in is no place for Django's ORM.
"""

import pytest
from servers import Dynalite, Memcached

from tests.conftest import require

from .browser import AxeCore, Chromium, Playwright, Window, chromium
from .stage import USER, Stage


@pytest.fixture(scope="package")
def _stage(tmp_path_factory):
    for needed in (Memcached, Dynalite):
        require(needed)
    with Stage(tmp_path_factory.mktemp("panel")) as stage:
        yield stage


@pytest.fixture
def stage(_stage):
    """Two sites that are well; whatever a test has broken is repaired after it."""
    _stage.settle()
    yield _stage
    _stage.heal()


@pytest.fixture(scope="package")
def browser():
    """The browser."""
    for needed in (Playwright, Chromium):
        require(needed)
    with chromium() as browser:
        yield browser


@pytest.fixture
def axe():
    """Skips where axe-core is missing."""
    require(AxeCore)


@pytest.fixture(scope="package")
def _cookies():
    """The cookies of users who have logged in, before they have seen the panel."""
    return {}


@pytest.fixture
def window(stage, browser, _cookies):
    """``window(user)``: a browser of its own at ``east``, of somebody who is logged in.

    A test that ends the session takes an own one: ``own=True``. No browser may complain: of an
    error, of what its policy forbids, of a request to another host.
    """
    opened = []

    def window(user=USER, site=None, *, own=False, **options):
        new = Window(browser, site or stage.east, **options)
        opened.append(new)
        if user is None:
            return new
        if own or user not in _cookies:
            new.log_in(user)
            if not own:
                _cookies[user] = new.context.cookies()
        else:
            new.context.add_cookies(_cookies[user])
        return new

    yield window
    for each in opened:
        each.close()
    assert [complaint for each in opened for complaint in each.complaints] == []


@pytest.fixture
def panel(window):
    """The panel in a browser, of somebody who may do all, when all is well."""
    opened = window()
    opened.open_panel()
    opened.until("ready", within_ms=20_000)
    return opened
