"""The sites that share a table: each notes itself once, and leaves a heartbeat every minute."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .dynamo import DynamoTable
from .exceptions import Unreadable

#: The id of the item in which each site notes itself. No session has it: their ids are hashes.
_SITES = "sites"
_SITE = "site:"  # before the label of a site: the name of its attribute in that item

#: Before the label of a site: the id of the item that is its heartbeat. One for each site, as the
#: last writer of an item wins.
_HEARTBEAT = "heartbeat:"
_MOST_SITES = 50


@dataclass(frozen=True, slots=True)
class Site:
    """A site as it has noted itself: ``fingerprints`` of its secrets, the current one first.

    ``seen`` is when, in epoch seconds.
    """

    label: str
    fingerprints: tuple[str, ...]
    seen: float


def read_sites(table: DynamoTable, until: float) -> list[Site]:
    """Return the sites that have noted themselves. Raises ``ColdUnavailable``, ``Unreadable``."""
    item = table.read_items([_SITES], until).get(_SITES, {})
    return [
        _site(name.removeprefix(_SITE), value)
        for name, value in item.items()
        if name.startswith(_SITE)
    ]


def note_site(
    table: DynamoTable, site: Site, forget: Iterable[str], expires: int, until: float
) -> None:
    """Note a site, and forget the sites with these labels. Raises ``ColdUnavailable``.

    The note of another site that is written in another region within the same second may get
    lost, as the last writer of an item wins; until that site notes itself again.
    """
    names = {"#expires": "expires", "#site": _SITE + site.label}
    gone = {f"#gone{number}": _SITE + label for number, label in enumerate(forget)}
    values: dict[str, Any] = {
        ":expires": {"N": str(expires)},
        ":site": {"M": _attributes(site)},
    }
    expression = "SET #expires = :expires, #site = :site"
    if gone:
        expression += f" REMOVE {', '.join(gone)}"
    table.client.call(
        "UpdateItem",
        lambda client: client.update_item(
            TableName=table.table,
            Key={"id": {"S": _SITES}},
            UpdateExpression=expression,
            ExpressionAttributeNames={**names, **gone},
            ExpressionAttributeValues=values,
        ),
        until,
    )


def put_heartbeat(table: DynamoTable, site: Site, expires: int, until: float) -> None:
    """Leave the heartbeat of a site. Raises ``ColdUnavailable``."""
    item: dict[str, Any] = {
        "id": {"S": _HEARTBEAT + site.label},
        "expires": {"N": str(expires)},
        **_attributes(site),
    }
    table.client.call(
        "PutItem", lambda client: client.put_item(TableName=table.table, Item=item), until
    )


def read_heartbeats(table: DynamoTable, labels: Sequence[str], until: float) -> list[Site]:
    """Return these sites as they were at their last heartbeats, where there are any.

    Raises ``ColdUnavailable``, ``Unreadable``.
    """
    ids = {_HEARTBEAT + label: label for label in sorted(labels)[:_MOST_SITES]}
    items = table.read_items([*ids], until) if ids else {}
    return [_site(ids[id], {"M": item}) for id, item in items.items()]


def _attributes(site: Site) -> dict[str, Any]:
    return {
        "keys": {"L": [{"S": fingerprint} for fingerprint in site.fingerprints]},
        "seen": {"N": repr(site.seen)},
    }


def _site(label: str, value: Any) -> Site:
    try:
        keys = tuple(key["S"] for key in value["M"]["keys"]["L"])
        return Site(label, keys, float(value["M"]["seen"]["N"]))
    except (KeyError, TypeError, ValueError):
        raise Unreadable("what a site has noted has an unknown form") from None
