"""A child without a process: the fallback where none can be had, speaking the same frames to the same worker.

Sync jobs run in a thread, async ones on the engine's loop. Nothing can be killed here: a job that does not heed its
cancel is given up, its thread is left to end by itself, and its worker takes no job until it has.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from orchestrator import _wire
from orchestrator._child_process import ChildOwner, Exit, Recipe
from orchestrator._stderr import StderrReader
from orchestrator.child import _target
from orchestrator.child._invoke import Limits, error_line, run_async, run_sync
from orchestrator.child._resource import aclose_all, close_all
from orchestrator.child._scope import Resources, Scope
from orchestrator.child._stack import thread_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# On a loop nobody may block for a credit: whoever would give it runs on that loop too.
_ENDLESS = 2**62
# An async job that was given up is cancelled once more; if it does not heed that either, it is left on the loop.
_TO_CANCEL = 0.1
_ASYNC = ("async", "async_generator")


class InlineChild:
    """What a worker needs of a child, without a process; see `Child` for what the members mean."""

    pid = None
    temp = ""
    closed_early = False
    killset = None
    unsent = 0

    def __init__(self, name: str, recipe: Recipe, owner: ChildOwner) -> None:
        self.name = name
        self.nonce = "inline"
        self.born = time.monotonic()
        self.gone = asyncio.Event()
        self.buried = asyncio.Event()
        self.survivors: tuple[int, ...] = ()
        self.stderr = StderrReader(lambda lines, dropped: owner.printed(self, lines, dropped))
        self._worker = name.rpartition("-")[0]
        self._recipe = recipe
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        # What scopes ask of their host.
        self.limits = Limits(None, recipe.init["max_message_bytes"])
        self.resources = Resources()
        self.copied = False
        self.stopping = False
        self._scopes: dict[int, Scope] = {}
        self._jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._waiting: dict[int, None] = {}  # fences of jobs that are in `_jobs`
        self._lock = threading.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._targets: dict[str, _target.Target] = {}
        self._asks: dict[int, Any] = {}
        self._next_ask = 0
        self._kill_asked = asyncio.Event()
        self._end = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._thread_over = asyncio.Event()

    # Life

    async def start(self) -> None:
        """Wait for what a predecessor left running, then say hello."""
        thread_over = self._recipe.abandoned.get(self._worker)
        if thread_over is not None:
            await self._unless_killed(thread_over)
            if thread_over.is_set():
                del self._recipe.abandoned[self._worker]
        self._say(
            {"type": "hello", "version": _wire.VERSION, "nonce": self.nonce, "pid": 0, "flavours": ["plain", "async"]}
        )

    async def live(self) -> None:
        """Be ready after the preloads, and stay until stopped or killed."""
        try:
            await self._recipe.in_thread(self._preload)
        except BaseException as error:
            self.stderr.feed(traceback.format_exc().encode("utf-8", "backslashreplace"))
            self._say({"type": "bye", "reason": f"{type(error).__name__}: {error}"})
            self._over(1)
            return
        if not self._killed:
            self._say({"type": "ready"})
            self._thread = threading.Thread(target=self._run_jobs, name=f"orchestrator {self.name}", daemon=True)
            self._thread.start()
        try:
            await self._unless_killed(self._end)
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()), timeout=_TO_CANCEL if self._killed else None)
            self._jobs.put(None)
            if self._thread is not None:
                await self._unless_killed(self._thread_over)
                if not self._thread_over.is_set():
                    self._recipe.abandoned[self._worker] = self._thread_over
            if not self._killed:
                await aclose_all(close_all(self.resources, self._report), self._report)
            self._over(0)

    async def _unless_killed(self, event: asyncio.Event) -> None:
        """Wait for an event, or for being given up."""
        waiters = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._kill_asked.wait())]
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)

    @property
    def _killed(self) -> bool:
        return self._kill_asked.is_set()

    def _over(self, code: int) -> None:
        self.stderr.flush()
        self.gone.set()
        self._owner.died(self, Exit(None if self._killed else code, None))
        self.buried.set()

    def _preload(self) -> None:
        for name in self._recipe.init["preload"]:
            if ":" in name:
                self._find({"target": name}).function()
            else:
                __import__(name)

    def kill(self) -> None:
        """Give up what runs."""
        for scope in list(self._scopes.values()):
            scope.cancel()
        self._kill_asked.set()

    def terminate(self) -> None:
        """There is no process to tell."""

    def end_input(self) -> None:
        """There is no pipe."""

    def dump_stack(self) -> None:
        """Its threads are this process's: their stacks are taken when a cancel asks for them."""

    def stack_path(self) -> str:
        return ""

    def running_fence(self) -> int | None:
        """Return the fence of the job that was running when it was given up."""
        with self._lock:
            return next((fence for fence in self._scopes if fence not in self._waiting), None)

    async def kill_started_since(self, moment: float, keep: Collection[int], timeout: float) -> None:
        """Processes that a job started here are children of this process, and nobody can tell whose."""

    def _report(self, text: str) -> None:
        self.stderr.feed(text.encode("utf-8", "backslashreplace") + b"\n")

    # Frames from the worker

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
            case "granted" | "denied":
                answered = self._asks.pop(frame["request"], None)
                if answered is not None:
                    answered(frame)
            case "stop":
                self._stop()

    def deliver(self, data: bytes) -> None:
        """Take whole frames, encoded."""
        for line in data.splitlines():
            self.send(_wire.decode(line))

    def _take(self, frame: dict[str, Any]) -> None:
        fence = frame["fence"]
        scope = self._scopes[fence] = Scope(fence, self)
        kind = frame.get("kind")
        if kind is None:
            try:
                kind = self._find(frame).kind
            except Exception:  # the job itself will find the same, and say so
                kind = "sync"
            self._say({"type": "started", "fence": fence, "kind": kind})
        if kind in _ASYNC:
            scope.credits(calls=True).add(_ENDLESS)
            if kind == "async":
                scope.credits(calls=False).add(_ENDLESS)
            self._tasks[fence] = self._loop.create_task(self._run_async(frame, scope))
        else:
            with self._lock:
                self._waiting[fence] = None
            self._jobs.put(frame)

    def _cancel(self, frame: dict[str, Any]) -> None:
        fence = frame["fence"]
        scope = self._scopes.get(fence)
        if scope is None:
            return
        scope.cancel()
        task = self._tasks.get(fence)
        if task is not None:
            task.cancel()
        else:
            self._take_back([fence])
            if frame.get("stack") and fence in self._scopes:
                text = "" if self._thread is None else thread_stack(self._thread.ident or 0)
                self._say({"type": "log", "fence": fence, "stream": "stack", "text": text})

    def _take_back(self, fences: list[int]) -> None:
        with self._lock:
            back = [fence for fence in fences if self._waiting.pop(fence, 0) is None]
        for fence in back:
            self._scopes.pop(fence, None)
        self._say({"type": "returned", "asked": fences, "fences": back})

    def _stop(self) -> None:
        self.stopping = True
        self._jobs.put(None)
        if self._tasks:
            for task in self._tasks.values():
                task.add_done_callback(lambda _: self._end_when_idle())
        else:
            self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self.stopping and not self._tasks and not any(fence in self._waiting for fence in self._scopes):
            self._end.set()

    # Frames to the worker

    def _say(self, frame: dict[str, Any]) -> None:
        self.write(_wire.encode(frame))

    def write(self, line: bytes) -> None:
        """Hand a line over on the loop, later: a worker does not expect an answer while it is still sending."""
        try:
            self._loop.call_soon_threadsafe(self._hand_over, line)
        except RuntimeError:
            return  # the loop is closed, and the thread was given up long ago

    def _hand_over(self, line: bytes) -> None:
        if not self.gone.is_set():
            self._owner.received(self, [line.rstrip(b"\n")], [])

    # What scopes ask of their host

    def log(self, frame: dict[str, Any]) -> None:
        """Send a log frame."""
        self._say(frame)

    def expect(self, answered: Callable[[dict[str, Any]], None]) -> int:
        """Return the number of a request whose answer goes to `answered`."""
        with self._lock:
            self._next_ask += 1
            self._asks[self._next_ask] = answered
            return self._next_ask

    def forget(self, request: int) -> None:
        """Drop a request."""
        self._asks.pop(request, None)

    def raise_if_cancelled(self) -> None:
        """Nobody interrupts a thread of this process."""

    # Running

    def _find(self, frame: dict[str, Any]) -> _target.Target:
        reference = frame["target"]
        found = self._targets.get(reference)
        if found is None:
            main = f"{_target.MAIN}:"
            path = f"__main__:{reference.removeprefix(main)}" if reference.startswith(main) else reference
            found = self._targets[reference] = _target.find(path)
        return found

    def _run_jobs(self) -> None:
        try:
            while (frame := self._jobs.get()) is not None:
                fence = frame["fence"]
                with self._lock:
                    if self._waiting.pop(fence, 0) is not None:
                        continue  # it was taken back
                scope = self._scopes[fence]
                line = run_sync(frame, self._find, scope, self.limits)
                self._finish(frame, scope, line)
        finally:
            try:
                self._loop.call_soon_threadsafe(self._thread_ended)
            except RuntimeError:
                return  # the loop is closed: nobody waits

    def _thread_ended(self) -> None:
        self._thread_over.set()

    async def _run_async(self, frame: dict[str, Any], scope: Scope) -> None:
        fence = scope.fence
        self._say({"type": "started", "fence": fence})
        try:
            line = await run_async(frame, self._find, scope, self.limits)
        except asyncio.CancelledError as error:
            line = error_line(scope, error, None)
        finally:
            self._tasks.pop(fence, None)
        self._finish(frame, scope, line)
        self._end_when_idle()

    def _finish(self, frame: dict[str, Any], scope: Scope, line: bytes | None) -> None:
        scope.finish()
        fence = scope.fence
        self._scopes.pop(fence, None)
        if line is None:  # of another kind than was said: the worker sends it elsewhere
            kind = self._find(frame).kind
            self._say({"type": "returned", "asked": [fence], "fences": [fence], "kind": kind})
        else:
            self.write(line)
