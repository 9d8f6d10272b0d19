"""Kill one browser on purpose, midway: a process that the demo's own children started, found by its pid."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import Supervisor

# Nothing tells a bystander that a browser has been started: a look every few milliseconds is exact enough.
PAUSE = 0.02
# Of a job that has run this long the page is open, and nothing is published yet.
AMID = 0.3


@dataclass
class BrowserKill:
    """One browser, killed when a number of pins was published.

    Attributes:
        after: How many pins are to be published before.
        done: How many are; counted by whoever publishes.
        pid: The browser that was killed, or None while all live.
        child: The child that had started it.
        worker: Name of that child's worker.
        at: How many pins were published when it was killed.
    """

    after: int
    done: int = 0
    pid: int | None = None
    child: int = 0
    worker: str = ""
    at: int = 0

    async def watch(self, supervisor: Supervisor, say: Callable[[str], None]) -> None:
        """Wait for the moment, kill the browser of a child that is in the middle of a job, and say so."""
        since: dict[tuple[str, int | None, int], float] = {}
        while self.pid is None:
            await anyio.sleep(PAUSE)
            now = time.monotonic()
            workers = [each for each in supervisor.statistics().workers if each.running]
            since = {job: since.get(job, now) for job in ((each.name, each.pid, each.jobs_done) for each in workers)}
            for (worker, child, _), began in since.items():
                if self.done >= self.after and now - began >= AMID and child is not None and self.pid is None:
                    self._strike(worker, child)
        say(f"Killed browser {self.pid} of child {self.child} ({self.worker}) on purpose")

    def _strike(self, worker: str, child: int) -> None:
        # psutil knows a process by pid and start time: never anybody else's, not even if the pid was used again.
        for process in psutil.Process().children():
            browser = _browser_of(process) if process.pid == child else None
            if browser is not None:
                browser.kill()
                self.pid, self.child, self.worker, self.at = browser.pid, child, worker, self.done


def _browser_of(child: psutil.Process) -> psutil.Process | None:
    """Return the browser that a child has started, the process that all its other ones descend from."""
    try:
        for process in child.children(recursive=True):
            command = process.cmdline()
            # Playwright says so to every browser that it starts, and a browser says what its own processes are for.
            if any(each.startswith("--remote-debugging-p") for each in command) and not any(
                each.startswith("--type=") for each in command
            ):
                return process
    except psutil.Error:
        pass  # it is ending by itself
    return None
