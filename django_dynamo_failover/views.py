"""Endpoints for load balancers and monitoring: ``live``, ``ready`` and ``failover``.

They leave the session alone, and tell nothing but a status to whoever lacks ``HEALTH_TOKEN``.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from . import __version__, runtime
from .readiness import Failover

logger = logging.getLogger(__name__)

_SCHEME = "Bearer"


@dataclass(frozen=True, slots=True)
class _Answer:
    """Whether all is well, and what whoever has the token may see, made only for them."""

    is_well: bool
    details: Callable[[], dict[str, Any]]


def _endpoint(ask: Callable[[], _Answer]) -> Callable[[HttpRequest], HttpResponse]:
    @cache_control(no_store=True)
    @csrf_exempt  # so that POST is answered 405
    @login_not_required
    @require_safe
    @wraps(ask)
    def view(request: HttpRequest) -> HttpResponse:
        has_token = _has_token(request)
        if has_token is False:
            headers = {"WWW-Authenticate": _SCHEME}
            return _quiet(JsonResponse({"status": "unauthorized"}, status=401, headers=headers))
        answer = ask()
        body: dict[str, Any] = {"status": "ok" if answer.is_well else "unavailable"}
        if has_token:
            body["details"] = answer.details()
        return _quiet(JsonResponse(body, status=200 if answer.is_well else 503))

    return view


@_endpoint
def live() -> _Answer:
    """Say that this process answers. Asks nobody, and needs no right settings."""
    return _Answer(True, _about_process)


@_endpoint
def ready() -> _Answer:
    """Say whether sessions can be served."""
    run = _runtime()
    if run is None:
        return _Answer(False, dict)
    run.writer.listen()  # without a background thread: see whether a tier is back
    return _Answer(run.readiness.ready, lambda: run.readiness.tiers)


@_endpoint
def failover() -> _Answer:
    """Say whether a failover right now would lose nothing."""
    run = _runtime()
    if run is None:
        return _Answer(False, dict)
    run.writer.run_due()  # without a background thread: drain, if that is ordered
    found = run.readiness.failover()
    return _Answer(not found.reasons, partial(_about_failover, run, found))


def _about_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "site": runtime.config().site,
        "uptime_seconds": round(runtime.uptime(), 3),
    }


def _about_failover(run: runtime.Runtime, found: Failover) -> dict[str, Any]:
    waits = max(0.0, time.time() - found.oldest) if found.oldest else 0.0
    return {
        "pending": found.pending,
        "oldest_pending_seconds": round(waits, 3),
        "logouts": found.logouts,
        "processes": found.processes,
        "draining": found.draining,
        "tiers": run.readiness.tiers,
        "reasons": list(found.reasons),
    }


def _runtime() -> runtime.Runtime | None:
    """Return the runtime, None where the settings are wrong."""
    try:
        return runtime.current()
    except Exception as error:
        # Any cache and any callable may be set, so any error may come; its text may have a secret.
        logger.error(  # noqa: TRY400
            "No session can be served: the settings are wrong (%s). Run manage.py check.",
            type(error).__name__,
        )
        return None


def _has_token(request: HttpRequest) -> bool | None:
    """Tell whether the right token was sent; None if none was, or none is set."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != _SCHEME.lower():
        return None
    try:
        expected = runtime.config().health_token
    except ImproperlyConfigured:
        return None
    return None if expected is None else constant_time_compare(sent.strip(), expected)


def _quiet(response: HttpResponse) -> HttpResponse:
    # Django logs each 503 as an error, of which it mails the admins: here it is an answer.
    response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001
    return response
