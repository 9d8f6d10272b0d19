"""Targets of the scenario in `hosting`, apart from it: children import these a thousand times, and little else."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator

from orchestrator import child


def double(number: int) -> int:
    return 2 * number


async def double_async(number: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return 2 * number


def process() -> int:
    return os.getpid()


def refuse(text: str) -> None:
    raise ValueError(text)


def leave(code: int) -> None:
    os._exit(code)


def hold(note: str = "") -> None:
    """Say that it runs, and stay."""
    child.progress(1, text=note)
    time.sleep(600)


async def hold_async() -> None:
    import asyncio

    child.progress(1)
    await asyncio.sleep(600)


def count_down(number: int, show: Callable[[int], None]) -> str:
    for left in range(number, 0, -1):
        show(left)
    return "lift-off"


def count(number: int) -> Iterator[int]:
    yield from range(number)


async def count_async(number: int) -> AsyncIterator[int]:
    for each in range(number):
        yield each


def tell(path: str) -> str:
    child.progress(1, 2, "half")
    child.log("a line", level="warning", page=3)
    print("a print")
    child.emit({"n": 1})
    child.artifact(path, "file")
    with child.permit("door"):
        return "told"


def count_down_then_hold(held: Callable[[], None]) -> None:
    held()
    time.sleep(600)


def text_of(size: int) -> str:
    return "x" * size
