"""``SessionTiers``, a check for django-health-check: asks nobody, tells what is known already."""

import dataclasses
import time

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from . import runtime


@dataclasses.dataclass
class SessionTiers(HealthCheck):
    """Fails when no tier answers, so that this machine can serve no session.

    One tier is enough to serve a page, and when the other is down it mostly is for every machine
    of the site: a load balancer that took them all out would end what still works. ``strict`` is
    for the monitoring. It also fails when DynamoDB answers in no region, when a server of the hot
    tier does not answer, or when a change has waited for DynamoDB longer than ``WRITE_INTERVAL``.

    It tells what this process has learned from its last calls. ``healthcheck_dynamo`` asks anew.
    """

    strict: bool = False

    # Not a coroutine: the first one starts the runtime, which reads the hot tier.
    def run(self) -> None:  # type: ignore[override]
        """Raise what is wrong, in words that anyone may read."""
        run = runtime.current()
        if run.hot.is_down and run.cold.is_down:
            raise ServiceUnavailable("Neither the hot tier nor DynamoDB answers.")
        if self.strict:
            _check_strictly(run)


def _check_strictly(run: runtime.Runtime) -> None:
    if not run.hot.is_up:
        raise ServiceWarning("The hot tier does not answer, or not all of it.")
    if run.cold.exists and run.cold.is_down:
        raise ServiceWarning("DynamoDB answers in no region.")
    oldest = run.writer.oldest
    age = time.time() - oldest if oldest else 0.0
    if age > run.config.late_after:
        raise ServiceWarning(f"DynamoDB has lacked a change for {age:.0f} seconds.")
