"""Who may see the panel, and who may press its buttons."""

import pytest

from .stage import CLERK, PANEL, VIEWER

ACTIONS = ["probe", "drain-on", "drain-off", "revalidate", "clear", "log-out"]


def test_staff_without_the_permission_find_no_way_to_it(window):
    clerk = window(CLERK)
    clerk.page.goto(f"{clerk.site.url}/admin/")
    assert clerk.page.query_selector(f"a[href='{PANEL}']") is None

    clerk.expect("status of 403")
    for path in ["", "sections/", *[f"{action}/" for action in ACTIONS]]:
        assert clerk.page.goto(clerk.site.panel + path).status == 403, path


def test_who_may_only_look_sees_no_buttons_and_has_none(window):
    viewer = window(VIEWER)
    viewer.page.goto(f"{viewer.site.url}/admin/")
    viewer.page.click(f"#content a[href='{PANEL}']")
    assert viewer.page.is_visible("#failover-verdict")
    assert viewer.page.query_selector("#failover-actions") is None
    with viewer.page.expect_response("**/sections/") as refreshed:
        pass
    assert refreshed.value.status == 200
    assert "failover-actions" not in refreshed.value.text()

    viewer.expect("status of 403")
    for action in ACTIONS:
        assert viewer.page.goto(f"{viewer.site.panel}{action}/").status == 403, action
        token = {"X-CSRFToken": cookie(viewer, "csrftoken"), "Referer": viewer.site.url}
        posted = viewer.page.request.post(f"{viewer.site.panel}{action}/", headers=token)
        assert posted.status == 403, action
        assert "CSRF" not in posted.text()


@pytest.mark.parametrize("path", ["", "sections/", "probe/"])
def test_a_stranger_is_asked_to_log_in_and_gets_no_session(window, path):
    stranger = window(user=None)
    stranger.page.goto(stranger.site.panel + path)
    assert "/admin/login/" in stranger.page.url
    assert stranger.page.is_visible("#id_password")
    assert {each["name"] for each in stranger.context.cookies()} <= {"csrftoken"}


def test_who_logs_out_has_no_pass_any_more(stage, window):
    panel = window(own=True)
    panel.open_panel()
    panel.expect("'data:,'")  # the icon of the shop's own page, where one lands
    with panel.page.expect_response("**/admin/logout/"):
        panel.page.click("#logout-form button")
    stage.east.memcached.kill()
    stage.dynalite.kill()
    panel.page.goto(panel.site.panel)
    assert "/admin/login/" in panel.page.url


def cookie(window, name):
    return next(each["value"] for each in window.context.cookies() if each["name"] == name)
