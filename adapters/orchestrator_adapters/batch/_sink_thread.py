"""A thread for what may block for ever: whoever waits for it can leave, and so can the program."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = tuple[Callable[[], Any], asyncio.Future[Any]]

# A thread that has nothing to do ends at once.
_END_SECONDS = 1.0


class WriterThread:
    """Runs one blocking function after the other.

    A thread of a pool would not do: a program waits for those when it ends, and one that writes to a pipe nobody reads
    does not end.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._running: asyncio.Future[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="orchestrator batch: output", daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return what a function returns; who is cancelled leaves it to end by itself."""
        self._running = future = self._loop.create_future()
        self._calls.put((function, future))
        # What the thread says when nobody waits any more is for nobody.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(future)

    async def close(self, patience: float) -> None:
        """Let the thread end; wait so many seconds for a function that still runs."""
        self._calls.put(None)
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running], timeout=patience)
        if self._running is None or self._running.done():
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                result = function()
            except BaseException as error:
                self._tell(future, None, error)
            else:
                self._tell(future, result, None)

    def _tell(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
