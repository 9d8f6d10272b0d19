"""The browser's measurements: jobs with a warm browser beside plain Playwright, and what a child costs a publisher."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import _bench_jobs
import _browser
from _bench_publisher import Publisher, facts
from playwright.sync_api import sync_playwright

from orchestrator import BlockingSupervisor, Job, callback

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

Figures = dict[str, float | None]
PAGE = "data:text/html,<title>Pins</title><h1>Pins</h1><a href=one>one</a><a href=two>two</a>"
FACTS = {"title": "Pins", "links": 2}
PINS = [f"pin {number}" for number in range(5)]


def browser(rounds: int, jobs: int) -> Figures:
    """Measure one job in several ways that take turns, so that a busy moment of the machine hits all of them.

    Each way visits a page in a context of its own. The plain loop and the warm jobs keep their browser. The others
    start one for each job: with all of Playwright, as a function that stands by itself does, or on a kept driver.
    """
    from orchestrator_adapters.playwright import ArtifactPolicy, BrowserJob

    with (
        BlockingSupervisor(workers=1) as supervisor,
        sync_playwright() as playwright,
        ThreadPoolExecutor(1) as aside,
        tempfile.TemporaryDirectory(prefix="bench-browser-") as folder,
    ):
        policy = ArtifactPolicy(folder=folder)
        kept = playwright.chromium.launch(**launch_options())

        def relaunched() -> Any:
            fresh = playwright.chromium.launch(**launch_options())
            try:
                return visit(fresh)
            finally:
                fresh.close()

        def all_of_it() -> Any:
            with sync_playwright() as another:
                fresh = another.chromium.launch(**launch_options())
                try:
                    return visit(fresh)
                finally:
                    fresh.close()

        ways: dict[str, Callable[[], Any]] = {
            "warm": lambda: supervisor.run(BrowserJob(facts, args=(PAGE,), artifacts="off")),
            "evidence": lambda: supervisor.run(BrowserJob(facts, args=(PAGE,), artifacts=policy)),
            "plain": lambda: visit(kept),
            # On a thread of its own, for the sync API stands once on a thread.
            "launch": lambda: aside.submit(all_of_it).result(),
            "relaunch": relaunched,
        }
        times = in_turns(ways, rounds, jobs)
        kept.close()
    figures: Figures = {name: statistics.median(found) for name, found in times.items()}

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))

    return figures | {
        "against_plain": ratio("warm", "plain"),
        "against_launch": ratio("launch", "warm"),
        "against_relaunch": ratio("relaunch", "warm"),
    }


def publisher(rounds: int, small: int) -> Figures:
    """Measure somebody's own class called directly and in a child, by turns, and what a child costs by itself."""
    init = launch_options()
    job = Job("_bench_publisher:Publisher.publish", init=init, args=(PINS,))

    def direct() -> list[str]:
        told: list[int] = []
        titles: list[str] = Publisher(**init).publish(PINS, progress_callback=lambda done, total: told.append(done))
        return [*titles, str(told)]

    def in_child() -> list[str]:
        told: list[int] = []
        wrapped = callback(lambda done, total: told.append(done))
        titles: list[str] = supervisor.run(
            Job(job.target, init=init, args=job.args, kwargs={"progress_callback": wrapped})
        )
        return [*titles, str(told)]

    began = time.perf_counter()
    with BlockingSupervisor(workers=1) as supervisor:
        supervisor.run(_bench_jobs.noop, 0)
        created = time.perf_counter() - began
        trips = sorted(clocked(lambda: supervisor.run(_bench_jobs.noop, 0)) for _ in range(small))
        first = clocked(in_child)
        direct()
        times = in_turns({"direct": direct, "child": in_child}, rounds, 1)
        answers = {str(direct()), str(in_child())}
    if len(answers) != 1:
        raise AssertionError(f"the child's answer differs: {answers}")
    found = {name: statistics.median(each) for name, each in times.items()}
    return {**found, "first": first, "created": created, "round_trip": trips[small // 2]}


def visit(browser: Browser) -> Any:
    """Do what a job does, without one."""
    context = browser.new_context()
    found = facts(context.new_page(), PAGE)
    context.close()
    return found


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int, jobs: int) -> dict[str, list[float]]:
    """Run every way `jobs` times in each round, after one time that warms it; return seconds for a job, by round."""
    names = list(ways)
    answers = {name: way() for name, way in ways.items()}
    if len({str(answer) for answer in answers.values()}) != 1:
        raise AssertionError(f"the answers differ: {answers}")
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(clocked(lambda: [ways[name]() for _ in range(jobs)]) / jobs)  # noqa: B023  called here
    return times


def clocked(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def launch_options() -> dict[str, Any]:
    """Return what any of them needs to start the browser of this machine."""
    path = _browser.find().browser
    if path is None:
        raise RuntimeError(_browser.remedy(_browser.find()))
    return {"executable_path": path, "args": ["--no-sandbox"] if hasattr(os, "geteuid") and not os.geteuid() else []}
