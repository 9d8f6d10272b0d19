"""Kill one child of a run on purpose, midway, and note what became of its worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import psutil

if TYPE_CHECKING:
    from orchestrator import Supervisor
    from orchestrator._statistics import WorkerStatistics

# Nothing tells a bystander that a job has ended or a child is ready: a look every few milliseconds is exact enough.
PAUSE = 0.01


@dataclass
class Kill:
    """One child, killed when a share of the jobs was done.

    Attributes:
        after: How many jobs are to be done before.
        pid: The child that was killed, or None while all live.
        worker: Name of its worker.
        done: How many jobs were done.
        successor: The worker's next child.
        seconds: From the kill until the next child was ready.
    """

    after: int
    pid: int | None = None
    worker: str = ""
    done: int = 0
    successor: int | None = None
    seconds: float = 0.0

    async def watch(self, supervisor: Supervisor) -> None:
        """Wait for the moment, kill a child that is running a job, and wait for the one that takes its place."""
        before: dict[tuple[str, int | None], int] = {}
        while True:
            statistics = supervisor.statistics()
            done = sum(statistics.settled.values())
            # One that finished nothing since the last look is in the middle of a job, not between two.
            amid = [each for each in statistics.workers if each.running and before.get(_of(each)) == each.jobs_done]
            if done >= self.after and any(self._strike(each, done) for each in amid):
                break
            before = {_of(each): each.jobs_done for each in statistics.workers if each.running}
            await anyio.sleep(PAUSE)
        struck = time.perf_counter()
        while self.successor is None:
            await anyio.sleep(PAUSE)
            for each in supervisor.statistics().workers:
                if each.name == self.worker and each.state in ("ready", "busy") and each.pid != self.pid:
                    self.successor, self.seconds = each.pid, time.perf_counter() - struck

    def _strike(self, worker: WorkerStatistics, done: int) -> bool:
        # psutil knows a process by pid and start time: never anybody else's, not even if the pid was used again.
        for child in psutil.Process().children():
            if child.pid == worker.pid:
                child.kill()
                self.pid, self.worker, self.done = child.pid, worker.name, done
                return True
        return False


def _of(worker: WorkerStatistics) -> tuple[str, int | None]:
    return worker.name, worker.pid
