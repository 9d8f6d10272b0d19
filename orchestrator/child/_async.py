"""The main thread of an async child: it lives inside one event loop, so warm async clients stay usable."""

from __future__ import annotations

import asyncio
import sys

from orchestrator.child import _scope
from orchestrator.child._invoke import run_async
from orchestrator.child._resource import aclose_all, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.child._runtime import Runtime


def run(runtime: Runtime, first: list[dict[str, Any]]) -> None:
    """Run jobs until the supervisor asks the child to stop."""
    factory = asyncio.ProactorEventLoop if sys.platform == "win32" else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(runtime, first))


async def _serve(runtime: Runtime, first: list[dict[str, Any]]) -> None:
    loop = asyncio.get_running_loop()
    tasks: dict[int, asyncio.Task[None]] = {}
    stopped = asyncio.Event()

    def start(frame: dict[str, Any]) -> None:
        if frame["type"] == "stop":
            stopped.set()
            return
        scope = runtime.scopes.get(frame["fence"]) or runtime.open_scope(frame)
        task = loop.create_task(_job(runtime, frame, scope))
        tasks[scope.fence] = task
        task.add_done_callback(lambda _: tasks.pop(scope.fence, None))
        if scope.cancelled:
            task.cancel()

    def deliver(frame: dict[str, Any]) -> None:
        if frame["type"] == "job":
            # On the reader thread, so that a cancel behind it in the pipe finds it.
            runtime.open_scope(frame)
        loop.call_soon_threadsafe(start, frame)

    def cancel(fence: int) -> None:
        loop.call_soon_threadsafe(lambda: tasks[fence].cancel() if fence in tasks else None)

    runtime.cancel_async = cancel
    for frame in first:
        start(frame)
    runtime.adopt(deliver)
    if runtime.stopping:
        stopped.set()
    await stopped.wait()
    while tasks:
        await asyncio.wait(list(tasks.values()))
    await aclose_all(close_all(runtime.resources, lambda text: runtime.line("stderr", text)), _report(runtime))


def _report(runtime: Runtime) -> Any:
    return lambda text: runtime.line("stderr", text)


async def _job(runtime: Runtime, frame: dict[str, Any], scope: _scope.Scope) -> None:
    runtime.send({"type": "started", "fence": scope.fence, "flavour": "async"})
    try:
        line = await run_async(frame, runtime.find_async, scope, runtime.limits)
    except asyncio.CancelledError as error:
        # Cancelled before its first step: run_async had no chance to answer.
        from orchestrator.child._invoke import error_line

        line = error_line(scope, error, 0.0, cancelled=True)
    runtime.finish(scope)
    runtime.write(line)
