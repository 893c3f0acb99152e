"""Somebody before the panel whose clock is stopped: it refreshes itself when a test says so."""

import re

#: How often the page refreshes itself.
SECONDS = 5


class Reader:
    """Somebody before the panel, and the server's answers, which may be changed on their way."""

    def __init__(self, window):
        self.window = window
        self.page = window.page
        self.page.clock.install(time=0)
        self.page.clock.pause_at(1)
        self._edits = []
        self.page.route("**/sections/", self._answer)
        window.open_panel()
        for _ in range(60):
            if self.page.query_selector("#failover-verdict.failover-ready"):
                break
            self.refresh()

    def edit(self, pattern, replacement):
        """Change the answers from now on."""
        self._edits.append((pattern, replacement))

    def edit_nothing(self):
        """Let the answers pass as they are."""
        self._edits.clear()

    def edit_all(self, text="!"):
        """Let each section be another one in the next answer."""
        self.edit(r"</section>", f"<p>{text}</p></section>")

    def tick(self, seconds=SECONDS):
        """Let time pass."""
        self.page.clock.run_for(seconds * 1000)

    def refresh(self):
        """Let time pass until there is an answer, and that is shown."""
        self.page.evaluate("document.getElementById('failover-sections').dataset.at = 'before'")
        with self.page.expect_response("**/sections/"):
            self.tick()
        self.wait_for("document.getElementById('failover-sections').dataset.at !== 'before'")

    def hide(self, hidden=True):
        """Turn to another tab, and back."""
        value = "true" if hidden else "false"
        self.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {value}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    def wait_until_it_says(self, text):
        """Wait until the page says something of its age."""
        self.wait_for(f"document.getElementById('failover-as-of').textContent.includes('{text}')")

    def wait_for(self, condition):
        """Wait until a condition is true in the page."""
        self.page.wait_for_function(f"() => {condition}", timeout=10_000)

    def evaluate(self, script):
        """Run a script in the page."""
        return self.page.evaluate(script)

    def has(self, text):
        """Tell whether the panel has a text."""
        return text in self.page.inner_text("#failover")

    @property
    def requests(self):
        """How often the page has asked."""
        return len(self.window.sections)

    @property
    def as_of(self):
        """What the page says of its age."""
        return self.page.inner_text("#failover-as-of")

    @property
    def order(self):
        """The sections as they stand."""
        return self.evaluate("[...document.querySelectorAll('#failover section')].map(s => s.id)")

    def _answer(self, route):
        answer = route.fetch()
        body = answer.text()
        for pattern, replacement in self._edits:
            body = re.sub(pattern, replacement, body, flags=re.DOTALL)
        route.fulfill(response=answer, body=body)
