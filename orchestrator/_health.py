"""The condition of one child: its signs of life, its size and its age, and what its worker does about them."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from orchestrator._child_files import open_file
from orchestrator._liveness import Pulse
from orchestrator._resources import Use, megabytes
from orchestrator._stacks import main_thread_of

if TYPE_CHECKING:
    import asyncio

    from orchestrator._child_process import Child
    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._inline import InlineChild
    from orchestrator._resources import Allowance
    from orchestrator._worker import Worker

# A dump is written within microseconds; this is for a machine that is very busy.
DUMP_TIME = 0.2
_LONGEST_DUMP = 256 * 1024


def read_stack(path: str) -> str:
    """Return the last stack that a child has written to a file, as a traceback; empty when there is none."""
    try:
        with open_file(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LONGEST_DUMP))
            return main_thread_of(file.read().decode("utf-8", "replace"))
    except OSError:
        return ""


class Health:
    """Follows one child.

    Args:
        worker: Whose child it is.
        child: The child; None before a worker's first.
        allowance: What it may use up.
        loop: The engine's loop.

    Attributes:
        pulse: Its signs of life, once it is ready; None of one without a process.
        use: What it has used up.
        suspect: It has been silent for long, and gets no job until it says something.
        stack: Where it was when it was killed for its silence.
    """

    def __init__(
        self, worker: Worker, child: Child | InlineChild | None, allowance: Allowance, loop: GuardedLoop
    ) -> None:
        self.pulse: Pulse | None = None
        self.use = Use(allowance)
        self.suspect = False
        self.stack = ""
        self._worker = worker
        self._child = child
        self._allowance = allowance
        self._loop = loop
        self._timers: list[asyncio.TimerHandle] = []

    def begin(self, *, watched: bool) -> None:
        """Follow it from now on: it is ready."""
        if watched:
            self.pulse = Pulse(self._loop.time())
        lifetime = self._allowance.lifetime(random.random)
        if lifetime is not None:
            self._timers.append(self._loop.call_later(lifetime, self.wear_out))

    def end(self) -> None:
        """Follow it no more: it is dead."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.pulse = None
        self.suspect = False

    # Silence

    def spoke(self, pulse: Pulse) -> None:
        """Note that it said something."""
        now = self._loop.time()
        if pulse.suspect:
            pulse.suspect = self.suspect = False
            self._log("worker.cleared", "info", silence=round(now - pulse.heard, 1))
        pulse.restart(now)

    def pardon(self) -> None:
        """Hold no silence up to now against it: it was we who did not listen."""
        if self.pulse is not None:
            self.pulse.restart(self._loop.time())

    def came_under_suspicion(self, silence: float) -> None:
        """Give it no more jobs, and have it say where it is; what it had not begun was called back long ago."""
        worker = self._worker
        self.suspect = True
        pid = None if self._child is None else self._child.pid
        self._log("worker.suspected", "warning", pid=pid, silence=round(silence, 1), last_heard=worker.last_heard)
        worker.dump_stack()
        self._timers.append(self._loop.call_later(DUMP_TIME, self._tell_stack))
        worker.pool.relieve(worker)

    def _tell_stack(self) -> None:
        stack = self.read_stack()
        if stack:
            self._log("worker.stack_dumped", "warning", stack=stack)

    def hung(self, silence: float) -> None:
        """Kill it, for it has been silent for too long."""
        worker = self._worker
        self.stack = self.read_stack()
        said = worker.last_heard
        worker.explain(f"it said nothing for {silence:.3g} s (hang_timeout); the last was a {said!r} frame")
        if self.stack:
            self._log("worker.stack_dumped", "warning", stack=self.stack)
        worker.kill("hang")

    def read_stack(self) -> str:
        """Return what the last `dump_stack` brought, as a traceback; empty when it brought nothing."""
        return "" if self._child is None else read_stack(self._child.stack_path())

    # Size and age

    def weighed(self, memory: int) -> None:
        """Hear how much memory it has with all its descendants."""
        worker = self._worker
        if worker.child is not self._child or worker.state == "dying":
            return
        verdict = self.use.weigh(memory)
        if verdict == "kill":
            limit = megabytes(self._allowance.memory_limit or 0)
            worker.explain(f"it had {megabytes(memory)} of memory with its descendants; memory_limit is {limit}")
            worker.kill("memory_limit")
        elif verdict is not None:
            self._log("worker.grew_large", "warning", memory=memory, max_rss=self._allowance.max_rss)
            if verdict == "recycle":
                self.wear_out()

    def wear_out(self) -> None:
        """Give it no more jobs, and have it replaced when it is idle."""
        self.use.worn = True
        self._worker.pool.relieve(self._worker)
        self._worker.settle_down()

    def _log(self, event: str, level: str, **fields: object) -> None:
        worker = self._worker
        worker.pool.log(event, level, worker=worker.name, generation=worker.generation, **fields)
