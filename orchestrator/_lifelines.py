"""Take our ends of lifelines from processes that the host forks: a copy of an end keeps a child alive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A child leaves when its stdin ends, and that is when the last copy of our end is closed. Programs that are started
# with exec inherit none. A fork without exec (multiprocessing's, a web server's workers) has a copy of each.
_held: set[int] = set()
_registered = False


def hold(fds: Iterable[int]) -> None:
    """Count these file descriptors as ends of lifelines, until `release`."""
    global _registered
    _held.update(fds)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_let_go)


def release(fds: Iterable[int]) -> None:
    """Forget these file descriptors; called before they are closed, for their numbers are somebody else's then."""
    _held.difference_update(fds)


def _let_go() -> None:
    """In a forked process: put something harmless in the place of each end.

    They are not closed. Objects of ours were copied too and believe the numbers to be theirs; should one of them be
    finalised, it would close what the process has opened under that number since.
    """
    if not _held:
        return
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
    except OSError:
        nothing = -1
    for fd in _held:
        try:
            if nothing < 0:
                os.close(fd)  # no file descriptor is left to open: better a number in danger than a child that stays
            else:
                os.dup2(nothing, fd, inheritable=False)
        except OSError:
            continue
    _held.clear()
    if nothing >= 0:
        os.close(nothing)
