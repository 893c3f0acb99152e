"""The options of ``createtable_dynamo``: what the table shall be."""

import argparse
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover.conf import Config, Region
from django_dynamo_failover.management import base
from django_dynamo_failover.table_spec import TableSpec, Units


def add_table_options(parser: CommandParser) -> None:
    """Add the options that ``spec`` reads."""
    billing = parser.add_mutually_exclusive_group()
    billing.add_argument(
        "--on-demand",
        action="store_const",
        dest="billing",
        const="on-demand",
        help="pay for each request (a new table: the default)",
    )
    billing.add_argument(
        "--provisioned",
        dest="billing",
        metavar="READ:WRITE",
        type=_units,
        help="pay for so many read and write units a second, used or not; not for a global table",
    )
    parser.add_argument(
        "--no-ttl",
        action="store_false",
        dest="ttl",
        help="leave TTL off: clearsessions_dynamo then has to run regularly",
    )
    parser.add_argument(
        "--point-in-time-recovery",
        action=argparse.BooleanOptionalAction,
        help="continuous backups of the last 35 days",
    )
    parser.add_argument(
        "--deletion-protection",
        action=argparse.BooleanOptionalAction,
        help="have DynamoDB refuse to delete the table",
    )
    parser.add_argument(
        "--kms-key",
        metavar="KEY",
        help="encrypt with this key of KMS, 'alias/NAME' or an ARN, rather than one that AWS owns",
    )
    parser.add_argument(
        "--tag",
        metavar="KEY=VALUE",
        dest="tags",
        type=_tag,
        action="append",
        default=[],
        help="a tag of the table; may be repeated",
    )
    parser.add_argument(
        "--warm-throughput",
        metavar="READ:WRITE",
        type=_units,
        help="have it ready for so many units a second at once, as in a failover; costs once",
    )
    parser.add_argument(
        "--global-table",
        action=argparse.BooleanOptionalAction,
        help="replicas in all REGIONS but the first (default: yes, if there are several and none"
        " has an ENDPOINT_URL); else an independent table in each",
    )
    parser.add_argument(
        "--consistency",
        choices=["eventual", "strong"],
        help="of a global table (default: eventual). strong (MRSC) loses nothing with a region;"
        " it needs exactly three regions, or two and a --witness, and has no TTL",
    )
    parser.add_argument(
        "--witness",
        metavar="REGION",
        help="with --consistency strong and two REGIONS: the third, which holds no data",
    )


def spec(config: Config, regions: Sequence[Region], options: dict[str, Any]) -> TableSpec:
    """Return the table that the options ask for. Raises ``CommandError`` if they contradict.

    Of independent tables it is the first one; ``of_table`` has the others.
    """
    is_global = _is_global(regions, options)
    tags = dict(options["tags"])
    asked = TableSpec(
        name=config.table,
        regions=tuple(region.name for region in (regions if is_global else regions[:1])),
        billing=options["billing"],
        ttl=options["ttl"],
        recovery=options["point_in_time_recovery"],
        protection=options["deletion_protection"],
        kms_key=options["kms_key"],
        tags=tags,
        warm=options["warm_throughput"],
        consistency=options["consistency"],
        witness=options["witness"],
    )
    others = regions[len(asked.regions) :]
    problems = [problem for region in others for problem in asked.of_table(region.name).problems()]
    problems = list(dict.fromkeys([*asked.problems(), *problems]))
    if len(tags) < len(options["tags"]):
        problems.append("--tag: each key can be given once only.")
    if problems:
        raise CommandError("\n".join(problems), returncode=base.FOUND_A_PROBLEM)
    return asked


def _is_global(regions: Sequence[Region], options: dict[str, Any]) -> bool:
    wish: bool | None = options["global_table"]
    if wish is None:
        return len(regions) > 1 and not any(region.endpoint_url for region in regions)
    if wish and options["region"]:
        raise CommandError(
            "--global-table is of all REGIONS, --region of one: give one of them.",
            returncode=base.FOUND_A_PROBLEM,
        )
    if wish and len(regions) == 1:
        raise CommandError(
            '--global-table needs several regions in DYNAMO_FAILOVER["REGIONS"]; there is one.',
            returncode=base.FOUND_A_PROBLEM,
        )
    return wish


def _units(text: str) -> Units:
    try:
        return Units.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not READ:WRITE, two whole numbers from 1 such as 100:50"
        ) from None


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as team=web")
    return key, value
