"""``manage.py logoutuser_dynamo``: ends all sessions of a user, at all sites."""

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from django_dynamo_failover import runtime
from django_dynamo_failover.exceptions import SessionUnavailable
from django_dynamo_failover.management import base
from django_dynamo_failover.reasons import explain_cause
from django_dynamo_failover.users import revoke_user_sessions

_EXAMPLE = """\
example:
  $ python manage.py logoutuser_dynamo mia
  mia is logged out: at this site now, at any other within 15 minutes.

Sessions that were logged in before now are over. The user may log in again at once.

exit status: 0 done; 1 there is no such user (then nobody is logged out), or some process of this
site could not be told and takes as long as another site; 2 DynamoDB does not answer: nothing is
promised, run it again.
"""


class Command(base.DynamoCommand):
    help = "Ends all sessions of these users: at this site at once, at any other within one lease."
    example = _EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="+", metavar="USERNAME")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        users = [_user(name) for name in options["username"]]
        with base.settings_errors():
            lease = runtime.config().write_interval
            try:
                told = revoke_user_sessions(*users)
            except SessionUnavailable as error:
                raise CommandError(
                    f"DynamoDB: {explain_cause(error)}. Nothing is promised: run it again.",
                    returncode=base.COULD_NOT_ASK,
                ) from None
        names = ", ".join(options["username"])
        if options["json"]:
            report = {"users": options["username"], "at_once": told, "lease_seconds": lease}
            self.say(json.dumps(report, indent=2))
        elif told:
            verb = "are" if len(users) > 1 else "is"
            self.say(
                f"{names} {verb} logged out: at this site now,"
                f" at any other within {lease / 60:g} minutes."
            )
        if not told:
            raise CommandError(
                f"Not every process of this site could be told: {names} may stay logged in there"
                f" for up to {lease / 60:g} minutes.",
                returncode=base.FOUND_A_PROBLEM,
            )


def _user(name: str) -> Any:
    model: Any = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)  # noqa: SLF001
    except model.DoesNotExist:
        raise CommandError(
            f"There is no user {name!r}. Nobody is logged out.", returncode=base.FOUND_A_PROBLEM
        ) from None
