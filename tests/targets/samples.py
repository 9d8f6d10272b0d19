"""Targets that tests run in children."""

from __future__ import annotations

import os


def add(a: int, b: int) -> int:
    return a + b


async def add_async(a: int, b: int) -> int:
    return a + b


def fail(text: str) -> None:
    raise ValueError(text)


def die(code: int) -> None:
    os._exit(code)
