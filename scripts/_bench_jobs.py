"""The jobs that every measured pool runs: the same functions for all, stdlib only and cheap to import."""

from __future__ import annotations

import os
import time


def noop(number: int) -> int:
    """Return the argument: what is left is the pool's own cost."""
    return number


def echo(text: str) -> str:
    """Return the argument: a payload travels there and back."""
    return text


def moment(number: int) -> float:
    """Return when this job ran, on a clock that all processes of the machine share."""
    return time.monotonic()


def hold(seconds: float, started: str = "") -> int:
    """Say in the file `started` that the job runs and in which process, then sleep."""
    _say(started, os.getpid())
    time.sleep(seconds)
    return os.getpid()


async def hold_async(seconds: float, started: str = "") -> int:
    """Do what `hold` does, as a coroutine."""
    import asyncio

    _say(started, os.getpid())
    await asyncio.sleep(seconds)
    return os.getpid()


def hold_tree(seconds: float, started: str = "") -> int:
    """Do what `hold` does, with a process of the job's own beside it."""
    import subprocess

    helper = subprocess.Popen(["sleep", str(seconds)])
    _say(started, os.getpid(), helper.pid)
    time.sleep(seconds)
    return os.getpid()


def hold_deaf(seconds: float, started: str = "") -> int:
    """Do what `hold` does, deaf to SIGTERM and to any exception that is raised in it."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say(started, os.getpid())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:  # to be deaf is what this job is for
            continue
    return os.getpid()


async def as_coroutine(name: str, *args: object) -> object:
    """Call a job by its name, for the pool that takes coroutine functions only."""
    return globals()[name](*args)


def _say(path: str, *pids: int) -> None:
    if path:
        with open(path + ".part", "w", encoding="ascii") as file:
            file.write(" ".join(map(str, pids)))
        os.replace(path + ".part", path)  # whoever waits for the file finds it complete
