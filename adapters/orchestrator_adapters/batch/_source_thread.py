"""Rows that a thread reads, handed to the loop with back-pressure and an end on demand."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from orchestrator_adapters.batch._source import Row

# Two blocks keep the loop fed while the thread reads the next; more would only hold memory.
BLOCKS_AHEAD = 2
# A file on a network may hold its reader up; leaving is not held up for longer than this.
_PATIENCE = 5.0
_NO_PATIENCE = 0.05  # with one that cannot be told to stop


class _Unwanted(Exception):
    """Ends a reader whose rows nobody wants any more."""


class ReaderThread:
    """Runs a blocking function that pushes rows.

    Args:
        read: Gets a function to push lists of rows with; what it raises comes after its rows.
        stop: Makes a read that waits return; called from the loop, while `read` runs.
        close: Called by the thread when `read` is done.
        can_be_stopped: Whether `stop` has that power; if not, a thread that waits for input is left to itself.
    """

    def __init__(
        self,
        read: Callable[[Callable[[list[Row]], None]], None],
        stop: Callable[[], None],
        close: Callable[[], None],
        *,
        can_be_stopped: bool = True,
    ) -> None:
        self._read = read
        self._stop = stop
        self._close = close
        self._patience = _PATIENCE if can_be_stopped else _NO_PATIENCE
        self._loop = asyncio.get_running_loop()
        self._blocks: deque[list[Row]] = deque()
        self._arrived = asyncio.Event()
        self._finished = asyncio.Event()
        self._free = threading.Semaphore(BLOCKS_AHEAD)
        self._lock = threading.Lock()
        self._wanted = True
        self._closed = False
        self._failure: BaseException | None = None

    async def rows(self) -> AsyncGenerator[Row, None]:
        """Yield the rows in order; leaving ends the thread."""
        thread = threading.Thread(target=self._run, name="orchestrator batch: input", daemon=True)
        thread.start()
        try:
            while True:
                while self._blocks:
                    block = self._blocks.popleft()
                    self._free.release()
                    for row in block:
                        yield row
                if self._finished.is_set():
                    break
                self._arrived.clear()
                await self._arrived.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            self._wanted = False
            self._free.release(BLOCKS_AHEAD)
            with self._lock:
                if not self._closed:
                    self._stop()
            with anyio.move_on_after(self._patience, shield=True):
                await self._finished.wait()
                thread.join()

    def _push(self, rows: list[Row]) -> None:
        self._free.acquire()
        if not self._wanted:
            raise _Unwanted
        self._loop.call_soon_threadsafe(self._accept, rows)

    def _accept(self, rows: list[Row]) -> None:
        self._blocks.append(rows)
        self._arrived.set()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._read(self._push)
        except _Unwanted:
            pass
        except BaseException as error:
            failure = error
        with self._lock:  # nobody stops what is closed
            self._closed = True
            self._close()
        try:
            self._loop.call_soon_threadsafe(self._end, failure)
        except RuntimeError:
            pass  # the loop closed while this thread was in a read: nobody waits for the rest

    def _end(self, failure: BaseException | None) -> None:
        self._failure = failure
        self._finished.set()
        self._arrived.set()
