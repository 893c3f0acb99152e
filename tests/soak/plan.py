"""The plan of a run, which its seed decides."""

import random
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass

from tests.soak.faults import KINDS, Stage

#: How long a run is quiet at its beginning and at its end, in seconds.
PRELUDE, CODA = 8.0, 6.0

#: What a fault touches is left alone for so long before the next one, in seconds.
PAUSE = 1.5

#: One of each kind is planned for so many seconds.
ROUND = 120.0

_TRIES = 2_000


@dataclass(frozen=True, order=True)
class Fault:
    """One line of the plan. Times are seconds since the beginning."""

    start: float
    seconds: float
    name: str
    target: str

    def __str__(self) -> str:
        """Return it as a line to print."""
        return f"{self.start:7.1f} s  {self.seconds:4.1f} s  {self.name} ({self.target})"


def plan(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run, by their start: the same for the same seed and length."""
    order = random.Random(seed)
    wanted = list(KINDS.values()) * max(1, round(seconds / ROUND))
    # The longest first: they are the hardest to place.
    order.shuffle(wanted)
    wanted.sort(key=lambda kind: (-len(kind.occupies(kind.targets[0])), -kind.longest))
    faults: list[Fault] = []
    for kind in wanted:
        for _ in range(_TRIES):
            length = round(order.uniform(kind.shortest, kind.longest), 1)
            latest = seconds - CODA - length
            target = order.choice(kind.targets)
            start = round(order.uniform(PRELUDE, latest), 1) if latest > PRELUDE else latest
            fault = Fault(start, length, kind.name, target)
            if start >= PRELUDE and not any(_collide(fault, other) for other in faults):
                faults.append(fault)
                break
    return sorted(faults)


def play(fault: Fault, stage: Stage, began: float) -> None:
    """Wait until a fault is due, make it, and end it."""
    kind = KINDS[fault.name]
    time.sleep(max(0.0, began + fault.start - time.monotonic()))
    with ExitStack() as playing:
        for name in sorted(kind.occupies(fault.target)):
            playing.enter_context(stage.locks.setdefault(name, threading.Lock()))
        touches = kind.touches(fault.target)
        playing.enter_context(stage.outages.happening(fault.name, fault.target, touches))
        playing.enter_context(kind.make(stage, fault.target))
        time.sleep(fault.seconds)


def _collide(one: Fault, other: Fault) -> bool:
    apart = (
        one.start + one.seconds + PAUSE <= other.start
        or other.start + other.seconds + PAUSE <= one.start
    )
    both = KINDS[one.name].occupies(one.target) & KINDS[other.name].occupies(other.target)
    return bool(both) and not apart
