"""Help for tests: assert that a piece of code leaves no process, file, thread, task or folder behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("Resources", "leftovers", "nothing_left")

# What ends at all ends within milliseconds; a shorter pause would only heat the machine that is busy ending it.
_PAUSE = 0.02
# Windows opens handles of its own for libraries and its thread pool, and tells nobody.
_WINDOWS_HANDLES = 20
# Inherited by everything that is started: finds processes whose parent ended before them.
_MARKER = "ORCHESTRATOR_NOTHING_LEFT"

_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class Resources:
    """What this process owns at one moment; everything has an identity, so that a reused number is seen.

    Attributes:
        processes: Descriptions of descendants, zombies included, by process and start time.
        descriptors: Targets of open file descriptors by number; where only their count is known, by position.
        threads: Running threads by identity.
        tasks: Unfinished asyncio tasks of the running loop by identity, the current one left out.
        folders: Paths of our temporary folders.
    """

    processes: dict[psutil.Process, str]
    descriptors: dict[int, str]
    threads: dict[int, threading.Thread]
    tasks: dict[int, asyncio.Task[Any]]
    folders: frozenset[str]

    @classmethod
    def now(cls, marker: str | None = None) -> Resources:
        """Look around.

        Args:
            marker: Also count processes whose environment has this value, whoever their parent is now.
        """
        return cls(_processes(marker), _descriptors(), _threads(), _tasks(), _folders())


def leftovers(before: Resources, after: Resources) -> list[str]:
    """Describe what is in `after` and was not in `before`, one line each."""
    lines = [f"process {text}" for process, text in after.processes.items() if process not in before.processes]
    lines += [
        f"file descriptor {number}: {target}"
        for number, target in after.descriptors.items()
        if before.descriptors.get(number) != target
    ]
    lines += [
        f"thread {thread.name!r}" + (" (daemon)" if thread.daemon else "")
        for identity, thread in after.threads.items()
        if identity not in before.threads
    ]
    lines += [
        f"task {task.get_name()!r}: {getattr(task.get_coro(), '__qualname__', task.get_coro())}"
        for identity, task in after.tasks.items()
        if identity not in before.tasks
    ]
    return lines + [f"folder {path}" for path in sorted(after.folders - before.folders)]


class nothing_left:  # noqa: N801  used like a function: with nothing_left():
    """Assert on leaving that nothing was left behind that was not there on entering.

    Looks at descendant processes (zombies included), processes that lost their parent, open file descriptors,
    threads, asyncio tasks of the running loop and temporary folders named `orchestrator-*`. When the body raised,
    what is left becomes a note of its exception.

    ```python
    async with nothing_left():
        async with Supervisor(workers=2) as supervisor:
            await supervisor.run(scrape, "http://…")
    ```

    In a coroutine use `async with`: `with` would block the loop on which things are going away.

    Args:
        timeout: Seconds to wait for what is still going away; five, for a child that is being killed has four.

    Raises:
        AssertionError: On leaving, with one line for each thing that is left.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self._timeout = timeout

    def __enter__(self) -> Self:
        self._token = uuid.uuid4().hex
        self._outer = os.environ.get(_MARKER)
        self._before = Resources.now()
        os.environ[_MARKER] = self._token
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._restore()
        deadline = time.monotonic() + self._timeout
        while (left := self._look()) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        self._report(left, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._restore()
        deadline = time.monotonic() + self._timeout
        # Nobody says when a file is closed or a zombie reaped, so this is the one place that looks again and again.
        while (left := self._look()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE)
        self._report(left, error)

    def _restore(self) -> None:
        if self._outer is None:
            os.environ.pop(_MARKER, None)
        else:
            os.environ[_MARKER] = self._outer
        self._collected = False

    def _look(self) -> list[str]:
        left = leftovers(self._before, Resources.now(self._token))
        if left and not self._collected:
            # What only waits for the collector is not left behind; the ResourceWarning of a forgotten file still comes.
            self._collected = True
            gc.collect()
            left = leftovers(self._before, Resources.now(self._token))
        return left

    def _report(self, left: list[str], error: BaseException | None) -> None:
        if not left:
            return
        text = "\n  ".join(["left behind:", *left])
        if error is None:
            raise AssertionError(text)
        error.add_note(text)


def _processes(marker: str | None) -> dict[psutil.Process, str]:
    me = psutil.Process()
    found = me.children(recursive=True)
    if marker is not None:
        known = {process.pid for process in found} | {me.pid}
        # Our own environment had the marker only after we started, so the system does not show it for us.
        found += [each for each in psutil.process_iter() if each.pid not in known and _carries(each, marker)]
    described = {}
    for process in found:
        try:
            described[process] = _describe(process)
        except psutil.NoSuchProcess:
            pass
    return described


def _carries(process: psutil.Process, marker: str) -> bool:
    try:
        return process.environ().get(_MARKER) == marker
    except (psutil.Error, OSError):
        return False  # gone, a zombie, or somebody else's


def _describe(process: psutil.Process) -> str:
    with process.oneshot():
        state = process.status()
        try:
            command = " ".join(process.cmdline())
        except (psutil.AccessDenied, psutil.ZombieProcess):
            command = ""
        return f"{process.pid} ({state}, child of {process.ppid()}): {command or process.name()}"


def _descriptors() -> dict[int, str]:
    if sys.platform == "win32":
        return dict.fromkeys(range(psutil.Process().num_handles() // _WINDOWS_HANDLES), "one of many handles")
    if not _DESCRIPTORS.exists():
        return dict.fromkeys(range(psutil.Process().num_fds()), "one that was not open before")
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        try:
            found[int(name)] = os.readlink(_DESCRIPTORS / name).removesuffix(" (deleted)")
        except FileNotFoundError:
            pass  # the one that listed the folder
    return found


def _threads() -> dict[int, threading.Thread]:
    return {id(thread): thread for thread in threading.enumerate()}


def _tasks() -> dict[int, asyncio.Task[Any]]:
    try:
        current = asyncio.current_task()
    except RuntimeError:
        return {}  # no loop runs here
    return {id(task): task for task in asyncio.all_tasks() if task is not current}


def _folders() -> frozenset[str]:
    return frozenset(str(path) for path in Path(tempfile.gettempdir()).glob("orchestrator-*"))
