"""Turn the results of a run into a table with ratios and a list of the budgets that are met or missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from _bench_driver import Runs, medians
from _bench_lines import ALL, BY_NAME, FLOOR, LINES, Metric, Unit
from _bench_peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OURS = "ours"
# aiomultiprocess is shown, but no budget compares with it: it buys rate with ten milliseconds of latency.
RIVALS = tuple(name for name in ALL if name not in (OURS, "aiomultiprocess"))


def show(value: float | None, unit: Unit) -> str:
    """Write a figure the way a person reads it."""
    if value is None:
        return "never"
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms")):
            if value * factor >= 1:
                return f"{value * factor:.3g} {name}"
        return f"{value * 1e6:.3g} µs"
    if unit == "/s":
        return f"{value:,.0f}"
    return f"{value:.3g}{'' if unit in ('', '%') else ' '}{unit}"


def table(runs: Runs) -> str:
    """Write the results as a Markdown table: medians, and in brackets how much worse than ours (below 1: better)."""
    present = [name for name in (*ALL, FLOOR, *PEERS) if any(name in found for found in runs.values())]
    columns = list(dict.fromkeys(present))
    rows = [["", *columns]]
    for line in LINES:
        found = runs.get(line.name, {})
        rows.extend([metric.title, *_cells(metric, found, columns)] for metric in line.metrics if found)
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns) + 1)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cells(metric: Metric, found: Mapping[str, list[dict[str, Any]]], columns: Sequence[str]) -> list[str]:
    ours = medians(found[OURS], metric.key)[0] if found.get(OURS) else None
    cells = []
    for name in columns:
        repeats = found.get(name)
        if not repeats:
            cells.append("–")
            continue
        value, _ = medians(repeats, metric.key)
        text = show(value, metric.unit)
        if value is None and all("problem" in repeat for repeat in repeats):
            text = "failed"
        elif value is None and name == FLOOR:
            text = "–"
        elif value and ours and name != OURS and metric.unit in ("s", "/s", "MB"):
            text += f" ({ours / value if metric.higher else value / ours:.2g})"
        cells.append(text)
    return cells


@dataclass(frozen=True)
class Verdict:
    """One budget, what was measured, and how far it is from the bound; `ratio` up to 1 means it is met."""

    budget: str
    measured: str
    ratio: float | None

    def __str__(self) -> str:
        if self.ratio is None:
            return f"?       {self.budget}: {self.measured}"
        word = "met" if self.ratio <= 1 else "MISSED"
        return f"{word:<7} {self.budget}: {self.measured} ({self.ratio:.2f} of the bound)"


def verdicts(runs: Runs) -> list[Verdict]:
    """Compare the medians with the budgets, as far as the lines were run."""

    def median(line: str, key: str, peer: str = OURS) -> float | None:
        return medians(runs.get(line, {}).get(peer, []), key)[0]

    def best(line: str, key: str, peers: Sequence[str] = RIVALS) -> float | None:
        values = [value for peer in peers if (value := median(line, key, peer)) is not None]
        higher = next(metric.higher for metric in BY_NAME[line].metrics if metric.key == key)
        return (max if higher else min)(values) if values else None

    found: list[Verdict] = []

    def at_most(budget: str, line: str, key: str, bound: float | None, ours: float | None = None) -> None:
        value = median(line, key) if ours is None else ours
        if line in runs and OURS in runs[line]:
            unit = next(metric.unit for metric in BY_NAME[line].metrics if metric.key == key)
            known = value is not None and bound is not None
            ratio = value / bound if value is not None and bound else (0.0 if known and value == 0 else None)
            found.append(Verdict(budget, f"{show(value, unit)} of {show(bound, unit) if known else '?'}", ratio))

    def at_least(budget: str, line: str, key: str, bound: float | None, ours: float | None = None) -> None:
        value = median(line, key) if ours is None else ours
        if line in runs and OURS in runs[line]:
            unit = next(metric.unit for metric in BY_NAME[line].metrics if metric.key == key)
            ratio = bound / value if value and bound else None
            found.append(Verdict(budget, f"{show(value, unit)}, asked {show(bound, unit) if bound else '?'}", ratio))

    def times(factor: float, value: float | None) -> float | None:
        return None if value is None else factor * value

    at_most("crash → error, below 50 ms", "crash", "error", 0.050)
    at_most("crash → error, below every peer", "crash", "error", best("crash", "error"))
    for line in ("cancel", "cancel-async", "cancel-tree"):
        at_most(f"{line} → gone, below 100 ms", line, "gone", 0.100)
    for line in ("cancel", "cancel-tree"):
        at_most(f"{line} → gone, below every peer", line, "gone", best(line, "gone"))
    for line in ("orphan-idle", "orphan-busy"):
        at_most(f"{line}, below 3 s", line, "life", 3.0)
        at_most(f"{line}, below every peer", line, "life", best(line, "life"))
    at_least(
        "no-op jobs ≥ 4 × ProcessPoolExecutor(spawn)", "noop", "rate", times(4, median("noop", "rate", "PPE(spawn)"))
    )
    others = tuple(name for name in RIVALS if name != "PPE(spawn)")
    at_least("no-op jobs ≥ 2 × the best of the other peers", "noop", "rate", times(2, best("noop", "rate", others)))
    at_most("round trip p50 ≤ the best peer", "round-trip", "p50", best("round-trip", "p50"))
    executor, library = "ours: executor", "PPE(spawn)"
    if executor in runs.get("noop", {}):
        rate = median("noop", "rate", executor)
        at_least(f"executor: no-op calls ≥ {library}", "noop", "rate", median("noop", "rate", library), rate)
    if executor in runs.get("round-trip", {}):
        p50 = median("round-trip", "p50", executor)
        at_most(f"executor: round trip p50 ≤ {library}", "round-trip", "p50", median("round-trip", "p50", library), p50)
    at_most("start ≤ 3.5 × python -c pass", "start", "first", times(3.5, median("start", "first", FLOOR)))
    at_most("start, below every peer", "start", "first", best("start", "first"))
    at_most("child killed → replacement ≤ 1.5 × start", "crash", "replaced", times(1.5, median("start", "first")))
    at_most("idle child ≤ bare interpreter + 6 MB", "memory", "above", 6.0)
    at_most("100 idle children below 1 % of a core", "idle", "cpu", 1.0)
    at_most("with spares=1: replacement ready within 20 ms", "spare", "ready", 0.02)
    at_most("no window over the limit", "limit", "most", 100)
    at_least("≥ 97 % of the safe rate used", "limit", "used", 97)
    at_most("run: parent's memory flat within 20 MB", "rows", "drift", 20.0)
    at_least("run: within 25 % of the no-op line", "rows", "rate", times(0.75, median("noop", "rate")))
    at_most("run --journal: parent's memory flat within 20 MB", "rows-journal", "drift", 20.0)
    at_least("run --journal ≥ 8,000 rows/s", "rows-journal", "rate", 8_000)
    at_most("browser job, warm browser ≤ 1.15 × a plain loop that keeps its browser", "browser", "against_plain", 1.15)
    at_least("browser job, warm browser ≥ 3 × one launch per job", "browser", "against_launch", 3)
    at_most("frozen app's service ready ≤ 1.3 × Streamlit by hand", "frozen", "against_hand", 1.3)
    at_most("frozen app with Streamlit below 200 MB", "frozen", "size", 200.0)
    at_most("single durable submit p50 ≤ 3 ms at power durability", "journal-submit", "p50", 0.003)
    return found


def legend(runs: Runs) -> str:
    """Say how each peer was asked to run its jobs, and which repeats failed or left processes behind."""
    lines = [
        "never: not within the bound (8 or 10 s); –: the pool offers no such thing, or was not asked;",
        "(n): how many times worse than ours, below 1 better",
    ]
    lines += [f"{name}: {kind.how}" for name, kind in PEERS.items() if any(name in found for found in runs.values())]
    for line, found in runs.items():
        for peer, repeats in found.items():
            problems = [repeat["problem"] for repeat in repeats if "problem" in repeat]
            if problems:
                lines.append(f"{line}, {peer}: {len(problems)} of {len(repeats)} repeats failed: {problems[0]}")
            for metric in BY_NAME[line].metrics:
                _, count = medians(repeats, metric.key)
                if 0 < count < len(repeats) - len(problems):
                    lines.append(f"{line}, {peer}: {metric.key} only in {count} of {len(repeats)} repeats")
            left = sum(repeat.get("left_behind", 0) for repeat in repeats)
            if left:
                lines.append(f"{line}, {peer}: left {left} processes behind, killed here")
    return "\n".join(lines)
