"""The demo from curtain to curtain: build the stage, play, tell, and perhaps stay."""

import json
import time
from contextlib import ExitStack

from requests import RequestException
from rich.console import Console
from servers import Dynalite

from shop import people
from shop.demo.browser import Browser
from shop.demo.datacenter import Datacenter
from shop.demo.stage import Stage, build
from shop.demo.story import Story
from shop.demo.timeline import Timeline

WIDE = 112  # columns where there is no terminal to ask


def run(*, serve: bool, as_json: bool, embedded: bool, hits: int, lease: float) -> bool:
    """Play the demo; return whether every step held. Raises ``stage.StageError``."""
    console = None if as_json else _console()
    timeline = Timeline(console)
    with ExitStack() as stack:
        timeline.say("\nTwo datacenters, one DynamoDB table, one user.", style="bold")
        with timeline.busy("Starting the servers"):
            stage = stack.enter_context(build(lease, embedded=embedded))
        timeline.requests = stage.cold.requests
        _introduce(stage, timeline)
        held = Story(stage, hits).play(timeline)
        _conclude(stage, timeline, held)
        if as_json:
            print(json.dumps(_document(stage, timeline, held), indent=1), flush=True)
        if serve and held:
            _explain(stage, timeline)
            _watch(stage, timeline)
    return held


def parts(stage: Stage) -> dict[str, str]:
    """Say of each part whether it is a server of its own or embedded in another process."""
    cold = stage.cold.server
    told = {}
    for site in stage.sites:
        if site.hot:
            web = f"gunicorn, {site.web.workers} processes, and a memcached on {site.hot.address}"
            told[site.name] = f"real servers: {web}"
        else:
            told[site.name] = "real server: gunicorn, 1 process; its hot tier is embedded in it"
    if isinstance(cold, Dynalite):
        told["DynamoDB API"] = f"real server: dynalite under Node, {cold.endpoint_url}"
    else:
        told["DynamoDB API"] = f"embedded: moto in a thread of this command, {cold.endpoint_url}"
    told["users"] = "one SQLite file that both sites read; sessions are not in it"
    return told


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE, color_system=None)
    return console


def _introduce(stage: Stage, timeline: Timeline) -> None:
    timeline.say()
    for name, what in parts(stage).items():
        timeline.say(f"  {name:<13} {what}")
    timeline.say(
        f"  {'lease':<13} {stage.lease:g} s here, so that nobody waits long; 15 minutes by default"
    )
    timeline.say()
    timeline.begin()
    timeline.header()


def _conclude(stage: Stage, timeline: Timeline, held: bool) -> None:
    timeline.say()
    if held:
        count = len(timeline.steps)
        timeline.say(
            f"All {count} steps held in {timeline.seconds:.1f} s: nobody was logged out, and "
            "nothing was lost.",
            style="bold green",
        )
        return
    timeline.say("A step did not hold.", style="bold red")
    for name, log in _logs(stage).items():
        timeline.say(f"\nThe end of the log of {name}:", style="bold")
        timeline.say(log or "(empty)")


def _logs(stage: Stage) -> dict[str, str]:
    logs = {site.name: site.log() for site in stage.sites}
    if isinstance(stage.cold.server, Dynalite):
        logs["dynalite"] = stage.cold.server.output()
    return logs


def _document(stage: Stage, timeline: Timeline, held: bool) -> dict:
    return {
        "ok": held,
        "seconds": round(timeline.seconds, 3),
        "lease_seconds": stage.lease,
        "parts": parts(stage),
        "sites": {site.name: {"url": site.url, "pid": site.web.pid} for site in stage.sites},
        "steps": timeline.document(),
        "logs": {} if held else _logs(stage),
    }


def _explain(stage: Stage, timeline: Timeline) -> None:
    timeline.say("\nBoth sites are up until Ctrl-C.\n", style="bold")
    for site in stage.sites:
        timeline.say(f"  {site.name:<9} {site.url}/", style="bold")
        _explain_failures(site, timeline)
    cold = stage.cold.server
    if isinstance(cold, Dynalite):
        timeline.say("  DynamoDB", style="bold")
        timeline.say(f"      goes dark           kill -STOP {cold.pid}")
        timeline.say(f"      and comes back      kill -CONT {cold.pid}")
    timeline.say(f"\n  Log in as {people.MANAGER} / {people.PASSWORD}; PINs: {people.PINS_TEXT}.")
    timeline.say("  A browser sends its cookie to both: log in at one, fail it, open the other.\n")


def _explain_failures(site: Datacenter, timeline: Timeline) -> None:
    group = f"-{site.web.pid}"
    timeline.say(f"      web server dies     kill -9 -- {group}")
    timeline.say(f"      or is cut off       kill -STOP -- {group}")
    timeline.say(f"      and comes back      kill -CONT -- {group}")
    if site.hot:
        timeline.say(f"      memcached dies      kill -9 {site.hot.pid}")
        timeline.say(f"      or hangs            kill -STOP {site.hot.pid}")
        timeline.say(f"      and comes back      kill -CONT {site.hot.pid}")
    else:
        timeline.say(f"      hot tier emptied    curl -X POST {site.url}/demo/empty-hot-tier")


def _watch(stage: Stage, timeline: Timeline) -> None:
    """Tell when a site stops answering and when it answers again, for ever."""
    answered = dict.fromkeys(stage.sites, True)
    while True:
        time.sleep(0.5)
        for site, before in answered.items():
            answers = _answers(site)
            if answers != before:
                clock = time.strftime("%H:%M:%S")
                timeline.say(f"  {clock}  {site.name} {'answers again' if answers else 'is gone'}")
                answered[site] = answers


def _answers(site: Datacenter) -> bool:
    try:
        Browser().get(f"{site.url}/ping")
    except RequestException:
        return False
    return True
