"""An event loop that can start processes, whatever event loop policy the host has set."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

__all__ = ("new_loop",)

if sys.platform == "win32":
    _Loop = asyncio.ProactorEventLoop
elif sys.version_info >= (3, 14):
    _Loop = asyncio.SelectorEventLoop  # these ask no policy
else:
    from asyncio import unix_events

    class _Loop(asyncio.SelectorEventLoop):
        """Brings its own child watcher; asyncio's asks the policy for one, and uvloop's and many a host's have none."""

        async def _make_subprocess_transport(
            self,
            protocol: Any,
            args: Any,
            shell: bool,
            stdin: Any,
            stdout: Any,
            stderr: Any,
            bufsize: int,
            extra: Any = None,
            **kwargs: Any,
        ) -> Any:
            internals: Any = unix_events
            watcher: Any = asyncio.PidfdChildWatcher() if _has_pidfd() else asyncio.ThreadedChildWatcher()
            watcher.attach_loop(self)
            waiter = self.create_future()
            transport = internals._UnixSubprocessTransport(
                self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **kwargs
            )
            watcher.add_child_handler(transport.get_pid(), self._child_watcher_callback, transport)  # type: ignore[attr-defined]
            try:
                await waiter
            except BaseException:
                transport.close()
                await transport._wait()
                raise
            return transport


def _has_pidfd() -> bool:
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False  # an old kernel, or a container that forbids it
    return True


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new loop for a thread of its own."""
    return _Loop()
