"""Rows that a thread reads, handed to the loop with back-pressure and an end on demand."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from orchestrator_adapters.batch._source import Row

# Two blocks keep the loop fed while the thread reads the next; more would only hold memory.
BLOCKS_AHEAD = 2


class _Stopped(Exception):
    """Ends a reader whose rows nobody wants any more."""


async def rows_from_thread(
    read: Callable[[Callable[[list[Row]], None]], None], stop: Callable[[], None], *, is_interruptible: bool
) -> AsyncGenerator[Row, None]:
    """Yield the rows that a blocking function pushes.

    Args:
        read: Runs in a thread and hands over lists of rows; what it raises is raised here, after its rows.
        stop: Makes `read` return soon; called from the loop.
        is_interruptible: Whether it really does; if not, a thread that waits for input is left to itself.
    """
    loop = asyncio.get_running_loop()
    blocks: deque[list[Row]] = deque()
    arrived = asyncio.Event()
    finished = asyncio.Event()
    free = threading.Semaphore(BLOCKS_AHEAD)
    stopped = False
    failure: BaseException | None = None

    def accept(rows: list[Row]) -> None:
        blocks.append(rows)
        arrived.set()

    def push(rows: list[Row]) -> None:
        free.acquire()
        if stopped:
            raise _Stopped
        loop.call_soon_threadsafe(accept, rows)

    def end(error: BaseException | None) -> None:
        nonlocal failure
        failure = error
        finished.set()
        arrived.set()

    def run() -> None:
        error: BaseException | None = None
        try:
            read(push)
        except _Stopped:
            pass
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(end, error)
        except RuntimeError:
            pass  # the loop closed while this thread was in a read: nobody waits for the rest

    thread = threading.Thread(target=run, name="orchestrator batch: input", daemon=True)
    thread.start()
    try:
        while True:
            while blocks:
                rows = blocks.popleft()
                free.release()
                for row in rows:
                    yield row
            if finished.is_set() and not blocks:
                break
            arrived.clear()
            if not blocks and not finished.is_set():
                await arrived.wait()
        if failure is not None:
            raise failure
    finally:
        stopped = True
        free.release(BLOCKS_AHEAD)
        if not finished.is_set():
            stop()
        if is_interruptible:
            thread.join()  # its read returns at once
