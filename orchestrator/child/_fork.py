"""What becomes of a forked copy of a child: an ordinary process that speaks for nobody."""

from __future__ import annotations

import os
import sys

from orchestrator.child import _scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import TextIOWrapper

    from orchestrator.child._runtime import Runtime


def prepare(runtime: Runtime, private: tuple[int, ...]) -> None:
    """See to it that a copy, made by user code with `os.fork`, is inert: `private` are the fds of the protocol."""
    if not hasattr(os, "register_at_fork"):
        return

    def in_copy() -> None:
        import _signal

        runtime.copied = True
        _scope.disable()
        for fd in private:
            # A copy that outlives the child must not keep its pipes open.
            try:
                os.close(fd)
            except OSError:
                continue
        for writer in (runtime.out, runtime.err):
            if writer is not None:
                # Handlers of logging keep the old stream: it writes plain lines from now on.
                writer.renew()
        sys.stdout = sys.__stdout__ = _plain_stream(1)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = _plain_stream(2)  # type: ignore[misc]
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        _signal.signal(_signal.SIGUSR1, _signal.SIG_DFL)

    os.register_at_fork(after_in_child=in_copy)


def _plain_stream(fd: int) -> TextIOWrapper:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def end_copy(error: BaseException | None = None) -> None:
    """End a copy whose code came back from the job, as a script's end would: the child itself answers for the job."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    elif error is not None:
        import traceback

        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    os._exit(code & 0xFF)
