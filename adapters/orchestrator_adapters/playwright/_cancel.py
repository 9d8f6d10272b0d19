"""End what a sync job waits for in Playwright without hurting the connection, so that its browser serves the next job.

An exception raised from a signal handler inside one of Playwright's greenlets breaks the connection about one time in
fifty. So a job is interrupted by a signal only between two calls; within one, the task of that very call is cancelled
on Playwright's own loop, where a cancelled call ends as any failed one does.
"""

from __future__ import annotations

import os
import time

import greenlet  # type: ignore[import-untyped]
import playwright

from orchestrator_adapters.playwright import _handlers
from orchestrator_adapters.playwright._plan import LAST_PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

# A call ends within milliseconds of its cancel; if it has not after this long, the browser, or what runs in it, hangs.
PATIENCE = 1.0
# How much longer for the driver, which is what hangs if the browser's end did not end the call.
_DRIVER_PATIENCE = 0.3

_OFF_LIMITS = (
    os.path.dirname(os.path.abspath(playwright.__file__)) + os.sep,
    # Our own code, which closes what the job leaves, has deadlines instead.
    os.path.dirname(os.path.abspath(__file__)) + os.sep,
)


class Canceller:
    """Cancels one attempt, once.

    The main thread calls `begin`, `pause`, `end` and `may_interrupt`, some other thread `interrupt`; what that one
    looks at, it looks at in the main thread.

    Args:
        kill_browser: Ends the browser's processes, and with them every call.
        kill_driver: Ends the driver too.
    """

    def __init__(self, kill_browser: Callable[[], None], kill_driver: Callable[[], None]) -> None:
        self._kills = [kill_browser, kill_driver]
        self._kill_browser = kill_browser
        self._next_kill = 0.0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._user: Any = None
        self._asked: float | None = None  # when the first interrupt came
        self._scheduled = False
        self._delivered = False
        self._over = False
        # After it was cancelled: the call that the job's own cleanup waits for, and since when.
        self._waits_for: Any = None
        self._waits_since = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that calls may be cancelled from now on, those of the greenlet of the caller."""
        self._loop = loop
        self._user = greenlet.getcurrent()

    def pause(self) -> None:
        """Note that calls may not be cancelled for now."""
        self._user = None

    def end(self) -> None:
        """Note that the job's own code is over: what follows has deadlines of its own."""
        self._user = None
        self._closing = True

    def close(self) -> None:
        """Do nothing any more."""
        self._user = None
        self._over = True

    def left(self, *, at_least: float) -> float:
        """Return the seconds that closing may take, of an attempt that was asked to end."""
        since = self._asked
        return LAST_PATIENCE if since is None else max(at_least, since + LAST_PATIENCE - time.monotonic())

    def may_interrupt(self, frame: FrameType | None) -> bool:
        """Return whether JobCancelled may be raised in this frame of the main thread; it is taken for raised then."""
        if self._delivered or self._user is None:
            return False
        current = greenlet.getcurrent()
        if current is not self._user:
            # What waits for the handler, the job's own call, is cancelled by the loop as soon as it runs again.
            return _handlers.may_interrupt(current, frame, _OFF_LIMITS)
        while frame is not None:
            if frame.f_code.co_filename.startswith(_OFF_LIMITS):
                return False
            frame = frame.f_back
        self._delivered = True
        return True

    def interrupt(self) -> None:
        """End the call that the job waits for, if it waits for one; to be called again and again, by another thread."""
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
        if self._over:
            return
        loop = self._loop
        if loop is not None and not self._scheduled:
            self._scheduled = True
            try:
                loop.call_soon_threadsafe(self._look)
            except RuntimeError:
                self._scheduled = False  # the loop is closed: its driver is gone
        patience = PATIENCE if self._user is not None else LAST_PATIENCE
        if self._delivered or self._closing or now < max(self._asked + patience, self._next_kill) or not self._kills:
            return
        self._next_kill = now + _DRIVER_PATIENCE
        self._kills.pop(0)()

    def _look(self) -> None:
        """Cancel the call that the job's greenlet is suspended in; runs on Playwright's loop, in the main thread."""
        self._scheduled = False
        if self._over or self._user is None:
            return
        future = awaited(self._user)
        if future is None or future.done():
            return
        if not self._delivered:
            # Set first: the callback may say otherwise at once.
            self._delivered = True
            future.add_done_callback(self._was_heard)
            future.cancel()
        elif future is not self._waits_for:
            self._waits_for, self._waits_since = future, time.monotonic()
        elif time.monotonic() - self._waits_since >= PATIENCE:
            # The job was told, and what it does to clean up hangs.
            self._waits_since = time.monotonic()
            self._kill_browser()

    def _was_heard(self, future: asyncio.Future[Any]) -> None:
        # A call that swallowed its cancel has ended otherwise: the next one is to be cancelled instead.
        if not future.cancelled():
            self._delivered = False


def awaited(suspended: Any) -> asyncio.Future[Any] | None:
    """Return the future for which a greenlet waits inside Playwright's sync API; None if it does not."""
    frame = getattr(suspended, "gr_frame", None)
    waits_for: Any = None
    while frame is not None and frame.f_code.co_filename.startswith(_OFF_LIMITS[0]):
        if frame.f_code.co_name == "__enter__":
            return None  # one turn of the loop at the start of an `expect_…` block, whose end nobody looks at
        if waits_for is None:
            # What waits holds the task of the call: `future` in wait_for_future, `task` in the _sync of older
            # versions, whose EventInfo has it as an attribute.
            held = frame.f_locals
            found = (held.get("future"), held.get("task"), getattr(held.get("self"), "_future", None))
            waits_for = next((each for each in found if hasattr(each, "add_done_callback")), None)
        frame = frame.f_back
    return waits_for  # type: ignore[no-any-return]
