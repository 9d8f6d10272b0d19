"""The demo's second act: publish pins to a board on this machine with real browsers, one of which is killed midway."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
import time
import webbrowser
from typing import TYPE_CHECKING, Any

import _browser
import anyio
import psutil
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from _demo_browser import BrowserKill
    from _demo_show import Show
    from orchestrator_adapters.playwright import BrowserJob
    from rich.console import Console

    from orchestrator import Outcome, Supervisor

WORKERS = 2
PINS = 24
KILL_AT = 0.4
# What a real site does on a usual day, so that the run shows what becomes of it.
FAULTS: dict[str, Any] = {"errors": 0.04, "lost_answers": 0.04, "late": 0.3, "seed": 5}
PACKAGES = ("playwright", "starlette", "uvicorn", "python_multipart")


def second_act(number: int, folder: Path, progress: str, console: Console, *, opens: bool) -> int:
    """Publish so many pins and show what came of it; 0 too if this machine lacks what it takes, for nothing failed.

    Args:
        number: How many pins.
        folder: Where the report and the screenshots go.
        progress: `auto`, `bar`, `log` or `none`.
        console: Where to show it.
        opens: Whether to open the report in the user's browser.
    """
    console.print(f"\n[bold]Publishing {number} pins[/] to a board on this machine, with real browsers", soft_wrap=True)
    problem = missing(lambda line: console.print(line, soft_wrap=True))
    if problem:
        console.print(f"Left out: {problem}.", soft_wrap=True)
        return 0
    console.print(
        f"{WORKERS} children work on it; a browser will be killed when {KILL_AT:.0%} is done.", soft_wrap=True
    )
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / ".gitignore").write_text("*\n", "utf-8")  # made here: git passes it over
    shutil.rmtree(folder / "demo", ignore_errors=True)  # of an earlier demo
    try:
        return asyncio.run(_publish(number, folder, progress, console, opens))
    except KeyboardInterrupt:
        print("Interrupted: the report is made when all pins are published.", file=sys.stderr)
        return 130


def missing(say: Callable[[str], None]) -> str | None:
    """Return what this machine lacks to publish pins, or None; on Debian, as root, a browser is installed.

    Args:
        say: Is told what is being installed, or what a person has to install.
    """
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        names = " ".join(PACKAGES).replace("_", "-")
        return f"this Python lacks some of: {names}; install them, or start this without ORCHESTRATOR_VENV"
    if _browser.find().browser is None and _browser.provide(say).browser is None:
        return "it needs a browser"
    return None


async def _publish(number: int, folder: Path, progress: str, console: Console, opens: bool) -> int:
    from _demo_browser import BrowserKill
    from _demo_pin_report import PinReport
    from _demo_pins import make_pins
    from _demo_show import Show
    from _pin_board import PASSWORD, USERNAME, PinBoard
    from orchestrator_adapters.playwright import ArtifactPolicy, BrowserOptions
    from orchestrator_adapters.publisher import Pin, load_profile, publish_job, read_pins

    from orchestrator import Supervisor

    began = time.perf_counter()
    pins = [pin for pin in read_pins(make_pins(folder / "demo", number)) if isinstance(pin, Pin)]
    kill = BrowserKill(after=max(1, int(KILL_AT * number)))
    with PinBoard(**FAULTS) as board, Show(number, progress) as show:
        profile = load_profile("local").with_site(url=board.url)
        policy = ArtifactPolicy(trace="off", screenshot="on", folder=folder / "demo" / "artifacts")
        browser = BrowserOptions(executable=_browser.find().browser)
        # Named by their titles, which are all different: for people.
        jobs = [publish_job(pin, profile, browser=browser, artifacts=policy, key=pin.title) for pin in pins]
        login = dict(zip(profile.variables, (USERNAME, PASSWORD), strict=True))
        async with Supervisor(WORKERS, secrets=login) as supervisor:
            outcomes = await _run(supervisor, jobs, kill, show)
        report = PinReport(pins, outcomes, kill, board.url)
        checks = report.checks()
    left = psutil.Process().children(recursive=True)
    checks.append((not left, f"processes are left: {left}" if left else "every child and every browser has ended"))
    for ok, text in checks:
        console.print(
            Text("  ok    " if ok else "  FAIL  ", "green" if ok else "bold red") + Text(text), soft_wrap=True
        )
    path = report.write(folder / "report.html", f"{number} pins, published by {WORKERS} children")
    seconds = time.perf_counter() - began
    console.print(
        f"\nDone in {seconds:.1f} s. The report, with a picture of each page and all attempts:\n{path}",
        soft_wrap=True,
    )
    if opens:
        webbrowser.open(path.as_uri())
    return 0 if all(ok for ok, _ in checks) else 1


async def _run(supervisor: Supervisor, jobs: list[BrowserJob], kill: BrowserKill, show: Show) -> list[Outcome]:
    """Run all jobs, and kill a browser meanwhile."""
    outcomes = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill.watch, supervisor, show.say)
        async with supervisor.map(jobs) as arriving:
            async for outcome in arriving:
                outcomes.append(outcome)
                kill.done = len(outcomes)
                show.settled(outcome)
        tasks.cancel_scope.cancel()
    return outcomes
