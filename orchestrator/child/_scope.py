"""The job that is running here: what it may say to the supervisor, and whether it should end."""

from __future__ import annotations

import os
import time
from _contextvars import ContextVar
from _thread import allocate_lock, start_new_thread

from orchestrator import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Progress is for people and health checks; more often than this nobody can tell the difference.
_PROGRESS_EVERY = 0.05
# So many items may be on their way before the job waits for its reader.
CREDITS = 16
# Calls of callbacks are small, and nobody may be waiting yet: enough that only a runaway job ever waits.
_CALL_CREDITS = 1000


class JobCancelled(BaseException):
    """Raised inside a sync job that was cancelled or timed out; not an Exception, so `except Exception` lets it pass."""


class Credits:
    """A counter that blocks at zero; the reader thread (or the inline runtime) adds to it."""

    def __init__(self, start: int) -> None:
        self._free = start
        self._lock = allocate_lock()
        self._gate = allocate_lock()
        self._gate.acquire()
        self._waiting = 0
        self.notify: Callable[[], None] | None = None

    def try_take(self) -> bool:
        """Use one if there is one."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
            return False

    def take(self) -> None:
        """Use one, waiting for it if need be."""
        while True:
            with self._lock:
                if self._free > 0:
                    self._free -= 1
                    return
                self._waiting += 1
            self._gate.acquire()

    def add(self, count: int) -> None:
        """Give back `count`."""
        with self._lock:
            self._free += count
            waiting, self._waiting = self._waiting, 0
        for _ in range(waiting):
            # A waiter that was cancelled in `acquire` leaves the gate open once: the next one looks and waits again.
            if self._gate.locked():
                self._gate.release()
        if self.notify is not None:
            self.notify()


class Scope:
    """One attempt as seen from inside.

    Args:
        fence: The attempt's number on the wire.
        send: Sends a frame.
        resources: The child's resources by name.
        stopping: Tells whether the whole child is stopping.
    """

    def __init__(
        self,
        fence: int,
        send: Callable[[dict[str, Any]], None],
        resources: dict[str, Any],
        stopping: Callable[[], bool],
        ask: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], int],
    ) -> None:
        self.fence = fence
        self.send = send
        self.resources = resources
        self.ask = ask
        self._stopping = stopping
        self.cancelled = False  # the supervisor asked this attempt to end
        self.raised = False  # JobCancelled was raised once; once is enough
        self.in_user_code = False
        self.credits = Credits(CREDITS)
        self.call_credits = Credits(_CALL_CREDITS)
        self._lock = allocate_lock()
        self._progress_sent = -1.0
        self._pending: dict[str, Any] | None = None
        self._flusher = False
        self._over = False

    def stop_requested(self) -> bool:
        return self.cancelled or self._stopping()

    def progress(self, done: float, total: float | None, text: str) -> None:
        for name, number in (("done", done), ("total", total)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
                raise TypeError(f"progress({name}=…) takes a number, not {type(number).__name__}")
        frame = {"type": "progress", "fence": self.fence, "done": _plain(done), "total": _plain(total), "text": text}
        now = time.monotonic()
        with self._lock:
            if now - self._progress_sent < _PROGRESS_EVERY:
                self._pending = frame
                if not self._flusher:
                    self._flusher = True
                    start_new_thread(self._flush_later, ())
                return
            self._progress_sent = now
            self._pending = None
        self.send(frame)

    def _flush_later(self) -> None:
        time.sleep(_PROGRESS_EVERY)
        with self._lock:
            self._flusher = False
            frame, self._pending = self._pending, None
            # Sent under the lock: a progress that overtook its job's outcome would carry a fence that is over.
            if frame is not None and not self._over:
                self._progress_sent = time.monotonic()
                self.send(frame)

    def finish(self) -> None:
        """Send what is pending; afterwards the attempt says nothing more but its outcome."""
        with self._lock:
            self._over = True
            frame, self._pending = self._pending, None
        if frame is not None:
            self.send(frame)

    def log(self, text: str, level: str, fields: dict[str, Any]) -> None:
        plain = {key: value if _wire.find_inexact(value, key) is None else repr(value) for key, value in fields.items()}
        self.send(
            {"type": "log", "fence": self.fence, "stream": "log", "level": level, "text": text, "fields": plain}
        )

    def emit(self, value: Any) -> None:
        problem = _wire.find_inexact(value, "item")
        if problem is not None:
            raise TypeError(": ".join(problem))
        self.credits.take()
        self.send({"type": "item", "fence": self.fence, "value": value})

    async def emit_async(self, value: Any) -> None:
        """Send an item without blocking the loop while the reader is behind."""
        problem = _wire.find_inexact(value, "item")
        if problem is not None:
            raise TypeError(": ".join(problem))
        if not self.credits.try_take():
            import asyncio

            more = asyncio.Event()
            loop = asyncio.get_running_loop()
            self.credits.notify = lambda: (loop.call_soon_threadsafe(more.set), None)[1]
            # Looked at again after `notify` is in place: a credit that came just before must not be missed.
            while not self.credits.try_take():
                await more.wait()
                more.clear()
            self.credits.notify = None
        self.send({"type": "item", "fence": self.fence, "value": value})

    def call_back(self, frame: dict[str, Any], latest: bool) -> None:
        """Send one call of the caller's function; only those that may not be dropped are bounded."""
        if not latest:
            self.call_credits.take()
        self.send(frame)

    def artifact(self, path: Any, name: str | None) -> None:
        full = os.path.abspath(os.fspath(path))
        if not os.path.isfile(full):
            raise FileNotFoundError(f"artifact({path!r}): there is no such file")
        self.send({"type": "artifact", "fence": self.fence, "path": full, "name": name or os.path.basename(full)})


def _plain(number: Any) -> Any:
    """Return a number that JSON knows, from subclasses such as numpy's too."""
    if number is None or type(number) is int:
        return number
    value = float(number)
    return int(value) if value.is_integer() else value if value - value == 0.0 else None


scope_variable: ContextVar[Scope | None] = ContextVar("orchestrator_job", default=None)
# Threads that a job starts do not inherit its context: with a single job running, what they say is its.
_running: dict[int, Scope] = {}


def current() -> Scope | None:
    """Return the running job's scope, or None outside a job."""
    scope = scope_variable.get()
    if scope is None and len(_running) == 1:
        for scope in _running.copy().values():
            return scope
    return scope


def enter(scope: Scope) -> None:
    """Note that a job starts in this process."""
    _running[scope.fence] = scope


def leave(scope: Scope) -> None:
    """Note that it ended."""
    _running.pop(scope.fence, None)


def disable() -> None:
    """Make the functions for job code inert, as a forked copy of a child must."""
    _running.clear()
    scope_variable.set(None)
