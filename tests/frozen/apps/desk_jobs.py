"""Jobs of the app that tests freeze; its main process runs them too."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import sys
import time
from typing import Any

# What nothing else imports before: each is a file of the bundle.
LATE = ["_lzma", "_bz2", "sqlite3", "xml.dom.minidom", "wave", "mailbox", "plistlib", "fractions", "colorsys"]


def who() -> dict[str, Any]:
    """Return what this process is."""
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "executable": sys.executable,
        "frozen": getattr(sys, "frozen", False),
        "bundle": getattr(sys, "_MEIPASS", None),
        "environment": dict(os.environ),
    }


def streams() -> list[str | None]:
    """Return what the standard streams are."""
    print("to somebody, or nobody")
    return [None if stream is None else type(stream).__name__ for stream in (sys.stdin, sys.stdout, sys.stderr)]


def import_late(notes: str) -> None:
    """Import for ever what was not imported before, and write down how each import ends."""
    for turn in range(10**9):
        name = LATE[turn % len(LATE)]
        for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[loaded]
        try:
            importlib.import_module(name)
            ended = "ok"
        except Exception as error:
            ended = f"{type(error).__name__}: {error}"
        with open(notes, "a", encoding="utf-8") as file:
            file.write(f"{time.time()} {os.getpid()} {name} {ended}\n")
        time.sleep(0.02)


def square(number: int) -> tuple[int, int]:
    """Return the square, and the process that knew it."""
    return number * number, os.getpid()


def put(queue: multiprocessing.Queue[tuple[int, int]], number: int) -> None:
    """Answer through a queue."""
    queue.put(square(number))


def multiprocess() -> dict[str, Any]:
    """Use the standard library's processes as apps do."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=put, args=(queue, 6))
    process.start()
    process.join(60)
    if process.exitcode != 0:
        raise RuntimeError(f"the process ended with exit code {process.exitcode}")
    one = queue.get(timeout=60)
    queue.close()
    queue.join_thread()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        many = list(pool.map(square, range(4)))
    return {"pid": os.getpid(), "process": one, "exitcode": process.exitcode, "pool": many}
