"""What a child does when its parent is gone: kill what it started, without importing anything."""

from __future__ import annotations

import os
import sys


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        return found  # it ended meanwhile, or this system has no such file
    return found


def kill_descendants() -> None:
    """Kill every descendant of this process, also those in sessions of their own."""
    if not sys.platform.startswith("linux"):
        return
    import _signal

    # Stopped first, parents before children, so that nobody starts another one while we look.
    found: list[int] = []
    pending = _children_of(os.getpid())
    while pending:
        pid = pending.pop()
        found.append(pid)
        try:
            os.kill(pid, _signal.SIGSTOP)
        except OSError:
            continue
        pending += _children_of(pid)
    for pid in found:
        try:
            os.kill(pid, _signal.SIGKILL)
        except OSError:
            continue  # gone already
