"""Targets that give the supervisor much to do at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator import child


@dataclass
class Row:
    number: int
    when: datetime
    tags: set[str]


ROW_TIME = datetime(2024, 2, 3, 4, 5, 6)


def rows(count: int) -> list[Row]:
    return [Row(number, ROW_TIME, {"a", str(number)}) for number in range(count)]


def same(number: int) -> int:
    return number


async def same_async(number: int) -> int:
    return number


def nested(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"name {number}", "deep": [{"x": [number, None, 1.5]}]} for number in range(count)]


def echo(value: Any) -> Any:
    return value


def text_of(size: int) -> str:
    return "x" * size


def echo_rows(value: list[Row]) -> list[Row]:
    return value


def count_rows(value: list[Row]) -> int:
    return len(value)


def shout(megabytes: int) -> str:
    """Write to fd 2, past Python, a line after the other."""
    lines = (b"y" * 99 + b"\n") * 10_000
    for _ in range(megabytes):
        os.write(2, lines[: 2**20])
    return "shouted"


def shout_one_line(megabytes: int) -> str:
    for _ in range(megabytes):
        os.write(2, b"z" * 2**20)
    return "shouted"


def chatter(count: int) -> str:
    for number in range(count):
        print("line", number)
        child.log("said", number=number)
        child.progress(number, count)
    return "chattered"


def count_up(number: int) -> Iterator[int]:
    yield from range(number)


def call_often(number: int, heard: Callable[[int], None]) -> None:
    for each in range(number):
        heard(each)


def die(code: int) -> None:
    os._exit(code)


def hold(number: int = 0) -> None:
    child.progress(1)
    time.sleep(600)


async def hold_async(number: int = 0) -> None:
    child.progress(1)
    await asyncio.sleep(600)


def hold_with_descendants(count: int) -> None:
    """Start many processes, half of them in sessions of their own, say so, and stay."""
    code = "import time; time.sleep(600)"
    for number in range(count):
        subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=number % 2 == 0)
    child.progress(count)
    time.sleep(600)
