"""The main thread of an async child: it lives inside one event loop, so warm async clients stay usable."""

from __future__ import annotations

import asyncio
import sys

from orchestrator.child._invoke import error_line, run_async
from orchestrator.child._resource import aclose_all, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.child._runtime import Runtime
    from orchestrator.child._scope import Scope
    from orchestrator.child._target import Target


def run(runtime: Runtime, first: dict[str, Any]) -> None:
    """Run jobs until the supervisor asks the child to stop."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_serve(runtime, first))


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that can start subprocesses, whatever policy user code has set."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


async def _serve(runtime: Runtime, first: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    tasks: dict[int, asyncio.Task[None]] = {}
    stopped = asyncio.Event()

    def start(frame: dict[str, Any]) -> None:
        if frame["type"] == "stop":
            stopped.set()
            return
        scope = runtime.scope_of(frame)
        task = loop.create_task(_job(runtime, frame, scope))
        tasks[scope.fence] = task
        task.add_done_callback(lambda task: done(task, scope))
        if scope.cancelled:
            task.cancel()

    def done(task: asyncio.Task[None], scope: Scope) -> None:
        del tasks[scope.fence]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            # Cancelled before its first step, so that nothing in it could answer.
            runtime.finish(scope)
            runtime.write(error_line(scope, error, None))

    def soon(call: Any, *args: Any) -> None:
        try:
            loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return  # the loop is closed: the child is leaving

    def deliver(frame: dict[str, Any]) -> None:
        if frame["type"] == "job":
            # On the reader thread, so that a cancel behind it in the pipe finds it.
            runtime.scope_of(frame)
        soon(start, frame)

    def cancel(fence: int) -> None:
        task = tasks.get(fence)
        if task is not None:
            task.cancel()

    runtime.task_of = tasks.get
    runtime.cancel_async = lambda fence: soon(cancel, fence)
    start(first)
    runtime.adopt(deliver)
    if runtime.stopping:
        stopped.set()
    await stopped.wait()
    while tasks:
        await asyncio.wait(list(tasks.values()))
    await aclose_all(close_all(runtime.resources, runtime.report), runtime.report)


async def _job(runtime: Runtime, frame: dict[str, Any], scope: Scope) -> None:
    kind = frame.get("kind")

    def find(frame: dict[str, Any]) -> Target:
        target = runtime.find(frame)
        if kind is None and target.is_async:
            runtime.announce(scope, "async", target.kind)
        return target

    if kind is not None:
        runtime.announce(scope, "async", kind)
    line = await run_async(frame, find, scope, runtime.limits)
    if line is None:
        runtime.hand_back(scope, runtime.find(frame).kind)  # a sync target would stop all the other jobs
        return
    runtime.finish(scope)
    runtime.write(line)
