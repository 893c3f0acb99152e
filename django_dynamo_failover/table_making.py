"""Making the table of one region as a spec asks, and telling how one that is there differs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from . import dynamo_admin
from .dynamo import DynamoTable
from .dynamo_admin import TableUnfit
from .exceptions import ColdMisconfigured, ColdUnavailable
from .table_spec import TTL, TableSpec
from .table_state import Change, Difference, TableFound, differences
from .table_templates import create_request

Ttl = Literal[
    "enabled",
    "was enabled",
    "off",
    "unknown to the server",
    "refused by the server",
    "not with strong consistency",
]

_FIRST_POLL = 0.05
_LONGEST_POLL = 1.0

_NOT_YET = "the table is not active yet: run this again, with --add-missing, to go on"
_TTL_LINES: dict[Ttl, str] = {
    "enabled": f"TTL is turned on for {TTL!r}",
    "was enabled": f"TTL is on for {TTL!r}",
    "off": "TTL is off: clearsessions_dynamo does its work",
    "unknown to the server": "TTL is unknown to this server: clearsessions_dynamo does its work",
    "refused by the server": "TTL is refused for this table: clearsessions_dynamo does its work",
    "not with strong consistency": (
        "a global table of strong consistency has no TTL: clearsessions_dynamo does its work"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMade:
    """What has become of a table. It does not exist only in a dry run.

    ``ttl`` is None where nobody looked after it. ``replicas`` are the regions that have one now,
    ``added`` those of them that had none before.
    """

    exists: bool = True
    created: bool = False
    ttl: Ttl | None = None
    differences: tuple[str, ...] = ()
    replicas: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMaker:
    """Makes and checks the table of one region.

    Its methods raise ``TableUnfit`` for a table that needs a person's hand, and
    ``ColdUnavailable`` when the server gives no answer, or the table is not active by ``until``.

    Args:
        until: a ``time.monotonic()`` time.
        say: is called with a line for each step.
        add: whether to change also a table that is there, where a request can add what is missing.
        dry_run: say what would be done, and do nothing.
    """

    table: DynamoTable
    spec: TableSpec
    until: float
    say: Callable[[str], None]
    add: bool = False
    dry_run: bool = False

    def make(self) -> TableMade:
        """Create the table unless it exists, and have it be as the spec asks.

        Safe to run twice, and by two processes at once.
        """
        found = dynamo_admin.describe(self.table)
        if found is None and self.dry_run:
            self.say("table would be created")
            fresh = TableFound.fresh(self.spec)
            ttl = self._look_after_ttl(fresh)
            return self._look_after_rest(fresh, TableMade(exists=False, ttl=ttl), is_new=True)
        created = found is None and self._create()
        found = self._find()
        self.say("table is created" if created else "table exists")
        made = TableMade(created=created, ttl=self._look_after_ttl(found))
        return self._look_after_rest(found, made, is_new=created)

    def join(self, *, is_new: bool) -> TableMade:
        """Have the replica of this region, which the first region has made, be as the spec asks.

        TTL comes to it by itself.
        """
        if is_new and self.dry_run:
            # It will have the key that it is made with, and nothing else.
            bare = TableSpec(name=self.spec.name, regions=(), kms_key=self.spec.kms_key)
            fresh = TableFound.fresh(bare)
            return self._look_after_rest(fresh, TableMade(exists=False), is_new=True)
        found = self._find()
        self.say("replica is created" if is_new else "replica exists")
        ttl: Ttl | None = "was enabled" if found.ttl == TTL else None
        return self._look_after_rest(found, TableMade(created=is_new, ttl=ttl), is_new=is_new)

    def _create(self) -> bool:
        # False: another process was faster, or the reply to our first attempt got lost.
        created = dynamo_admin.order(self.table, "CreateTable", create_request(self.spec))
        if created:
            self.say("table is being created")
        return created

    def _find(self, *, settled: bool = False) -> TableFound:
        """Return the table once it can be used; ``settled``: and nothing of it is being made."""
        failure = ColdUnavailable(_NOT_YET)
        for _ in self._pauses():
            try:
                found = dynamo_admin.describe(self.table)
            except ColdMisconfigured:
                raise
            except ColdUnavailable as error:
                failure = error
                continue
            failure = ColdUnavailable(_NOT_YET)
            # A new table may be unknown to the server's next answer, too.
            if found is None or found.status == "CREATING" or (settled and found.is_changing):
                continue
            if found.status not in ("ACTIVE", "UPDATING"):
                raise TableUnfit(
                    f"the table is in state {found.status}: try again when it is gone or active"
                )
            return self._with_the_rest(found)
        raise failure

    def _with_the_rest(self, found: TableFound) -> TableFound:
        """Return what DescribeTable does not say as well, as far as the spec asks for it."""
        ask = self.spec
        return replace(
            found,
            ttl=dynamo_admin.ttl_attribute(self.table),
            recovery=None if ask.recovery is None else dynamo_admin.has_recovery(self.table),
            tags=dynamo_admin.tags(self.table, found.arn) if ask.tags else None,
        )

    def _pauses(self) -> Iterator[None]:
        """Yield at once, then at ever longer intervals until there is no time left."""
        pause = _FIRST_POLL
        while True:
            yield
            if time.monotonic() + pause >= self.until:
                return
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)

    def _look_after_ttl(self, found: TableFound) -> Ttl | None:
        if not found.has_our_key or found.ttl not in (None, TTL):
            return None  # a difference
        ttl = self._ttl(found)
        if ttl:
            self.say(_TTL_LINES[ttl])
        return ttl

    def _ttl(self, found: TableFound) -> Ttl | None:
        if found.ttl:
            return "was enabled" if self.spec.has_ttl else None
        if self.spec.strong or found.strong:
            return "not with strong consistency"
        if not self.spec.ttl:
            return "off"
        if self.dry_run:
            self.say(f"TTL would be turned on for {TTL!r}")
            return None
        done = dynamo_admin.turn_ttl_on(self.table)
        if done is None:
            return "unknown to the server"
        if done:
            return "enabled"
        # Refused: another process was faster, or it is a table that can have none.
        is_on = dynamo_admin.ttl_attribute(self.table) == TTL
        return "was enabled" if is_on else "refused by the server"

    def _look_after_rest(self, found: TableFound, made: TableMade, *, is_new: bool) -> TableMade:
        """Make the changes that may be made, and return what has become of the table."""
        before = after = frozenset(found.replicas)
        left = differences(self.spec, found)
        if is_new or self.add:
            if self.dry_run:
                left, after = self._plan(left), before | {*self.spec.replicas}
            else:
                found, left = self._change(found, left)
                after = frozenset(found.replicas)
        texts = tuple(each.text for each in left)
        return replace(made, differences=texts, replicas=after, added=after - before)

    def _plan(self, left: list[Difference]) -> list[Difference]:
        """Say what would be changed; return what would still differ."""
        lines = (each.change.line.format("would be") for each in left if each.change)
        for line in dict.fromkeys(lines):
            self.say(line)
        return [each for each in left if not each.change]

    def _change(
        self, found: TableFound, left: list[Difference]
    ) -> tuple[TableFound, list[Difference]]:
        """Change what can be; return the table then, and what still differs."""
        made: list[Change] = []
        for _ in self._pauses():
            changes = [each.change for each in left if each.change and each.change not in made]
            if not changes:
                # New tags are told of a moment later: that they were accepted will do.
                tags = [change for change in made if change.operation == "TagResource"]
                return found, [each for each in left if each.change not in tags]
            change = changes[0]
            accepted = dynamo_admin.order(self.table, change.operation, change.request)
            # Also if DynamoDB was busy: maybe another process was making just that.
            found = self._find(settled=True)
            left = differences(self.spec, found)
            if accepted:
                made.append(change)
                self.say(change.line.format("is"))
        raise ColdUnavailable(_NOT_YET)
