"""Whether the other sites have the same SECRET_KEY: each leaves a fingerprint of its keys."""

import time
from collections.abc import Iterator, Sequence

from django_dynamo_failover.dynamo import DynamoTable
from django_dynamo_failover.dynamo_sites import Site, note_site, read_sites
from django_dynamo_failover.exceptions import ColdUnavailable, Unreadable
from django_dynamo_failover.heartbeat import KEPT_SECONDS
from django_dynamo_failover.reasons import explain

from .report import Finding

_LABEL_LENGTH = 40

_LOGS_OUT = "a failover between them logs everyone out"


def check_sites(
    table: DynamoTable, label: str | None, fingerprints: Sequence[str], until: float
) -> Iterator[Finding]:
    """Compare with the sites that have noted themselves in a region, and note this one."""
    yield named(label)
    now = time.time()
    try:
        sites = read_sites(table, until)
        if label is not None:
            stale = [s.label for s in sites if s.seen < now - KEPT_SECONDS and s.label != label]
            ours = Site(label, tuple(fingerprints), now)
            note_site(table, ours, stale, int(now) + KEPT_SECONDS, until)
    except (ColdUnavailable, Unreadable) as error:
        yield Finding(
            "sites.secret-key",
            "unknown",
            "other sites",
            f"cannot be compared with: {explain(error)}",
            "Allow dynamodb:BatchGetItem and dynamodb:UpdateItem on the table."
            if isinstance(error, ColdUnavailable)
            else "Delete the item 'sites' from the table, and run this again at each site.",
        )
        return
    known = [site for site in sites if site.seen >= now - KEPT_SECONDS]
    for site in known:
        if site.label != label:
            yield compared(site, fingerprints)
        elif not agree(site.fingerprints, fingerprints):
            yield ourselves(site)
    if all(site.label == label for site in known):
        yield Finding(
            "sites.secret-key",
            "unknown",
            "other sites",
            "none has been checked within four weeks, so that SECRET_KEY is not compared",
            "Run healthcheck_dynamo at each site.",
        )


def named(label: str | None) -> Finding:
    """Judge the label of this site."""
    if label is None:
        return Finding(
            "sites.label",
            "warning",
            "this site",
            "has no name, so that the other sites cannot compare their SECRET_KEY with it",
            'Set DYNAMO_FAILOVER["SITE"] to a name of its own at each site.',
        )
    return Finding("sites.label", "ok", "this site", f"is {shown(label)}")


def compared(site: Site, fingerprints: Sequence[str]) -> Finding:
    """Judge whether another site has the secrets of this one."""
    name = f"site {shown(site.label)}"
    if agree(site.fingerprints, fingerprints):
        return Finding("sites.secret-key", "ok", name, "accepts the sessions of this site")
    return Finding(
        "sites.secret-key",
        "error",
        name,
        f"has another SECRET_KEY than this site: {_LOGS_OUT}",
        "Set the same SECRET_KEY at all sites; to change it, put the new one into"
        " SECRET_KEY_FALLBACKS of all sites first. Then run this again at each site.",
    )


def ourselves(site: Site) -> Finding:
    """Return what it means that a site of this name has other secrets."""
    return Finding(
        "sites.secret-key",
        "error",
        f"site {shown(site.label)}",
        "was checked with another SECRET_KEY before: either it was changed without"
        " SECRET_KEY_FALLBACKS, or another site has the same name",
        'Set DYNAMO_FAILOVER["SITE"] to a name of its own at each site, and run this again.',
    )


def agree(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Tell whether each accepts what the other makes now."""
    return bool(theirs and ours) and theirs[0] in ours and ours[0] in theirs


def shown(label: str) -> str:
    """Return the label of a site for a person."""
    # Somebody else may have written it: nothing that moves a cursor.
    return repr(label[:_LABEL_LENGTH])
