"""Ctrl-C and SIGTERM during a run: once drains, twice stops, three times kills."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextlib.contextmanager
def interrupts(on_signal: Callable[[int, str], None], kill: Callable[[], None]) -> Iterator[None]:
    """Count the signals of this run while the context is open.

    Args:
        on_signal: Called on the loop with the count, from 1, and the signal's name.
        kill: Called at the third signal, from the signal handler: the loop may be what is stuck.
    """
    loop = asyncio.get_running_loop()
    count = 0

    def received(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= 3:
            kill()
        with contextlib.suppress(RuntimeError):  # The loop is closed: the run is over.
            loop.call_soon_threadsafe(on_signal, count, signal.Signals(number).name)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    # signal.signal, not the loop's own way: that one does not exist on Windows. A signal that our parent had us
    # ignore, as a shell does with the Ctrl-C of a background command, stays ignored.
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
