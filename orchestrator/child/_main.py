"""A child from its first instruction to its last: claim the pipes, say hello, run jobs, say bye."""

from __future__ import annotations

import faulthandler
import os
import sys

from orchestrator import _wire
from orchestrator.child import _scope
from orchestrator.child._runtime import Runtime
from orchestrator.child._stdio import LineWriter, claim_protocol_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(nonce: str) -> None:
    """Be a child; returns never."""
    incoming, outgoing = claim_protocol_fds()
    runtime = Runtime(incoming, outgoing)
    _adapt_process(runtime, incoming, outgoing)
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
    code = 0
    try:
        _apply_init(runtime)
        runtime.send({"type": "ready"})
        _serve(runtime)
    except BaseException as error:
        # Only preload gets here: jobs answer for their own errors.
        import traceback

        traceback.print_exc()
        runtime.flush_lines()
        runtime.send({"type": "bye", "reason": f"{type(error).__name__}: {error}"})
        code = 1
    else:
        runtime.flush_lines()
        runtime.send({"type": "bye"})
    _leave(code)


def _leave(code: int) -> None:
    """Run what user code registered for exit, then go; a thread that never ends must not keep the process."""
    try:
        import atexit

        atexit._run_exitfuncs()
    finally:
        os._exit(code)


def _adapt_process(runtime: Runtime, incoming: int, outgoing: int) -> None:
    import _signal

    sys.stdout = runtime.out = LineWriter(1, lambda text: runtime.line("stdout", text))
    sys.stderr = runtime.err = LineWriter(2, lambda text: runtime.line("stderr", text))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    faulthandler.enable(2)
    # A handler that does nothing but look for a cancel: SIG_IGN would be inherited and would disable interrupt_main.
    _signal.signal(_signal.SIGINT, runtime.on_signal)
    if sys.platform != "win32":
        _signal.signal(_signal.SIGUSR1, runtime.on_signal)

    def in_forked_copy() -> None:
        # A forked process is not this child: it must not speak for it or keep its pipes open.
        for fd in (incoming, outgoing):
            try:
                os.close(fd)
            except OSError:
                continue
        _scope.disable()
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, errors="backslashreplace")
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        if sys.platform != "win32":
            _signal.signal(_signal.SIGUSR1, _signal.SIG_DFL)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_forked_copy)


def _apply_init(runtime: Runtime) -> None:
    init = runtime.init
    if init.get("version", _wire.VERSION) != _wire.VERSION:
        os._exit(_wire.EXIT_PROTOCOL)
    os.environ.update(init.get("secrets") or {})
    if init.get("argv"):
        sys.argv[:] = init["argv"]
    runtime.limits.folder = init.get("temp")
    runtime.limits.largest = init.get("max_message_bytes", _wire.MAX_MESSAGE_BYTES)
    from orchestrator.child import _capture

    _capture.install(runtime)
    for name in init.get("preload") or ():
        if ":" in name:
            found: Any = runtime.find({"target": name}).function
            found()
        else:
            __import__(name)


def _serve(runtime: Runtime) -> None:
    """Run sync jobs on this thread until the first async one makes this an async child, or the child is to stop."""
    from orchestrator.child import _plain

    async_frame = _plain.run(runtime)
    if async_frame is not None:
        from orchestrator.child import _async

        _async.run(runtime, [async_frame])
        return
    from orchestrator.child._resource import aclose_all, close_all

    report = runtime.report
    later = close_all(runtime.resources, report)
    if later:
        import asyncio

        asyncio.run(aclose_all(later, report))
