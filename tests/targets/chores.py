"""Small jobs about retries, limits, resources, environment, callbacks and streams."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from standing import stand, stand_async

from orchestrator import child


def _count(path: str) -> int:
    with open(path, "ab") as file:
        file.write(b"x")
        return file.tell()


class Flaky(Exception):
    pass


class Fatal(Exception):
    pass


def fail_times(path: str, times: int, name: str = "Flaky") -> int:
    """Raise so many times, then return how often it ran."""
    runs = _count(path)
    if runs <= times:
        raise {"Flaky": Flaky, "Fatal": Fatal, "OSError": FileNotFoundError}[name](f"run {runs}")
    return runs


def stamp(path: str, label: str = "") -> float:
    """Note when it ran."""
    now = time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{now} {label}\n".encode())
    os.close(fd)
    return now


def same(value: Any) -> Any:
    return value


def odd_fails(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


async def same_async(value: Any) -> Any:
    return value


def pid(_: Any = None) -> int:
    return os.getpid()


async def pid_async(_: Any = None) -> int:
    return os.getpid()


def use_permit(port: int, name: str, weight: float = 1) -> str:
    with child.permit(name, weight=weight):
        return stand(port, "holding")


async def use_permit_async(port: int, name: str) -> str:
    async with child.permit(name):
        return await stand_async(port, "holding")


def die_with_permit(port: int, name: str) -> None:
    child.permit(name).__enter__()
    stand(port, "holding")
    os._exit(1)


def throttle(name: str, retry_after: float) -> float:
    with child.permit(name) as permit:
        permit.throttled(retry_after)
    return time.monotonic()


def permit_unknown() -> None:
    with child.permit("no such limit"):
        pass


def permit_stamp(path: str, name: str, times: int) -> None:
    for _ in range(times):
        with child.permit(name):
            stamp(path)


class Counter:
    """A resource that tells when it was made and closed."""

    def __init__(self) -> None:
        self.uses = 0
        stamp(os.environ["RESOURCE_LOG"], "made")

    def close(self) -> None:
        stamp(os.environ["RESOURCE_LOG"], "closed")


class AsyncCounter(Counter):
    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.close()


def use_counter() -> int:
    counter = child.resource("counter", Counter)
    counter.uses += 1
    return counter.uses


async def make_async_counter() -> AsyncCounter:
    await asyncio.sleep(0)
    return AsyncCounter()


async def use_async_counter() -> int:
    counter = await child.resource("counter", make_async_counter)
    counter.uses += 1
    return counter.uses


def environ(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def start_environ(name: str) -> bool:
    """Say whether the process was started with this variable in its environment block."""
    with open("/proc/self/environ", "rb") as file:
        return any(entry.startswith(f"{name}=".encode()) for entry in file.read().split(b"\0"))


def where() -> list[str]:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        return [os.getcwd(), file.name]


def count_to(limit: int) -> Iterator[int]:
    yield from range(limit)


def emit_count(limit: int) -> None:
    for number in range(limit):
        child.emit(number)


def count_noting(path: str, limit: int) -> Iterator[int]:
    try:
        for number in range(limit):
            stamp(path, str(number))
            yield number
    finally:
        stamp(path, "closed")


async def count_to_async(limit: int) -> AsyncIterator[int]:
    for number in range(limit):
        yield number


def count_then_fail(limit: int) -> Iterator[int]:
    yield from range(limit)
    raise Flaky("after the items")


def count_then_die(limit: int) -> Iterator[int]:
    yield from range(limit)
    os._exit(7)


def emit_some() -> str:
    for number in range(3):
        child.emit({"number": number})
    child.artifact(__file__)
    return "emitted"


def call_back(callback: Callable[..., Any], times: int) -> str:
    for number in range(times):
        callback(number, double=2 * number)
    return "called"


async def call_back_async(callback: Callable[..., Any], times: int) -> str:
    for number in range(times):
        callback(number, double=2 * number)
        await asyncio.sleep(0)
    return "called"


def call_back_two(left: Callable[..., Any], right: Callable[..., Any]) -> str:
    for number in range(10):
        (left if number % 2 else right)(number)
    return "called"


def call_back_and_hang(callback: Callable[..., Any]) -> None:
    callback("hello")
    threading.Event().wait()


def call_back_wrongly(callback: Callable[..., Any]) -> None:
    callback(object())


def progress_often(times: int) -> int:
    for number in range(times):
        child.progress(number, times)
    child.progress(times, times, "all")
    return times


def note(number: int, path: str) -> int:
    """Add a line to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    return number


def call_when_open(gate: str, call: Callable[[int], None]) -> None:
    """Wait until a file is there, then call three times."""
    while not os.path.exists(gate):
        time.sleep(0.01)
    for number in range(3):
        call(number)
