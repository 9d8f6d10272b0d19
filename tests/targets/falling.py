"""Jobs and preloads of programs whose children cannot be had; the host's pid is in `FALLING_HOST`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from orchestrator import child


def is_child() -> bool:
    return os.getpid() != int(os.environ["FALLING_HOST"])


def _count() -> None:
    with Path(os.environ["FALLING_STARTS"]).open("ab") as file:
        file.write(b"x")


def fail_in_children() -> None:
    if is_child():
        _count()
        raise ImportError("libchild.so.3 is missing")


def fail_anywhere() -> None:
    raise ImportError("libany.so.1 is missing")


def die_in_children() -> None:
    if is_child():
        _count()
        os.kill(os.getpid(), signal.SIGKILL)


def die_when_flagged() -> None:
    """Die at the start of a child once the flag is there."""
    if is_child():
        _count()
        if os.path.exists(os.environ["FALLING_FLAG"]):
            os.kill(os.getpid(), signal.SIGKILL)


def work(path: str, number: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, b"%d\n" % number)
    finally:
        os.close(fd)
    return number


async def work_async(number: int) -> int:
    return number


def raise_flag(path: str, number: int, when: int) -> int:
    """Work; at one number, let no further child start."""
    if number == when:
        Path(os.environ["FALLING_FLAG"]).touch()
    return work(path, number)


def kill_child(path: str) -> str:
    """Kill the process it is in, having said so: the host's too, if it ever gets there."""
    work(path, os.getpid())
    Path(os.environ["FALLING_FLAG"]).touch()
    os.kill(os.getpid(), signal.SIGKILL if is_child() else signal.SIGTERM)
    return "alive"


def permitted(number: int) -> int:
    with child.permit("door"):
        return number
