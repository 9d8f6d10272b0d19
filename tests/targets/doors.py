"""The sync test's side of `gates`: a door at which jobs wait until the test lets them go, and what to do with them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from standing import stand

from orchestrator import child


class Door:
    """A context manager; leaving it opens the door for good."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.port: int = self._listener.getsockname()[1]
        self._standing: list[socket.socket] = []
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.open()

    def wait(self, count: int = 1) -> list[str]:
        """Wait until so many more have come; returns their labels."""
        labels = []
        for _ in range(count):
            line, _ = self._listener.accept()
            self._standing.append(line)
            text = b""
            while not text.endswith(b"\n"):
                text += line.recv(100)
            labels.append(text.decode().rpartition(" ")[0])
        return labels

    def open(self) -> None:
        """Let those go that stand there."""
        while self._standing:
            self._standing.pop().close()


# What must be the same with and without a process.

leaking = contextvars.ContextVar("leaking", default="clean")


def exchange(value: str) -> str:
    """Set a context variable, and return what it was."""
    before = leaking.get()
    leaking.set(value)
    return before


async def exchange_async(value: str) -> str:
    return exchange(value)


def thread_name() -> str:
    return threading.current_thread().name


def stand_until_stopped(port: int) -> str:
    """Come to the door, then look for the end now and then, as a job without interruption must."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"polling 0\n")
        while not child.stop_requested():
            time.sleep(0.002)
    return "saw it"


def stand_and_report(port: int) -> None:
    """Come to the door, then report progress for ever: each report is a place where the job can be ended."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"reporting 0\n")
        while True:
            child.progress(1)
            time.sleep(0.002)


def stand_deaf(port: int, note: str = "") -> str:
    """Stay at the door whatever anybody asks; say so in a file when it is over."""
    while True:
        try:
            stand(port, "deaf")
            break
        except child.JobCancelled:
            continue
    if note:
        with open(note, "w") as file:
            file.write("over")
    return "answered too late"


async def stand_deaf_async(port: int) -> str:
    """Stay at the door, and swallow cancels."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"deaf 0\n")
        line.setblocking(False)
        while True:
            try:
                await asyncio.sleep(0.002)
                line.recv(1)
            except (asyncio.CancelledError, BlockingIOError):
                continue
            return "answered too late"


def emit_many(count: int) -> int:
    for number in range(count):
        child.emit(number)
    return count


async def emit_many_async(count: int) -> int:
    for number in range(count):
        child.emit(number)
        await asyncio.sleep(0)
    return count


async def yield_and_emit(count: int) -> AsyncIterator[int]:
    """Yield, and emit in between without waiting for the reader."""
    for number in range(count):
        child.emit(-number)
        yield number


def yield_noting(path: str) -> Iterator[int]:
    """Yield for ever, and keep in a file how far it is."""
    number = 0
    while True:
        with open(path, "w") as file:
            file.write(str(number))
        yield number
        number += 1


async def yield_noting_async(path: str) -> AsyncIterator[int]:
    for number in yield_noting(path):
        yield number


async def permit_blocking(name: str) -> None:
    with child.permit(name):
        pass


def wait_for_permit(port: int, name: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"asking 0\n")
    with child.permit(name):
        raise AssertionError("it was granted")


async def call_many_async(show: Callable[..., Any], count: int) -> str:
    for number in range(count):
        show(number)
        await asyncio.sleep(0)
    return "called"


def call_many(show: Callable[..., Any], count: int, port: int = 0) -> str:
    for number in range(count):
        show(number)
    if port:
        stand(port, "called")
    return "called"


def leave_by_exit(code: int) -> None:
    raise SystemExit(code)


def large(size: int) -> list[str]:
    return ["x" * size]


class Diary:
    """A resource that notes on which thread it was made and closed."""

    def __init__(self) -> None:
        self.note("made")

    def note(self, what: str) -> None:
        with open(os.environ["DIARY"], "a") as file:
            file.write(f"{what} {threading.get_ident()}\n")

    def close(self) -> None:
        self.note("closed")


class AsyncDiary(Diary):
    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.note("closed")

    close = None  # type: ignore[assignment]


def write_diary() -> None:
    child.resource("diary", Diary)


async def write_diary_async() -> None:
    child.resource("diary", AsyncDiary)


def write_diary_with_await() -> None:
    child.resource("diary", AsyncDiary)


def nested(other: Callable[[], Any]) -> None:
    other()


def preload_for_ever() -> None:
    stand(int(os.environ["PRELOAD_PORT"]), "preloading")


def preload_here() -> None:
    leaking.set("preloaded")


def pass_or_stay(path: str, label: str, port: int = 0) -> str:
    """Note in a file that it ran; with a port, stay at the door, deaf."""
    with open(path, "a") as file:
        file.write(f"{label}\n")
    return stand_deaf(port) if port else label


async def ask_from_the_loop(name: str) -> list[str]:
    """Use the test's supervisor from the engine's own thread; returns what that said."""
    said = []
    supervisor: Any = OPEN[name]
    for ask in (
        lambda: supervisor.run(thread_name),
        lambda: supervisor.submit(thread_name),
        lambda: supervisor.scale(2),
        lambda: supervisor.drain(),
        lambda: supervisor.close(),
        lambda: supervisor.statistics(),
        lambda: OPEN["handle"].result(),
        lambda: next(OPEN["handle"].events()),
    ):
        try:
            said.append(f"returned {ask()!r}")
        except Exception as error:
            said.append(type(error).__name__)
    return said


# What tests lend to inline jobs.
OPEN: dict[str, Any] = {}


def run_another(name: str, value: int) -> Any:
    """Run a job from within a job, on its own thread."""
    return OPEN[name].run("chores:same", value)


def yield_after_door(port: int) -> Iterator[str]:
    yield "first"
    stand(port, "between")
    yield "second"
