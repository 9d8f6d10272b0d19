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
    from typing import Any, NoReturn, Protocol

    from orchestrator.child._fixture import Hold
    from orchestrator.child._invoke import Limits
    from orchestrator.child._redact import Redactor

    class Host(Protocol):
        """What a scope needs of the child it is in (or of whatever runs the job instead).

        Attributes:
            resources: What is kept between jobs.
            params: What the supervisor tells all jobs.
            redactor: Takes secrets out of what is told to people; None where there are none.
            limits: `limits.largest` bounds a frame in bytes.
            copied: This process is a forked copy, which does not answer for the job.
            stopping: The whole child is to stop.
        """

        resources: Resources
        params: Params
        redactor: Redactor | None
        limits: Limits
        copied: bool

        @property
        def stopping(self) -> bool: ...
        def write(self, data: bytes) -> None: ...
        def log(self, frame: dict[str, Any]) -> None: ...
        def expect(self, answered: Callable[[dict[str, Any]], None]) -> int: ...
        def forget(self, request: int) -> None: ...
        def raise_if_cancelled(self) -> None: ...
        def must_not_block(self) -> bool: ...
        def report(self, text: str) -> None: ...
        def load_main(self) -> None: ...


# Progress is for people and health checks; more often than this nobody can tell the difference.
_PROGRESS_EVERY = 0.05
# So many items may be on their way before the job waits for its reader.
CREDITS = 16
# Calls of callbacks are small, and nobody may be waiting yet: enough that only a runaway job ever waits.
CALLS_AHEAD = 1000
_LONGEST_PROGRESS = 4096
# Numbers that every reader of JSON, and a journal, takes as they are.
_LARGEST_COUNT = 2**63


class JobCancelled(BaseException):
    """Raised inside a sync job that was cancelled or timed out; `except Exception` lets it pass."""


class Resources:
    """What is kept between jobs.

    Attributes:
        made: The resources by name, in the order in which they were made.
        roots: Processes that their factories started, as (pid, start time).
    """

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.roots: set[tuple[int, bytes]] = set()


class Params:
    """What the supervisor was given as `params`; each who asks gets a copy, so that no job sees what another did."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self._text = _wire.encode_json(params) if params else "{}"

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = _wire.decode_json(self._text)
        return found


class Credits:
    """A counter that blocks at zero; the reader thread (or the inline runtime) adds to it."""

    def __init__(self, start: int) -> None:
        self._free = start
        self._closed = False
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

    def take(self) -> bool:
        """Use one, waiting for it if need be; False when there will be none."""
        woken = 0
        while True:
            with self._lock:
                self._waiting -= woken
                if self._free > 0:
                    self._free -= 1
                    if self._free > 0:
                        self._wake()
                    return True
                if self._closed:
                    self._wake()
                    return False
                self._waiting += 1
            self._gate.acquire()
            woken = 1

    def add(self, count: int) -> None:
        """Give back `count`."""
        with self._lock:
            self._free += count
            self._wake()
        if self.notify is not None:
            self.notify()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._lock:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        """Let one who waits look; it wakes the next. One that was cancelled while it waited stays counted: no harm."""
        if self._waiting and self._gate.locked():
            self._gate.release()


class Scope:
    """One attempt as seen from inside.

    Args:
        fence: The attempt's number on the wire.
        host: Where it runs.

    Attributes:
        cancelled: The supervisor asked this attempt to end.
        ended_by: Why: `cancel` or `timeout`.
        raised: JobCancelled was raised in it; once is enough.
        in_user_code: It may be raised now.
        generator: The async generator that the attempt iterates.
        hold: The fixture of a sync job.
    """

    def __init__(self, fence: int, host: Host) -> None:
        self.fence = fence
        self.host = host
        self.cancelled = False
        self.ended_by: str | None = None
        self.raised = False
        self.in_user_code = False
        self.generator: Any = None
        self.hold: Hold | None = None
        self._credits: dict[bool, Credits] = {}
        self._lock = allocate_lock()
        # Of what is sent at most so often, by what it is: when it last was, and the latest that waits.
        self._sent: dict[object, float] = {}
        self._pending: dict[object, bytes] = {}
        self._flusher = False
        self._over = False

    def stop_requested(self) -> bool:
        return self.cancelled or self.host.stopping

    def cancel(self, why: str = "cancel") -> None:
        """Note that the supervisor asked it to end, and end its waits."""
        self.ended_by = self.ended_by or why
        self.cancelled = True
        self._close_credits()

    def _close_credits(self) -> None:
        for found in tuple(self._credits.values()):
            found.close()

    def credits(self, *, calls: bool) -> Credits:
        """Return what bounds the items of the attempt, or the calls of its caller's functions."""
        found = self._credits.get(calls)
        if found is None:
            found = self._credits.setdefault(calls, Credits(CALLS_AHEAD if calls else CREDITS))
            if self.cancelled or self._over:
                found.close()
        return found

    def progress(self, done: float, total: float | None, text: str) -> None:
        for name, number in (("done", done), ("total", total)):
            if number is not None and (isinstance(number, bool | str) or not hasattr(number, "__float__")):
                raise TypeError(f"progress({name}=…) takes a number, not {type(number).__name__}")
        if self.host.redactor is not None:
            text = self.host.redactor.text(text)
        frame = {"type": "progress", "fence": self.fence, "done": _plain(done) or 0, "total": _plain(total)}
        frame["text"] = text[:_LONGEST_PROGRESS]
        self._send_latest("progress", _wire.encode(frame))

    def usage(self, counts: dict[str, Any]) -> None:
        plain = {}
        for name, number in counts.items():
            if isinstance(number, bool | str) or not hasattr(number, "__float__"):
                raise TypeError(f"usage({name}=…) takes a number, not {type(number).__name__}")
            plain[name] = _plain(number)
            if plain[name] is None or abs(plain[name]) >= _LARGEST_COUNT:
                raise ValueError(f"usage({name}={number!r}) cannot be added up")
        if plain and not self._over:
            # At once: what an attempt has used counts, also if its child dies the moment after.
            self.host.write(_wire.encode({"type": "usage", "fence": self.fence, "counts": plain}))

    def _send_latest(self, what: object, line: bytes) -> None:
        """Send a frame now, or when it is time, unless a later one of the same kind comes before that."""
        now = time.monotonic()
        with self._lock:
            if self._over:
                return
            if now - self._sent.get(what, -1.0) < _PROGRESS_EVERY:
                self._pending[what] = line
                if not self._flusher:
                    self._flusher = True
                    start_new_thread(self._flush_later, ())
                return
            self._sent[what] = now
            self._pending.pop(what, None)
        self.host.write(line)

    def _flush_later(self) -> None:
        wait = _PROGRESS_EVERY
        while wait > 0:
            time.sleep(wait)
            with self._lock:
                now = time.monotonic()
                left = {what: self._sent[what] + _PROGRESS_EVERY - now for what in self._pending}
                # Sent under the lock: a progress that overtook its job's outcome would carry a fence that is over.
                self._flush([what for what, time_left in left.items() if time_left <= 0], now)
                wait = (
                    0.0 if self._over else min((time_left for time_left in left.values() if time_left > 0), default=0.0)
                )
                self._flusher = wait > 0

    def _flush(self, whats: list[object], now: float) -> None:
        lines = b"".join([self._pending.pop(what) for what in whats])
        for what in whats:
            self._sent[what] = now
        if lines:
            self.host.write(lines)

    def finish(self) -> None:
        """Send what is pending; afterwards the attempt says nothing more but its outcome."""
        with self._lock:
            self._over = True
            self._flush(list(self._pending), time.monotonic())
        self._close_credits()

    def log(self, text: str, level: str, fields: dict[str, Any]) -> None:
        plain = {key: value if _wire.find_inexact(value, key) is None else repr(value) for key, value in fields.items()}
        frame = {"type": "log", "fence": self.fence, "stream": "log", "level": level, "text": text, "fields": plain}
        if plain:
            self._line(frame, "log")
        self.host.log(frame)

    def _line(self, frame: dict[str, Any], path: str) -> bytes:
        line = _wire.encode(frame)
        if len(line) > self.host.limits.largest:
            raise TypeError(f"{path}: {len(line)} bytes are more than max_message_bytes={self.host.limits.largest}")
        return line

    def _item(self, value: Any) -> bytes:
        problem = _wire.find_inexact(value, "item")
        if problem is not None:
            raise TypeError(": ".join(problem))
        return self._line({"type": "item", "fence": self.fence, "value": value}, "item")

    def _take(self, *, calls: bool) -> None:
        credits = self.credits(calls=calls)
        if self.host.must_not_block():
            credits.try_take()
        elif not credits.take():
            self.end()

    def end(self) -> NoReturn:
        """Raise JobCancelled in what the job waits for."""
        self.host.raise_if_cancelled()  # as from a signal, so that it is raised once in the main thread
        raise JobCancelled("the job is over, or is to end")

    def emit(self, value: Any) -> None:
        line = self._item(value)
        self._take(calls=False)
        self.host.write(line)

    async def emit_async(self, value: Any) -> None:
        """Send an item without blocking the loop while the reader is behind."""
        line = self._item(value)
        credits = self.credits(calls=False)
        if not credits.try_take():
            import asyncio

            more = asyncio.Event()
            loop = asyncio.get_running_loop()

            def notify() -> None:
                try:
                    loop.call_soon_threadsafe(more.set)
                except RuntimeError:
                    return  # the loop is closed: nobody waits any more

            credits.notify = notify
            # Looked at again after `notify` is in place: a credit that came just before must not be missed.
            try:
                while not credits.try_take():
                    await more.wait()
                    more.clear()
            finally:
                credits.notify = None
        self.host.write(line)

    def call_back(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any], *, latest: bool) -> None:
        """Send one call of the caller's function number `index`; only those that may not be dropped are bounded."""
        problem = _wire.find_inexact(args, "callback.args") or _wire.find_inexact(kwargs, "callback.kwargs")
        if problem is not None:
            raise TypeError(": ".join(problem))
        frame = {"type": "callback", "fence": self.fence, "index": index, "args": args, "kwargs": kwargs}
        line = self._line(frame, "callback")
        if latest:
            self._send_latest(index, line)
        else:
            self._take(calls=True)
            self.host.write(line)

    def artifact(self, path: Any, name: str | None) -> None:
        full = os.path.abspath(os.fspath(path))
        frame = {"type": "artifact", "fence": self.fence, "path": full, "name": name or os.path.basename(full)}
        if os.path.isdir(full):
            frame.update(name=name or "", folder=True)
        elif not os.path.isfile(full):
            raise FileNotFoundError(f"artifact({path!r}): there is no such file or folder")
        self.host.write(_wire.encode(frame))


def _plain(number: Any) -> Any:
    """Return a number that JSON knows, from subclasses such as numpy's too."""
    if number is None or type(number) is int:
        return number
    value = float(number)
    return int(value) if value.is_integer() else value if value - value == 0.0 else None


scope_variable: ContextVar[Scope | None] = ContextVar("orchestrator_job", default=None)
# Threads that a job starts do not inherit its context: with a single job running, what they say is its.
_running: dict[int, Scope] = {}
_disabled = False

# Of a child that is a service: what it says, and whether it is to stop; it has no jobs.
service: Scope | None = None

# What runs this child, also while it runs no job.
host: Host | None = None

# Those of this process; outside a child they are kept for its life.
local_resources = Resources()
local_params = Params()


def current() -> Scope | None:
    """Return the running job's scope, or None outside a job."""
    if _disabled:
        return None
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
    global _disabled, service, host
    _disabled = True
    service = host = None
