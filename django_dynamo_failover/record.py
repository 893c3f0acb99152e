"""A session as the tiers hold it, and the bytes it becomes in each of them.

Both forms are authenticated and bound to the session's id. All times are epoch seconds.
"""

import math
import random
import secrets
import struct
import zlib
from dataclasses import dataclass, field, replace

from .exceptions import Unreadable, ValueTooLarge
from .keys import TAG_BYTES, Keyring

_HOT_LIVE = 1
_HOT_TOMBSTONE = 2
#: Format, lineage, versions, base_expires, times, expires, payload length; then payload, ground.
_HOT = struct.Struct("!B8sQQqdddqL")
_TOMBSTONE_BODY = bytes([_HOT_TOMBSTONE])

_COLD_PLAIN = 1
_COLD_ZLIB = 2
_COLD = struct.Struct("!Qqd")  # version, expires, modified: attributes of their own, yet signed

#: Inflating stops here: DynamoDB holds 400 KB, which zlib can blow up to 400 MB.
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024

#: A change remembers the payload that it started from, as long as that is no larger. In bytes.
MAX_GROUND_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one session.

    ``lineage`` names one life of a hot entry, from ``add`` to its loss: within it the hot tier
    orders all versions, so that a higher one includes the lower ones. ``version`` counts the
    saves. ``base`` is the version that DynamoDB is known to hold (0 = none) and ``base_expires``
    until when. ``agreed_at`` is when the tiers last agreed (0 = nobody has looked since it was put
    back), ``dirty_since`` when the first change that DynamoDB lacks was made (0 = it lacks none),
    ``modified`` when the last change was made, ``expires`` when the session is over. ``ground`` is
    the payload of ``base``, for a merge with what another site made of it: empty unless there is a
    change that DynamoDB lacks, or if it is too large.
    """

    id: str
    payload: bytes = field(repr=False)
    lineage: bytes
    version: int
    base: int
    base_expires: int
    agreed_at: float
    dirty_since: float
    modified: float
    expires: int
    ground: bytes = field(default=b"", repr=False)

    @property
    def dirty(self) -> bool:
        """Whether DynamoDB lacks a change."""
        return self.dirty_since != 0

    def same_as(self, other: "Record") -> bool:
        """Tell whether two records are the same version and not only of the same number."""
        return self.version == other.version and self.modified == other.modified

    def includes(self, earlier: "Record") -> bool:
        """Tell whether this version is another one, or was ordered after it by the hot tier."""
        if self.lineage == earlier.lineage:
            return self.version >= earlier.version
        return self.same_as(earlier)

    def is_outdone_by(self, other: "Record") -> bool:
        """Tell whether DynamoDB held this version before the one that the other builds upon."""
        earlier = self.version < other.version and self.modified < other.modified
        return earlier and self.version <= other.base and not self.dirty

    def changed(self, payload: bytes, expires: float, now: float) -> "Record":
        """Return the next version, which DynamoDB does not have yet."""
        return replace(
            self,
            payload=payload,
            version=self.version + 1,
            dirty_since=self.dirty_since or now,
            modified=now,
            expires=math.ceil(expires),
            ground=self.ground if self.dirty else _ground(self),
        )

    def reborn(self) -> "Record":
        """Return the same version as the first of a new lineage: to be added to the hot tier."""
        return replace(self, lineage=_new_lineage())

    def unagreed(self) -> "Record":
        """Return the same, which nobody is to be served before DynamoDB was asked about it."""
        return replace(self.reborn(), agreed_at=0.0)

    def written(self) -> "Record":
        """Return the same version, which DynamoDB holds by now.

        That begins no new lease: a write is not told of a revocation.
        """
        return replace(
            self, base=self.version, base_expires=self.expires, dirty_since=0.0, ground=b""
        )

    def agreed(self, now: float) -> "Record":
        """Return the same version, which DynamoDB was read to hold at ``now``: a new lease."""
        return replace(self.written(), agreed_at=now)

    def ahead_of(self, written: "Record", since: float) -> "Record":
        """Return the same version, given that DynamoDB held an earlier one at ``since``."""
        return replace(
            self,
            base=written.version,
            base_expires=written.expires,
            agreed_at=max(self.agreed_at, written.agreed_at),
            dirty_since=since,
            ground=_ground(written),
        )

    def knowing(self, written: "Record", since: float) -> "Record":
        """Return what a hot entry is to be, given that DynamoDB held ``written`` at ``since``."""
        if self.includes(written):
            if self.base >= written.version:
                if self.agreed_at >= written.agreed_at:
                    return self
                return replace(self, agreed_at=written.agreed_at)
            if not self.same_as(written):
                return self.ahead_of(written, since)
            return replace(self.written(), agreed_at=max(self.agreed_at, written.agreed_at))
        if self.modified <= written.modified:
            return written.reborn().written()  # it was filled with an earlier version
        return self  # changed by somebody who lacked that version: its own write decides

    def on_top_of(self, theirs: "Record", payload: bytes, expires: float, now: float) -> "Record":
        """Return a version that follows both this one and one of another lineage.

        It begins a lineage: it has the changes of the one who merges, and need not have what
        others changed in either, who are to bring theirs themselves.
        """
        return replace(
            self,
            payload=payload,
            lineage=_new_lineage(),
            version=max(self.version, theirs.version) + 1,
            base=theirs.version,
            base_expires=theirs.expires,
            agreed_at=now,
            dirty_since=self.dirty_since or now,
            # A moment later, as two who merge with the same version make two different ones.
            modified=max(self.modified, theirs.modified) + random.uniform(1e-6, 1e-3),  # noqa: S311
            expires=math.ceil(expires),
            ground=_ground(theirs),
        )


def new_record(id: str, payload: bytes, expires: float, now: float) -> Record:
    """Return the first version of a session. DynamoDB knows nothing of it yet."""
    return Record(
        id=id,
        payload=payload,
        lineage=_new_lineage(),
        version=1,
        base=0,
        base_expires=0,
        agreed_at=now,
        dirty_since=now,
        modified=now,
        expires=math.ceil(expires),
    )


def encode_hot(record: Record, keyring: Keyring) -> bytes:
    """Return the hot entry of a record."""
    header = _HOT.pack(
        _HOT_LIVE,
        record.lineage,
        record.version,
        record.base,
        record.base_expires,
        record.agreed_at,
        record.dirty_since,
        record.modified,
        record.expires,
        len(record.payload),
    )
    body = header + record.payload + record.ground
    return keyring.sign_hot(record.id, body) + body


def encode_tombstone(id: str, keyring: Keyring) -> bytes:
    """Return the hot entry that says "this session ended here"."""
    return keyring.sign_hot(id, _TOMBSTONE_BODY) + _TOMBSTONE_BODY


def decode_hot(id: str, entry: object, keyring: Keyring) -> Record | None:
    """Return the record of a hot entry, None for a tombstone. Raises ``Unreadable``."""
    if not isinstance(entry, bytes) or len(entry) <= TAG_BYTES:
        raise Unreadable("not a hot entry")
    tag, body = entry[:TAG_BYTES], entry[TAG_BYTES:]
    if not keyring.verify_hot(id, body, tag):
        raise Unreadable("hot entry fails authentication")
    if body == _TOMBSTONE_BODY:
        return None
    if body[0] != _HOT_LIVE or len(body) < _HOT.size:
        raise Unreadable("hot entry of an unknown format")
    numbers = _HOT.unpack_from(body)
    _, lineage, version, base, base_expires, agreed_at, dirty_since, modified, expires, length = (
        numbers
    )
    end = _HOT.size + length
    return Record(
        id=id,
        payload=body[_HOT.size : end],
        lineage=lineage,
        version=version,
        base=base,
        base_expires=base_expires,
        agreed_at=agreed_at,
        dirty_since=dirty_since,
        modified=modified,
        expires=expires,
        ground=body[end:],
    )


@dataclass(frozen=True, slots=True)
class ColdItem:
    """A DynamoDB item, attribute by attribute.

    ``site`` is the lineage of the hot entry that ordered this write, as text, or empty for a write
    that no hot tier ordered. ``nonce`` is random per write and tells our own retried put from
    another's.
    """

    id: str
    expires: int
    data: bytes = field(repr=False)
    version: int
    site: str
    modified: float
    nonce: str


@dataclass(frozen=True, slots=True)
class ColdAnswer:
    """What DynamoDB said of a session: its item, None when there is none, and if it is revoked.

    Logins of the owner that was asked for are over if they were made before ``logins_over``.
    ``complete``: every region was asked and has answered.
    """

    item: ColdItem | None
    revoked: bool
    logins_over: float = 0.0
    complete: bool = True


def encode_cold(record: Record, keyring: Keyring, *, ordered: bool) -> ColdItem:
    """Return the DynamoDB item of a record: compressed when that is smaller, and signed.

    ``ordered``: the hot tier has ordered this version in the record's lineage. Raises
    ``ValueTooLarge``.
    """
    if len(record.payload) > MAX_PAYLOAD_BYTES:
        raise ValueTooLarge("more than is ever inflated")
    packed = zlib.compress(record.payload, level=1)
    if len(packed) < len(record.payload):
        body = bytes([_COLD_ZLIB]) + packed
    else:
        body = bytes([_COLD_PLAIN]) + record.payload
    numbers = _COLD.pack(record.version, record.expires, record.modified)
    return ColdItem(
        id=record.id,
        expires=record.expires,
        data=keyring.sign_cold(record.id, numbers + body) + body,
        version=record.version,
        site=record.lineage.hex() if ordered else "",
        modified=record.modified,
        nonce=secrets.token_urlsafe(12),
    )


def decode_cold(item: ColdItem, keyring: Keyring, now: float) -> Record:
    """Return the record of a DynamoDB item, clean as of ``now``. Raises ``Unreadable``."""
    tag, body = item.data[:TAG_BYTES], item.data[TAG_BYTES:]
    try:
        numbers = _COLD.pack(item.version, item.expires, item.modified)
    except struct.error:
        raise Unreadable("cold item with a number out of range") from None
    if not body or not keyring.verify_cold(item.id, numbers + body, tag):
        raise Unreadable("cold item fails authentication")
    return Record(
        id=item.id,
        payload=_unpack(body),
        lineage=_new_lineage(),
        version=item.version,
        base=item.version,
        base_expires=item.expires,
        agreed_at=now,
        dirty_since=0.0,
        modified=item.modified,
        expires=item.expires,
    )


def _unpack(body: bytes) -> bytes:
    if body[0] == _COLD_PLAIN:
        return body[1:]
    if body[0] != _COLD_ZLIB:
        raise Unreadable("cold item of an unknown format")
    inflater = zlib.decompressobj()
    try:
        payload = inflater.decompress(body[1:], MAX_PAYLOAD_BYTES + 1)
    except zlib.error:
        raise Unreadable("cold item does not inflate") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Unreadable("cold item inflates beyond its limit")
    if not inflater.eof:
        raise Unreadable("cold item does not inflate")
    return payload


def _ground(record: Record) -> bytes:
    return record.payload if len(record.payload) <= MAX_GROUND_BYTES else b""


def _new_lineage() -> bytes:
    return secrets.token_bytes(8)
