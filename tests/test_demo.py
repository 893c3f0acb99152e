"""The demo proves what it says: it ends 0 when every step held, and only then."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers import Dynalite, Memcached, MotoServer

pytest.importorskip("rich")
pytest.importorskip("requests")
pytest.importorskip("gunicorn")

from rich.console import Console
from shop.demo.browser import Browser
from shop.demo.timeline import Act, Timeline, duration
from shop.people import PASSWORD

TESTPROJECT = Path(__file__).resolve().parent.parent / "testproject"
TIMEOUT = 90  # seconds; a run takes about 20


def command(*options, **environment):
    """Return what Popen needs to run the demo."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}
    return {
        "args": [sys.executable, "manage.py", "failover_demo", *options],
        "cwd": TESTPROJECT,
        "env": {**kept, "DJANGO_SETTINGS_MODULE": "shop.settings", **environment},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def run(*options, **environment):
    return subprocess.run(timeout=TIMEOUT, check=False, **command(*options, **environment))


def document(done):
    """Return the parsed output of a run with --json; its complaint where it did not hold."""
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return json.loads(done.stdout)


def steps(story):
    assert story["ok"]
    assert all(step["ok"] and step["problem"] is None for step in story["steps"])
    return {step["title"]: step for step in story["steps"]}


def read_until(process, text):
    """Return what a process says up to the line with this text."""
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, said + process.stderr.read()
        said += line
    return said


def listening(url):
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def real_story():
    """The document of one run on memcached and dynalite."""
    if not (Memcached.available() and Dynalite.available()):
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail("memcached or dynalite is not installed")
        pytest.skip("needs memcached and dynalite")
    return document(run("--json"))


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with what the demo's own processes need, and neither memcached nor node."""
    if not MotoServer.available():
        pytest.skip("needs moto")
    (tmp_path / "sh").symlink_to("/bin/sh")
    return str(tmp_path)


class TestWithRealServers:
    def test_every_step_holds(self, real_story):
        assert len(steps(real_story)) == 12

    def test_it_uses_them_and_says_so(self, real_story):
        assert "memcached" in real_story["parts"]["east"]
        assert "memcached" in real_story["parts"]["west"]
        assert "dynalite" in real_story["parts"]["DynamoDB API"]
        assert not any("embedded" in part for part in real_story["parts"].values())

    def test_page_hits_cost_one_memcached_get_and_no_dynamodb_request(self, real_story):
        hits = steps(real_story)["Page hits at east"]

        assert hits["dynamodb"] == {}
        assert 0 < hits["figures"]["p50_ms"] <= hits["figures"]["p99_ms"]
        assert hits["figures"]["hits"] >= 20
        # The background thread looks for its token now and then.
        assert 1 <= hits["figures"]["memcached_gets_per_page"] < 1.1

    def test_what_is_stale_is_bounded_by_the_lease(self, real_story):
        figures = {}
        for step in steps(real_story).values():
            figures |= step["figures"]

        bound = real_story["lease_seconds"] + 1
        assert figures["stale_s"] <= bound
        assert figures["dead_at_east_s"] <= bound
        assert figures["until_in_dynamodb_s"] <= bound

    def test_it_takes_less_than_25_seconds(self, real_story):
        assert real_story["seconds"] < 25


class TestWithPythonAlone:
    def test_every_step_holds_and_both_sites_stay_up_until_ctrl_c(self, bare_path):
        with subprocess.Popen(**command("--serve", PATH=bare_path)) as demo:
            try:
                told = read_until(demo, "log in at one")
                sites = re.findall(r"^ +(?:east|west) +(http://\S+)/$", told, re.MULTILINE)
                assert [listening(site) for site in sites] == [True, True]
                demo.send_signal(signal.SIGINT)
                assert demo.wait(TIMEOUT) == 130
            finally:
                demo.kill()

        assert [listening(site) for site in sites] == [False, False]
        assert len(re.findall(r"^ +[\d.]+ s ✓ ", told, re.MULTILINE)) == 12
        assert "✗" not in told
        assert "East's hot tier loses all it holds" in told
        assert "nobody was logged out" in told
        assert told.count("embedded in it") == 2
        assert "embedded: moto" in told
        assert PASSWORD in told
        assert len(re.findall(r"kill -9 -- -\d+", told)) == 2
        assert "\x1b" not in told, "colour where there is no terminal"
        assert max(map(len, told.splitlines())) <= 112


@pytest.mark.skipif(not MotoServer.available(), reason="needs moto")
class TestAnEngineThatDoesNotHold:
    def test_the_demo_sees_it_shows_the_logs_and_ends_1(self, tmp_path):
        (tmp_path / "naive_settings.py").write_text(
            "from shop.settings import *\n"
            "SESSION_ENGINE = 'django.contrib.sessions.backends.cache'\n"
        )
        path = os.pathsep.join([str(tmp_path), *sys.path])

        done = run(
            "--embedded", "--hits=20", DJANGO_SETTINGS_MODULE="naive_settings", PYTHONPATH=path
        )

        assert done.returncode == 1
        assert "✗ The manager logs in at east" in done.stdout
        assert "before DynamoDB had the login" in done.stdout
        assert "The end of the log of east" in done.stdout
        assert "Booting worker" in done.stdout
        assert "nobody was logged out" not in done.stdout


@pytest.mark.skipif(not MotoServer.available(), reason="needs moto")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_ended_in_the_middle_it_leaves_nothing_behind(number, code, tmp_path):
    with subprocess.Popen(**command("--embedded", TMPDIR=str(tmp_path))) as demo:
        try:
            told = read_until(demo, "what happened")
            port = re.search(r"embedded: moto .*:(\d+)", told)[1]
            demo.send_signal(number)
            _, errors = demo.communicate(timeout=TIMEOUT)
        finally:
            demo.kill()

    assert demo.returncode == code
    assert "Traceback" not in errors
    assert not listening(f"http://127.0.0.1:{port}")
    assert list(tmp_path.iterdir()) == []


class TestTheCommand:
    def test_help_has_examples(self):
        done = run("--help")

        assert done.returncode == 0
        assert "manage.py failover_demo --serve" in done.stdout

    def test_without_the_extra_it_says_what_to_install(self, tmp_path):
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nsys.modules['rich'] = None\nsys.modules['gunicorn'] = None\n"
        )
        done = run(PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))

        assert done.returncode == 2
        assert "needs rich, gunicorn" in done.stderr
        assert "pip install '.[demo]'" in done.stderr

    @pytest.mark.parametrize("option", ["--lease=1", "--hits=5"])
    def test_what_cannot_work_is_refused(self, option):
        assert run(option).returncode == 2


class TestTimeline:
    def play(self, scene, console=None):
        timeline = Timeline(console)
        timeline.begin()
        return timeline, timeline.play("A scene", scene)

    def test_a_step_holds_when_every_expectation_does(self):
        def scene(act: Act):
            act.expect(True, "not shown")
            act.fact("seen")
            act.figure("ms", 1.23456)

        timeline, held = self.play(scene)

        assert held
        assert timeline.ok
        [step] = timeline.document()
        assert (step["ok"], step["facts"], step["figures"]) == (True, ["seen"], {"ms": 1.235})

    def test_a_broken_expectation_ends_the_step_and_is_told(self):
        def scene(act: Act):
            act.expect(False, "logged out at west")
            act.fact("never reached")

        console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        timeline, held = self.play(scene, console)
        console.file.close()

        assert not held
        assert not timeline.ok
        assert timeline.steps[0].problem == "logged out at west"
        assert timeline.steps[0].facts == []
        told = console.export_text()
        assert "✗ A scene" in told
        assert "logged out at west" in told

    def test_a_server_that_does_not_answer_breaks_the_step(self):
        _, held = self.play(lambda _: Browser().get("http://127.0.0.1:1/"))

        assert not held

    def test_a_mistake_in_the_demo_is_not_taken_for_a_broken_promise(self):
        with pytest.raises(ZeroDivisionError):
            self.play(lambda _: 1 / 0)

    def test_a_step_shows_what_it_cost(self):
        counts = iter([Counter(PutItem=1), Counter(PutItem=3, BatchGetItem=1)])
        timeline = Timeline(None)
        timeline.requests = lambda: next(counts)

        timeline.play("A scene", lambda _: None)

        assert timeline.steps[0].dynamodb == {"PutItem": 2, "BatchGetItem": 1}

    def test_a_timeline_without_steps_has_not_held(self):
        assert not Timeline(None).ok

    @pytest.mark.parametrize(
        ("milliseconds", "text"), [(4.21, "4.2 ms"), (310.4, "310 ms"), (1300, "1.3 s")]
    )
    def test_durations_read_well(self, milliseconds, text):
        assert duration(milliseconds) == text
