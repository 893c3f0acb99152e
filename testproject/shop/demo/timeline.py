"""What happened, when, at what cost, and whether it held: for a person, or for a program."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 112


@dataclass(frozen=True)
class Step:
    """One step of the story. Times are from its beginning; ``dynamodb`` counts by operation."""

    title: str
    at_seconds: float
    took_ms: float
    dynamodb: dict[str, int]
    facts: list[str]
    figures: dict[str, float]
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether it held."""
        return self.problem is None


class Broken(Exception):
    """A step did not hold; says how."""


@dataclass
class Act:
    """A step while it is played: collects what is seen and refuses what must not be."""

    facts: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    status: object = None

    def fact(self, text: str) -> None:
        """Tell something that was seen."""
        self.facts.append(text)

    def figure(self, name: str, value: float) -> None:
        """Note a number for ``--json``."""
        self.figures[name] = round(value, 3)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Go on only if this holds."""
        if not holds:
            raise Broken(otherwise)

    def waiting(self, text: str) -> None:
        """Say what takes so long, on a terminal."""
        if self.status:
            self.status.update(f"[dim]{text} …[/dim]")


class Timeline:
    """Plays steps, keeps them, and prints each when it is over. ``console`` None prints nothing."""

    def __init__(self, console: Console | None) -> None:
        self.steps: list[Step] = []
        self.requests: Callable[[], Counter[str]] = Counter  # what DynamoDB was asked so far
        self._console = console
        self._width = min(console.width, WIDTH) if console else WIDTH
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def ok(self) -> bool:
        """Whether there were steps and all of them held."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def play(self, title: str, scene: Callable[[Act], None]) -> bool:
        """Play one step; return whether it held. Only what the scene did not foresee is raised."""
        act, at, before = Act(), self.seconds, self.requests()
        problem = None
        with self.busy(title) as act.status:
            try:
                scene(act)
            except (Broken, OSError) as error:  # requests' errors are OSErrors
                problem = str(error) or type(error).__name__
        step = Step(
            title=title,
            at_seconds=round(at, 3),
            took_ms=round(1000 * (self.seconds - at), 1),
            dynamodb=dict(self.requests() - before),
            facts=act.facts,
            figures=act.figures,
            problem=problem,
        )
        self.steps.append(step)
        self._show(step)
        return step.ok

    def document(self) -> list[dict]:
        """Return the steps for a program."""
        return [{**asdict(step), "ok": step.ok} for step in self.steps]

    @contextmanager
    def busy(self, text: str) -> Iterator[object]:
        """Show a spinner on a terminal."""
        if self._console is None or not self._console.is_terminal:
            yield None
            return
        with self._console.status(f"[dim]{text} …[/dim]") as status:
            yield status

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line of prose, as it is."""
        if self._console:
            self._console.print(Text(text, style=style), soft_wrap=True)

    def header(self) -> None:
        """Print the names of the columns."""
        self._row("time", " ", Text("what happened"), "took", "DynamoDB requests", style="dim")

    def _show(self, step: Step) -> None:
        body = Text(step.title, style="bold" if step.ok else "bold red")
        for fact in step.facts:
            body.append(f"\n{fact}", style="not bold dim")
        if step.problem:
            body.append(f"\n{step.problem}", style="not bold red")
        mark = Text("✓", style="green") if step.ok else Text("✗", style="bold red")
        cost = ", ".join(f"{count} {name}" for name, count in sorted(step.dynamodb.items()))
        self._row(f"{step.at_seconds:.1f} s", mark, body, duration(step.took_ms), cost or "0")

    def _row(self, at, mark, body, took, cost, style="") -> None:
        if self._console is None:
            return
        cost_width = 28 if self._width >= 100 else 18
        row = Table.grid(padding=(0, 1))
        row.add_column(width=7, justify="right", style="cyan")
        row.add_column(width=1)
        row.add_column(width=self._width - 7 - 1 - 8 - cost_width - 4)
        row.add_column(width=8, justify="right")
        row.add_column(max_width=cost_width, style="magenta")
        row.add_row(at, mark, body, took, cost, style=style)
        self._console.print(row, width=self._width, highlight=False)


def duration(milliseconds: float) -> str:
    """Return a duration as text: ``4.2 ms``, ``310 ms``, ``1.3 s``."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
