"""The main thread of a plain child: one sync job after the other, no event loop running."""

from __future__ import annotations

import faulthandler
import os
import sys

from orchestrator.child._invoke import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.child._runtime import Runtime
    from orchestrator.child._target import Target

_ASYNC = ("async", "async_generator")


def run(runtime: Runtime) -> dict[str, Any] | None:
    """Run jobs until the child is to stop (None), or until a fresh child gets an async one, which is returned."""
    while True:
        found = runtime.next_job()
        if found is None:
            return None
        frame, scope = found
        kind = frame.get("kind")
        if runtime.flavour is None and kind in _ASYNC:
            return frame
        runtime.note_running(scope.fence)
        find = runtime.find
        flavour = frame.get("flavour") or "plain"
        if runtime.flavour is None:
            if kind is not None:
                runtime.announce(scope, flavour, kind)
            else:

                def find(frame: dict[str, Any], scope: Any = scope, flavour: str = flavour) -> Target:
                    # Only the target itself says what kind it is; to import it is a part of the job.
                    target = runtime.find(frame)
                    if not target.is_async:
                        runtime.announce(scope, flavour, target.kind)
                    return target

        runtime.running = scope
        stack_file = _arm_stack_dump(frame)
        line = run_sync(frame, find, scope, runtime.limits)
        runtime.running = None
        if stack_file is not None:
            faulthandler.cancel_dump_traceback_later()
            os.close(stack_file)
        if line is None:
            if runtime.flavour is None:
                return frame
            runtime.hand_back(scope, runtime.find(frame).kind)
            continue
        # Written whole before the next job is taken: what has no answer after a death did not run before what has one.
        runtime.finish(scope)
        if runtime.flavour == "plain" and _leaves_loop():
            # Of a browser that was not closed, say: neither asyncio.run nor another such browser would work here.
            runtime.spend(line, "a job left an event loop running in the main thread")
        else:
            runtime.write(line)


def _leaves_loop() -> bool:
    """Return whether this thread is marked as one that runs an event loop, which it does not between jobs."""
    events: Any = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


def _arm_stack_dump(frame: dict[str, Any]) -> int | None:
    """Have the stack written to a file if the job outlives its timeout; by a C thread, so also when the GIL is held."""
    after = frame.get("dump_after")
    if after is None:
        return None
    fd = os.open(frame["dump_file"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    faulthandler.dump_traceback_later(after, file=fd)
    return fd
