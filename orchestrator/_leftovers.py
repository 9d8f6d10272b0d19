"""Empty the kill sets of a supervisor that is gone: in its guardian, or when a later run finds its record."""

from __future__ import annotations

import os
import time

from orchestrator._killset import KillSet
from orchestrator.child import _orphan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Protocol

    from orchestrator._killset_process import System

    class Trace(Protocol):
        """What was recorded of a child; a `Birth` will do."""

        @property
        def pid(self) -> int: ...
        @property
        def started(self) -> float: ...
        @property
        def marker(self) -> str: ...
        @property
        def temp(self) -> str: ...


__all__ = ("sweep_left_behind",)

# A set with a process that cannot be killed must not keep the others waiting: each gets this long in a round. Killed
# processes are gone within milliseconds, so one round is all that others need.
_ROUND = 0.3

# How the name of a supervisor's folder of temp folders begins.
FOLDER = "orchestrator-"


def sweep_left_behind(
    births: Collection[Trace], timeout: float = 2.0, *, system: System | None = None
) -> tuple[int, ...]:
    """Kill all that is left of children whose supervisor is gone, and remove their temp folders; blocks.

    Nothing else is touched: a later process with the number of a dead child has another start time, and is no member.

    Args:
        births: The children, recorded since this system was started: start times of earlier days mean nothing now.
        timeout: Seconds to go on killing what does not die; each set is swept once in any case.
        system: The operating system; for tests.

    Returns:
        The pids that still live: they belong to another user, or wait for a disk.
    """
    end = time.monotonic() + timeout
    pending = [(birth, KillSet(birth.pid, birth.marker, started=birth.started, system=system)) for birth in births]
    while True:
        survivors: set[int] = set()
        stuck = []
        for birth, kill_set in pending:
            left = kill_set.sweep(min(_ROUND, max(0.0, end - time.monotonic())))
            if left:
                survivors.update(left)
                stuck.append((birth, kill_set))
            elif birth.temp and not os.path.islink(birth.temp):
                # Only now: whoever lives might write there again.
                _orphan.remove_folder(birth.temp)
        pending = stuck
        if not pending:
            _remove_folders({os.path.dirname(birth.temp) for birth in births if birth.temp})
        if not pending or time.monotonic() >= end:
            return tuple(sorted(survivors))


def _remove_folders(paths: Iterable[str]) -> None:
    """Remove the supervisor's folders, with those of children that were being started and nobody had recorded yet."""
    for path in paths:
        if os.path.basename(path).startswith(FOLDER) and not os.path.islink(path):
            _orphan.remove_tree(path)
