"""How far the clearing of a table has come, and the file that a later run goes on from."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .exceptions import FailoverError


class CheckpointUnfit(FailoverError):
    """A file is no checkpoint, or that of other work. The message says which."""


@dataclass(slots=True)
class Tally:
    """What has been done, in items and in capacity units, and in how many seconds.

    ``scanned`` counts twice what a resumed run reads again. ``spared`` are those that were renewed,
    or deleted by someone else, after they had been found.
    """

    scanned: int = 0
    deleted: int = 0
    spared: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class Progress:
    """``left`` has each segment that is not done, with the id after which to go on (or None)."""

    left: dict[int, str | None]
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def start(cls, segments: int) -> "Progress":
        """Return the progress of a run that has done nothing yet."""
        return cls(dict.fromkeys(range(segments)))


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file with the progress of a run on one table in so many segments."""

    path: Path
    table: str
    region: str
    segments: int

    def load(self) -> Progress | None:
        """Return the progress that was saved, None if there is no file.

        Raises ``CheckpointUnfit``, and ``OSError`` for a file that cannot be read.
        """
        try:
            saved = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise CheckpointUnfit(f"{self.path} is not a checkpoint") from None
        return self._parse(saved)

    def save(self, progress: Progress) -> None:
        """Put the progress in the place of what was saved. Raises ``OSError``."""
        saved = {**self._work(), **dataclasses.asdict(progress)}
        write_whole(self.path, json.dumps(saved))

    def remove(self) -> None:
        """Remove the file: the run is complete."""
        self.path.unlink(missing_ok=True)

    def _parse(self, saved: Any) -> Progress:
        try:
            work = {name: saved[name] for name in self._work()}
            left = {int(segment): after for segment, after in saved["left"].items()}
            progress = Progress(left, Tally(**saved["tally"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise CheckpointUnfit(f"{self.path} is not a checkpoint") from None
        for name, ours in self._work().items():
            if work[name] != ours:
                raise CheckpointUnfit(
                    f"{self.path} is the checkpoint of a run with {name} {work[name]!r},"
                    f" not {ours!r}: name another file, or remove it to start over"
                )
        return progress

    def _work(self) -> dict[str, Any]:
        return {"table": self.table, "region": self.region, "segments": self.segments}


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: a kill at any time leaves a whole one. Raises ``OSError``."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
