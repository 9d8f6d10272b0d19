"""How much memory a child has with all its descendants, looked up in a thread; and whether the kernel ran out of it.

Shared pages are counted once: the proportional set size (PSS) where the system has it, else what a process has for
itself (USS), and only where neither is to be had its whole resident set. Processes that left the tree of their parents
are not seen here; a burial finds them all the same.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING

from orchestrator._killset import Identity, KillSet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from typing import Any

    from orchestrator._guarded_loop import GuardedLoop

# A child is killed within two seconds of passing its limit; to look costs a tenth of a millisecond a child.
OFTEN = 0.5
# What is replaced between two jobs need not be seen as soon.
SELDOM = 1.0
# The thread may be in the middle of a look at a process that waits for a disk.
_LEAVE = 1.0

_PAGE = 4096
if sys.platform == "linux":
    _PAGE = os.sysconf("SC_PAGE_SIZE")


class Scale:
    """Weighs processes; remembers what it saw, for an idle process is not worth a second look."""

    def __init__(self) -> None:
        self._seen: dict[Identity, tuple[int, int]] = {}  # resident size → what was found out then
        self._fresh: dict[Identity, tuple[int, int]] = {}

    def weigh_tree(self, root: Identity) -> int | None:
        """Return the bytes that a process and its descendants have; None when it is gone."""
        family = KillSet(root.pid, "nobody's", started=root.started)
        if not family.root_lives():
            return None
        return sum(map(self._weigh, [root, *family.descendants()]))

    def next_round(self) -> None:
        """Forget who was not weighed since the last call."""
        self._seen, self._fresh = self._fresh, {}

    def _weigh(self, process: Identity) -> int:
        if sys.platform != "linux":
            return _weigh_by_psutil(process.pid)
        resident = _resident(process.pid)
        before = self._seen.get(process)
        if before is not None and before[0] == resident:
            found = before
        else:
            shares = _proportional(process.pid)
            found = resident, resident if shares is None else shares
        self._fresh[process] = found
        return found[1]


def _resident(pid: int) -> int:
    text = _read(f"/proc/{pid}/statm").split()
    return int(text[1]) * _PAGE if len(text) > 1 else 0


def _proportional(pid: int) -> int | None:
    """Return the PSS; None where the kernel has none, or keeps it from us: of a program that changed its user."""
    _, found, rest = _read(f"/proc/{pid}/smaps_rollup").partition(b"\nPss:")
    return int(rest.split(None, 1)[0]) * 1024 if found else None


def _read(path: str) -> bytes:
    """Return the beginning of a file of the system; empty when the process is gone."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, 8192)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _weigh_by_psutil(pid: int) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        try:
            return int(process.memory_full_info().uss)
        except (psutil.AccessDenied, AttributeError, OSError):
            return int(process.memory_info().rss)
    except psutil.Error:
        return 0


class Sampler:
    """Weighs children every now and then, in a thread of its own, so that nothing waits for it.

    Args:
        loop: Where `roots` and `told` are called.
        roots: Returns what is to be weighed, by any key.
        told: Called with a key and its bytes.
        interval: Seconds between two rounds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | GuardedLoop,
        roots: Callable[[], Iterable[tuple[Any, Identity]]],
        told: Callable[[Any, int], None],
        interval: float,
    ) -> None:
        self._loop = loop
        self._roots = roots
        self._told = told
        self._interval = interval
        self._rounds: queue.SimpleQueue[list[tuple[Any, Identity]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self, name: str) -> None:
        """Begin; `name` is the thread's."""
        # A daemon: when the kernel keeps it, in a look at a process that waits for a dead disk, the host can still end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            raise
        self._next_round()

    def stop(self) -> None:
        """End the thread, and tell nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rounds.put(None)

    def join(self) -> None:
        """Wait for the thread's end, for a moment."""
        if self._thread is not None:
            self._thread.join(_LEAVE)
            self._thread = None

    def _next_round(self) -> None:
        # The next one begins an interval after this one has ended: a slow machine is not made slower.
        self._timer = None
        if not self._stopped:
            self._rounds.put(list(self._roots()))

    def _weighed(self, found: list[tuple[Any, int]]) -> None:
        if self._stopped:
            return
        self._timer = self._loop.call_later(self._interval, self._next_round)
        for key, memory in found:
            self._told(key, memory)

    def _run(self) -> None:
        scale = Scale()
        while (roots := self._rounds.get()) is not None:
            found = []
            for key, root in roots:
                try:
                    memory = scale.weigh_tree(root)
                except (OSError, ValueError):
                    continue  # it ended in the middle of the look
                if memory is not None:
                    found.append((key, memory))
            scale.next_round()
            try:
                self._loop.call_soon_threadsafe(self._weighed, found)
            except RuntimeError:
                return  # the loop is closed


class OomCounter:
    """The kernel's own count of processes that it killed for want of memory, in the control group of this process.

    Only a rise of this counter proves that a killed child was one of them. Children are in the same group unless
    somebody moved them.

    Args:
        root: Where control groups are mounted.
        membership: The file that names the group of this process.
    """

    def __init__(self, root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> None:
        self._path = _find_counter(root, membership)
        self._last = self._count()

    def note(self) -> None:
        """Take what was counted up to now for the fate of others."""
        self._last = self._count()

    def rose(self) -> bool:
        """Return whether a process was killed since the last look; each counts for one child only."""
        now = self._count()
        if now is None or self._last is None or now <= self._last:
            self._last = now
            return False
        self._last += 1
        return True

    def _count(self) -> int | None:
        if self._path is None:
            return None
        for line in _read(self._path).splitlines():
            name, _, number = line.partition(b" ")
            if name == b"oom_kill" and number.strip().isdigit():
                return int(number)
        return None


def _find_counter(root: str, membership: str) -> str | None:
    """Return the file with the counter, of version 2 before version 1."""
    candidates = []
    for line in _read(membership).decode("utf-8", "replace").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        group = group.strip("/")
        if number == "0":
            candidates += [os.path.join(root, sub, group, "memory.events") for sub in ("", "unified")]
        elif "memory" in controllers.split(","):
            # Inside a container the group is the root of what is mounted, whatever it is called outside.
            candidates += [os.path.join(root, "memory", sub, "memory.oom_control") for sub in (group, "")]
    candidates.sort(key=lambda path: path.endswith("memory.oom_control"))
    found = next((path for path in candidates if os.path.exists(path)), None)
    return found
