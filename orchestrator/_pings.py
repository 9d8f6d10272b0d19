"""Asks every child for signs of life, with one timer for all, and does what their silence calls for."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator import _liveness

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._worker import Worker

PACE = _liveness.Pace()

# What the system says of a process that is not to be blamed for its silence.
_TRACED = b"\nTracerPid:"
_STATE = b"\nState:"


class Pinger:
    """Watches the children of one supervisor.

    Args:
        loop: The engine's loop.
        workers: Returns all workers.
        hang_timeout: See `Options`.
        log: Logs an event.
        looked: Called at every look.
    """

    def __init__(
        self,
        loop: GuardedLoop,
        workers: Callable[[], Iterable[Worker]],
        hang_timeout: float | None,
        log: Callable[..., None],
        looked: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._log = log
        self._looked = looked
        self._watch = _liveness.Watch(PACE.within(hang_timeout), hang_timeout)
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; children are watched from the moment they are ready."""
        self._watch.begin(self._loop.time(), _slept())
        self._wait()

    def stop(self) -> None:
        """Ask nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        healths = [worker.health for worker in self._workers()]
        pulses = [health.pulse for health in healths if health.pulse is not None]
        self._timer = self._loop.call_at(self._watch.next_look(pulses, self._loop.time()), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        reason = self._watch.amnesty(now, _slept())
        if reason is not None:
            self._log("supervisor.amnesty", "warning", reason=reason)
        for worker in self._workers():
            if reason is not None:
                worker.pardon()
            self._look_at(worker, now)
        self._looked()
        self._wait()

    def _look_at(self, worker: Worker, now: float) -> None:
        pulse = worker.health.pulse
        if pulse is None or worker.state != "ready":
            return
        verdict = self._watch.judge(pulse, now)
        if verdict is None:
            return
        if verdict == "ping":
            self._sent += 1
            worker.send({"type": "ping", "seq": self._sent})
            return
        excuse = _excuse(worker.child)
        if excuse is not None:
            pulse.restart(now)
            pulse.suspect = worker.health.suspect
        elif verdict == "suspect":
            worker.health.came_under_suspicion(now - pulse.heard)
        elif verdict == "doubt":
            worker.dump_stack()
        else:
            worker.health.hung(now - pulse.heard)


def _excuse(child: Any) -> str | None:
    """Return why a child's silence says nothing: somebody debugs it, or it waits for a disk."""
    if sys.platform != "linux" or child is None or child.pid is None:
        return None
    try:
        with open(f"/proc/{child.pid}/status", "rb") as file:
            text = file.read(4096)
    except OSError:
        return None  # it is gone; its death tells the rest
    tracer = text.partition(_TRACED)[2].split(b"\n", 1)[0].strip()
    if tracer not in (b"", b"0"):
        return "it is being debugged"
    if text.partition(_STATE)[2].strip()[:1] == b"D":
        return "it waits for a disk"
    return None


def _slept() -> float:
    """Return the seconds that the machine has slept, where the clock leaves them out."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
