"""A fixture without a browser, and jobs that take their first argument from it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import date
from types import FrameType
from typing import Any

import standing

from orchestrator import child


class Desk:
    """What the jobs get."""

    def __init__(self, call: child.Call) -> None:
        self.call = call
        self.open = True
        self.interrupts: list[int] = []
        self.woken = threading.Event()
        self.kept: list[int] = []


class Opened:
    """Opens a desk around a sync job."""

    def __init__(self, call: child.Call) -> None:
        self.desk = Desk(call)
        self.options = call.options

    def __enter__(self) -> Desk:
        if self.options.get("leave_loop"):
            child.resource("loop", _leave_loop)
        if self.options.get("keep_processes"):
            self.desk.kept = child.resource("processes", _Processes).pids
        return self.desk

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.desk.open = False
        if self.desk.call.ended_by is not None:
            child.log(f"closed {type(error).__name__} {self.desk.call.ended_by}")
        if isinstance(error, KeyError):
            raise DeskBroken(f"because of {error!r}") from error


class Patient(Opened):
    """Lets nothing be raised in the job, and wakes what waits at the desk instead."""

    def may_interrupt(self, frame: FrameType | None) -> bool:
        return False

    def interrupt(self) -> None:
        self.desk.interrupts.append(threading.get_ident())
        self.desk.woken.set()


class Breaking(Opened):
    """Cannot even be asked."""

    def may_interrupt(self, frame: FrameType | None) -> bool:
        return 1 / 0 > 0


class _Processes:
    """Two processes, one started by the other; each says that it is there."""

    def __init__(self) -> None:
        inner = "import time; print(1, flush=True); time.sleep(600)"
        outer = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {inner!r}]).pid, flush=True)"
        command = [sys.executable, "-c", outer + "; import time; time.sleep(600)"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = {self.process.stdout.readline().strip() for _ in range(2)} - {"1"}
        self.pids = [self.process.pid, *map(int, said)]

    def close(self) -> None:
        self.process.kill()


class AsyncOpened:
    def __init__(self, call: child.Call) -> None:
        self._sync = Opened(call)

    async def __aenter__(self) -> Desk:
        await asyncio.sleep(0)
        return self._sync.desk

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await asyncio.sleep(0)
        self._sync.__exit__(kind, error, trace)


class DeskBroken(RuntimeError):
    failure_class = "desk_broken"


def _leave_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)
    return loop


def desk(call: child.Call) -> Any:
    """The fixture."""
    if call.is_async:
        return AsyncOpened(call)
    if call.options.get("breaks"):
        return Breaking(call)
    return Patient(call) if call.options.get("patient") else Opened(call)


def fails(call: child.Call) -> Any:
    raise DeskBroken("no desk today")


def facts(desk: Desk, *args: Any, **kwargs: Any) -> dict[str, Any]:
    call = desk.call
    return {
        "open": desk.open,
        "args": args,
        "kwargs": kwargs,
        "function": call.function.__name__,
        "options": call.options,
        "job": call.job,
        "key": call.key,
        "attempt": call.attempt,
        "is_async": call.is_async,
        "ended_by": call.ended_by,
        "pid": os.getpid(),
        "loop": asyncio._get_running_loop() is not None,
    }


async def facts_async(desk: Desk, *args: Any, **kwargs: Any) -> dict[str, Any]:
    await asyncio.sleep(0)
    return facts(desk, *args, **kwargs)


def pages(desk: Desk, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"number": number, "open": desk.open}


async def pages_async(desk: Desk, count: int) -> AsyncIterator[dict[str, Any]]:
    for number in range(count):
        await asyncio.sleep(0)
        yield {"number": number, "open": desk.open}


def due(desk: Desk, day: date, more: int = 0) -> date:
    return date.fromordinal(day.toordinal() + more)


def raises_key_error(desk: Desk) -> None:
    raise KeyError("lamp")


def plain_facts() -> dict[str, Any]:
    return {"pid": os.getpid(), "loop": asyncio._get_running_loop() is not None}


async def async_pid() -> int:
    return os.getpid()


def keyword_only(*, desk: Desk) -> None:
    pass


def nothing() -> None:
    pass


def spin(desk: Desk) -> None:
    child.progress(1)
    while True:
        time.sleep(0.001)


async def spin_async(desk: Desk) -> None:
    child.progress(1)
    await asyncio.sleep(600)


def start_more(desk: Desk) -> None:
    child.emit({"kept": desk.kept, "strays": _Processes().pids})
    time.sleep(600)


def facts_the_second_time(desk: Desk, flag: str) -> dict[str, Any]:
    if not os.path.exists(flag):
        with open(flag, "w", encoding="utf-8"):
            child.progress(1)
        time.sleep(600)
    return facts(desk)


def wait_at_desk(desk: Desk) -> None:
    child.progress(1)
    desk.woken.wait()
    child.progress(2)  # a write, after which nothing may be raised either
    child.log(f"woken by {desk.call.ended_by}, elsewhere: {threading.get_ident() not in desk.interrupts}")
    raise child.JobCancelled


class Office:
    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, desk: Desk, guest: str) -> str:
        return f"{self.name} greets {guest} at the desk, {desk.open}"


def leave_files(folder: str, end: str) -> int:
    """Name files and a folder, and end as told."""
    os.makedirs(os.path.join(folder, "evidence", "shots"))
    for name in ("report.txt", "gone.txt", "evidence/live.jpg"):
        path = os.path.join(folder, *name.split("/"))
        with open(path, "w", encoding="utf-8") as file:
            file.write(name)
        child.artifact(path)
    child.artifact(os.path.join(folder, "evidence"), "proof")
    child.artifact(os.path.join(folder, "evidence", "live.jpg"), "live.jpg")
    os.unlink(os.path.join(folder, "gone.txt"))
    for name in ("trace.zip", "shots/1.png", "shots/2.png"):
        with open(os.path.join(folder, "evidence", *name.split("/")), "w", encoding="utf-8") as file:
            file.write(name)
    child.progress(1)
    if end == "crash":
        os.kill(os.getpid(), 9)
    if end == "fail":
        raise DeskBroken("on purpose")
    if end == "hang":
        while True:
            try:
                time.sleep(60)
            except child.JobCancelled:
                continue
    if end == "wait":
        time.sleep(600)
    return 1


def leave_one(folder: str) -> str:
    """Name one more folder in each attempt, and crash in the first."""
    number = len(os.listdir(folder)) + 1
    path = os.path.join(folder, f"attempt-{number}")
    os.mkdir(path)
    child.artifact(path)
    with open(os.path.join(path, "note.txt"), "w", encoding="utf-8") as file:
        file.write(str(number))
    if number == 1:
        os.kill(os.getpid(), 9)
    return path


def leave_many(folder: str, count: int) -> None:
    child.artifact(folder)
    for number in range(count):
        with open(os.path.join(folder, f"{number:04}"), "w", encoding="utf-8"):
            pass


class Unclosed:
    """As a class that starts a browser and never closes it leaves its child."""

    def __init__(self, port: int = 0) -> None:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("there is a running loop already")
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.loop = _leave_loop()
        KEPT.append(self)

    def publish(self, fail: bool = False) -> tuple[int, int]:
        if fail:
            raise DeskBroken("on purpose")
        return os.getpid(), self.process.pid


KEPT: list[Unclosed] = []


def tick(number: int, leaving: int = -1) -> tuple[int, bool]:
    """Return whether a loop was left here before; leave one if told."""
    left = asyncio._get_running_loop() is not None
    if number == leaving:
        _leave_loop()
    return number, left


def stand_and_leave(port: int, label: str) -> int:
    standing.stand(port, label)
    _leave_loop()
    return os.getpid()


class Closing:
    async def aclose(self) -> None:
        await asyncio.sleep(0)
        child.log("closed in a loop of its own")


def leave_resource_and_loop() -> None:
    child.resource("closing", Closing)
    _leave_loop()
