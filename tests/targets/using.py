"""Targets that say what they use, that read what all jobs are told, and that raise what says how to go on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, NoReturn

from orchestrator import child


def spend(**counts: float) -> int:
    child.usage(**counts)
    return 1


async def spend_async(**counts: float) -> int:
    child.usage(**counts)
    await asyncio.sleep(0)
    return 1


def spend_often(times: int) -> None:
    for _ in range(times):
        child.usage(requests=1)


def spend_and_die(marks: str, deaths: int) -> str:
    """Use three tokens, and die in the first attempts."""
    child.usage(prompt=3)
    with Path(marks).open("a+b") as file:
        file.write(b".")
        tried = file.tell()
    if tried <= deaths:
        os._exit(9)
    return "done"


def spend_and_fail() -> NoReturn:
    child.usage(prompt=5)
    raise ValueError("no")


def told() -> dict[str, Any]:
    found = child.params()
    found["changed"] = True  # the next one must not see it
    return child.params()


async def told_async() -> dict[str, Any]:
    return child.params()


PRELOADED = child.params()


def told_early() -> dict[str, Any]:
    return PRELOADED


class Quota(Exception):
    """What a client raises when too much was asked of the other side."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("quota")
        self.__dict__.update(attributes)


class Hostile(Exception):
    """Has attributes that do harm when they are asked for, or that no JSON can carry."""

    code = 10**5000
    failure_class = "x" * 2_000_000
    quota_scope: Any = object()

    @property
    def status_code(self) -> int:
        raise SystemExit("asked for")

    @property
    def retry_after(self) -> float:
        return float("nan")


def refuse(**attributes: Any) -> NoReturn:
    raise Quota(**attributes)


def refuse_hostile() -> NoReturn:
    raise Hostile("still told")
