"""The way in: which thread reads stdin when, and the jobs that came but have not started.

A reader thread reads stdin from the first instruction on. Once jobs run, the main thread reads for itself while it has
nothing else to do, which saves a switch of threads for each job; the reader thread only watches it, and takes over when
one job runs for longer than a quick one: somebody must always hear a cancel, or that the parent is gone.
"""

from __future__ import annotations

import os
import time
from _collections import deque
from _thread import allocate_lock, start_new_thread

from orchestrator import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.child._scope import Scope

    Frame = dict[str, Any]

# All that a pipe holds. A larger buffer would be mapped and unmapped by the allocator on every read.
_CHUNK = 65_536
# Seconds after which the reader thread takes stdin over from a main thread that is busy with one job.
_QUICK = 0.002


class Inbox:
    """Frames from stdin.

    Args:
        fd: Where to read.
        act: Called with each frame, on the thread that read it.
        begin: Called with a job's frame when the main thread takes it, while `lock` is held.
        ended: Called when stdin ends; does not return.

    Attributes:
        lock: Guards the jobs that wait. May be held while a frame is written, never taken by who writes one.
        stopping: The main thread is to leave when no job waits.
        closed: The main thread takes no more jobs; those that wait, and come, are to be given back.
    """

    def __init__(
        self, fd: int, act: Callable[[Frame], None], begin: Callable[[Frame], Scope], ended: Callable[[], None]
    ) -> None:
        self.lock = allocate_lock()
        self.stopping = False
        self.closed = False
        self._fd = fd
        self._act = act
        self._begin = begin
        self._ended = ended
        self._lines = _wire.Lines(2 * _wire.MAX_MESSAGE_BYTES)
        self._jobs: deque[Frame] = deque()
        self._deliver: Callable[[Frame], None] | None = None
        # Where the main thread waits while it does not read itself.
        self._gate = allocate_lock()
        self._gate.acquire()
        self._waiting = False
        self._main_reads = False  # who owns stdin: the main thread (between quick jobs) or the reader thread
        self._pumping = False  # the main thread is in a read
        self._started = 0  # jobs taken: tells the reader thread whether the same one still runs
        self._woken = False  # the main thread was waiting at the gate, and is not now
        # Where the reader thread waits while the main thread waits for jobs.
        self._rest = allocate_lock()
        self._rest.acquire()
        self._resting = False

    # The reader thread

    def start(self) -> None:
        """Start the reader thread."""
        start_new_thread(self._read, ())

    def _read(self) -> None:
        while True:
            seen = self._started
            self._pump()
            # Only now, with the whole batch handled: two threads that cut lines at once would mix up the jobs' order.
            if self._hand_over(seen):
                self._watch()

    def _hand_over(self, seen: int) -> bool:
        """Leave stdin to the main thread if it has something to gain by it; `seen` jobs were taken before the read."""
        with self.lock:
            if not self._started or self._deliver is not None:
                return False  # starting, or an async child, whose main thread never reads
            busy = self._started == seen and not self._woken
            self._woken = False
            if busy:
                return False  # the main thread has been at one job all the while: it would not read soon
            self._main_reads = True
            self._wake()
        return True

    def _watch(self) -> None:
        """Return when stdin is this thread's again: one job has been running for some time."""
        seen = -1
        while True:
            time.sleep(_QUICK)
            with self.lock:
                if seen != self._started:
                    seen = self._started
                    continue
                if not self._pumping:
                    self._main_reads = False
                    return
                self._resting = True  # until the next job: an idle child wakes for nothing
            self._rest.acquire()

    def _pump(self) -> None:
        """Read once and act on what came."""
        try:
            data = os.read(self._fd, _CHUNK)
        except OSError as error:
            end_protocol(f"cannot read frames: {error}")
        if not data:
            self._ended()
        lines, oversized = self._lines.feed(data)
        try:
            for line in lines:
                self._act(_wire.decode(line))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            end_protocol(f"not a frame of ours: {line[:200]!r} ({type(error).__name__}: {error})")
        if oversized:
            end_protocol(f"a frame is too long: {oversized[0][:200]!r}")

    # What came

    def put(self, frame: Frame) -> None:
        """Keep a job for the main thread, or hand it to the loop of an async child."""
        with self.lock:
            if self._deliver is not None:
                self._deliver(frame)
                return
            self._jobs.append(frame)
            self._wake()

    def take_back(self, fences: list[int]) -> list[int]:
        """Remove the jobs that have not started; returns their fences. Call it with `lock` held."""
        wanted = set(fences)
        back = [job["fence"] for job in self._jobs if job["fence"] in wanted]
        if back:
            kept = [job for job in self._jobs if job["fence"] not in wanted]
            self._jobs.clear()
            self._jobs.extend(kept)
        return back

    def waiting(self) -> list[int]:
        """Return the fences of the jobs that wait. Call it with `lock` held."""
        return [job["fence"] for job in self._jobs]

    def stop(self) -> None:
        """Let the main thread leave when it has done the jobs that wait."""
        with self.lock:
            self.stopping = True
            self._wake()

    def wake(self) -> None:
        """Let a main thread that waits for a condition look again."""
        with self.lock:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, False
        if waiting:
            self._woken = True
            self._gate.release()

    # The main thread

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for something that a frame brings about, before the first job."""
        while True:
            with self.lock:
                if true() or self.stopping:
                    return
                self._waiting = True
            self._gate.acquire()

    def take(self) -> tuple[Frame, Scope] | None:
        """Wait for the next job; None when there will be none."""
        while True:
            with self.lock:
                if self._jobs and not self.closed:
                    frame = self._jobs.popleft()
                    self._leave_stdin()
                    # Begun under the lock: from here on a recall finds it started and a cancel finds its scope.
                    return frame, self._begin(frame)
                if self.stopping:
                    self._leave_stdin()
                    return None
                if self._main_reads:
                    self._pumping = True
                else:
                    self._waiting = True
            if self._pumping:
                self._pump()
                self._pumping = False
            else:
                self._gate.acquire()

    def _leave_stdin(self) -> None:
        """Have the reader thread look again from now on."""
        self._started += 1
        if self._resting:
            self._resting = False
            self._rest.release()

    def adopt(self, deliver: Callable[[Frame], None]) -> None:
        """Hand jobs to an event loop from now on, those that came meanwhile first."""
        with self.lock:
            # All under the lock: a cancel that comes now must find the job, here or there.
            self._deliver = deliver
            for frame in self._jobs:
                deliver(frame)
            self._jobs.clear()


def end_protocol(problem: str) -> None:
    """End the child: without frames it is of no use. Does not return."""
    try:
        os.write(2, f"orchestrator child: {problem}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(_wire.EXIT_PROTOCOL)
