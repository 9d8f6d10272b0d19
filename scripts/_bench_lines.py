"""What is measured: every line of the bench with its figures, its sizes and who takes part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from _bench_peers import EVERYBODY, Ours, OursExecutor, OursMap, OursRun, OursUvloop, Peer

FLOOR = "python -c pass"  # not a pool: what starting an interpreter costs on this machine

Unit = Literal["s", "/s", "MB", "%", ""]


@dataclass(frozen=True)
class Metric:
    """One figure of a line.

    Attributes:
        key: Its name in the results file.
        title: Its row in the table.
        unit: Seconds, a rate, megabytes, percent or a plain number.
        higher: Whether more is better.
    """

    key: str
    title: str
    unit: Unit
    higher: bool = False


@dataclass(frozen=True)
class Line:
    """One measurement that runs in a process of its own, once per peer and repeat.

    Attributes:
        name: What `--only` calls it.
        metrics: The figures it yields.
        peers: Who takes part; names of pools, or FLOOR.
        sizes: Parameters of a full run.
        quick: Parameters that differ with `--quick`.
        timeout: Seconds after which one run is given up and its processes are killed.
        browser: Whether it drives a real browser.
        asked: Whether it is only run when `--only` names it, for it takes minutes to prepare.
        weight: How many times the asked number of repeats is run: short, jumpy measurements need more of them.
    """

    name: str
    metrics: tuple[Metric, ...]
    peers: tuple[str, ...]
    sizes: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    timeout: float = 60.0
    weight: float = 1.0
    browser: bool = False
    asked: bool = False


def _names(*peers: type[Peer]) -> tuple[str, ...]:
    return tuple(peer.name for peer in peers)


ALL = _names(*EVERYBODY)
CANCELLERS = tuple(peer.name for peer in EVERYBODY if peer.cancels)
OURS = _names(Ours)

LINES: tuple[Line, ...] = (
    Line(
        "noop",
        (
            Metric("rate", "no-op jobs a second, 2 workers, 4,000 in flight", "/s", higher=True),
            Metric("parent_cpu", "… CPU of the parent for each job", "s"),
        ),
        ALL + _names(OursRun, OursMap, OursUvloop, OursExecutor),
        {"jobs": 20_000, "window": 4_000, "workers": 2},
        {"jobs": 5_000},
        timeout=90,
    ),
    Line(
        "round-trip",
        (
            Metric("p50", "round trip of one small job, p50", "s"),
            Metric("p99", "… p99", "s"),
        ),
        ALL + _names(OursUvloop, OursExecutor),
        {"jobs": 2_000},
        {"jobs": 500},
    ),
    Line(
        "start",
        (
            Metric("first", "pool made → first result, one worker", "s"),
            Metric("imports", "… importing the pool's modules before that", "s"),
        ),
        (FLOOR, *ALL),
        timeout=30,
        weight=3,
    ),
    Line(
        "crash",
        (
            Metric("error", "busy child killed → the job's error", "s"),
            Metric("replaced", "busy child killed → next job answered", "s"),
        ),
        ALL,
        {"bound": 10},
        timeout=45,
        weight=2,
    ),
    Line(
        "spare",
        (
            Metric("ready", "with spares=1: child killed → its replacement ready", "s"),
            Metric("replaced", "… → next job answered, importing its module included", "s"),
        ),
        OURS,
        {"bound": 10},
        timeout=45,
        weight=4,
    ),
    Line(
        "neighbours",
        (Metric("failed", "… jobs of the three other busy children that failed too", ""),),
        ALL,
        {"bound": 10},
        weight=0.2,
    ),
    Line(
        "idle-crash",
        (
            Metric("replaced", "idle child killed → next job answered", "s"),
            Metric("failed", "… jobs that failed meanwhile", ""),
        ),
        ALL,
        {"bound": 10},
        timeout=45,
        weight=2,
    ),
    Line(
        "cancel",
        (Metric("gone", "cancel → sleeping sync job gone", "s"),),
        CANCELLERS,
        {"target": "hold", "bound": 8},
        weight=2,
    ),
    Line(
        "cancel-async",
        (Metric("gone", "cancel → sleeping async job gone", "s"),),
        OURS,
        {"target": "hold_async", "bound": 8},
        weight=2,
    ),
    Line(
        "cancel-tree",
        (Metric("gone", "cancel → sync job and its helper process gone", "s"),),
        CANCELLERS,
        {"target": "hold_tree", "bound": 8},
        weight=2,
    ),
    Line(
        "cancel-deaf",
        (Metric("gone", "cancel → deaf job gone (ours: grace 0.5 s, pebble: 3 s)", "s"),),
        CANCELLERS,
        {"target": "hold_deaf", "bound": 8, "grace": 0.5},
    ),
    Line(
        "orphan-idle",
        (Metric("life", "parent killed → idle child and helpers gone", "s"),),
        ALL,
        {"busy": False, "bound": 8},
    ),
    Line(
        "orphan-busy",
        (Metric("life", "parent killed → busy child and helpers gone", "s"),),
        ALL,
        {"busy": True, "bound": 8},
    ),
    Line(
        "memory",
        (
            Metric("above", "memory of an idle child above a bare interpreter", "MB"),
            Metric("uss", "… unshared memory (USS) of the child", "MB"),
            Metric("helpers", "… unshared memory of the pool's helper processes", "MB"),
        ),
        ALL,
    ),
    Line(
        "idle",
        (
            Metric("cpu", "CPU of the supervisor of 100 idle children, of one core", "%"),
            Metric("children", "… of the 100 children together", "%"),
        ),
        OURS,
        {"workers": 100, "seconds": 10},
        {"seconds": 5},
        timeout=120,
    ),
    *(
        Line(
            f"payload-{title.replace(' ', '').lower()}",
            (Metric("p50", f"round trip of {title} of text, p50", "s"),),
            ALL,
            {"size": size, "jobs": jobs},
            {"jobs": max(3, jobs // 4)},
        )
        for title, size, jobs in (("1 KB", 1_000, 500), ("1 MB", 1_000_000, 30), ("10 MB", 10_000_000, 6))
    ),
    Line(
        "limit",
        (
            Metric("used", "limit of 100 a second, 4 children: share of the safe rate used", "%", higher=True),
            Metric("most", "… most jobs in any window of one second", ""),
        ),
        OURS,
        {"workers": 4, "rate": 100, "per": 1.0, "seconds": 10},
        {"seconds": 4},
    ),
    Line(
        "rows",
        (
            Metric("rate", "rows a second through `orchestrator run`, 2 workers", "/s", higher=True),
            Metric("drift", "… growth of the parent's memory after the first tenth", "MB"),
            Metric("peak", "… largest memory of the parent", "MB"),
        ),
        OURS,
        {"rows": 1_000_000, "workers": 2},
        {"rows": 50_000},
        timeout=900,
        weight=0.2,
    ),
    Line(
        "rows-journal",
        (
            Metric("rate", "… with a journal, at process durability", "/s", higher=True),
            Metric("drift", "… growth of the parent's memory after the first tenth", "MB"),
            Metric("peak", "… largest memory of the parent", "MB"),
        ),
        OURS,
        {"rows": 1_000_000, "workers": 2, "journal": True},
        {"rows": 50_000},
        timeout=900,
        weight=0.2,
    ),
    Line(
        "journal-submit",
        (
            Metric("p50", "one `submit` with a journal at power durability, p50", "s"),
            Metric("p99", "… p99", "s"),
        ),
        OURS,
        {"jobs": 1_000},
        {"jobs": 200},
    ),
    Line(
        "journal-rate",
        (
            Metric("rate", "jobs a second that the journal records, 3 steps each, 4,000 in flight", "/s", higher=True),
            Metric("cpu", "… CPU for each job, the loop's and the thread's", "s"),
        ),
        OURS,
        {"jobs": 100_000, "window": 4_000},
        {"jobs": 20_000},
    ),
    Line(
        "cache",
        (
            Metric("small", "a number that the cache has, p50", "s"),
            Metric("small_rate", "… so many a second, one by one in each of 2 children", "/s", higher=True),
            Metric("p50", "an embedding that the cache has (file, 8 KB), p50", "s"),
            Metric("p99", "… p99", "s"),
            Metric("rate", "… so many a second, one by one in each of 2 children", "/s", higher=True),
            Metric("fill", "… computed, and kept in the file, p50", "s"),
            Metric("many", "… with `get_many`, 100 at a time, one child", "/s", higher=True),
            Metric("many_filled", "… with `get_many`, computed and kept", "/s", higher=True),
            Metric("large", "10 MB that the cache has", "s"),
            Metric("large_filled", "… computed and kept", "s"),
        ),
        OURS,
        {"hits": 4_000, "workers": 2, "batch": 100, "large": 10_000_000},
        {"hits": 1_000},
    ),
    Line(
        "browser",
        (
            Metric("warm", "one browser job, the child's browser is warm", "s"),
            Metric("plain", "… a plain Playwright loop that keeps its browser", "s"),
            Metric("against_plain", "… the job, times the plain loop", ""),
            Metric("launch", "… Playwright and a browser started for each job", "s"),
            Metric("against_launch", "… that, times the job", "", higher=True),
            Metric("relaunch", "… a browser started for each job, Playwright's driver kept", "s"),
            Metric("against_relaunch", "… that, times the job", "", higher=True),
            Metric("evidence", "… the job with the usual evidence: a trace, kept if it fails", "s"),
        ),
        OURS,
        {"rounds": 12, "jobs": 5},
        {"rounds": 6, "jobs": 3},
        timeout=600,
        weight=0.2,
        browser=True,
    ),
    Line(
        "publisher",
        (
            Metric("direct", "somebody's class publishes 5 pins, called directly", "s"),
            Metric("child", "… in a child that runs", "s"),
            Metric("first", "… in a child for the first time, importing Playwright included", "s"),
            Metric("created", "… the child by itself: supervisor opened → first answer", "s"),
            Metric("round_trip", "… the job by itself, without work, p50", "s"),
        ),
        OURS,
        {"rounds": 10, "small": 500},
        {"rounds": 5, "small": 200},
        timeout=600,
        weight=0.2,
        browser=True,
    ),
    Line(
        "service",
        (
            Metric("by_hand", "`python -m streamlit run` started by hand → it answers", "s"),
            Metric("streamlit", "a Streamlit service started → ready", "s"),
            Metric("against_hand", "… times the one by hand", ""),
            Metric("streamlit_restart", "… killed → ready again", "s"),
            Metric("plain", "a service of the standard library's HTTP server started → ready", "s"),
            Metric("plain_restart", "… killed → ready again", "s"),
        ),
        OURS,
        {"rounds": 5},
        {"rounds": 3},
        timeout=600,
        weight=0.2,
    ),
    Line(
        "frozen",
        (
            Metric("by_hand", "`python -m streamlit run` started by hand → it answers", "s"),
            Metric("frozen", "in a frozen app (onedir): a Streamlit service started → ready", "s"),
            Metric("against_hand", "… times the one by hand", ""),
            Metric("frozen_restart", "… killed → ready again", "s"),
            Metric("app", "… the app started → its service ready", "s"),
            Metric("size", "… size of the app's folder", "MB"),
        ),
        OURS,
        {"rounds": 5},
        {"rounds": 3},
        timeout=1800,
        weight=0.2,
        asked=True,
    ),
)

BY_NAME = {line.name: line for line in LINES}
