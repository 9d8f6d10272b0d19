"""The engine's loop as its parts see it: a callback of theirs that raises ends the engine, loudly."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterator


class GuardedLoop:
    """Runs callbacks of the engine.

    What one of them raises is a fault of ours. A loop would log it and go on, and the job that the callback was for
    would wait for ever.

    Args:
        loop: The engine's loop.
        failed: Hears of the exception.

    Attributes:
        time: The loop's clock.
        create_future: As the loop's.
        failed: Hears of the exception.
    """

    __slots__ = ("_loop", "create_future", "failed", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Callable[[Exception], None]) -> None:
        self._loop = loop
        self.failed = failed
        self.time: Callable[[], float] = loop.time
        self.create_future: Callable[[], asyncio.Future[Any]] = loop.create_future

    def call_soon(self, function: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Call a function in the loop's next turn."""
        return self._loop.call_soon(self.guarded, function, *args)

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call a function after so many seconds."""
        return self._loop.call_later(delay, self.guarded, function, *args)

    def call_at(self, when: float, function: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call a function when the clock says so."""
        return self._loop.call_at(when, self.guarded, function, *args)

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Call a function in the loop's next turn; from any thread."""
        return self._loop.call_soon_threadsafe(self.guarded, function, *args)

    def guarded(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function now."""
        try:
            function(*args)
        except Exception as error:
            self.failed(error)

    async def guard(self, function: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> None:
        """Run a coroutine function."""
        try:
            await function(*args)
        except Exception as error:
            self.failed(error)


@contextlib.contextmanager
def known_to_sniffio() -> Iterator[None]:
    """Say that asyncio runs here, as a task group asks when it starts something.

    Where sniffio is installed, as clients of many APIs have it, anyio asks that; and outside of tasks, in a callback of
    the loop, sniffio does not know.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is None:
        yield
        return
    token = sniffio.current_async_library_cvar.set("asyncio")
    try:
        yield
    finally:
        sniffio.current_async_library_cvar.reset(token)
