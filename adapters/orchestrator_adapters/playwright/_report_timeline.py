"""Draws when each attempt ran, and on which worker, as a picture within the page."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  whoever asks for type hints must get them
from html import escape

from orchestrator_adapters.playwright._report_data import Attempt, JobLine, ago
from orchestrator_adapters.playwright._report_style import SIGNS, sign, signed

# Where bars begin, how much room all of them have, and how high a lane and a bar are.
LEFT, WIDTH = 150, 1000
LANE, BAR = 34, 22
# A bar must be wide enough to be seen, and a sign in it needs some room.
NARROWEST, NARROWEST_WITH_SIGN = 3, 16
# More than that many bars nobody can tell apart, and they make the page heavy.
MOST_BARS = 3000
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


def timeline(jobs: Sequence[JobLine]) -> str:
    """Return the picture with its key, or a sentence when nothing is known of when attempts ran."""
    bars = [(job, attempt) for job in jobs for attempt in job.attempts if attempt.started is not None]
    if not bars:
        return '<p class="soft">Nothing is known of when the attempts ran.</p>'
    bars.sort(key=lambda bar: bar[1].started or 0.0)
    hidden = len(bars) - MOST_BARS
    bars = bars[:MOST_BARS]
    begun = bars[0][1].started or 0.0
    span = max(max((attempt.started or 0.0) + attempt.seconds for _, attempt in bars) - begun, 0.001)
    lanes = sorted({attempt.lane for _, attempt in bars})
    height = len(lanes) * LANE + 26
    drawn = [
        *_grid(span, height - 22),
        *(_label(lane, row) for row, lane in enumerate(lanes)),
        *(_bar(job, attempt, lanes.index(attempt.lane), begun, span) for job, attempt in bars),
    ]
    died = sum(attempt.died for _, attempt in bars)
    told = f"{len(bars)} attempts on {len(lanes)} lanes within {ago(span)}, in {died} of them something died"
    note = f'<p class="soft">The first {MOST_BARS} attempts are drawn, {hidden} are not.</p>' if hidden > 0 else ""
    # A group, not an image: its bars are links, each with a name of its own.
    box = f"0 0 {LEFT + WIDTH + 20} {height}"
    return (
        f'<div class="card wide"><svg role="group" aria-label="{escape(told)}" viewBox="{box}" '
        f'width="100%" style="min-width:44rem">{"".join(drawn)}</svg>{_key(bars)}</div>{note}'
    )


def _label(lane: str, row: int) -> str:
    return f'<text class="lane" x="0" y="{row * LANE + LANE / 2 + 4:.0f}">{escape(lane or "unknown")}</text>'


def _grid(span: float, height: float) -> list[str]:
    step = next((step for step in STEPS if span / step <= 10), STEPS[-1])
    lines = []
    for number in range(int(span / step) + 1):
        x = LEFT + number * step / span * WIDTH
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.0f}"/>')
        label = f"{number * step:g} s" if step < 60 else f"{number * step / 60:g} min"
        lines.append(f'<text x="{x:.1f}" y="{height + 17:.0f}" text-anchor="middle">{label}</text>')
    return lines


def _bar(job: JobLine, attempt: Attempt, row: int, begun: float, span: float) -> str:
    x = LEFT + ((attempt.started or 0.0) - begun) / span * WIDTH
    width = max(NARROWEST, attempt.seconds / span * WIDTH - 1)
    y = row * LANE + (LANE - BAR) / 2
    text = f"{job.label}, attempt {attempt.number}: {attempt.status.replace('_', ' ')}, {ago(attempt.seconds)}"
    if attempt.text:
        text += f" - {attempt.text}"
    mark = ""
    if width >= NARROWEST_WITH_SIGN or attempt.died:
        shown = sign("crashed" if attempt.died else attempt.status)
        mark = f'<text class="mark" x="{x + width / 2:.1f}" y="{y + BAR / 2 + 5:.1f}">{shown}</text>'
    return (
        f'<a href="#job-{job.place}" aria-label="{escape(text)}"><title>{escape(text)}</title>'
        f'<rect class="is-{escape(attempt.status)}{" died" if attempt.died else ""}" x="{x:.1f}" y="{y:.0f}" '
        f'width="{width:.1f}" height="{BAR}" rx="3"/>{mark}</a>'
    )


def _key(bars: Sequence[tuple[JobLine, Attempt]]) -> str:
    seen = [status for status in SIGNS if any(attempt.status == status for _, attempt in bars)]
    items = "".join(f'<li><span class="status is-{status}">{escape(signed(status))}</span></li>' for status in seen)
    return f'<ul class="key" aria-label="Meaning of the colours">{items}</ul>'
