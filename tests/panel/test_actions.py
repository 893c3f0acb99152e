"""What the buttons do, from the click to what has become of it."""

import pytest

from .stage import CUSTOMER, USER


def last_entry(stage, panel):
    """Return what the admin's log has of the last action; its index has it too."""
    panel.page.goto(f"{panel.site.url}/admin/")
    assert "Session failover" in panel.page.inner_text("#recent-actions-module li >> nth=0")
    return stage.log_entries()[-1]


def test_draining_ends_with_nothing_pending(stage, panel):
    tills = stage.tills(stage.east)
    panel.page.wait_for_function(
        "count => Number(document.getElementById('failover-pending').textContent) >= count",
        arg=len(tills),
        timeout=20_000,
    )

    panel.do("drain-on")
    assert "Draining has begun" in panel.message
    panel.page.wait_for_selector("text=2 of 2 processes have nothing left", timeout=20_000)
    assert panel.page.inner_text("#failover-draining") == "0"
    assert panel.page.inner_text("#failover-pending") == "0"
    for till in tills:
        till.url = stage.west.url  # which has it from DynamoDB
        assert till.items == {"mug": 1}
    assert not panel.page.is_visible("#failover-drain-on")

    panel.do("drain-off")
    assert "Draining is over" in panel.message
    panel.page.wait_for_selector("#failover-drain-on", timeout=20_000)
    assert "Drain" in panel.page.inner_text("#failover-drain-on")
    assert f"{USER}: Changed “Session failover” — End draining" in last_entry(stage, panel)


def test_an_action_that_is_cancelled_is_not_done(stage, panel):
    panel.page.click("#failover-drain-on")
    panel.page.click("#content .closelink")
    panel.page.wait_for_selector("#failover-verdict")
    # Another process may not have heard yet that draining is over.
    panel.page.wait_for_selector("#failover-draining", state="detached", timeout=20_000)
    assert not any("Drain:" in entry for entry in stage.log_entries()[-1:])


def test_a_probe_shows_what_it_has_found(stage, panel):
    panel.do("probe")
    panel.page.wait_for_selector("#content [role=status]")
    found = panel.page.inner_text("#content .failover-reasons")
    assert "us-east-1" in found
    assert "hot tier" in found
    assert "west" in found
    panel.page.click("text=Back to the panel")
    panel.page.wait_for_selector("#failover-verdict")
    assert "Probe now: " in last_entry(stage, panel)


def test_revalidation_is_in_what_happened(stage, panel):
    panel.do("revalidate")
    assert "No session is served here before it has agreed with DynamoDB" in panel.message
    event = "#failover-events li:has-text('All sessions are revalidated')"
    panel.page.wait_for_selector(event, timeout=15_000)
    assert "Revalidate: " in last_entry(stage, panel)


def test_expired_items_are_cleared(stage, panel):
    before = stage.items()
    stage.plant_expired(3)
    assert len(stage.items() - before) == 3

    panel.do("clear")
    assert "3 expired items deleted, to the end of the table" in panel.message
    assert stage.items() >= before
    assert not any(id.startswith("0" * 60) for id in stage.items())
    assert "Clear expired: 3 expired items deleted" in last_entry(stage, panel)


def test_a_user_who_is_logged_out_is_so_in_another_browser(stage, panel, window):
    customer = window(CUSTOMER, own=True)
    assert customer.page.reload().status == 200
    assert customer.page.is_visible("#user-tools")

    panel.page.click("#failover-log-out")
    panel.page.fill("#id_username", CUSTOMER)
    panel.page.press("#id_username", "Enter")
    assert "Uma is logged out" in panel.message

    customer.page.reload()
    assert "/admin/login/" in customer.page.url
    panel.page.reload()
    assert panel.page.is_visible("#failover-verdict"), "nobody else is"
    assert f"Log out a user: {CUSTOMER} is logged out" in last_entry(stage, panel)


def test_a_user_who_does_not_exist_is_complained_about_where_the_name_is(stage, panel):
    panel.page.click("#failover-log-out")
    panel.page.fill("#id_username", "nobody-of-this-name")
    panel.page.click("#content input[type=submit]")
    assert "There is no such user" in panel.page.inner_text("#content .errorlist")
    assert panel.page.input_value("#id_username") == "nobody-of-this-name"


@pytest.mark.parametrize("action", ["clear", "log-out"])
def test_an_action_that_dynamodb_is_needed_for_says_that_it_failed(stage, panel, action):
    panel.page.click(f"#failover-{action}")
    if action == "log-out":
        panel.page.fill("#id_username", CUSTOMER)
    stage.dynalite.kill()
    panel.page.click("#content input[type=submit]")
    error = panel.page.wait_for_selector(".messagelist .error", timeout=20_000)
    assert "DynamoDB" in error.inner_text()
    stage.heal()
    assert "DynamoDB" in last_entry(stage, panel)
