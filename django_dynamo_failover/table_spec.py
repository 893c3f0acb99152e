"""What the table of the sessions shall be, and which wishes go together. Asks nobody."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

#: The attributes that every table has: its partition key, a string, and the one that TTL looks at.
KEY = "id"
TTL = "expires"

Consistency = Literal["eventual", "strong"]

_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_KMS_ALIAS = re.compile(r"alias/(?!aws/)[a-zA-Z0-9/_-]{1,250}")
_KMS_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:key/[a-zA-Z0-9-]+")
_TAG_TEXT = re.compile(r"[\w +\-=.:/@]*")
_MOST_TAGS = 50
_STRONG_REGIONS = 3


@dataclass(frozen=True, slots=True)
class Units:
    """Read and write units a second."""

    read: int
    write: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the units of ``READ:WRITE``. Raises ``ValueError``."""
        read, write = (int(part) for part in text.split(":"))
        if read < 1 or write < 1:
            raise ValueError(text)
        return cls(read, write)

    def __str__(self) -> str:
        return f"{self.read}:{self.write}"


Billing = Units | Literal["on-demand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """A table as it is asked for. None, or no tags, means that nothing is asked.

    Then a new table gets what DynamoDB gives it, and of one that is there it is not compared.

    Args:
        regions: the table is made in the first; the others have replicas of it.
        billing: the provisioned units, or that each request is paid; None makes it the latter.
        kms_key: an alias, which each region resolves, or an ARN.
        warm: what the table can serve at once, without growing to it.
        witness: a region that only votes, in a global table of strong consistency.
    """

    name: str
    regions: tuple[str, ...]
    billing: Billing | None = None
    ttl: bool = True
    recovery: bool | None = None
    protection: bool | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    warm: Units | None = None
    consistency: Consistency | None = None
    witness: str | None = None

    @property
    def replicas(self) -> tuple[str, ...]:
        """The regions beyond the first."""
        return self.regions[1:]

    @property
    def strong(self) -> bool:
        """Whether every region shall know what any has written. Such a table can have no TTL."""
        return self.consistency == "strong"

    @property
    def has_ttl(self) -> bool:
        return self.ttl and not self.strong

    def of_table(self, region: str) -> Self:
        """Return the spec of a table of its own in one region."""
        return replace(self, regions=(region,))

    def of_home(self, region: str) -> Self:
        """Return the same with another region as the first."""
        others = (other for other in self.regions if other != region)
        return replace(self, regions=(region, *others))

    def of_replica(self, region: str) -> Self:
        """Return what to ask of a replica itself: what it does not share with the first region."""
        return replace(
            self.of_table(region), billing=None, warm=None, consistency=None, witness=None
        )

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it, and what to do about it."""
        yield from self._wrong_names()
        yield from self._wrong_tags()
        yield from self._wrong_regions()
        if self.kms_key and not _KMS_ALIAS.fullmatch(self.kms_key):
            yield from self._wrong_key(self.kms_key)

    def _wrong_names(self) -> Iterator[str]:
        for region in (*self.regions, *([self.witness] if self.witness else ())):
            if not _REGION.fullmatch(region):
                yield f"{region!r} is no AWS region; one is such as 'us-east-1'."

    def _wrong_tags(self) -> Iterator[str]:
        if len(self.tags) > _MOST_TAGS:
            yield f"--tag: a table can have {_MOST_TAGS} tags, not {len(self.tags)}."
        for key, value in self.tags.items():
            if not 1 <= len(key) <= 128 or len(value) > 256:
                yield f"--tag {key}: a key has 1 to 128 characters, a value up to 256."
            elif not _TAG_TEXT.fullmatch(key + value):
                yield f"--tag {key}: only letters, digits, spaces and + - = . _ : / @ are allowed."
            elif key.lower().startswith("aws:"):
                yield f"--tag {key}: tags that begin with 'aws:' are Amazon's own."

    def _wrong_regions(self) -> Iterator[str]:
        if self.strong and not self.replicas:
            yield "--consistency strong is of a global table: it needs several REGIONS."
        elif self.strong and len(self.regions) + bool(self.witness) != _STRONG_REGIONS:
            yield (
                "--consistency strong needs exactly three REGIONS, or two and a --witness;"
                f" there are {len(self.regions)}{' and a witness' if self.witness else ''}."
            )
        elif self.consistency and not self.replicas:
            yield "--consistency is of a global table: it needs several REGIONS."
        if self.witness and not self.strong:
            yield "--witness is for --consistency strong."
        if self.witness in self.regions:
            yield f"--witness {self.witness}: the witness must be none of REGIONS."
        if isinstance(self.billing, Units) and self.replicas:
            yield (
                "--provisioned does not go with a global table: DynamoDB wants auto scaling for"
                " that, which this command does not set up. Bill on demand, or start from"
                " --print cloudformation."
            )

    def _wrong_key(self, key: str) -> Iterator[str]:
        arn = _KMS_ARN.fullmatch(key)
        if key.startswith("alias/aws/"):
            yield f"--kms-key {key}: that key is Amazon's; name one of your own, or none."
        elif not arn:
            yield f"--kms-key {key}: name an alias such as 'alias/sessions', or the ARN of a key."
        elif self.regions != (arn[1],):
            yield (
                f"--kms-key: this is a key of {arn[1]} alone, but the table is to be in"
                f" {', '.join(self.regions)}. Name an alias that each of them has."
            )
