"""Things a child keeps between jobs: made at first use, closed when it stops."""

from __future__ import annotations

import os
import sys

from orchestrator.child._orphan import children_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.child._scope import Resources


def obtain(resources: Resources, name: str, factory: Callable[[], Any]) -> Any:
    """Return the resource `name`, made by `factory` if it does not exist yet; a failed factory leaves nothing."""
    found: Any = resources.made.get(name)
    if found is None and name not in resources.made:
        before = _processes()
        try:
            found = factory()
        finally:
            _claim(resources, before)
        if hasattr(found, "__await__"):
            found = _shared(resources, name, found, before)
        resources.made[name] = found
    if _is_future(found):
        import asyncio

        # Shielded: one job that is cancelled while it waits must not end what others wait for too.
        return asyncio.shield(found)
    return found


def _shared(resources: Resources, name: str, value: Any, before: set[tuple[int, bytes]]) -> Any:
    """Return one future for all who ask meanwhile; its failure is theirs, and the next to ask tries again."""
    import asyncio

    def made(done: asyncio.Future[Any]) -> None:
        _claim(resources, before)
        if done.cancelled() or done.exception() is not None:
            resources.made.pop(name, None)

    future = asyncio.ensure_future(value)
    future.add_done_callback(made)
    return future


def _is_future(value: Any) -> bool:
    """Return whether this is a future of asyncio, as asyncio itself tells."""
    return getattr(type(value), "_asyncio_future_blocking", None) is not None


def _processes() -> set[tuple[int, bytes]]:
    """Return this process's children as (pid, start time), where the system says."""
    if not sys.platform.startswith("linux"):
        return set()
    found = set()
    for pid in children_of(os.getpid()):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name in parentheses may hold anything; the start time is the 20th word after it.
                found.add((pid, file.read().rpartition(b")")[2].split()[19]))
        except (OSError, IndexError):
            continue
    return found


def _claim(resources: Resources, before: set[tuple[int, bytes]]) -> None:
    """Note which processes a factory started: they stay when a job that was cancelled is cleaned up after."""
    resources.roots |= _processes() - before


def living(resources: Resources) -> list[int]:
    """Return the pids of the processes that belong to resources, with all that these have started."""
    resources.roots &= _processes()
    found: list[int] = []
    pending = [pid for pid, _ in resources.roots]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children_of(pid)
    return sorted(found)


def close_all(resources: Resources, report: Callable[[str], None]) -> list[Any]:
    """Close the sync resources, last made first; return the ones that must be closed on their loop."""
    later: list[Any] = []
    for name in reversed(list(resources.made)):
        value = resources.made.pop(name)
        if _is_future(value) or hasattr(value, "aclose"):
            later.append(value)
            continue
        close = getattr(value, "close", None)
        if close is None:
            continue
        try:
            answer = close()
            if hasattr(answer, "__await__"):
                later.append(answer)
        except Exception as error:
            report(f"resource {name!r} did not close: {error!r}")
    return later


async def aclose_all(values: list[Any], report: Callable[[str], None]) -> None:
    """Close what needs a running loop."""
    for value in values:
        try:
            if _is_future(value):
                value = await value
            closer = getattr(value, "aclose", None) or getattr(value, "close", None)
            answer = value if closer is None else closer()
            if hasattr(answer, "__await__"):
                await answer
        except Exception as error:
            report(f"a resource did not close: {error!r}")
