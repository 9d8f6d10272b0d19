"""Where a job is: the stack of a thread or of an async task as lines of text, from user code inwards.

Loaded before it is needed, and it imports nothing: user code that hangs in an import holds the import lock.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Entry = tuple[str, int, str]

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_INVOKE = os.path.join(_HERE, "_invoke.py")
_RUNNERS = ("run_sync", "run_async")
# More do not help whoever reads it; the innermost are kept.
_MOST = 200


def _entry(frame: Any) -> Entry:
    code = frame.f_code
    return code.co_filename, frame.f_lineno or 0, code.co_name


def thread_stack(ident: int) -> str:
    """Return where a thread is; if the job's own frames are set aside in a greenlet, where that waits.

    Playwright's sync API runs its event loop in a greenlet of the same thread: what the thread does tells nothing then.
    """
    entries = _entries(sys._current_frames().get(ident))
    if _is_elsewhere(entries):
        entries = next((found for found in _suspended() if not _is_elsewhere(found)), entries)
    return _text(entries)


def _entries(frame: Any) -> list[Entry]:
    entries: list[Entry] = []
    while frame is not None and len(entries) < 10 * _MOST:
        entries.append(_entry(frame))
        frame = frame.f_back
    entries.reverse()
    return entries


def _is_elsewhere(entries: list[Entry]) -> bool:
    return not any(path == _INVOKE and name in _RUNNERS for path, _, name in entries)


def _suspended() -> Iterator[list[Entry]]:
    """Yield where greenlets wait that another one of their thread keeps from running."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None:
        for found in gc.get_objects():  # some milliseconds, and nobody else has a list of them
            # By its type: isinstance would ask the object, which may be hostile.
            if issubclass(type(found), greenlet.greenlet) and found.gr_frame is not None:
                yield _entries(found.gr_frame)


def task_stack(task: Any, main: int, generator: Any = None) -> str:
    """Return where an asyncio task waits, or, if it is running right now, where the loop's thread `main` is.

    Args:
        task: The task that runs the job.
        main: The loop's thread.
        generator: The async generator that is the job's target, if it is one: its awaiter does not name it.
    """
    entries, running = _chain(task)
    if generator is not None:
        inner, also_running = _chain(generator)
        entries, running = entries + inner, running or also_running
    return thread_stack(main) if running else _text(entries)


def _chain(outermost: Any) -> tuple[list[Entry], bool]:
    """Follow who awaits whom; also says whether one of them is running, so that it awaits nobody."""
    entries: list[Entry] = []
    awaited = outermost
    while awaited is not None and len(entries) < 10 * _MOST:
        if hasattr(awaited, "get_coro"):
            task, awaited = awaited, awaited.get_coro()
            found, running = _chain(awaited)
            entries += found
            if running:
                return entries, True
            # A task that waits for another task: where that one is, is where this one hangs.
            following = getattr(task, "_fut_waiter", None)
            awaited = following if hasattr(following, "get_coro") else None
            continue
        for prefix, link in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(awaited, f"{prefix}_frame", None)
            if frame is not None:
                entries.append(_entry(frame))
                if getattr(awaited, f"{prefix}_running", False) and getattr(awaited, link, None) is None:
                    return entries, True
                awaited = getattr(awaited, link, None)
                break
        else:
            break
    return entries, False


def _text(entries: list[Entry]) -> str:
    """Format the part that is user code, or all when there is none."""
    first = 0
    for index, (path, _, name) in enumerate(entries):
        if path == _INVOKE and name in _RUNNERS:
            first = index + 1
            break
    user = [entry for entry in entries[first:] if not entry[0].startswith(_HERE)]
    return "".join(f'  File "{path}", line {line}, in {name}\n' for path, line, name in (user or entries)[-_MOST:])
