"""The sum of a run, for a program (``report.json``) and for a person."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.soak.ledger import Broken, Ledger
from tests.soak.load import Load, Sample
from tests.soak.outages import Outage
from tests.soak.watch import MOST_GROWTH, MOST_MEMORY, MOST_THREADS, Worker


def quantiles(times: Iterable[float]) -> dict[str, float]:
    """Return p50, p99 and max of durations in seconds, in milliseconds."""
    took = sorted(times)
    if not took:
        return {"requests": 0}
    cuts = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    return {
        "requests": len(took),
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "max_ms": round(1000 * took[-1], 1),
    }


def phases(samples: Sequence[Sample], outages: Sequence[Outage]) -> dict[str, dict[str, float]]:
    """Return the latency while each kind of fault lasted, and while there was none."""
    times: dict[str, list[float]] = {"all": [], "no fault": []}
    for sample in samples:
        began = sample.at - sample.took
        names = {
            outage.name
            for outage in outages
            if outage.began <= sample.at and (outage.ended is None or outage.ended >= began)
        }
        for name in {"all", *(names or {"no fault"})}:
            times.setdefault(name, []).append(sample.took)
    return {name: quantiles(taken) for name, taken in sorted(times.items())}


def document(
    load: Load,
    ledger: Ledger,
    workers: Sequence[Worker],
    incidents: dict[str, list[str]],
    **run: Any,
) -> dict[str, Any]:
    """Return the whole report."""
    outages = load.outages.all
    counts = ledger.counts
    at_work = [sample for sample in load.samples if sample.at <= ledger.began + load.lasted]
    bounds = [problem for worker in workers for problem in worker.problems()]
    return {
        "run": run,
        "ok": not (ledger.broken or bounds or any(incidents.values())),
        "logged_out": counts["users logged out"],
        "changes_lost": counts["changes lost"],
        "changes_lost_within_g3": counts["changes lost within G3"],
        "changes_orphaned": counts["changes orphaned: no process was left to write them"],
        "broken": [asdict(broken) for broken in ledger.broken],
        "counts": dict(sorted(counts.items())),
        "requests": {
            "total": len(load.samples),
            "at_work": len(at_work),
            "by_outcome": dict(Counter(sample.outcome for sample in load.samples)),
            "by_action": dict(Counter(sample.action for sample in load.samples)),
            "failed_by_cause": dict(Counter(cause for _, cause in load.causes)),
        },
        "latency": phases(at_work, outages),
        "slowest": [
            {
                "at": round(sample.at - ledger.began, 1),
                "seconds": round(sample.took, 2),
                "action": sample.action,
                "site": sample.site,
                "outcome": sample.outcome,
            }
            for sample in sorted(at_work, key=lambda sample: -sample.took)[:20]
        ],
        "faults": [
            {
                "name": outage.name,
                "target": outage.target,
                "began": round(outage.began - ledger.began, 2),
                "ended": round((outage.ended or outage.began) - ledger.began, 2),
            }
            for outage in outages
        ],
        "workers": {
            "bounds": {
                "threads": MOST_THREADS,
                "memory_mb": MOST_MEMORY,
                "growth_mb": MOST_GROWTH,
            },
            "problems": bounds,
            "seen": [
                {
                    "site": worker.site,
                    "pid": worker.pid,
                    "memory_mb": {
                        "warm": round(worker.warm_memory, 1),
                        "most": round(worker.most_memory, 1),
                        "last": round(worker.memory, 1),
                    },
                    "threads": {"most": worker.most_threads, "last": worker.threads},
                }
                for worker in workers
            ],
        },
        "logs": incidents,
    }


def write(report: dict[str, Any], folder: Path) -> Path:
    """Write it as JSON; return where."""
    path = folder / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def summary(report: dict[str, Any], broken: Sequence[Broken]) -> str:
    """Return what a person wants to know first."""
    requests, latency, counts = report["requests"], report["latency"], report["counts"]
    workers = report["workers"]["seen"]
    memory = max((worker["memory_mb"]["most"] for worker in workers), default=0.0)
    threads = max((worker["threads"]["most"] for worker in workers), default=0)
    everything, calm = latency["all"], latency["no fault"]
    lines = [
        f"{requests['total']} requests: "
        + ", ".join(f"{number} x {name}" for name, number in sorted(_by_number(requests))),
        f"latency: p50 {everything['p50_ms']} ms, p99 {everything['p99_ms']} ms, "
        f"max {everything['max_ms']} ms; without a fault p99 {calm.get('p99_ms', '-')} ms",
        *(f"failed: {number} x {cause}" for cause, number in requests["failed_by_cause"].items()),
        *(f"{number} {name}" for name, number in counts.items()),
        f"{len(report['faults'])} faults; {len(workers)} workers, at most {memory} MB "
        f"and {threads} threads",
        f"logs: {sum(map(len, report['logs'].values()))} unhandled exceptions",
        f"users logged out: {report['logged_out']}; changes lost: {report['changes_lost']}, "
        f"and {report['changes_lost_within_g3']} as G3 allows",
    ]
    lines += [f"BROKEN {each}" for each in broken]
    lines += [f"BROKEN {problem}" for problem in report["workers"]["problems"]]
    for name, found in report["logs"].items():
        lines += [f"BROKEN log of {name}:\n{each}" for each in found[:3]]
    lines.append("All guarantees held." if report["ok"] else "A guarantee is broken.")
    return "\n".join(lines)


def _by_number(requests: dict[str, Any]) -> Iterable[tuple[str, int]]:
    outcomes: dict[str, int] = requests["by_outcome"]
    return outcomes.items()
