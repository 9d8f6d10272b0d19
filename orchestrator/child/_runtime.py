"""The state of one child and its two directions: what it writes, and what each frame from the supervisor does."""

from __future__ import annotations

import os
import sys
import time
from _collections import deque
from _thread import allocate_lock, get_ident, interrupt_main, start_new_thread

from orchestrator import _wire
from orchestrator.child import _scope, _target
from orchestrator.child._inbox import Inbox, end_protocol
from orchestrator.child._invoke import Limits, run_sync
from orchestrator.child._orphan import kill_descendants, remove_empty_folder, remove_folder
from orchestrator.child._scope import JobCancelled, Scope
from orchestrator.child._stack import task_stack, thread_stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any, ClassVar

    from orchestrator.child._redact import Redactor
    from orchestrator.child._stdio import LineWriter

# Lines a child may print in a burst, and per second after it; what is above is counted and dropped.
_LOG_BURST = 10_000
_LOG_RATE = 5_000
# A text of so many characters counts as one line more.
_LINE = 512
_LONGEST_TEXT = 128 * 1024
# The exit code of what SIGTERM ended, as a shell reports it.
_TERMINATED = 128 + 15
# Digits of a fence and a line feed; so many are copied by a single instruction, so the number is never half written.
_NOTE = 16
# Seconds between two pauses of a job that writes all the time, and their length (the system makes it 60 microseconds).
_SHARE_EVERY = 0.004
_SHARE = 1e-6


def _is_importing() -> bool:
    """Return whether the job is in the middle of an import.

    A package whose import is broken off cannot be imported again in this process (`asyncio` for one): every later job
    would fail. So a cancel waits for the end of the import, or for the kill.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not run_sync.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Runtime:
    """One child; to its scopes, the host.

    Attributes:
        flavour: None until the first job, then `plain` or `async`.
        running: Of a plain child: the scope of what the main thread runs.
        copied: This process is a forked copy of the child.
        muted: Threads whose prints are not sent, because a structured frame has said the same.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._out = outgoing
        self._lock = allocate_lock()  # guards writes: frames never mix
        self._writer = 0  # the thread that holds it
        self._late: deque[bytes] = deque()
        self._shared = 0.0
        self._main = get_ident()
        self._masked = 0
        self._ending = False  # the main thread of a service is to end once it has written a frame
        self._inbox = Inbox(incoming, self._act, self._begin, self.parent_gone)
        self._asks: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._last_ask = 0
        self._ask_lock = allocate_lock()
        self._targets: dict[str, _target.Target] = {}
        self._note: mmap | None = None
        self.scopes: dict[int, Scope] = {}
        self.resources = _scope.local_resources
        self.flavour: str | None = None
        self.init: dict[str, Any] = {}
        self.params = _scope.local_params
        self.redactor: Redactor | None = None
        self.limits = Limits(None, _wire.MAX_MESSAGE_BYTES)
        self.running: Scope | None = None
        # Of an async child: end the job's task; and the task, with the generator that it iterates.
        self.cancel_async: Callable[[int], None] | None = None
        self.task_of: Callable[[int], Any] | None = None
        # Of a service: have the main thread end.
        self.end_service: Callable[[], None] | None = None
        self.out: LineWriter | None = None
        self.err: LineWriter | None = None
        self.copied = False
        self.muted: set[int] = set()
        self._log_tokens = float(_LOG_BURST)
        self._log_time = time.monotonic()
        self._log_dropped = 0

    # Out

    def send(self, frame: dict[str, Any]) -> None:
        """Write a frame, whole, even if a cancel arrives meanwhile."""
        self.write(_wire.encode(frame))

    def write(self, data: bytes) -> None:
        """Write whole lines; ends the child when nobody can read them any more."""
        if self.copied:
            return
        me = get_ident()
        if self._writer == me:
            # A finaliser or a signal handler prints while this very thread writes a frame: after that frame.
            self._late.append(data)
            return
        main = me == self._main
        if main:
            self._masked += 1
        try:
            with self._lock:
                self._writer = me
                try:
                    self._write_all(data)
                    while self._late:
                        self._write_all(self._late.popleft())
                finally:
                    self._writer = 0
        except BrokenPipeError:
            self.parent_gone()
        except OSError as error:
            # User code closed a file descriptor that is not its own: without it nothing can be said any more.
            end_protocol(f"cannot write frames: {error}")
        finally:
            if main:
                self._masked -= 1
        if self.running is not None or self.cancel_async is not None:
            self._let_others_run()
        if main and not self._masked:
            self.raise_if_cancelled()
            if self._ending:
                self.end_main()

    def _let_others_run(self) -> None:
        """Now and then, leave the interpreter to the reader thread for long enough.

        A job that does nothing but print lets go of the interpreter's lock, and of ours, for microseconds only: less
        than another thread takes to wake up. The reader thread would hear a cancel or a ping after seconds.
        """
        now = time.monotonic()
        if now - self._shared > _SHARE_EVERY:
            self._shared = now
            time.sleep(_SHARE)

    def _write_all(self, data: bytes) -> None:
        written = os.write(self._out, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(self._out, rest) :]

    def log(self, frame: dict[str, Any]) -> None:
        """Send a log frame unless there are too many."""
        if self.redactor is not None:
            frame = self.redactor.log(frame)  # before it is cut: a piece is harder to know
        text = frame["text"]
        if len(text) > _LONGEST_TEXT:
            frame["text"] = f"{text[:_LONGEST_TEXT]}… ({len(text) - _LONGEST_TEXT} characters more)"
        if self.copied:
            os.write(2, f"{frame['text']}\n".encode("utf-8", "backslashreplace"))
            return
        now = time.monotonic()
        self._log_tokens = min(_LOG_BURST, self._log_tokens + (now - self._log_time) * _LOG_RATE)
        self._log_time = now
        if self._log_tokens < 1:
            self._log_dropped += 1
            return
        self._log_tokens -= 1 + len(frame["text"]) / _LINE
        if self._log_dropped:
            frame["dropped"], self._log_dropped = self._log_dropped, 0
        self.send(frame)

    def line(self, stream: str, text: str) -> None:
        """Send a line that the job, or nobody in particular, printed."""
        scope = _scope.current()
        self.log({"type": "log", "fence": None if scope is None else scope.fence, "stream": stream, "text": text})

    def flush_lines(self) -> None:
        """Send unfinished lines of stdout and stderr, and how many lines were dropped."""
        for stream in (self.out, self.err):
            if stream is not None:
                stream.flush_partial()
        if self._log_dropped:
            dropped, self._log_dropped = self._log_dropped, 0
            scope = _scope.current()
            fence = None if scope is None else scope.fence
            self.send({"type": "log", "fence": fence, "stream": "stderr", "text": "", "dropped": dropped})

    def report(self, text: str) -> None:
        self.line("stderr", text)

    def parent_gone(self) -> None:
        """Kill what this child started, then end; does not return."""
        kill_descendants()
        if self.init.get("temp"):
            remove_folder(self.init["temp"])
        else:
            remove_empty_folder(os.environ.get("TMPDIR", ""))
        os._exit(_wire.EXIT_PARENT_GONE)

    # Cancelling sync jobs

    def on_signal(self, signum: int, frame: Any) -> None:
        """Raise JobCancelled in the main thread if its job is to end and it is running user code."""
        if not self._masked:
            self.raise_if_cancelled(frame)

    def raise_if_cancelled(self, frame: Any = None) -> None:
        """Raise JobCancelled, once, if this is the main thread of a plain child whose job is to end."""
        scope = self.running
        if scope is None or not scope.cancelled or scope.raised or not scope.in_user_code:
            return
        if get_ident() == self._main and not self.copied and not _is_importing():
            if scope.hold is not None and not scope.hold.may_interrupt(frame or sys._getframe(1)):
                return
            scope.raised = True
            raise JobCancelled("the supervisor asked this job to end")

    def end_main(self, signum: int = 0, frame: Any = None) -> None:
        """Raise SystemExit in the main thread of a service: a handler, which leaves frames whole."""
        self._ending = self._masked > 0
        if not self._ending:
            raise SystemExit(_TERMINATED)

    def must_not_block(self) -> bool:
        """Return whether a wait for the supervisor would never end: the reader thread ends all of them."""
        return False

    def _interrupt_again(self, scope: Scope) -> None:
        """Repeat the signal until it was heard.

        One that arrives after the interpreter looked for signals and before a blocking call begins does not interrupt
        that call, and its handler would run only when the call returns. What a fixture's library waits for is ended
        by the fixture, as long as the attempt is not over.
        """
        wait = 0.001
        while self.running is scope and (scope.hold is not None or not scope.raised):
            if scope.hold is not None:
                scope.hold.interrupt()
            time.sleep(wait)
            wait = min(2 * wait, 0.05)
            if self.running is scope and not scope.raised:
                self._interrupt_main()

    def _interrupt_main(self) -> None:
        if sys.platform == "win32":
            interrupt_main()  # acts between two bytecodes; a blocking call is ended by the kill that follows
        else:
            import _signal  # built in and loaded already: no lock is taken

            _signal.pthread_kill(self._main, _signal.SIGUSR1)

    # In

    def start_reader(self) -> None:
        self._inbox.start()

    @property
    def stopping(self) -> bool:
        """The supervisor asked the child to stop."""
        return self._inbox.stopping

    @property
    def spent(self) -> bool:
        """A job left this child in a state that no other job can stand."""
        return self._inbox.closed

    def _act(self, frame: dict[str, Any]) -> None:
        act = self._ACTIONS.get(frame["type"])
        if act is not None:  # else it is of a later version
            act(self, frame)

    def _on_init(self, frame: dict[str, Any]) -> None:
        self.init = frame
        self._inbox.wake()

    def _on_job(self, frame: dict[str, Any]) -> None:
        frame["fence"], frame["target"]  # what has none is refused here, on arrival
        self._inbox.put(frame)
        if self._inbox.closed:
            with self._inbox.lock:
                self._return([frame["fence"]])

    def _on_cancel(self, frame: dict[str, Any]) -> None:
        fence = frame["fence"]
        with self._inbox.lock:
            scope = self.scopes.get(fence)
            if scope is None:
                self._return([fence])
                return
        if frame.get("stack"):
            self._send_stack(scope)
        scope.cancel(frame.get("why") or "cancel")
        if self.cancel_async is not None:
            self.cancel_async(fence)
        elif scope is self.running:
            self._interrupt_main()
            start_new_thread(self._interrupt_again, (scope,))

    def _send_stack(self, scope: Scope) -> None:
        if self.task_of is not None:
            task = self.task_of(scope.fence)
            text = "" if task is None else task_stack(task, self._main, scope.generator)
        elif scope is self.running:
            text = thread_stack(self._main)
        else:
            return
        self.send({"type": "log", "fence": scope.fence, "stream": "stack", "text": text})

    def _on_recall(self, frame: dict[str, Any]) -> None:
        with self._inbox.lock:
            self._return(frame["fences"])

    def _return(self, fences: list[int]) -> None:
        # Sent under the lock with which the main thread takes its next job: else that could finish a later one before
        # the supervisor hears of these, and would be charged for them if it died.
        self.send({"type": "returned", "asked": fences, "fences": self._inbox.take_back(fences)})

    def _on_credit(self, frame: dict[str, Any]) -> None:
        scope = self.scopes.get(frame["fence"])
        if scope is not None:
            scope.credits(calls=bool(frame.get("calls"))).add(frame["n"])

    def _on_answer(self, frame: dict[str, Any]) -> None:
        answered = self._asks.pop(frame.get("request", 0), None)
        if answered is not None:
            answered(frame)

    def _on_ping(self, frame: dict[str, Any]) -> None:
        self.send({"type": "pong", "seq": frame.get("seq")})

    def _on_stop(self, frame: dict[str, Any]) -> None:
        self._inbox.stop()
        if self.end_service is not None:
            self.end_service()
        if self.cancel_async is not None:
            self._inbox.put(frame)  # for the loop

    _ACTIONS: ClassVar[dict[str, Callable[[Runtime, dict[str, Any]], None]]] = {
        "init": _on_init,
        "job": _on_job,
        "cancel": _on_cancel,
        "recall": _on_recall,
        "credit": _on_credit,
        "granted": _on_answer,
        "denied": _on_answer,
        "cached": _on_answer,
        "effect_ack": _on_answer,
        "ping": _on_ping,
        "stop": _on_stop,
    }

    def expect(self, answered: Callable[[dict[str, Any]], None]) -> int:
        """Return a number for a request; `answered` gets the frame that answers it, on the reader thread."""
        with self._ask_lock:
            self._last_ask += 1
            self._asks[self._last_ask] = answered
            return self._last_ask

    def forget(self, request: int) -> None:
        """Wait no more for an answer."""
        self._asks.pop(request, None)

    # For the main thread

    def wait_init(self) -> None:
        """Wait for the init frame."""
        self._inbox.wait_until(lambda: bool(self.init))

    def next_job(self) -> tuple[dict[str, Any], Scope] | None:
        """Wait for the next job of a plain child; None when the child is to stop."""
        return self._inbox.take()

    def adopt(self, deliver: Callable[[dict[str, Any]], None]) -> None:
        """Hand jobs, and the stop, to an event loop from now on."""
        self._inbox.adopt(deliver)

    def keep_notes(self, path: str) -> None:
        """Have `note_running` write to this file."""
        import mmap

        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        os.write(fd, b" " * _NOTE)
        # Memory of the file, which outlives any death of this process: a write to the file would cost some
        # microseconds for each job.
        self._note = mmap.mmap(fd, _NOTE)
        os.close(fd)
        self.note_running(0)

    def note_running(self, fence: int) -> None:
        """Note which job begins, where it can be read after any death: the jobs behind it never started."""
        if self._note is not None:
            self._note[:] = b"%-15d\n" % fence

    def _begin(self, frame: dict[str, Any]) -> Scope:
        scope = Scope(frame["fence"], self)
        self.scopes[scope.fence] = scope
        _scope.enter(scope)
        return scope

    def scope_of(self, frame: dict[str, Any]) -> Scope:
        """Return the scope of a job, opening it if the job has none yet."""
        return self.scopes.get(frame["fence"]) or self._begin(frame)

    def announce(self, scope: Scope, flavour: str, kind: str) -> None:
        """Say that a job starts, and what this child is from now on."""
        self.flavour = flavour
        self.send({"type": "started", "fence": scope.fence, "flavour": flavour, "kind": kind})

    def hand_back(self, scope: Scope, kind: str) -> None:
        """Return a job that was sent by name, so that nobody could know what kind it is: it is for another child."""
        self.finish(scope)
        self.send({"type": "returned", "asked": [scope.fence], "fences": [scope.fence], "kind": kind})

    def spend(self, answer: bytes, reason: str) -> None:
        """Answer the last job that this child can run, and give back those that wait, and all that come."""
        # The supervisor hears of it first, or it would send the next job at once.
        self.write(_wire.encode({"type": "spent", "reason": reason}) + answer)
        with self._inbox.lock:
            self._inbox.closed = True
            waiting = self._inbox.waiting()
            if waiting:
                self._return(waiting)

    def finish(self, scope: Scope) -> None:
        """Say what the attempt still has to say; only its outcome may follow."""
        self.flush_lines()
        scope.finish()
        _scope.leave(scope)
        self.scopes.pop(scope.fence, None)

    def find(self, frame: dict[str, Any]) -> _target.Target:
        """Return a job's target, importing its module at first use."""
        reference = frame["target"]
        target = self._targets.get(reference)
        if target is None:
            if reference.startswith(f"{_target.MAIN}:"):
                self.load_main()
            target = self._targets[reference] = _target.find(reference)
        return target

    def load_main(self) -> None:
        """Load the main script of the program that started this child, at first use."""
        _target.load_main(self.init.get("main") or {})
