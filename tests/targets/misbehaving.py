"""Calls for executors that will not end by themselves, start things of their own, or die at a bad moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

DEADLINE = 60
LARGE = 20_000_000


# For the tests: nobody tells of what other processes write, or of their end


def until_written(path: Path, count: int = 1) -> list[int]:
    """Wait for so many process ids in a file."""
    end = time.monotonic() + DEADLINE
    while True:
        lines = path.read_text("ascii").splitlines(keepends=True) if path.exists() else []
        if len(lines) >= count and lines[-1].endswith("\n"):
            return [int(line) for line in lines]
        assert time.monotonic() < end, f"{path} has {len(lines)} lines and not {count}"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until_gone(pids: list[int]) -> None:
    end = time.monotonic() + DEADLINE
    while left := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < end, f"{left} are still there"
        time.sleep(0.005)


def until_awaited(future: Any, count: int) -> None:
    """Wait until so many threads wait for a future."""
    end = time.monotonic() + DEADLINE
    while len(future._condition._waiters) < count:
        assert time.monotonic() < end, "they do not wait"
        time.sleep(0.001)


def report(path: str, pid: int | None = None) -> None:
    """Write a process id, of the child by default."""
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{pid or os.getpid()}\n")


def report_and_return(path: str, value: object = None) -> object:
    report(path)
    return value


def apply(target: Callable[[str], object], path: str) -> object:
    return target(path)


def hold(folder: str, name: str) -> str:
    """Report, and wait until it is let go."""
    place = Path(folder)
    report(str(place / f"{name}.pid"))
    while not (place / "go").exists():
        time.sleep(0.01)
    return name


# They do not end by themselves


def swallow_everything(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            report(path)
            time.sleep(3600)
        except BaseException:  # which is what it is here for
            pass


def sleep(path: str) -> None:
    report(path)
    time.sleep(3600)


def wait_for_a_lock(path: str) -> None:
    lock = threading.Lock()
    lock.acquire()
    report(path)
    lock.acquire()


def sleep_with_the_gil(path: str) -> None:
    """Let neither another thread nor a handler of signals run any Python."""
    report(path)
    ctypes.PyDLL(None).sleep(3600)


def wait_for_a_process(path: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    report(path, process.pid)
    report(path)
    process.wait()


def leave_an_orphan(path: str) -> None:
    """Start a process whose parent ends at once."""
    _start_through_a_shell(path, new_session=False)


def leave_an_orphan_in_a_session_of_its_own(path: str) -> None:
    _start_through_a_shell(path, new_session=True)


def _start_through_a_shell(path: str, *, new_session: bool) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", "sleep 3600 >/dev/null & echo $!"],
        stdout=subprocess.PIPE,
        check=True,
        start_new_session=new_session,
    )
    report(path, int(done.stdout))
    report(path)
    time.sleep(3600)


def nest(path: str) -> None:
    """Wait for a call of an executor of its own."""
    from orchestrator_adapters.executor import OrchestratorExecutor

    with OrchestratorExecutor(1) as inner:
        future = inner.submit(sleep, path)
        until_written(Path(path))
        report(path)
        future.result()


ENDLESS: list[Callable[[str], None]] = [swallow_everything, sleep, wait_for_a_lock, sleep_with_the_gil]
FAMILIES = [wait_for_a_process, leave_an_orphan, leave_an_orphan_in_a_session_of_its_own, nest]


# They end at a bad moment


def nap(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


def take(data: bytes, number: int = 0) -> int:
    return len(data) + number


def give(path: str, count: int = LARGE) -> bytes:
    """Return much, right after saying so."""
    value = b"x" * count
    report(path)
    return value


def give_and_die(count: int, seconds: float) -> bytes:
    """Return much, while a thread ends the process."""

    def die() -> None:
        time.sleep(seconds)
        os._exit(7)

    threading.Thread(target=die, daemon=True).start()
    return b"x" * count


def die_meanwhile(path: str) -> None:
    """Wait to be killed from outside."""
    import faulthandler

    faulthandler.disable()  # for SIGSEGV would be told at length
    report(path)
    time.sleep(3600)


def exit_with(code: int) -> None:
    os._exit(code)


def crash_in_chunk(number: int) -> int:
    if number == 13:
        os._exit(7)
    return number


# Children as they start


def hang_at_start(path: str) -> None:
    report(path)
    time.sleep(3600)


def start_a_helper(path: str) -> None:
    print("starting a helper")
    report(path, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid)


# Inputs of a map


def items_then_error(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError("no more items")


# A mixture, with what is to become of each


def do(kind: str, number: int, path: str) -> object:
    with open(path, "ab") as file:
        file.write(b"x")
    if kind == "raise":
        raise ValueError(str(number))
    if kind == "crash":
        os._exit(number % 100 + 1)
    if kind == "print":
        print(number)
    elif kind == "large":
        return number.to_bytes(4, "big") * 100_000
    elif kind == "nap":
        time.sleep(random.uniform(0, 0.01))
    elif kind == "swallow":
        with contextlib.suppress(BaseException):
            time.sleep(0.05)
    return number
