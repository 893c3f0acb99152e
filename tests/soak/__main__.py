"""Run the soak. Exit 0: all guarantees held; 1: one did not; 2: it could not run."""

import argparse
import queue
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shop import people

from tests.soak import report, timeline
from tests.soak.faults import Stage
from tests.soak.ledger import Ledger, Session
from tests.soak.load import LEAVERS, REGULARS, Browser, Crowd, Load, Person
from tests.soak.outages import SLACK, Outages
from tests.soak.plan import Fault, plan, play
from tests.soak.sites import REGIONS, WRITE_INTERVAL, World
from tests.soak.traffic import Traffic
from tests.soak.watch import Watch, incidents

#: How long a worker takes to make its clients of DynamoDB, on a busy machine. In seconds.
WARM_UP = 3.0

#: How many threads read all sessions in the end.
CHECKERS = 12

#: Of so many sessions that were changed one is read at its own site first, in the end.
SAMPLE = 10


class CannotRun(Exception):
    """The soak itself failed; says how."""


def main() -> int:
    """Run, and return the exit code."""
    options = _options()
    faults = plan(options.seed, options.seconds)
    if options.plan:
        print(*faults, sep="\n")
        return 0
    if missing := World.missing():
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    options.report.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return soak(options, faults, Path(scratch))
    except (CannotRun, RuntimeError, OSError) as error:
        print(f"could not run: {error}", file=sys.stderr)
        return 2


def soak(options: argparse.Namespace, faults: list[Fault], scratch: Path) -> int:
    """Start all, break it, check it, and report."""
    say = _Teller()
    with World(options.report, scratch) as world:
        outages = Outages(REGIONS, WRITE_INTERVAL)
        traffic = Traffic()
        ledger = Ledger(outages, people.MANAGER, time.monotonic())
        load = Load(world, outages, traffic, ledger)
        say(f"servers run; {options.sessions} people log in")
        crowd = _crowd(world, ledger, options.sessions)
        _warm_up(load)
        watch = Watch(world)
        watch.start()

        ledger.began = time.monotonic()
        say(f"{options.users} users at work for {options.seconds:.0f} s, {len(faults)} faults")
        with ThreadPoolExecutor(options.users) as users:
            for number in range(options.users):
                users.submit(load.run, crowd, random.Random(f"{options.seed} {number}"))
            try:
                _break(faults, Stage(world, outages, traffic), ledger.began, options.seconds)
            finally:
                load.ended.set()
        load.lasted = time.monotonic() - ledger.began
        if load.failed:
            raise CannotRun(load.failed[0])

        say(f"quiet for {WRITE_INTERVAL + SLACK:.0f} s, then everything is checked")
        time.sleep(WRITE_INTERVAL + SLACK)
        _check_in_memcached(load)
        watch.stop()
        _check_in_dynamodb(load)
        logs = {name: incidents(site.log) for name, site in world.sites.items()}
        found = report.document(
            load,
            ledger,
            list(watch.workers.values()),
            logs,
            seed=options.seed,
            seconds=options.seconds,
            sessions=options.sessions,
            users=options.users,
            write_interval=WRITE_INTERVAL,
        )
        say("done")
    report.write(found, options.report)
    title = f"Soak: {len(load.samples)} requests, {len(faults)} faults, seed {options.seed}"
    drawn = timeline.draw(load.samples, outages.all, ledger.began, load.lasted, title)
    (options.report / "timeline.svg").write_text(drawn)
    print(report.summary(found, ledger.broken))
    print(f"report: {options.report}")
    return 0 if found["ok"] else 1


def _crowd(world: World, ledger: Ledger, number: int) -> Crowd:
    crowd = Crowd()
    everyone = [
        Person(site, ledger.log_in(cookie, site), leaves=not each % LEAVERS)
        for site, cookies in world.crowd(number).items()
        for each, cookie in enumerate(cookies)
    ]
    random.Random(number).shuffle(everyone)
    for each, person in enumerate(everyone):
        where: queue.SimpleQueue[Person] = crowd.regulars if each < REGULARS else crowd.others
        where.put(person)
    return crowd


def _warm_up(load: Load) -> None:
    """Let every worker serve a session, and make its clients of DynamoDB."""
    for session in load.ledger.sessions[:: max(1, len(load.ledger.sessions) // 50)]:
        Browser(load, session.home, session).look()
    time.sleep(WARM_UP)
    load.samples.clear()


def _break(faults: list[Fault], stage: Stage, began: float, seconds: float) -> None:
    """Play all faults to their end."""
    failed: list[str] = []

    def run(fault: Fault) -> None:
        try:
            play(fault, stage, began)
        except Exception as error:
            failed.append(f"{fault}: {error!r}")

    threads = [threading.Thread(target=run, args=(fault,), daemon=True) for fault in faults]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    for thread in threads:
        thread.join()
    if failed:
        raise CannotRun("; ".join(failed))


def _check_in_memcached(load: Load) -> None:
    """Read some sessions where they were last, and those that are over at both sites."""
    sessions = load.ledger.sessions
    changed = [each for each in sessions if each.slots and not each.doubtful]
    over = [each for each in sessions if each.logout is not None]

    def read(session: Session) -> None:
        Browser(load, max(session.seen, key=session.seen.__getitem__), session).look()

    def haunt(session: Session) -> None:
        for site in load.world.sites:
            Browser(load, site, session).haunt()

    with ThreadPoolExecutor(CHECKERS) as pool:
        list(pool.map(read, changed[::SAMPLE]))
        list(pool.map(haunt, over))


def _check_in_dynamodb(load: Load) -> None:
    """Kill all but DynamoDB, and read each session at the site that did not have it last."""
    sites = load.world.sites.values()
    for site in sites:
        site.web.kill()
        site.memcached.restart()
    for site in sites:
        site.web.start()

    def read(session: Session) -> None:
        last = max(session.seen, key=session.seen.__getitem__)
        browser = Browser(load, load.other_site(last), session)
        if session.logout is None:
            browser.look_at_the_end()
        else:
            browser.haunt()

    with ThreadPoolExecutor(CHECKERS) as pool:
        list(pool.map(read, load.ledger.sessions))


class _Teller:
    """Prints what goes on, with the time."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        epilog="Example: python -m tests.soak --seconds 600 --seed 7 --report /tmp/soak",
    )
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="how long it is broken and used (120)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides the faults (1)")
    parser.add_argument("--sessions", type=int, default=10_000, help="people (10000)")
    parser.add_argument("--users", type=int, default=24, help="of them at the same time (24)")
    parser.add_argument(
        "--report", type=Path, default=Path("build/soak"), help="folder for the report and the logs"
    )
    parser.add_argument("--plan", action="store_true", help="print the faults, and no more")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
