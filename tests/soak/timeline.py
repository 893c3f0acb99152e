"""A picture of a run: latency, requests, errors and faults over time, as SVG."""

import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape

from tests.soak.load import Sample
from tests.soak.outages import Outage

WIDTH, LEFT, RIGHT = 1200.0, 70.0, 20.0
PANEL, GAP, LANE, TOP = 150.0, 46.0, 15.0, 60.0

#: The lower and the upper end of the latency scale, in milliseconds.
FASTEST, SLOWEST = 1.0, 10_000.0

_STYLE = """
  svg { background: var(--paper); color: var(--ink); font: 12px system-ui, sans-serif;
        --paper: #fff; --ink: #1c2026; --faint: #d5dae1; --usual: #2a6fbb; --worst: #b3541e;
        --good: #9db8d6; --bad: #c02638; --fault: #8a5cb8; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #14171c; --ink: #e4e7ec; --faint: #333a44; --usual: #6aa9ee; --worst: #f0a065;
          --good: #3d5875; --bad: #ff6b7a; --fault: #b794e0; }
  }
  text { fill: var(--ink); } .title { font-size: 16px; font-weight: 600; }
  .label { font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
  .grid { stroke: var(--faint); } .usual, .worst { fill: none; stroke-width: 1.5; }
  .usual { stroke: var(--usual); } .worst { stroke: var(--worst); }
  .usual-text { fill: var(--usual); } .worst-text { fill: var(--worst); }
  .good { fill: var(--good); } .bad { fill: var(--bad); } .bad-text { fill: var(--bad); }
  .band { fill: var(--fault); opacity: .10; } .fault { fill: var(--fault); }
  .small { font-size: 10px; }
"""


def draw(
    samples: Sequence[Sample],
    outages: Sequence[Outage],
    began: float,
    seconds: float,
    title: str = "Soak",
) -> str:
    """Return the picture. ``began`` is on the clock of the samples and the outages."""
    seconds = max(1.0, seconds)
    by_second: dict[int, list[Sample]] = {}
    for sample in samples:
        if 0 <= sample.at - began < seconds:
            by_second.setdefault(int(sample.at - began), []).append(sample)
    scale = _Scale(seconds)
    latency, traffic = TOP, TOP + PANEL + GAP
    faults = traffic + PANEL + GAP
    lanes = _lanes(outages)
    height = faults + len(lanes) * LANE + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{LEFT:.0f}" y="26">{escape(title)}</text>',
        *_bands(outages, began, scale, latency, faults - GAP / 2),
        *_latency(by_second, scale, latency),
        *_traffic(by_second, scale, traffic),
        *_faults(lanes, began, scale, faults),
        *_seconds(scale, faults + len(lanes) * LANE + 18),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """From seconds and milliseconds to the picture."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def x(self, second: float) -> float:
        """Return how far to the right a moment is."""
        inside = min(max(second, 0.0), self.seconds)
        return LEFT + inside / self.seconds * (WIDTH - LEFT - RIGHT)

    def y(self, milliseconds: float) -> float:
        """Return how far below the top of its panel a latency is, on a logarithmic scale."""
        inside = min(max(milliseconds, FASTEST), SLOWEST)
        return PANEL * (1 - math.log(inside / FASTEST) / math.log(SLOWEST / FASTEST))


def _latency(by_second: dict[int, list[Sample]], scale: _Scale, top: float) -> Iterator[str]:
    yield (
        f'<text class="label" x="{LEFT:.0f}" y="{top - 8:.0f}">Latency per second: '
        '<tspan class="usual-text">p50</tspan>, <tspan class="worst-text">p99</tspan></text>'
    )
    for milliseconds, name in ((1, "1 ms"), (10, "10 ms"), (100, "100 ms"), (1000, "1 s")):
        yield from _line(top + scale.y(milliseconds), name)
    yield from _line(top, "10 s")
    usual, worst = [], []
    for second, samples in sorted(by_second.items()):
        took = sorted(1000 * sample.took for sample in samples)
        x = scale.x(second + 0.5)
        usual.append(f"{x:.1f},{top + scale.y(statistics.median(took)):.1f}")
        worst.append(f"{x:.1f},{top + scale.y(took[int(0.99 * (len(took) - 1))]):.1f}")
    yield f'<polyline class="worst" points="{" ".join(worst)}"/>'
    yield f'<polyline class="usual" points="{" ".join(usual)}"/>'


def _traffic(by_second: dict[int, list[Sample]], scale: _Scale, top: float) -> Iterator[str]:
    most = max((len(samples) for samples in by_second.values()), default=1)
    yield (
        f'<text class="label" x="{LEFT:.0f}" y="{top - 8:.0f}">Requests per second, '
        '<tspan class="bad-text">503 or broken</tspan></text>'
    )
    yield from _line(top, str(most))
    yield from _line(top + PANEL, "0")
    for second, samples in sorted(by_second.items()):
        bad = sum(_is_bad(sample) for sample in samples)
        x, width = scale.x(second), max(0.5, scale.x(second + 1) - scale.x(second) - 0.5)
        for number, name in ((len(samples), "good"), (bad, "bad")):
            tall = PANEL * number / most
            if tall:
                yield (
                    f'<rect class="{name}" x="{x:.1f}" y="{top + PANEL - tall:.1f}" '
                    f'width="{width:.1f}" height="{tall:.1f}"/>'
                )


def _is_bad(sample: Sample) -> bool:
    return not sample.outcome.isdigit() or int(sample.outcome) >= 400


def _bands(
    outages: Sequence[Outage], began: float, scale: _Scale, top: float, bottom: float
) -> Iterator[str]:
    for outage in outages:
        left = scale.x(outage.began - began)
        width = scale.x((outage.ended or outage.began) - began) - left
        yield (
            f'<rect class="band" x="{left:.1f}" y="{top:.1f}" width="{max(1.0, width):.1f}" '
            f'height="{bottom - top:.1f}"/>'
        )


def _lanes(outages: Sequence[Outage]) -> list[Outage]:
    return sorted(outages, key=lambda outage: outage.began)


def _faults(lanes: list[Outage], began: float, scale: _Scale, top: float) -> Iterator[str]:
    yield f'<text class="label" x="{LEFT:.0f}" y="{top - 8:.0f}">Faults</text>'
    for number, outage in enumerate(lanes):
        y = top + number * LANE
        start, end = outage.began - began, (outage.ended or outage.began) - began
        left, right = scale.x(start), scale.x(end)
        name = escape(f"{outage.name} ({outage.target})")
        tip = escape(f"{outage.name} ({outage.target}), {start:.1f} s to {end:.1f} s")
        yield (
            f'<rect class="fault" x="{left:.1f}" y="{y + 2:.1f}" rx="2" '
            f'width="{max(2.0, right - left):.1f}" height="{LANE - 4:.0f}"><title>{tip}</title>'
            "</rect>"
        )
        # Where it fits: to the right of the bar, or to the left of it.
        if right < WIDTH - 230:
            yield f'<text class="small" x="{right + 5:.1f}" y="{y + LANE - 4:.1f}">{name}</text>'
        else:
            yield (
                f'<text class="small end" x="{left - 5:.1f}" y="{y + LANE - 4:.1f}">{name}</text>'
            )


def _seconds(scale: _Scale, y: float) -> Iterator[str]:
    step = next(
        (step for step in (1, 5, 10, 30, 60, 300, 600, 1800) if scale.seconds / step <= 16), 3600
    )
    for second in range(0, int(scale.seconds) + 1, step):
        yield f'<text class="small middle" x="{scale.x(second):.1f}" y="{y:.0f}">{second} s</text>'


def _line(y: float, name: str) -> Iterator[str]:
    yield f'<line class="grid" x1="{LEFT:.0f}" x2="{WIDTH - RIGHT:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<text class="small end" x="{LEFT - 6:.0f}" y="{y + 3:.1f}">{name}</text>'
