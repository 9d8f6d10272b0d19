"""A child from its first instruction to its last: claim the pipes, say hello, run jobs, say bye."""

from __future__ import annotations

import faulthandler
import os
import sys

from orchestrator import _wire
from orchestrator.child import _capture, _fork, _plain, _scope
from orchestrator.child._inbox import end_protocol
from orchestrator.child._orphan import kill_descendants
from orchestrator.child._runtime import Runtime
from orchestrator.child._stdio import LineWriter, claim_protocol_fds

# Half of the scale: the kernel takes this process for having half of all memory more than it has.
_OOM_SCORE = 500

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(nonce: str) -> None:
    """Be a child; returns never."""
    incoming, outgoing = claim_protocol_fds()
    runtime = Runtime(incoming, outgoing)
    _adapt_process(runtime)
    _fork.prepare(runtime, (incoming, outgoing))
    runtime.send(
        {
            "type": "hello",
            "version": _wire.VERSION,
            "nonce": nonce,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "flavours": ["plain", "async"],
        }
    )
    runtime.start_reader()
    runtime.wait_init()
    bye: dict[str, Any] = {"type": "bye"}
    code = 0
    try:
        _apply_init(runtime)
        runtime.send({"type": "ready"})
        if "service" in runtime.init:
            from orchestrator.child import _service

            code = _service.run(runtime)
        else:
            _serve(runtime)
    except BaseException as error:
        # From preload, or from what user code left to be closed: jobs answer for their own errors.
        import traceback

        traceback.print_exc()
        bye["reason"] = f"{type(error).__name__}: {error}"
        if runtime.redactor is not None:
            bye["reason"] = runtime.redactor.text(bye["reason"])
        code = 1
    try:
        # What user code registered for exit; not the end of its threads, which may never come.
        import atexit

        atexit._run_exitfuncs()
        if runtime.spent:
            # Before the next child starts: what was left may hold what its first job wants, such as a profile's lock.
            kill_descendants()
    finally:
        runtime.flush_lines()
        runtime.send(bye)
        os._exit(code)


def _adapt_process(runtime: Runtime) -> None:
    import _signal

    out: Any = LineWriter(1, lambda text: runtime.line("stdout", text), runtime.muted)
    err: Any = LineWriter(2, lambda text: runtime.line("stderr", text), runtime.muted)
    sys.stdout = sys.__stdout__ = runtime.out = out  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = runtime.err = err  # type: ignore[misc]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    faulthandler.enable(2)
    _offer_memory()
    # A handler that does nothing but look for a cancel: SIG_IGN would be inherited and would disable interrupt_main.
    _signal.signal(_signal.SIGINT, runtime.on_signal)
    if sys.platform != "win32":
        _signal.signal(_signal.SIGUSR1, runtime.on_signal)


def _offer_memory() -> None:
    """Have the kernel take this process, and what it starts, before the supervisor when memory runs out."""
    if sys.platform == "linux":
        try:
            with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
                file.write(b"%d" % min(1000, int(file.read()) + _OOM_SCORE))
        except (OSError, ValueError):
            pass  # no /proc, or not ours to write: then the kernel chooses as it likes


def _apply_init(runtime: Runtime) -> None:
    init = runtime.init
    if init.get("version", _wire.VERSION) != _wire.VERSION:
        end_protocol(f"version {init['version']} of the protocol is asked for, this is {_wire.VERSION}")
    if init.get("parent"):
        from orchestrator.child._orphan import die_with

        die_with(init["parent"])
    if init.get("secrets"):
        from orchestrator.child._redact import Redactor

        os.environ.update(init["secrets"])
        runtime.redactor = Redactor(init["secrets"])
    if init.get("argv"):
        sys.argv[:] = init["argv"]
    runtime.limits.largest = init.get("max_message_bytes", _wire.MAX_MESSAGE_BYTES)
    folder = runtime.limits.folder = init.get("temp")
    if folder:
        _keep_files(runtime, folder)
    if init.get("params"):
        # Also for what is preloaded, and for threads that know of no job.
        runtime.params = _scope.local_params = _scope.Params(init["params"])
    _scope.host = runtime
    _capture.install(runtime)
    for name in init.get("preload") or ():
        if ":" in name:
            found: Any = runtime.find({"target": name}).function
            found()
        else:
            __import__(name)


def _keep_files(runtime: Runtime, folder: str) -> None:
    """Open what the supervisor reads when this process cannot answer any more."""
    runtime.keep_notes(os.path.join(folder, _wire.RUNNING_FILE))
    if sys.platform != "win32":
        import _signal

        # Written by a C handler, in whatever state the interpreter is. Of the main thread only, which the kernel
        # interrupts: the frames of a thread that runs on may be gone while they are read, and then this would kill a
        # child that was only slow.
        path = os.path.join(folder, _wire.STACK_FILE)
        stack = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        faulthandler.register(_signal.SIGUSR2, stack, all_threads=False)


def _serve(runtime: Runtime) -> None:
    """Run sync jobs on this thread until the first async one makes this an async child, or the child is to stop."""
    async_frame = _plain.run(runtime)
    if async_frame is not None:
        from orchestrator.child import _async

        _async.run(runtime, async_frame)
        return
    if not runtime.resources.made:
        return
    from orchestrator.child._resource import aclose_all, close_all

    later = close_all(runtime.resources, runtime.report)
    if later:
        import asyncio

        asyncio._set_running_loop(None)  # left marked by a job, or a resource; it runs no more
        asyncio.run(aclose_all(later, runtime.report))
