"""The end of the program: executors that still work are waited for, as those of the standard library are."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  whose own end must come after ours: event loops use its threads
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator_adapters.executor._pool import Pool

# The standard library's, under whose name programs already listen for what executors have to say.
logger = logging.getLogger("concurrent.futures")

_working: set[Pool] = set()
_begun = False


def watch(pool: Pool) -> None:
    """Wait for this pool, too."""
    _working.add(pool)


def forget(pool: Pool) -> None:
    """It has ended."""
    _working.discard(pool)


def has_begun() -> bool:
    """Return whether the program is about to end."""
    return _begun


def _wait_for_all() -> None:
    global _begun
    _begun = True
    for pool in list(_working):
        pool.shutdown(wait=False)
    for pool in list(_working):
        if pool.kill_running:
            pool.end_now()
    for pool in list(_working):
        pool.shutdown(wait=True)


def _forget_all() -> None:
    _working.clear()  # their threads are the parent's


# Not atexit: that comes when threads cannot be started any more, nor anything be handed to one. Those registered last
# come first.
_register: Any = threading._register_atexit  # type: ignore[attr-defined]
_register(_wait_for_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
