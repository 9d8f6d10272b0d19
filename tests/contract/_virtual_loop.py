"""An event loop whose clock jumps to the next timer: hours pass in milliseconds, in the right order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing on it may wait for another process or thread while timers are set: it would be left behind."""

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        self._now = 1_000.0
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            if timeout is None:
                return select(None)
            if not (events := select(0)):
                self._now += timeout
            return events

        selector.select = jump  # type: ignore[method-assign]

    def time(self) -> float:
        return self._now


def run_virtually(scenario: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)
