"""The panel refreshes itself, and leaves the reader where he is.

The clock of the page is stopped: a refresh is when a test says so.
"""

import pytest

from .reader import Reader
from .stage import VIEWER

#: How long the page waits for an answer, in seconds.
TIMEOUT = 10

#: What a reader may have the focus on, and the section that is replaced below it.
FOCUSED = {
    "failover-clear": "failover-actions",
    "failover-minutes-summary": "failover-charts",
    "failover-tiers-scroll": "failover-tiers",
}


@pytest.fixture
def reader(window):
    return Reader(window())


def test_it_shows_what_is_new_and_as_of_when(reader):
    reader.edit(r'data-at="[^"]*"', 'data-at="12:34:56"')
    reader.edit_all("brand new")
    reader.refresh()
    assert reader.has("brand new")
    assert reader.as_of == "As of 12:34:56."
    asked = reader.requests
    reader.tick(3)
    assert reader.requests == asked
    reader.refresh()
    assert reader.requests == asked + 1


def test_what_is_open_stays_open(reader):
    reader.page.click("#failover-minutes-summary")
    reader.edit_all()
    reader.refresh()
    assert reader.page.is_visible("#failover-minutes table")
    reader.page.click("#failover-minutes-summary")
    reader.edit_all()
    reader.refresh()
    assert not reader.page.is_visible("#failover-minutes table")


@pytest.mark.parametrize("focused", FOCUSED)
def test_the_focus_stays(reader, focused):
    reader.page.focus(f"#{focused}")
    reader.evaluate(f"window.old = document.getElementById('{FOCUSED[focused]}')")
    reader.edit_all()
    reader.refresh()
    assert not reader.evaluate("window.old.isConnected"), "it was to be replaced"
    assert reader.evaluate("document.activeElement.id") == focused


def test_the_focus_goes_to_the_section_when_its_button_is_gone(reader):
    reader.page.focus("#failover-drain-on")
    reader.edit(r'<a [^>]*id="failover-drain-on".*?</a>', "")
    reader.refresh()
    assert not reader.page.query_selector("#failover-drain-on")
    assert reader.evaluate("document.activeElement.id") == "failover-actions"


def test_a_table_stays_as_far_scrolled(reader):
    reader.page.set_viewport_size({"width": 360, "height": 700})
    box = "document.getElementById('failover-processes-scroll')"
    assert reader.evaluate(f"{box}.scrollLeft = 70") == 70
    assert reader.evaluate(f"{box}.scrollLeft") == 70, "it must be wide enough to scroll"
    reader.edit_all()
    reader.refresh()
    assert reader.evaluate(f"{box}.scrollLeft") == 70


def test_what_is_read_does_not_move_when_something_grows_above_it(reader):
    top = "document.querySelector('#failover-processes h2').getBoundingClientRect().top"
    reader.evaluate("document.getElementById('failover-processes').scrollIntoView()")
    before, scrolled = reader.evaluate(top), reader.evaluate("window.scrollY")
    assert scrolled > 200
    reader.edit(r"(<section id=\"failover-verdict\".*?)</section>", r"\1<p>a</p><p>b</p></section>")
    reader.refresh()
    assert reader.evaluate("window.scrollY") > scrolled + 20, "the page has grown above"
    assert abs(reader.evaluate(top) - before) <= 1


def test_at_the_top_the_page_stays_at_the_top(reader):
    reader.edit_all()
    reader.refresh()
    assert reader.evaluate("window.scrollY") == 0


def test_what_is_selected_is_not_replaced(reader):
    reader.evaluate(
        "getSelection().selectAllChildren(document.querySelector('#failover-tiers tbody'))"
    )
    selected = reader.evaluate("String(getSelection())")
    assert "us-east-1" in selected
    reader.edit_all("new")
    reader.refresh()
    assert reader.evaluate("String(getSelection())") == selected
    assert "new" not in reader.page.inner_text("#failover-tiers")
    assert "new" in reader.page.inner_text("#failover-sites")
    assert "selected" in reader.as_of, "that part is older than the page says"

    reader.evaluate("getSelection().removeAllRanges()")
    reader.refresh()
    assert "new" in reader.page.inner_text("#failover-tiers")
    assert "selected" not in reader.as_of


def test_updates_can_be_paused(reader):
    asked = reader.requests
    reader.page.click("#failover-pause")
    reader.tick(60)
    assert reader.requests == asked
    assert "paused" in reader.as_of
    assert reader.page.get_attribute("#failover-pause", "aria-pressed") == "true"

    with reader.page.expect_response("**/sections/"):
        reader.page.click("#failover-pause")
    reader.wait_for("!document.getElementById('failover-as-of').textContent.includes('paused')")
    assert reader.requests == asked + 1
    reader.refresh()
    assert reader.requests == asked + 2


def ask_in_vain(reader):
    """Let the page ask; return a list of what has no answer yet, and what holds the answers."""
    held = []

    def hold(route):
        held.append(route)

    reader.page.route("**/sections/", hold)
    with reader.page.expect_request("**/sections/"):
        reader.tick()
    return held, hold


def test_a_pause_holds_also_for_what_was_asked_before(reader):
    reader.edit_all("too late")
    held, hold = ask_in_vain(reader)
    reader.page.click("#failover-pause")
    with reader.page.expect_response("**/sections/"):
        held[0].fallback()
    reader.tick(60)
    assert not reader.has("too late")
    assert "paused" in reader.as_of
    reader.page.unroute("**/sections/", hold)
    with reader.page.expect_response("**/sections/"):
        reader.page.click("#failover-pause")
    reader.wait_for("document.getElementById('failover').textContent.includes('too late')")


def test_a_page_that_nobody_sees_asks_nothing(reader):
    asked = reader.requests
    reader.hide()
    reader.tick(60)
    assert reader.requests == asked

    with reader.page.expect_response("**/sections/"):
        reader.hide(False)
    assert reader.requests == asked + 1, "at once"
    for _ in range(3):
        reader.refresh()
    assert reader.requests == asked + 4, "and no more often than before"


def test_a_page_that_is_paused_stays_so_when_it_is_seen_again(reader):
    reader.page.click("#failover-pause")
    asked = reader.requests
    reader.hide()
    reader.hide(False)
    reader.tick(60)
    assert reader.requests == asked


def test_it_asks_again_when_it_has_an_answer_or_has_given_up(reader):
    asked = reader.requests
    ask_in_vain(reader)
    reader.tick(TIMEOUT - 1)
    reader.hide()
    reader.hide(False)
    assert reader.requests == asked + 1

    reader.window.expect("Failed to load resource")
    reader.tick(2)  # which is longer than it waits
    reader.wait_until_it_says("could not be refreshed")
    with reader.page.expect_request("**/sections/"):
        reader.tick()
    assert reader.requests == asked + 2


@pytest.mark.parametrize(
    "answer",
    [
        lambda route: route.abort(),
        lambda route: route.fulfill(status=503, body="Try again."),
        lambda route: route.fulfill(status=200, body="<h1>Some proxy's page</h1>"),
        lambda route: route.fulfill(status=302, headers={"Location": "/admin/login/"}),
    ],
    ids=["no connection", "503", "another page", "logged out"],
)
def test_when_it_cannot_refresh_it_says_so_and_goes_on(reader, answer):
    reader.window.expect("Failed to load resource", "redirect")
    at = reader.evaluate("document.getElementById('failover-sections').dataset.at")
    order = reader.order
    reader.page.route("**/sections/", answer)
    reader.tick()
    reader.wait_until_it_says("could not be refreshed")
    assert f"As of {at}." in reader.as_of
    assert "could not be refreshed" in reader.page.inner_text("#failover [role=status]")
    assert reader.order == order

    reader.page.unroute("**/sections/", answer)
    reader.refresh()
    assert "not be refreshed" not in reader.as_of
    assert "refreshed again" in reader.page.inner_text("#failover [role=status]")


def test_the_verdict_is_announced_when_it_changes_and_only_then(reader):
    status = "#failover [role=status]"
    reader.edit_all()
    reader.refresh()
    assert reader.page.inner_text(status) == ""
    reader.edit(r'data-headline="[^"]*"', 'data-headline="Degraded"')
    reader.refresh()
    assert reader.page.inner_text(status) == "Session failover: Degraded"
    reader.evaluate(
        "window.said = 0; new MutationObserver(() => window.said++)"
        ".observe(document.getElementById('failover-news'), {childList: true, subtree: true})"
    )
    reader.refresh()
    assert reader.evaluate("window.said") == 0


def test_sections_that_go_come_back_to_their_place(reader):
    order = reader.order
    reader.edit(r'<section id="failover-(actions|charts|sites)".*?</section>', "")
    reader.refresh()
    gone = {"failover-actions", "failover-charts", "failover-sites"}
    assert reader.order == [each for each in order if each not in gone]
    reader.edit_nothing()
    reader.refresh()
    assert reader.order == order


def test_settings_that_have_become_wrong_leave_nothing_else_standing(reader):
    order = reader.order
    reader.edit(
        r"<section.*</section>",
        '<section id="failover-verdict" class="failover-verdict failover-not-ready">'
        "<h2>Not ready</h2></section>",
    )
    reader.refresh()
    assert reader.order == ["failover-verdict"]
    reader.edit_nothing()
    reader.refresh()
    assert reader.order == order


def test_the_document_is_small(stage, window):
    viewer = window(VIEWER)
    sizes = [len(viewer.page.goto(stage.east.panel + path).body()) for path in ("", "sections/")]
    assert max(sizes) < 300_000
