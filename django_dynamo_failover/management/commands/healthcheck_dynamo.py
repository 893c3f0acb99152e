"""``manage.py healthcheck_dynamo``: what would go wrong in a failover right now."""

import dataclasses
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover.health import Finding, Level, Report, check
from django_dynamo_failover.management import base

_EXAMPLE = """\
example:
  $ python manage.py healthcheck_dynamo
  ok       hot tier: answers in 0.3 ms
  ...
  WARNING  us-east-1: TTL is off for 'expires': nothing deletes what ... [region.ttl]
  ERROR    site 'west': has another SECRET_KEY than this site: a failover ... [sites.secret-key]
  CommandError: Not ready: 1 error, 1 warning.

It stores sessions of its own, which nobody can use, and removes them. In the table it leaves a
fingerprint of SECRET_KEY for the other sites: run it at each site, on the machines and as the user
that serve it. docs/health.rst explains each finding.

example, for a monitoring system:
  $ python manage.py healthcheck_dynamo --json --timeout 5

exit status: 0 ready, or degraded by nothing but warnings; 1 not ready; 2 the settings are wrong, or
no region of DynamoDB could be asked.
"""


class Command(base.DynamoCommand):
    help = (
        "Asks both tiers and every region, and says what would go wrong in a failover right now,"
        " with what to do about it. -v 0 leaves out what is well."
    )
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=base.seconds,
            default=10.0,
            help="how long the whole check may take (default: %(default)g)",
        )
        parser.add_argument(
            "--replication-timeout",
            metavar="SECONDS",
            type=base.seconds,
            default=5.0,
            help="how long a session may take from one region to another (default: %(default)g)",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        report = check(options["timeout"], options["replication_timeout"])
        if options["json"]:
            self.say(json.dumps(_public(report), indent=2))
        else:
            for finding in report.findings:
                if finding.level != "ok" or options["verbosity"]:
                    self.say(_line(finding))
        if not report.asked:
            raise CommandError(f"Could not ask. {_why(report)}", returncode=base.COULD_NOT_ASK)
        if report.verdict == "not ready":
            raise CommandError(_summary(report), returncode=base.FOUND_A_PROBLEM)
        if not options["json"]:
            self.say(_summary(report))


def _line(finding: Finding) -> str:
    level = finding.level if finding.level == "ok" else finding.level.upper()
    line = f"{level:7}  {finding.subject}: {finding.message}"
    if not finding.remedy:
        return line
    return f"{line.removesuffix('.')}. {finding.remedy} [{finding.id}]"


def _why(report: Report) -> str:
    """Return in one line why no region could be asked."""
    subjects: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.level == "error" and finding.id in ("settings", "region.reachable"):
            subjects.setdefault(finding.message.removesuffix("."), []).append(finding.subject)
    return "; ".join(f"{', '.join(names)}: {message}" for message, names in subjects.items()) + "."


def _summary(report: Report) -> str:
    levels: tuple[Level, ...] = ("error", "warning")
    counts = [(report.count(level), level) for level in levels]
    parts = [f"{count} {level}{'s' if count > 1 else ''}" for count, level in counts if count]
    return f"{report.verdict.capitalize()}{': ' if parts else ''}{', '.join(parts)}."


def _public(report: Report) -> dict[str, Any]:
    return {"verdict": report.verdict, **dataclasses.asdict(report)}
