"""The verdict of an open panel follows what happens below it, by its own refresh."""

import os
import signal

from .stage import PANEL


def stays_the_same_document(page):
    page.evaluate("window.loadedOnce = true")
    return lambda: page.evaluate("window.loadedOnce === true")


def test_memcached_dies_and_comes_back(stage, panel):
    is_same = stays_the_same_document(panel.page)

    stage.east.memcached.kill()
    panel.until("degraded")
    assert "hot tier" in panel.page.inner_text(".failover-reasons")
    assert "A failover right now logs nobody out" in panel.page.inner_text("#failover-verdict")

    stage.east.memcached.start()
    panel.until("ready")
    assert "answers again" in panel.page.inner_text("#failover-events")
    assert is_same()


def test_dynamodb_dies_and_comes_back(stage, panel):
    is_same = stays_the_same_document(panel.page)

    stage.dynalite.kill()
    panel.until("degraded")
    assert "us-east-1" in panel.page.inner_text(".failover-reasons")

    stage.dynalite.start()
    panel.until("ready")
    assert is_same()


def test_dynamodb_freezes_and_thaws(stage, panel):
    stage.dynalite.freeze()
    panel.until("degraded")
    assert "us-east-1" in panel.page.inner_text(".failover-reasons")

    stage.dynalite.thaw()
    panel.until("ready")


def test_without_either_tier_the_panel_is_still_there_for_who_has_seen_it(stage, panel, window):
    stranger = window()  # logged in, but has never been shown the panel
    stage.east.memcached.kill()
    stage.dynalite.kill()
    panel.until("not-ready")

    for _ in stage.east.workers:
        assert panel.page.reload().status == 200
    reasons = panel.page.inner_text(".failover-reasons")
    assert "neither tier answers" in reasons
    assert "come from DynamoDB" not in reasons
    assert "by a pass" in panel.page.inner_text("#failover-verdict")
    assert panel.page.query_selector("#failover-actions") is None

    stranger.expect("status of 503")
    assert stranger.page.goto(stranger.site.panel).status == 503
    assert "failover_panel" not in {c["name"] for c in stranger.context.cookies()}

    stage.heal()
    panel.until("ready")
    assert panel.page.is_visible("#failover-actions"), "it must come back by itself"
    assert stranger.page.reload().status == 200


#: The process id of one that is heard of and has told of itself, and is not who shows the page.
ANOTHER = r"""() => {
  for (const row of document.querySelectorAll("#failover-processes tbody tr")) {
    const [host, pid, site, version] = [...row.cells].map(cell => cell.textContent);
    const heard = row.cells[row.cells.length - 1].textContent;
    if (/\d/.test(version) && heard.endsWith(" ago")) return Number(pid);
  }
}"""


def test_a_process_that_was_killed_is_missed(stage, panel):
    killed = panel.page.wait_for_function(ANOTHER, timeout=20_000).json_value()
    (other,) = set(stage.east.workers) - {killed}
    assert str(other) in panel.page.inner_text("#failover-processes tbody")

    os.kill(killed, signal.SIGKILL)
    stale = "#failover-processes tr.failover-stale:has-text('{}')"
    panel.page.wait_for_selector(stale.format(killed), timeout=30_000)
    assert "stale" in panel.page.inner_text(f"{stale.format(killed)} td:last-child")
    assert not panel.page.is_visible(stale.format(other))


def test_each_site_shows_both(stage, window):
    for site in (stage.east, stage.west):
        opened = window(site=site)
        opened.open_panel()
        row = "#failover-sites tr:has-text('{}'):has-text('the same')"
        for name in ("east", "west"):
            opened.page.wait_for_selector(row.format(name), timeout=20_000)
        own = opened.page.inner_text("#failover-sites tr:has-text('this one')")
        assert site.name in own
        assert opened.page.url.endswith(PANEL)
