"""The processes of a browser and its driver: whether they live, what memory they have, and their end."""

from __future__ import annotations

import os
import time

import psutil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MEGABYTE = 1024 * 1024
_PAUSE = 0.002
# A killed process is gone within milliseconds, unless the system itself hangs.
_DYING = 0.5


class Known:
    """Some processes of this moment, to tell later which ones are new.

    Args:
        parent: Whose children; by default those of this process.
    """

    def __init__(self, parent: psutil.Process | None = None) -> None:
        self._parent = parent
        self._before = set(children(parent))

    def new(self) -> list[psutil.Process]:
        """Return those that were started since."""
        return [each for each in children(self._parent) if each not in self._before]


def children(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """Return the children of a process, none of one that is gone."""
    try:
        found: list[psutil.Process] = (parent or psutil.Process(os.getpid())).children()
        return found
    except psutil.Error:
        return []


def is_alive(process: psutil.Process | None) -> bool:
    """Return whether a process still runs; one that nobody has buried yet does not."""
    if process is None:
        return False
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ends_within(process: psutil.Process, seconds: float) -> bool:
    """Wait for the end of a process; return whether it came."""
    until = time.monotonic() + seconds
    # It is the child of another process, so that nothing but a look tells.
    while is_alive(process):
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE)
    return True


def with_descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return processes with all that they have started and that is still below them."""
    found: list[psutil.Process] = []
    for root in roots:
        found.append(root)
        try:
            found += root.children(recursive=True)
        except psutil.Error:
            continue
    return found


def kill(roots: Iterable[psutil.Process]) -> None:
    """Kill processes with all their descendants, also stopped ones, and see them dead."""
    roots = list(roots)
    # All are looked up first: those whose parent is gone could not be found any more.
    for process in with_descendants(roots):
        try:
            process.kill()
        except psutil.Error:
            continue
    for root in roots:
        # Else whoever looks next takes it for one that still serves.
        ends_within(root, _DYING)


def megabytes(roots: Iterable[psutil.Process]) -> float:
    """Return the memory of processes and their descendants; shared pages count once where the system tells."""
    total = 0
    for process in with_descendants(roots):
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", 0) or memory.uss
        except psutil.Error:
            continue
    return total / _MEGABYTE
