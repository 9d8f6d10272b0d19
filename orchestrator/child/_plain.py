"""The main thread of a plain child: one sync job after the other, no event loop running."""

from __future__ import annotations

import faulthandler
import os

from orchestrator.child._invoke import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.child._runtime import Runtime


def run(runtime: Runtime) -> dict[str, Any] | None:
    """Run jobs until the child is to stop (None), or until a fresh child gets an async one, which is returned."""
    while True:
        found = runtime.next_job()
        if found is None:
            return None
        frame, scope = found
        if runtime.flavour is None or "kind" not in frame:
            is_async = _is_async(runtime, frame)
            if is_async and runtime.flavour is None:
                runtime.flavour = "async"
                return frame
            if is_async:
                # Sent by name, so the supervisor could not know: it goes back free of charge, to another child.
                runtime.finish(scope)
                runtime.send({"type": "returned", "asked": [scope.fence], "fences": [scope.fence], "kind": "async"})
                continue
            if runtime.flavour is None:
                runtime.flavour = "plain"
                runtime.send({"type": "started", "fence": scope.fence, "flavour": "plain"})
        runtime.running = scope
        stack_file = _arm_stack_dump(frame)
        line = run_sync(frame, runtime.find, scope, runtime.limits)
        runtime.running = None
        if stack_file is not None:
            faulthandler.cancel_dump_traceback_later()
            os.close(stack_file)
        # Written whole before the next job is taken: after a death, the first job without an answer is the one that ran.
        runtime.finish(scope)
        runtime.write(line)


def _is_async(runtime: Runtime, frame: dict[str, Any]) -> bool:
    kind = frame.get("kind")
    if kind is not None:
        return kind in ("async", "async_generator")
    try:
        return runtime.find(frame).is_async
    except BaseException:
        return False  # the job itself will find the same, and say so


def _arm_stack_dump(frame: dict[str, Any]) -> int | None:
    """Have the stack written to a file if the job outlives its timeout; by a C thread, so also when the GIL is held."""
    after = frame.get("dump_after")
    if after is None:
        return None
    fd = os.open(frame["dump_file"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    faulthandler.dump_traceback_later(after, file=fd)
    return fd
