"""Two sites of two processes each, on tiers in memory, and what can happen to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django_dynamo_failover import fleet, runtime, saving, sessions

from .dynamodb import GlobalTable, Replica
from .process import LATENCY, REGIONS, REPLICATION, Clock, Killed, Process, Site


@dataclass
class Ambush:
    """What happens in the middle of something else, after so many calls to a tier."""

    calls: int
    action: Callable[[], None]


class World:
    """Everything there is, and the faults that can befall it."""

    def __init__(self, sites: int = 2) -> None:
        self.clock = Clock()
        self.table = GlobalTable(self.clock, REGIONS)
        #: Those that run something now; the later ones in the middle of what the earlier ones do.
        self.acting: list[Process] = []
        self.ambush: Ambush | None = None
        #: What becomes of the next write to DynamoDB: "late" or "reply lost".
        self.cold_fault: str | None = None
        #: Writes that timed out, and are still on their way.
        self.late: list[Callable[[], object]] = []
        self.killed: set[Process] = set()
        #: What an ambush has found broken, which whoever was ambushed may take for an outage.
        self.broken: Exception | None = None
        self.isolated = False
        self.sites = [Site(self, number) for number in range(sites)]
        self.processes: list[Process] = []

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Let the package live in this world, and start the processes."""
        before = saving.time, sessions.time, fleet.time, fleet._SLOT_NAMES, runtime._current
        saving.time = sessions.time = fleet.time = self.clock  # type: ignore[assignment]
        fleet._SLOT_NAMES = fleet._SLOT_NAMES[:4]
        self.processes = [
            Process(self, site, f"{REGIONS[site.number]}{number}")
            for site in self.sites
            for number in range(2)
        ]
        try:
            yield
        finally:
            saving.time, sessions.time, fleet.time, fleet._SLOT_NAMES, runtime._current = before

    def crossing(self, process: Process) -> None:
        """See a call to a tier come by: it takes time, and it may be the moment of an ambush."""
        self.clock.sleep(LATENCY)
        if self.ambush is not None:
            self.ambush.calls -= 1
            if self.ambush.calls < 0:
                ambush, self.ambush = self.ambush, None
                try:
                    ambush.action()
                except Exception as error:
                    self.broken = error
                    raise
        if not process.alive:
            raise Killed

    # -- memcached

    def evict(self, site: Site) -> None:
        """Let a memcached that is short of memory drop the sessions, not its site token."""
        for key in list(site.server.keys()):
            if key.startswith("session:"):
                site.server.delete(key)
        site.disturbed_at = self.clock.now

    def restart_memcached(self, site: Site) -> None:
        site.socket.restart()
        site.disturbed_at = self.clock.now

    def freeze(self, site: Site) -> None:
        site.socket.frozen = True

    def cut_memcached(self, site: Site) -> None:
        site.socket.cut = True

    def heal_memcached(self, site: Site) -> None:
        if not site.socket.up:
            site.disturbed_at = self.clock.now
        site.socket.cut = False
        site.socket.thaw()

    # -- DynamoDB

    def cut_off(self, site: Site, replicas: list[Replica]) -> None:
        site.cut_off.update(replicas)

    def lose_region(self, replica: Replica) -> None:
        """Let nobody reach a region, the others neither."""
        for site in self.sites:
            site.cut_off.add(replica)
        self.isolated = True

    def heal_cold(self) -> None:
        for site in self.sites:
            if site.cut_off:
                site.cut_off.clear()
                site.connected_since = self.clock.now
        self.isolated = False

    def replicate(self) -> None:
        """Let what was written a second ago arrive in the other region."""
        if self.isolated:
            return
        for replication in list(self.table.under_way):
            if replication.sent_at + REPLICATION <= self.clock.now:
                self.table.deliver(replication)

    # -- processes

    def kill(self, process: Process) -> None:
        """End a process without a word, in the middle of whatever it does; another takes over."""
        process.alive = False
        self.killed.add(process)
        self._replace(process)

    def stop(self, process: Process) -> None:
        process.stop()
        if process in self.processes:  # and was not killed meanwhile
            self._replace(process)

    def _replace(self, process: Process) -> None:
        place = self.processes.index(process)
        self.processes[place] = Process(self, process.site, process.name.rstrip("'") + "'")

    def pass_time(self, seconds: float, strides: int = 16) -> None:
        """Let time pass in strides; the background threads do what is due after each of them."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            due = min(process.next_due() for process in self.processes)
            stride = max(due, self.clock.now + seconds / strides)
            self.clock.now = max(self.clock.now, min(end, stride))
            self.replicate()
            for process in list(self.processes):
                process.work()
        self.replicate()
