"""What a child does when its parent is gone: kill what it started, remove its files, without importing anything."""

from __future__ import annotations

import os
import sys

from orchestrator import _wire

# From <sys/prctl.h> and <signal.h>.
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
# Rounds of looking for processes that were being forked while their parents were stopped.
_ROUNDS = 10


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent does; only asked for while the supervisor has no guardian.

    The end of stdin says it, too, but a thread hears that, and not while C code holds the interpreter's lock. Linux
    sends the signal at the end of the *thread* that started this process, so it is sound only because that thread is
    the one that runs the supervisor's loop for as long as this process lives. What this process started stays, which
    is why a guardian is better. Where a program stands between the two, the signal would speak of that program.
    """
    if not sys.platform.startswith("linux") or os.getppid() != parent:
        return
    import ctypes

    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # a C library without it, or none to be found
    if os.getppid() != parent:
        os._exit(_wire.EXIT_PARENT_GONE)  # it went before the kernel knew whom to tell


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, as far as this system says."""
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
    found: dict[int, None] = {}
    for _ in range(_ROUNDS):
        pending = [child for pid in (os.getpid(), *found) for child in children_of(pid) if child not in found]
        if not pending:
            break
        while pending:
            pid = pending.pop()
            found[pid] = None
            try:
                os.kill(pid, _signal.SIGSTOP)
            except OSError:
                continue
            pending += [child for child in children_of(pid) if child not in found]
    for pid in found:
        try:
            os.kill(pid, _signal.SIGKILL)
        except OSError:
            continue  # gone already


def remove_empty_folder(path: str) -> None:
    """Remove a temp folder that may be this child's, and the supervisor's, if nothing is in them."""
    if _wire.FOLDER in path:
        for folder in (path, os.path.dirname(path)):
            try:
                os.rmdir(folder)
            except OSError:
                return


def remove_folder(path: str) -> None:
    """Remove a child's temp folder, and the supervisor's if it was the last one in there."""
    remove_tree(path)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError:
        return  # other children have theirs in there


def remove_tree(path: str) -> None:
    """Remove a folder and all that is in it, as far as that is allowed."""
    folders = [path]
    # Each folder after what is in it: the list grows while it is walked, and is emptied from its end.
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        os.unlink(entry.path)
        except OSError:
            continue  # somebody else's file, or gone already: what is left keeps its folder
    for folder in reversed(folders):
        try:
            os.rmdir(folder)
        except OSError:
            continue
