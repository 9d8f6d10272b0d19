"""The state of one child and its two directions: frames out under a lock, frames in by a reader thread.

The reader thread owns stdin from the first instruction to the last. It answers pings, delivers cancels, takes back
jobs that have not started, and when stdin ends (the parent is gone) it ends the child and all that the child started.
It imports nothing: user code that hangs in an import holds the import lock.
"""

from __future__ import annotations

import os
import sys
import time
from _collections import deque
from _thread import allocate_lock, get_ident, interrupt_main, start_new_thread

from orchestrator import _wire
from orchestrator.child import _scope, _target
from orchestrator.child._invoke import Limits
from orchestrator.child._scope import JobCancelled, Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.child._stdio import LineWriter

# Lines a child may print in a burst, and per second after it; what is above is counted and dropped.
_LOG_BURST = 10_000
_LOG_RATE = 5_000


class Runtime:
    """One child.

    Attributes:
        flavour: None until the first job, then `plain` or `async`.
        stopping: The supervisor asked the child to stop.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in = incoming
        self._out = outgoing
        self._lock = allocate_lock()  # guards writes: frames never mix
        self._main = get_ident()
        self._masked = 0
        self._inbox_lock = allocate_lock()
        self._jobs: deque[dict[str, Any]] = deque()
        self._gate = allocate_lock()
        self._gate.acquire()
        self._waiting = False
        self._asks: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._next_ask = 0
        self._targets: dict[str, _target.Target] = {}
        self.scopes: dict[int, Scope] = {}
        self.resources: dict[str, Any] = {}
        self.flavour: str | None = None
        self.stopping = False
        self.init: dict[str, Any] = {}
        self.limits = Limits(None, _wire.MAX_MESSAGE_BYTES)
        self.running: Scope | None = None  # of a plain child: what the main thread runs
        self.deliver: Callable[[dict[str, Any]], None] | None = None  # of an async child: hands a job to its loop
        self.cancel_async: Callable[[int], None] | None = None
        self.out: LineWriter | None = None
        self.err: LineWriter | None = None
        self._log_tokens = float(_LOG_BURST)
        self._log_time = time.monotonic()
        self._log_dropped = 0

    # Out

    def send(self, frame: dict[str, Any]) -> None:
        """Write a frame, whole, even if a cancel arrives meanwhile."""
        self.write(_wire.encode(frame))

    def write(self, data: bytes) -> None:
        """Write whole lines; ends the child when nobody can read them any more."""
        main = get_ident() == self._main
        if main:
            self._masked += 1
        try:
            with self._lock:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._out, rest) :]
        except BrokenPipeError:
            self._parent_gone()
        except OSError:
            # User code closed a file descriptor that is not its own: without it nothing can be said any more.
            os._exit(_wire.EXIT_PROTOCOL)
        finally:
            if main:
                self._masked -= 1
        if main and not self._masked and self.running is not None:
            self.raise_if_cancelled()

    def log(self, frame: dict[str, Any]) -> None:
        """Send a log frame unless there are too many."""
        now = time.monotonic()
        self._log_tokens = min(_LOG_BURST, self._log_tokens + (now - self._log_time) * _LOG_RATE)
        self._log_time = now
        if self._log_tokens < 1:
            self._log_dropped += 1
            return
        self._log_tokens -= 1
        if self._log_dropped:
            frame["dropped"], self._log_dropped = self._log_dropped, 0
        self.send(frame)

    def line(self, stream: str, text: str) -> None:
        """Send a line that the job, or nobody in particular, printed."""
        scope = _scope.current()
        self.log({"type": "log", "fence": None if scope is None else scope.fence, "stream": stream, "text": text})

    def ask(self, frame: dict[str, Any], answered: Callable[[dict[str, Any]], None]) -> int:
        """Send a request; `answered` gets the frame that answers it. Returns the request's number."""
        with self._inbox_lock:
            self._next_ask += 1
            number = self._next_ask
            self._asks[number] = answered
        self.send({**frame, "request": number})
        return number

    # Cancelling sync jobs

    def on_signal(self, signum: int, frame: Any) -> None:
        """Raise JobCancelled in the main thread if its job is to end and it is running user code."""
        if not self._masked:
            self.raise_if_cancelled()

    def raise_if_cancelled(self) -> None:
        scope = self.running
        if scope is not None and scope.cancelled and scope.in_user_code and not scope.raised:
            scope.raised = True
            raise JobCancelled("the supervisor asked this job to end")

    def _interrupt_main(self) -> None:
        if sys.platform == "win32":
            interrupt_main()  # acts between two bytecodes; a blocking call is ended by the kill that follows
        else:
            import _signal  # built in and loaded already: no lock is taken

            _signal.pthread_kill(self._main, _signal.SIGUSR1)

    # In

    def start_reader(self) -> None:
        start_new_thread(self._read, ())

    def _read(self) -> None:
        lines = _wire.Lines(2 * _wire.MAX_MESSAGE_BYTES)
        while True:
            try:
                data = os.read(self._in, 262_144)
            except OSError:
                os._exit(_wire.EXIT_PROTOCOL)
            if not data:
                self._parent_gone()
            for line in lines.feed(data)[0]:
                try:
                    frame = _wire.decode(line)
                except ValueError:
                    os._exit(_wire.EXIT_PROTOCOL)  # our own parent never sends such a line
                handler = self._HANDLERS.get(frame["type"])
                if handler is not None:
                    handler(self, frame)

    def _parent_gone(self) -> None:
        from orchestrator.child._orphan import kill_descendants

        kill_descendants()
        os._exit(_wire.EXIT_PARENT_GONE)

    def _on_init(self, frame: dict[str, Any]) -> None:
        self.init = frame
        self._open_gate()

    def _on_job(self, frame: dict[str, Any]) -> None:
        if self.deliver is not None:
            self.deliver(frame)
            return
        with self._inbox_lock:
            self._jobs.append(frame)
            waiting, self._waiting = self._waiting, False
        if waiting:
            self._gate.release()

    def _on_cancel(self, frame: dict[str, Any]) -> None:
        scope = self.scopes.get(frame["fence"])
        if scope is None:
            self._take_back([frame["fence"]])
            return
        scope.cancelled = True
        if self.cancel_async is not None:
            self.cancel_async(scope.fence)
        elif scope is self.running:
            if frame.get("stack"):
                self._send_stack(scope)
            self._interrupt_main()

    def _send_stack(self, scope: Scope) -> None:
        """Say where the main thread is; no source lines, for those need imports."""
        frame = sys._current_frames().get(self._main)
        lines: list[str] = []
        while frame is not None and len(lines) < 200:
            code = frame.f_code
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n')
            frame = frame.f_back
        text = "".join(reversed(lines))
        self.send({"type": "log", "fence": scope.fence, "stream": "stack", "text": text})

    def _on_recall(self, frame: dict[str, Any]) -> None:
        self._take_back(frame["fences"])

    def _take_back(self, fences: list[int]) -> None:
        """Return jobs that have not started; under the lock with which the main thread takes its next one."""
        wanted = set(fences)
        with self._inbox_lock:
            back = [job["fence"] for job in self._jobs if job["fence"] in wanted]
            if back:
                kept = [job for job in self._jobs if job["fence"] not in wanted]
                self._jobs.clear()
                self._jobs.extend(kept)
        self.send({"type": "returned", "asked": fences, "fences": back})

    def _on_credit(self, frame: dict[str, Any]) -> None:
        scope = self.scopes.get(frame["fence"])
        if scope is not None:
            (scope.call_credits if frame.get("calls") else scope.credits).add(frame["n"])

    def _on_answer(self, frame: dict[str, Any]) -> None:
        answered = self._asks.pop(frame["request"], None)
        if answered is not None:
            answered(frame)

    def _on_ping(self, frame: dict[str, Any]) -> None:
        self.send({"type": "pong", "seq": frame.get("seq")})

    def _on_stop(self, frame: dict[str, Any]) -> None:
        self.stopping = True
        if self.deliver is not None:
            self.deliver(frame)
        else:
            self._open_gate()

    def _open_gate(self) -> None:
        with self._inbox_lock:
            waiting, self._waiting = self._waiting, False
        if waiting:
            self._gate.release()

    _HANDLERS = {
        "init": _on_init,
        "job": _on_job,
        "cancel": _on_cancel,
        "recall": _on_recall,
        "credit": _on_credit,
        "granted": _on_answer,
        "denied": _on_answer,
        "ping": _on_ping,
        "stop": _on_stop,
    }

    # For the main thread

    def next_job(self) -> tuple[dict[str, Any], Scope] | None:
        """Wait for the next job of a plain child; None when the child is to stop."""
        while True:
            with self._inbox_lock:
                if self._jobs and self.init:
                    frame = self._jobs.popleft()
                    # Registered under the lock: from here on a recall finds it started and a cancel finds its scope.
                    return frame, self.open_scope(frame)
                if self.stopping:
                    return None
                self._waiting = True
            self._gate.acquire()

    def wait_init(self) -> None:
        """Wait for the init frame."""
        while True:
            with self._inbox_lock:
                if self.init or self.stopping:
                    return
                self._waiting = True
            self._gate.acquire()

    def open_scope(self, frame: dict[str, Any]) -> Scope:
        scope = Scope(frame["fence"], self.send, self.resources, lambda: self.stopping, self.ask)
        self.scopes[scope.fence] = scope
        _scope.enter(scope)
        return scope

    def close_scope(self, scope: Scope) -> None:
        _scope.leave(scope)
        self.scopes.pop(scope.fence, None)

    def finish(self, scope: Scope) -> None:
        """Say what the attempt still has to say; only its outcome may follow."""
        self.flush_lines()
        scope.finish()
        self.close_scope(scope)

    def flush_lines(self) -> None:
        """Send unfinished lines of stdout and stderr."""
        for stream in (self.out, self.err):
            if stream is not None:
                stream.flush_partial()

    def report(self, text: str) -> None:
        self.line("stderr", text)

    def adopt(self, deliver: Callable[[dict[str, Any]], None]) -> None:
        """Hand jobs to an event loop from now on, those that came meanwhile first."""
        with self._inbox_lock:
            self.deliver = deliver
            jobs = list(self._jobs)
            self._jobs.clear()
        for frame in jobs:
            deliver(frame)

    def find_async(self, frame: dict[str, Any]) -> _target.Target:
        """Like `find`, for an async child, which cannot run sync targets: they would stop all its other jobs."""
        return self.find(frame)

    def find(self, frame: dict[str, Any]) -> _target.Target:
        """Return a job's target, importing its module at first use."""
        reference = frame["target"]
        target = self._targets.get(reference)
        if target is None:
            if reference.startswith(f"{_target.MAIN}:"):
                _target.load_main(self.init["main"])
            target = self._targets[reference] = _target.find(reference)
        return target
