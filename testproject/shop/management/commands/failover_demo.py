"""``manage.py failover_demo``: the story of two datacenters, for real."""

import argparse
import importlib.util
import signal
import sys

from django.core.management import BaseCommand, CommandError
from servers import Dynalite

NEEDS = ("rich", "requests", "gunicorn")
MOTO_NEEDS = ("moto", "flask", "flask_cors")
EXAMPLES = """
examples:
  manage.py failover_demo                      play the story: about 20 s
  manage.py failover_demo --serve              ... and leave both sites up to be failed by hand
  manage.py failover_demo --json > demo.json   for a program
  manage.py failover_demo --embedded           as on a machine with neither memcached nor Node
"""


class Command(BaseCommand):
    """Play the story; exit 0 only if every step held, 2 if it could not be played."""

    help = (
        "Start two datacenters and one DynamoDB API, log in, and break things: memcached, a\n"
        "datacenter, the line between them.\n\n"
        "Exit code 0: nobody was logged out, nothing was lost; 1: a step did not hold;\n"
        "2: the demo could not start."
    )
    requires_system_checks: list = []

    def create_parser(self, prog_name, subcommand, **kwargs):
        """Show the examples as they are."""
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser):
        """Define the options."""
        parser.add_argument("--serve", action="store_true", help="then leave both sites up")
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.add_argument(
            "--embedded", action="store_true", help="use neither memcached nor dynalite"
        )
        parser.add_argument(
            "--hits", type=_at_least(20), default=200, help="page hits to time (200)"
        )
        parser.add_argument(
            "--lease",
            type=_at_least(2),
            default=3,
            metavar="SECONDS",
            help="WRITE_INTERVAL of the demo (3); the engine's default is 900",
        )

    def handle(self, **options):
        """Run."""
        needs = NEEDS
        if options["embedded"] or not Dynalite.available():
            needs += MOTO_NEEDS
        missing = [name for name in needs if importlib.util.find_spec(name) is None]
        if missing:
            raise CommandError(
                f"The demo needs {', '.join(missing)}. In a clone of the project: "
                "pip install '.[demo]'",
                returncode=2,
            )
        # Only now: they import what may be missing.
        from shop.demo.show import run
        from shop.demo.stage import StageError

        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(1))  # SystemExit, so that all is cleaned up
        try:
            held = run(
                serve=options["serve"],
                as_json=options["json"],
                embedded=options["embedded"],
                hits=options["hits"],
                lease=options["lease"],
            )
        except StageError as error:
            raise CommandError(f"The demo could not start.\n{error}", returncode=2) from error
        except KeyboardInterrupt:
            sys.exit(130)
        sys.exit(0 if held else 1)


def _at_least(least: int):
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"at least {least}")
        return value

    return number
