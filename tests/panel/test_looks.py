"""Everybody can use the panel: on a telephone, in the dark, by keyboard, by screen reader."""

from contextlib import contextmanager

import pytest

#: How the page may be dressed: what the browser wants, what the admin's own switch says.
DRESSES = {
    "light": ("light", "auto"),
    "dark": ("dark", "auto"),
    "light by the switch": ("dark", "light"),
    "dark by the switch": ("light", "dark"),
}
WIDTHS = (1280, 360)


def flaws(window):
    """Return what is wrong with the page, in every dress and at every width."""
    found = []
    page = window.page
    page.emulate_media(reduced_motion="reduce")
    for dress, (wanted, switched) in DRESSES.items():
        page.emulate_media(color_scheme=wanted)
        page.evaluate(f"document.documentElement.dataset.theme = '{switched}'")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            found += [f"{dress}, {width} px: {flaw}" for flaw in window.violations()]
            found += [f"{dress}, {width} px: too wide: {each}" for each in window.too_wide()]
    return found


@contextmanager
def quiet(page):
    """A block in which the page does not refresh itself, so that it is checked as it is."""
    page.click("#failover-pause")
    yield
    page.click("#failover-pause")


@pytest.mark.usefixtures("axe")
def test_ready_is_for_everybody(panel):
    for summary in panel.page.query_selector_all("#failover summary"):
        summary.click()
    with quiet(panel.page):
        assert flaws(panel) == []


@pytest.mark.usefixtures("axe")
def test_degraded_and_not_ready_are_for_everybody(stage, panel):
    stage.east.memcached.kill()
    panel.until("degraded")
    with quiet(panel.page):
        assert flaws(panel) == []
    stage.dynalite.kill()
    panel.until("not-ready")
    with quiet(panel.page):
        assert flaws(panel) == []


@pytest.mark.usefixtures("axe")
def test_what_an_action_asks_and_answers_is_for_everybody(panel):
    for action in ("drain-on", "log-out"):
        panel.page.click(f"#failover-{action}")
        assert flaws(panel) == []
        panel.page.click("#content .closelink")
    panel.page.click("#failover-log-out")
    panel.page.fill("#id_username", "nobody-of-this-name")
    panel.page.click("#content input[type=submit]")
    panel.page.wait_for_selector("#content .errorlist")
    assert flaws(panel) == []
    panel.page.click("#content .closelink")
    panel.do("probe")
    panel.page.wait_for_selector("#content [role=status]")
    assert flaws(panel) == []


@pytest.mark.parametrize("width", [640, 320], ids=["200 %", "400 %"])
def test_magnified_the_page_does_not_scroll_sideways(panel, width):
    panel.page.set_viewport_size({"width": width, "height": 450})
    for summary in panel.page.query_selector_all("#failover summary"):
        summary.click()
    assert panel.too_wide() == []


def test_the_colors_of_the_user_are_respected_and_all_can_be_told_apart(panel):
    page = panel.page
    page.emulate_media(forced_colors="active")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    strokes = {
        kind: page.evaluate(
            f"(s => [s.stroke, s.strokeDasharray])"
            f"(getComputedStyle(document.querySelector('.failover-line.failover-{kind}')))"
        )
        for kind in ("one", "two")
    }
    assert background not in {stroke for stroke, _ in strokes.values()}
    assert strokes["one"][1] != strokes["two"][1], "they are not told apart by color alone"
    verdict = page.evaluate(
        "getComputedStyle(document.querySelector('#failover-verdict h2')).color"
    )
    icon = page.evaluate("getComputedStyle(document.querySelector('.failover-icon')).stroke")
    assert icon == verdict != background


def test_an_action_can_be_done_by_keyboard_alone(panel):
    page = panel.page

    def tab_to(selector):
        for _ in range(100):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches('{selector}')"):
                return
        pytest.fail(f"Tab never comes to {selector}")

    tab_to("#failover-pause")
    page.keyboard.press("Space")
    assert page.get_attribute("#failover-pause", "aria-pressed") == "true"
    page.keyboard.press("Space")
    tab_to("#failover-revalidate")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline not in ("none", ""), "one must see where the focus is"
    page.keyboard.press("Enter")
    page.wait_for_url("**/revalidate/")
    tab_to("#content input[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".messagelist .success")
    assert "No session is served here" in panel.message


def test_a_screen_reader_finds_its_way(panel):
    page = panel.page
    assert page.get_by_role("status").count() == 1
    for name in ("Probe now", "Drain", "Log out a user"):
        assert page.get_by_role("link", name=name, exact=True).count() == 1
    for name in ("Backup age", "Tiers and regions", "The last hour", "Sites"):
        assert page.get_by_role("heading", name=name, exact=True).count() == 1
    assert page.get_by_role("heading", name="Failover ready").count() == 1
    for table in ("Tiers and regions", "Processes of this site", "Sites"):
        assert page.get_by_role("table", name=table, exact=True).count() == 1
    assert page.get_by_role("img", name="Page hits served").count() == 1
