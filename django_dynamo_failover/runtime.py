"""The one place that joins Django's settings with the rest: one ``Runtime`` a process.

It is built at the first session that is used, never at import, and never survives a fork or a
change of the settings.
"""

import atexit
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .adopting import Adopter
from .breaker import Breaker
from .cold import ColdTier, GuardedRegion
from .conf import Config, problems
from .dynamo import DynamoTable
from .fallback import OldEngine
from .fleet import Fleet
from .heartbeat import Heartbeat
from .hot import HotTier
from .keys import Keyring
from .limiter import Limiter
from .metrics import Metrics
from .payload import PayloadCodec
from .readiness import Readiness
from .reconcile import Reconciler
from .reporter import Reporter
from .signals import tier_down, tier_up
from .store import TieredStore
from .writer import Writer

logger = logging.getLogger(__name__)

#: How soon a new process tells of itself, in seconds: the first page is not to wait for that.
FIRST_REPORT_SECONDS = 2.0

#: A fork waits so long for a client that is being made, in seconds.
_LONGEST_IMPORT = 5.0

_SETTINGS = {
    "DYNAMO_FAILOVER",
    "CACHES",
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "SESSION_CACHE_ALIAS",
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts that ``SessionStore`` works with."""

    config: Config
    keyring: Keyring
    codec: PayloadCodec
    store: TieredStore
    hot: HotTier
    cold: ColdTier
    fleet: Fleet
    writer: Writer
    metrics: Metrics
    reporter: Reporter
    readiness: Readiness
    old_engine: OldEngine | None
    pid: int


_current: Runtime | None = None
_began = time.monotonic()
_lock = threading.Lock()


def current() -> Runtime:
    """Return the runtime of this process. Raises ``ImproperlyConfigured``."""
    # The pid, for a fork in C (uWSGI) that runs no hooks of Python: it costs 0.1 µs.
    if _current is None or _current.pid != os.getpid():
        return _start()
    return _current


def uptime() -> float:
    """Return for how many seconds this process has been there, since its fork if it is one."""
    return time.monotonic() - _began


def running() -> Runtime | None:
    """Return the runtime of this process, None if it has used no session yet."""
    run = _current
    return run if run is not None and run.pid == os.getpid() else None


def reset() -> None:
    """Write what is pending, within ``SHUTDOWN_TIMEOUT``, and forget the runtime."""
    global _current
    with _lock:
        stopped, _current = running(), None  # not the one of a parent, which has its own
    if stopped is not None:
        stopped.writer.close(stopped.config.shutdown_timeout)


def config() -> Config:
    """Return the ``DYNAMO_FAILOVER`` setting. Raises ``ImproperlyConfigured``."""
    # Nowhere in a local variable: Django's debug page shows those, and it has HEALTH_TOKEN in it.
    found = problems(_setting())
    if found:
        raise ImproperlyConfigured(" ".join(f"{p.message} {p.hint}" for p in found))
    return Config.parse(_setting())


def _setting() -> Any:
    return getattr(settings, "DYNAMO_FAILOVER", {})


def tables(config: Config, attempts: int | None = None) -> list[DynamoTable]:
    """Return the table in each region, nearest first. Asks nothing yet."""
    if attempts is None:
        # With another region to go to, that one is the second attempt.
        attempts = 1 if len(config.regions) > 1 else 2
    make_session: Callable[[], Any] | None = None
    if config.boto_session is not None:
        make_session = import_string(config.boto_session)
    return [
        DynamoTable(
            config.table,
            region,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            attempts=attempts,
            max_connections=config.max_connections,
            make_session=make_session,
        )
        for region in config.regions
    ]


def keyring() -> Keyring:
    """Return the secrets of this site."""
    return Keyring([settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])


def hot_tier(
    keyring: Keyring, metrics: Metrics, make_breaker: Callable[[], Breaker] = Breaker
) -> HotTier:
    """Return the hot tier of this site, with breakers of its own."""
    alias = settings.SESSION_CACHE_ALIAS
    return HotTier(lambda: caches[alias], keyring, metrics, make_breaker)


def build(config: Config) -> Runtime:
    """Return a runtime of its own. Starts nothing."""
    metrics = Metrics()
    keys = keyring()
    breakers: list[tuple[str, Breaker]] = []

    def make_breaker(tier: str, threshold: int) -> Breaker:
        # Without a background thread the requests themselves find out when a tier is back.
        breaker = Breaker(threshold=threshold, probed_apart=config.background)
        breakers.append((tier, breaker))
        return breaker

    hot = hot_tier(keys, metrics, lambda: make_breaker("hot", 1))
    regions = [
        # A call has had a second attempt already; even so one failure is not yet an outage.
        GuardedRegion(
            table,
            make_breaker(table.name, 2),
            Limiter(config.max_connections),
            Limiter(config.max_connections),
        )
        for table in tables(config)
    ]
    cold = ColdTier(regions, metrics, deadline=config.deadline)
    reconciler = Reconciler(hot, cold, keys, metrics, lease=config.write_interval)
    adopter = Adopter(cold, reconciler, keys, metrics, lease=config.write_interval)
    fleet = Fleet(hot, site=config.site)
    writer = Writer(reconciler, hot, cold, fleet, metrics, background=config.background)
    reporter = Reporter(config.site, hot, cold, fleet, writer, metrics)
    writer.last_words = reporter.snapshot
    for tier, breaker in breakers:
        breaker.on_change = partial(_changed, tier, writer, reporter)
    return Runtime(
        config=config,
        keyring=keys,
        codec=PayloadCodec(keys, config.encrypt),
        store=TieredStore(config, hot, cold, reconciler, adopter, fleet, writer, metrics),
        hot=hot,
        cold=cold,
        fleet=fleet,
        writer=writer,
        metrics=metrics,
        reporter=reporter,
        readiness=Readiness(hot, cold, fleet, writer),
        old_engine=old_engine(config),
        pid=os.getpid(),
    )


def old_engine(config: Config) -> OldEngine | None:
    """Return the engine to move in from or out to, None if there is none."""
    if config.fallback_engine is None:
        return None
    return OldEngine(config.fallback_engine, config.fallback_cache_alias)


def _start() -> Runtime:
    global _current
    with _lock:
        if _current is None or _current.pid != os.getpid():
            started = build(config())
            started.cold.warm()
            started.writer.start()
            _tell_of(started)
            _flush_at_exit_of_multiprocessing()
            _current = started
        return _current


def _tell_of(run: Runtime) -> None:
    """Let the other processes know of this one, and the other sites of this site."""
    if not run.cold.exists:
        return
    run.writer.every_now_and_then("report", FIRST_REPORT_SECONDS, run.reporter.report)
    # No page is to wait for the heartbeat: without a background there is none.
    if run.config.site is not None and run.config.background:
        heartbeat = Heartbeat(run.config.site, run.keyring.fingerprints, run.hot, run.cold)
        run.writer.every_now_and_then("heartbeat", FIRST_REPORT_SECONDS, heartbeat.beat)


def _flush_at_exit_of_multiprocessing() -> None:
    # Its children end by os._exit(), which runs no atexit hooks.
    if "multiprocessing.util" in sys.modules:
        # Imported all the same: another thread, as the one that loads boto3, may be half through.
        util = importlib.import_module("multiprocessing.util")
        util.Finalize(None, reset, exitpriority=0)


def _changed(tier: str, writer: Writer, reporter: Reporter, up: bool) -> None:
    reporter.tier_changed(tier, up=up)
    logger.warning("%s: %s.", tier, "answers again" if up else "does not answer")
    if not up:
        writer.probe_later()
        if tier == "hot":
            writer.hurry()
    (tier_up if up else tier_down).send_robust(sender=Runtime, tier=tier)


def _reset_on_setting(*, setting: str, **kwargs: Any) -> None:
    if setting in _SETTINGS:
        reset()


def _wait_before_fork() -> None:
    # A child that is forked while a thread imports boto3 inherits the lock of that import.
    if _current is not None and _current.pid == os.getpid():
        _current.cold.wait(_LONGEST_IMPORT)


def _forget_after_fork() -> None:
    # Nothing is closed: threads, connections and pending changes are the parent's.
    global _current, _lock, _began
    _current = None
    _began = time.monotonic()
    _lock = threading.Lock()


setting_changed.connect(_reset_on_setting)
os.register_at_fork(before=_wait_before_fork, after_in_child=_forget_after_fork)
atexit.register(reset)
