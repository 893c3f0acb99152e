"""What a request does to a session: what it held of it, what it wants to save, what is pending."""

from dataclasses import dataclass
from typing import Any

from .metrics import Metrics
from .payload import Merge
from .record import Record


@dataclass(frozen=True, slots=True)
class Draft:
    """What a request wants to save. ``through``: it must be in DynamoDB before the response."""

    payload: bytes
    expires: float
    through: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What a request holds of a session: a record, and if it came from the hot tier its token."""

    record: Record
    token: Any = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that DynamoDB does not have yet.

    ``loaded`` is the payload that the first of the pending saves of this process started from,
    ``ground`` what DynamoDB held then if that was another one, and ``merge`` merges three.
    """

    record: Record
    loaded: bytes = b""
    merge: Merge | None = None
    ground: bytes = b""

    @property
    def size(self) -> int:
        """How many bytes the payloads take."""
        return sum(map(len, (self.record.payload, self.record.ground, self.loaded, self.ground)))

    def merged(self, ours: Record, theirs: Record) -> tuple[bytes, float] | None:
        """Return what has the changes of both, and when it expires; None if nothing merges them.

        Where both changed the same key, the later version stands.
        """
        if self.merge is None:
            return None
        if theirs.modified > ours.modified:
            return self.merge(self.ground or self.loaded, theirs.payload, ours.payload)
        return merge_over(
            self.merge, self.ground, self.loaded, ours=ours.payload, theirs=theirs.payload
        )


def of_others(record: Record, merge: Merge | None) -> Pending | None:
    """Return a change of other processes as if it were ours; None if it cannot be merged."""
    return Pending(record, record.ground, merge) if merge and record.ground else None


class Change:
    """What one request changed, ready to be put onto what others saved meanwhile."""

    def __init__(self, draft: Draft, held: Held, merge: Merge, metrics: Metrics) -> None:
        self.draft = draft
        self.held = held
        self._merge = merge
        self._metrics = metrics

    def pending(self, record: Record) -> Pending:
        """Return what the writer is to hold of a version that has our changes."""
        loaded = self.held.record
        return Pending(record, loaded.payload, self._merge, loaded.ground)

    def goes_on_from(self, theirs: Record) -> bool:
        """Tell whether our changes are to be put onto theirs.

        Not if they are from before what we loaded: an entry that has outlasted an outage.
        """
        loaded = self.held.record
        if theirs.version > loaded.version or theirs.modified > loaded.modified:
            return True
        return theirs.same_as(loaded) or (theirs.version == loaded.version and not loaded.dirty)

    def onto(self, theirs: Record, ours: Record | None = None) -> tuple[bytes, float]:
        """Return the payload that has our changes and theirs, and when it expires.

        ``ours`` is a version that has the draft already, by default the draft itself.
        """
        payload, expires = (
            (ours.payload, ours.expires) if ours else (self.draft.payload, self.draft.expires)
        )
        loaded = self.held.record
        if theirs.same_as(loaded):
            return payload, expires
        if not self.goes_on_from(theirs):
            self._metrics.count("conflicts")
            return payload, expires
        self._metrics.count("merged")
        ground = b"" if theirs.includes(loaded) else loaded.ground
        return merge_over(self._merge, ground, loaded.payload, ours=payload, theirs=theirs.payload)


def merge_over(
    merge: Merge, ground: bytes, loaded: bytes, *, ours: bytes, theirs: bytes
) -> tuple[bytes, float]:
    """Put onto theirs what we changed in ``loaded``, over what others had changed in it before.

    Theirs goes back to ``ground``, and need not have what they changed. Where it has another
    change of the same key that stands; but ours does over both.
    """
    if ground:
        theirs, _ = merge(ground, theirs, loaded)
    return merge(loaded, ours, theirs)
