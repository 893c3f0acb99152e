"""The processes of a site: what they are told, and what each tells of itself.

Both are notes in the hot tier. Orders lie on each of its servers, and every process that knows
them puts them back where they are lost. A process tells of itself in a slot of its own.
"""

import contextlib
import dataclasses
import json
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .exceptions import HotUnavailable, Unreadable, ValueTooLarge
from .hot import HotTier
from .orders import Orders, decode_orders
from .payload import login_of
from .record import Record
from .snapshot import Snapshot, decode_snapshot

#: A process that has not been heard of for so many seconds is not there any more.
SLOT_SECONDS = 10

#: As many processes of a site are heard of.
SLOTS = 512

_ORDERS = "session-orders"
_SLOT_NAMES = [f"session-process:{number}" for number in range(SLOTS)]
_SNAPSHOT_NAMES = [f"session-snapshot:{number}" for number in range(SLOTS)]
_ENDED_NAMES = [f"session-ended:{number}" for number in range(SLOTS)]

#: What a process told of itself at last is kept so long, so that it is missed when it is gone.
_SNAPSHOT_SECONDS = 300

#: The one of a process that has ended is kept for the hour that it tells of.
_ENDED_SECONDS = 3600

#: A lost race for the note of the orders, or for a slot, is run again this often each time.
_ATTEMPTS = 5

#: How often ``wait`` looks, in seconds.
_WAIT_STEP = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """What a process tells of itself.

    ``id`` is random. ``pending`` counts what DynamoDB has still to be told, ``orders`` is the
    version of those it knows, ``drained`` says that it has written all through for a while and has
    nothing pending. ``oldest`` is since when the oldest change waits, in epoch seconds, 0 if none
    does; ``logouts`` counts those that no region has been told of, which ``pending`` includes.
    """

    id: str
    host: str
    pid: int
    site: str | None
    pending: int
    orders: int
    drained: bool
    oldest: float = 0.0
    logouts: int = 0


class Fleet:
    """This process among those of its site. ``site`` is the label of the site."""

    def __init__(
        self, hot: HotTier, *, site: str | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._hot = hot
        self._site = site
        self._now = now
        #: Random, one a process.
        self.id = secrets.token_hex(8)
        self._names = hot.note_on_each_server(_ORDERS)
        self._slot: str | None = None
        self._has_left = self._has_ended = False
        self._was_draining = False
        self._revalidated = 0.0
        self._lock = threading.Lock()
        self.orders = Orders()

    @property
    def draining(self) -> bool:
        """Whether all is to be written through."""
        return self.orders.draining

    def has_ended(self, record: Record) -> bool:
        """Tell whether the user of a session was logged out everywhere after this login."""
        users = self.orders.users
        if not users:
            return False
        login = login_of(record.payload)
        return login is not None and login.since < users.get(login.owner, 0.0)

    def look(self) -> None:
        """Learn what is ordered, and put it back where it is lost.

        Raises ``HotUnavailable`` unless it stands on at least one server then.
        """
        with self._lock:
            self._look()

    def drain(self, draining: bool) -> int:
        """Order all processes to drain, or to stop it. See ``_issue``."""
        return self._issue(lambda orders, now: orders.drain(draining, now))

    def revalidate(self) -> int:
        """Order all processes to believe no entry that has not agreed since. See ``_issue``."""
        return self._issue(Orders.revalidate)

    def revoke(self, users: Mapping[str, float]) -> int:
        """Tell all processes whose logins from before which time are over. See ``_issue``."""
        return self._issue(lambda orders, now: orders.revoke(users, now))

    def members(self) -> list[Member]:
        """Return the processes that were heard of in the last ``SLOT_SECONDS``.

        Those whose slot is on a server that does not answer are left out: see ``sees_all``.
        """
        notes = self._hot.read_notes(_SLOT_NAMES).values()
        members = [member for note in notes if (member := _decode_member(note))]
        return sorted(members, key=lambda member: (member.host, member.pid))

    @property
    def sees_all(self) -> bool:
        """Whether ``members`` can be all, as every server of the hot tier answers."""
        return self._hot.is_up

    def wait(self, version: int, timeout: float) -> bool:
        """Wait until every other process knows these orders, and tell whether all do."""
        until = time.monotonic() + timeout
        while not self._is_known(version):
            if time.monotonic() >= until:
                return False
            time.sleep(_WAIT_STEP)
        return True

    def tell(self, pending: int, oldest: float = 0.0, logouts: int = 0) -> None:
        """Tell the others of this process. Raises ``HotUnavailable``."""
        member = Member(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            site=self._site,
            pending=pending,
            orders=self.orders.version,
            # Saves that had begun before the order are over by the next time.
            drained=self.draining and self._was_draining and not pending,
            oldest=oldest,
            logouts=logouts,
        )
        self._was_draining = self.draining
        self._write(json.dumps(dataclasses.asdict(member)).encode())

    def publish(self, snapshot: Snapshot) -> None:
        """Show a snapshot of this process to whoever looks.

        Raises ``HotUnavailable``, ``ValueTooLarge``.
        """
        slot = self._slot  # another thread may lose it meanwhile
        if slot is None:
            return
        name = _snapshot_name(slot)
        self._hot.put_note(name, snapshot.encode(), _SNAPSHOT_SECONDS)
        if self._has_ended:
            self._hot.drop_note(name)

    def snapshots(self) -> list[Snapshot]:
        """Return what each process published last, also who was killed; one ``get_many``."""
        return self._read_snapshots(_SNAPSHOT_NAMES)

    def ended(self) -> list[Snapshot]:
        """Return the last snapshots of processes that ended within an hour; one ``get_many``."""
        return self._read_snapshots(_ENDED_NAMES)

    def leave(self, last: Snapshot | None = None, *, missed: bool = False) -> None:
        """Give the slot back, and take no other: a poll may still be under way.

        ``last`` is what ``ended`` is to return. ``missed``: ``snapshots`` as well, as of a process
        that was killed.
        """
        self._has_left, self._has_ended = True, not missed
        slot, self._slot = self._slot, None
        if slot is not None:
            with contextlib.suppress(HotUnavailable, ValueTooLarge):
                self._hot.drop_note(slot)
                if not missed:
                    self._hot.drop_note(_snapshot_name(slot))
                elif last is not None:
                    self._hot.put_note(_snapshot_name(slot), last.encode(), _SNAPSHOT_SECONDS)
                if last is not None:
                    self._put_last(last)

    def _put_last(self, last: Snapshot) -> None:
        note = last.encode()
        for name in random.sample(_ENDED_NAMES, _ATTEMPTS):
            if self._hot.write_note(name, note, None, _ENDED_SECONDS):
                return

    def _read_snapshots(self, names: Sequence[str]) -> list[Snapshot]:
        found: dict[str, Snapshot] = {}
        for note in self._hot.read_notes(names).values():
            with contextlib.suppress(Unreadable):
                snapshot = decode_snapshot(note)
                # A process that had to take another slot has left one at the slot from before.
                known = found.setdefault(snapshot.id, snapshot)
                found[snapshot.id] = max(known, snapshot, key=lambda each: each.at)
        return sorted(found.values(), key=lambda snapshot: (snapshot.host, snapshot.pid))

    def _is_known(self, version: int) -> bool:
        with contextlib.suppress(HotUnavailable):
            self.look()  # what was lost before anyone had heard of it is put back
        others = [member for member in self.members() if member.id != self.id]
        return self.sees_all and all(member.orders >= version for member in others)

    def _issue(self, order: Callable[[Orders, float], Orders]) -> int:
        """Let an order stand; return the version that is known to whoever knows of it.

        Raises ``HotUnavailable``: then this process alone knows, and will try to tell the others.
        """
        with self._lock:
            self.orders = order(self.orders, self._now())
            self._look()
            return self.orders.version

    def _look(self) -> None:
        standing = sum([self._agree(name) for name in self._names])
        if self.orders.revalidated > self._revalidated:
            self._revalidated = self.orders.revalidated
            # Where the clock of whoever ordered it is ahead, no entry could agree until then.
            self._hot.distrust(min(self._revalidated, self._now()))
        if not standing:
            raise HotUnavailable("no server takes the orders")

    def _agree(self, name: str) -> bool:
        """Put together what this process knows and what one server holds, at both places."""
        now = self._now()
        try:
            for _ in range(_ATTEMPTS):
                note, token = self._hot.read_note(name)
                held = _decode_orders(note).pruned(now)
                self.orders = self.orders.pruned(now).merged(held)
                if self.orders == held:
                    return True
                if self._hot.write_note(name, self.orders.encode(), token, None):
                    return True
        except (HotUnavailable, ValueTooLarge):
            pass
        return False

    def _write(self, note: bytes) -> None:
        try:
            slot = self._slot  # the process may end meanwhile
            if slot is not None:
                held, token = self._hot.read_note(slot)
                member = _decode_member(held)
                ours = member is None or member.id == self.id
                if ours and self._hot.write_note(slot, note, token, SLOT_SECONDS):
                    return
            self._slot = None  # lost with the server's contents, and taken by another process
            self._take_slot(note)
        except HotUnavailable:
            self._slot = None  # the next one may be on another server
            raise

    def _take_slot(self, note: bytes) -> None:
        taken = self._hot.read_notes(_SLOT_NAMES)
        free = [name for name in _SLOT_NAMES if name not in taken]
        failure: HotUnavailable | None = None
        # At random, as all processes of a site may start, or lose a server, at once.
        for slot in random.sample(free, min(len(free), _ATTEMPTS)):
            if self._has_left:
                return
            try:
                if self._hot.write_note(slot, note, None, SLOT_SECONDS):
                    self._slot = slot
                    if self._has_left:
                        self.leave()
                    return
            except HotUnavailable as error:
                failure = error
        if failure is not None:
            raise failure


def _snapshot_name(slot: str) -> str:
    return _SNAPSHOT_NAMES[_SLOT_NAMES.index(slot)]


def _decode_orders(note: bytes | None) -> Orders:
    with contextlib.suppress(Unreadable):
        return decode_orders(note) if note else Orders()
    return Orders()


def _decode_member(note: bytes | None) -> Member | None:
    """Return what a process tells, as far as this release knows it; None if it does not."""
    try:
        told: dict[str, Any] = json.loads(note or b"")
        known = [field.name for field in dataclasses.fields(Member) if field.name in told]
        return Member(**{name: told[name] for name in known})
    except (TypeError, ValueError):
        return None
