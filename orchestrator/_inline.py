"""A child without a process: the fallback where none can be had, speaking the same frames to the same worker.

Sync jobs run in a thread, async ones on the engine's loop. Nothing can be killed here: a job that does not heed its
cancel is given up, left to end by itself, and its worker gets no other child until it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
import time
import traceback
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator import _wire
from orchestrator._child_process import Burial, ChildOwner, Exit
from orchestrator._stderr import StderrReader
from orchestrator.child import _scope, _target
from orchestrator.child._invoke import Limits, error_line, run_async, run_sync
from orchestrator.child._resource import aclose_all, close_all
from orchestrator.child._scope import JobCancelled, Resources, Scope
from orchestrator.child._stack import task_stack, thread_stack
from orchestrator.exceptions import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from orchestrator._recipe import Recipe
    from orchestrator.child._redact import Redactor

_ASYNC = ("async", "async_generator")


class InlineChild:
    """What a worker needs of a child, without a process; see `Child` for what the members mean."""

    pid = None
    closed_early = False
    killset = None
    unsent = 0
    survivors: tuple[int, ...] = ()
    copied = False  # for scopes: this is no forked copy of a child

    def __init__(self, name: str, recipe: Recipe, owner: ChildOwner) -> None:
        self.name = name
        self.temp = ""
        self.nonce = "inline"
        self.born = time.monotonic()
        self.gone = asyncio.Event()
        self.buried = Burial()
        self.stderr = StderrReader(lambda lines, dropped: owner.printed(self, lines, dropped))
        self.redactor: Redactor | None = None
        self._reading: asyncio.Future[dict[str, str]] | None = None
        self.limits = Limits(None, recipe.init["max_message_bytes"])
        self.resources = Resources()
        self.params = _scope.Params(recipe.init.get("params"))
        self.stopping = False
        self._recipe = recipe
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Jobs see no context variables of each other, nor of whoever happens to hand on what they say.
        self._context = contextvars.Context()
        self._targets: dict[str, _target.Target] = {}
        self._outbox: deque[bytes] = deque()
        self._asks: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._last_ask = 0
        self._stop_asked = asyncio.Event()
        self._kill_asked = asyncio.Event()
        # Async jobs; once there was one, this is an async child, whose resources belong to the loop.
        self._tasks: dict[int, asyncio.Task[bytes | None]] = {}
        self._is_async = False
        # Sync jobs, and the thread that runs them.
        self._thread = threading.Thread(target=self._run_thread, name=f"orchestrator {name}", daemon=True)
        self._thread_loaded: asyncio.Future[None] = self._loop.create_future()
        self._thread_over = asyncio.Event()
        self._jobs: queue.SimpleQueue[tuple[dict[str, Any], Scope] | None] = queue.SimpleQueue()
        # Guards what follows, so that what was begun and what was answered are known exactly when this child is over.
        self._lock = threading.Lock()
        self._scopes: dict[int, Scope] = {}
        self._waiting: set[int] = set()  # fences of jobs that the thread has not begun
        self._running: Scope | None = None  # what the thread runs
        self._is_over = False

    # Life

    async def start(self) -> None:
        """Start the thread, and say hello."""
        self._reading = asyncio.ensure_future(self._recipe.secrets.read())
        try:
            values = await self._reading
        except asyncio.CancelledError:
            if not self._kill_asked.is_set():
                raise
            raise LaunchError("it was stopped before its secrets were read") from None
        finally:
            self._reading = None
        if values:
            self._recipe.secrets.set_here(values)
            self.redactor = self._recipe.secrets.redactor(values)
            self.stderr.redact = self.redactor.text
        self.temp = self.limits.folder = self._recipe.make_folder(self.name)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise LaunchError(f"cannot start a thread: {error}") from error
        flavours = ["plain", "async"]
        self._say({"type": "hello", "version": _wire.VERSION, "nonce": self.nonce, "pid": 0, "flavours": flavours})

    async def live(self) -> None:
        """Be ready after the preloads, and stay until stopped or killed."""
        serving = self._loop.create_task(self._serve())
        killed = self._loop.create_task(self._kill_asked.wait())
        try:
            await asyncio.wait([serving, killed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            killed.cancel()
            served = serving.done() and not serving.cancelled()
            if not served:
                serving.cancel()
                for task in list(self._tasks.values()):
                    task.cancel()
            self._end(Exit(serving.result() if served else None, None))

    async def _serve(self) -> int:
        """Run jobs until asked to stop; returns the exit code."""
        try:
            await self._thread_loaded
        except Exception as error:
            self.stderr.feed("".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
            self._say({"type": "bye", "reason": self.stderr.redact(f"{type(error).__name__}: {error}")})
            return 1
        self._say({"type": "ready"})
        await self._stop_asked.wait()
        self._jobs.put(None)
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        await self._thread_over.wait()
        await aclose_all(close_all(self.resources, self.report), self.report)
        return 0

    def _end(self, end: Exit) -> None:
        """Begin nothing any more, hand over what was said so far, and hear no more."""
        with self._lock:
            self._is_over = True
        self._jobs.put(None)
        self._hand_over()
        self.gone.set()
        if not self._has_left():
            self._recipe.abandoned.add(self)
        with contextlib.suppress(OSError):
            os.rmdir(self.temp)  # one that holds a result that is still to be read goes with its parent
        self.stderr.flush()
        self._owner.died(self, end)
        self.buried.set()

    def _has_left(self) -> bool:
        return not self._tasks and (self._thread_over.is_set() or not self._thread.is_alive())

    def _leave(self) -> None:
        """Make way for the next child if this one was given up, and nothing of it runs any more."""
        if self in self._recipe.abandoned and self._has_left():
            self._recipe.abandoned.discard(self)
            self._owner.is_freed()

    def kill(self) -> None:
        """Give up what runs."""
        self._kill_asked.set()
        if self._reading is not None:
            self._reading.cancel()
        for scope in list(self._scopes.values()):
            scope.cancel()
        self._deny_all()

    def terminate(self) -> None:
        """There is no process to tell."""

    def end_input(self) -> None:
        """Leave, at once if it is not even ready: it has no job then."""
        if self._thread_loaded.done():
            self.send({"type": "stop"})
        else:
            self.kill()

    def dump_stack(self) -> None:
        """The stacks are taken here when a cancel asks for them."""

    def stack_path(self) -> str:
        """Where no stack ever is."""
        return ""

    def running_fence(self) -> int | None:
        """Return the fence of what the thread was running when this child was given up."""
        return None if self._running is None else self._running.fence

    async def kill_started_since(self, moment: float, keep: Collection[int], timeout: float) -> tuple[int, ...]:
        """Processes that a job started here are children of this process, and nobody can tell whose."""
        return ()

    # Frames from the worker

    def said_hello(self, pid: int) -> None:
        """Hear of its hello, which changes nothing."""

    def deliver(self, data: bytes) -> None:
        """Take whole frames, encoded."""
        for line in data.split(b"\n"):
            if line:
                self.send(_wire.decode(line))

    def send(self, frame: dict[str, Any]) -> None:
        """Take a frame."""
        match frame["type"]:
            case "job":
                self._take(frame)
            case "cancel":
                self._cancel(frame)
            case "recall":
                self._take_back(frame["fences"])
            case "credit":
                scope = self._scopes.get(frame["fence"])
                if scope is not None:
                    scope.credits(calls=bool(frame.get("calls"))).add(frame["n"])
            case "granted" | "denied" | "cached" | "effect_ack":
                answered = self._asks.pop(frame["request"], None)
                if answered is not None:
                    answered(frame)
            case "stop":
                self.stopping = True
                self._stop_asked.set()

    def _take(self, frame: dict[str, Any]) -> None:
        fence = frame["fence"]
        if "fixture" in frame:
            problem = "it has a fixture, which takes a child process, and jobs run in this process now"
            self._say(_wire.decode(error_line(Scope(fence, self), RuntimeError(problem), None, payload="fixture")))
            return
        scope = self._scopes[fence] = Scope(fence, self)
        known = self._targets.get(frame["target"])
        if (frame.get("kind") if known is None else known.kind) in _ASYNC:
            self._is_async = True
            self._say({"type": "started", "fence": fence})
            answer = run_async(frame, self._find, scope, self.limits)
            task = self._tasks[fence] = self._loop.create_task(answer, context=contextvars.Context())
            task.add_done_callback(partial(self._task_ended, scope, frame["target"]), context=self._context)
        else:  # of one that was named by a string, only the thread finds out what it is: it may have to import it
            with self._lock:
                self._waiting.add(fence)
            self._jobs.put((frame, scope))

    def _cancel(self, frame: dict[str, Any]) -> None:
        fence = frame["fence"]
        scope, task = self._scopes.get(fence), self._tasks.get(fence)
        if scope is None or (task is None and self._take_back([fence])):
            return
        if frame.get("stack"):
            ident = self._thread.ident or 0
            stack = thread_stack(ident) if task is None else task_stack(task, self._loop_thread, scope.generator)
            self._say({"type": "log", "fence": fence, "stream": "stack", "text": stack})
        scope.cancel(frame.get("why") or "cancel")
        if task is not None:
            task.cancel()
        else:
            self._deny_all()

    def _take_back(self, fences: list[int]) -> list[int]:
        """Give back those jobs that the thread has not begun."""
        with self._lock:
            back = [fence for fence in fences if fence in self._waiting]
            self._waiting.difference_update(back)
        for fence in back:
            del self._scopes[fence]
        self._say({"type": "returned", "asked": fences, "fences": back})
        return back

    def _deny_all(self) -> None:
        """End the waits for permits of the thread's job, which nothing else would interrupt."""
        if not self._is_async:
            while self._asks:
                self._asks.popitem()[1]({"type": "denied", "reason": "the job is to end"})

    # Frames to the worker

    def _say(self, frame: dict[str, Any]) -> None:
        self._outbox.append(_wire.encode(frame))
        self._soon(self._hand_over)

    def _soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have something done on the loop, later: a worker expects no answer while it is still sending."""
        try:
            self._loop.call_soon_threadsafe(partial(function, *args), context=self._context)
        except RuntimeError:
            return  # the loop is closed, and this was given up long ago

    def _hand_over(self) -> None:
        lines = []
        while self._outbox:
            lines.append(self._outbox.popleft().rstrip(b"\n"))
        if lines and not self.gone.is_set():
            self._owner.received(self, lines, [])

    def _answer(self, scope: Scope, line: bytes | None, target: str) -> None:
        """Say how a job ended; None for one of another kind than was thought, which the worker sends elsewhere."""
        scope.finish()
        fence = scope.fence
        if line is None:
            kind = self._targets[target].kind
            line = _wire.encode({"type": "returned", "asked": [fence], "fences": [fence], "kind": kind})
        with self._lock:
            if self._is_over:
                return  # given up: it was settled without this
            self._scopes.pop(fence, None)
            if scope is self._running:
                self._running = None
            self._outbox.append(line)
        self._soon(self._hand_over)

    # What scopes ask of their host

    def write(self, data: bytes) -> None:
        """Send what a job says; the job's thread is interrupted here if it is to end, and nowhere else can it be."""
        if not self._is_over:
            self._outbox += data.splitlines()
            self._soon(self._hand_over)
        self.raise_if_cancelled()

    def log(self, frame: dict[str, Any]) -> None:
        """Send a log frame."""
        if self.redactor is not None:
            frame = self.redactor.log(frame)
        self.write(_wire.encode(frame))

    def expect(self, answered: Callable[[dict[str, Any]], None]) -> int:
        """Return the number of a request whose answer goes to `answered`."""
        with self._lock:
            if self._is_over:
                raise JobCancelled("the supervisor has given this job up")
            self._last_ask += 1
            self._asks[self._last_ask] = answered
            return self._last_ask

    def forget(self, request: int) -> None:
        """Drop a request."""
        self._asks.pop(request, None)

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled, once, if this is the thread whose job is to end."""
        scope = self._running
        if scope is None or not scope.cancelled or scope.raised or not scope.in_user_code:
            return
        if threading.get_ident() == self._thread.ident:
            scope.raised = True
            raise JobCancelled("the supervisor asked this job to end")

    def must_not_block(self) -> bool:
        """Return whether this is the loop's thread, which has to answer: a wait here would never end."""
        return threading.get_ident() == self._loop_thread

    def report(self, text: str) -> None:
        self._say({"type": "log", "fence": None, "stream": "stderr", "text": self.stderr.redact(text)})

    def load_main(self) -> None:
        """Do nothing: the main script runs in this very process."""

    # Running

    def _find(self, frame: dict[str, Any]) -> _target.Target:
        reference = frame["target"]
        found = self._targets.get(reference)
        if found is None:
            main = f"{_target.MAIN}:"
            path = f"__main__:{reference.removeprefix(main)}" if reference.startswith(main) else reference
            found = self._targets[reference] = _target.find(path)
        return found

    def _task_ended(self, scope: Scope, target: str, task: asyncio.Task[bytes | None]) -> None:
        del self._tasks[scope.fence]
        if task.cancelled():  # before its first step, so that nothing in it could answer
            line: bytes | None = error_line(scope, asyncio.CancelledError(), None)
        else:
            line = task.result()
        self._answer(scope, line, target)
        self._leave()

    def _run_thread(self) -> None:
        """Be the thread: preload, then run one job after the other."""
        try:
            for name in self._recipe.init["preload"]:
                if ":" in name:
                    self._find({"target": name}).function()
                else:
                    __import__(name)
        except BaseException as error:
            problem = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            self._soon(self._loaded, problem)
        else:
            self._soon(self._loaded, None)
            while (found := self._jobs.get()) is not None:
                self._run_job(*found)
            if not self._is_async:
                # What was made on this thread may not be touched from another.
                later = close_all(self.resources, self.report)
                if later:
                    asyncio.run(aclose_all(later, self.report))
        finally:
            self._soon(self._thread_ended)

    def _loaded(self, problem: Exception | None) -> None:
        if self._thread_loaded.done():
            return  # given up meanwhile
        if problem is None:
            self._thread_loaded.set_result(None)
        else:
            self._thread_loaded.set_exception(problem)

    def _thread_ended(self) -> None:
        self._thread_over.set()
        if not self.stopping:
            self._kill_asked.set()  # without a thread this is no child
        self._leave()

    def _run_job(self, frame: dict[str, Any], scope: Scope) -> None:
        with self._lock:
            if self._is_over or scope.fence not in self._waiting:
                return  # it was taken back
            self._waiting.discard(scope.fence)
            self._running = scope

        def find(frame: dict[str, Any]) -> _target.Target:
            target = self._find(frame)
            if frame.get("kind") is None and not target.is_async:
                self._say({"type": "started", "fence": scope.fence, "flavour": "plain", "kind": target.kind})
            return target

        line = run_sync(frame, find, scope, self.limits)
        self._answer(scope, line, frame["target"])
