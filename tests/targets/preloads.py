"""Modules and functions to preload: they count their starts, and fail as long as a flag file is missing."""

from __future__ import annotations

import os
import sys
import threading


def _count() -> None:
    with open(os.environ["PRELOAD_STARTS"], "ab") as file:
        file.write(b"x")


def fail_without_flag() -> None:
    _count()
    if not os.path.exists(os.environ["PRELOAD_FLAG"]):
        print("missing libpreload.so.7", file=sys.stderr)
        raise ImportError("the flag is not there")


def exit_without_flag() -> None:
    _count()
    if not os.path.exists(os.environ["PRELOAD_FLAG"]):
        os.write(2, b"bailing out\n")
        os._exit(44)


def hang() -> None:
    _count()
    threading.Event().wait()


def announce() -> None:
    os.environ["PRELOADED"] = "yes"


def preloaded() -> str | None:
    return os.environ.get("PRELOADED")


def modules(*names: str) -> list[bool]:
    return [name in sys.modules for name in names]
