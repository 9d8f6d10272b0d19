"""Jobs that share values, and note in a file each time that they compute one."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import standing

from orchestrator import child


def note(log: str, key: Any) -> None:
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{key}\n")


def look_up(log: str, key: Any, value: Any = "value") -> Any:
    def compute() -> Any:
        note(log, key)
        return value

    return child.cache("test").get_or_compute(key, compute)


async def look_up_async(log: str, key: Any, value: Any = "value") -> Any:
    async def compute() -> Any:
        note(log, key)
        await asyncio.sleep(0)
        return value

    return await child.cache("test").get_or_compute(key, compute)


async def look_up_from_async(log: str, key: Any) -> Any:
    """A sync function in an async job."""
    return look_up(log, key)


def look_up_at_gate(log: str, key: Any, port: int, label: str = "gate") -> Any:
    """Compute a value at a gate: who computes it stands there."""

    def compute() -> str:
        note(log, key)
        standing.stand(port, label)
        return f"of {os.getpid()}"

    return child.cache("test").get_or_compute(key, compute)


async def look_up_at_gate_async(log: str, key: Any, port: int, label: str = "gate") -> Any:
    async def compute() -> str:
        note(log, key)
        await standing.stand_async(port, label)
        return f"of {os.getpid()}"

    return await child.cache("test").get_or_compute(key, compute)


def many(log: str, keys: list[Any]) -> list[Any]:
    def compute(missing: list[Any]) -> list[Any]:
        note(log, missing)
        return [f"value of {key}" for key in missing]

    values: list[Any] = child.cache("test").get_many(keys, compute)
    return values


async def many_async(log: str, keys: list[Any]) -> list[Any]:
    async def compute(missing: list[Any]) -> list[Any]:
        note(log, missing)
        return [f"value of {key}" for key in missing]

    values: list[Any] = await child.cache("test").get_many(keys, compute)
    return values


def many_at_gate(log: str, keys: list[Any], port: int, label: str) -> list[Any]:
    def compute(missing: list[Any]) -> list[Any]:
        note(log, missing)
        standing.stand(port, label)
        return [f"{label} {key}" for key in missing]

    values: list[Any] = child.cache("test").get_many(keys, compute)
    return values


def cross(log: str, mine: str, other: str, port: int) -> str:
    """Compute one key by way of another, which somebody computes by way of this one."""
    cache = child.cache("test")

    def compute() -> str:
        note(log, mine)
        standing.stand(port, mine)
        return f"{mine}({cache.get_or_compute(other, lambda: f'{other} alone')})"

    value: str = cache.get_or_compute(mine, compute)
    return value


class OurError(Exception):
    pass


def fail(log: str, key: Any, port: int = 0, label: str = "") -> None:
    def compute() -> None:
        note(log, key)
        if port:
            standing.stand(port, label)
        raise OurError("as it is", 7)

    try:
        child.cache("test").get_or_compute(key, compute)
    except OurError as error:
        if error.args == ("as it is", 7):
            raise
    raise AssertionError("it did not raise that")


def fail_by_stop_iteration() -> str:
    try:
        child.cache("test").get_or_compute("stop", lambda: next(iter(())))
    except StopIteration:
        return "StopIteration"
    return "nothing"


def die_computing(log: str, key: Any, port: int, label: str) -> None:
    def compute() -> None:
        note(log, key)
        standing.stand(port, label)
        os.kill(os.getpid(), signal.SIGKILL)

    child.cache("test").get_or_compute(key, compute)


def large(log: str, key: Any, size: int) -> list[Any]:
    def compute() -> bytes:
        note(log, key)
        return os.urandom(1) * size

    value = child.cache("test").get_or_compute(key, compute)
    return [len(value), value[0]]


def large_text(log: str, key: Any, size: int) -> int:
    def compute() -> dict[str, str]:
        note(log, key)
        return {"é": "ä" * size}

    return len(child.cache("test").get_or_compute(key, compute)["é"])


def exact(values: list[Any]) -> list[bool]:
    """Return of each value whether it comes back as it was, computed and found."""
    cache = child.cache("exact")
    return [
        cache.get_or_compute(number, functools.partial(_same, value)) == value
        and cache.get_or_compute(number, lambda: "not found") == value
        for number, value in enumerate(values)
    ]


def _same(value: Any) -> Any:
    return value


def tuples_and_bytes() -> list[str]:
    cache = child.cache("exact")
    values = [cache.get_or_compute("tuple", lambda: (1, [(2,)])), cache.get_or_compute("tuple", lambda: None)]
    values += [cache.get_or_compute("bytes", lambda: b"\0\xff"), cache.get_or_compute("bytes", lambda: None)]
    values += [cache.get_or_compute("empty", lambda: b""), cache.get_or_compute("empty", lambda: None)]
    return [repr(value) for value in values]


def wrongly(what: str) -> str:
    cache = child.cache("wrong")

    async def answer() -> int:
        return 1

    calls = {
        "value": lambda: cache.get_or_compute(1, lambda: {"a": [object()]}),
        "key": lambda: cache.get_or_compute({1: 2}, lambda: 1),
        "keys": lambda: cache.get_many([1, {2}], lambda keys: keys),
        "count": lambda: cache.get_many([1, 2], lambda keys: [1]),
        "awaitable": lambda: cache.get_or_compute(1, lambda: answer()),
        "no function": lambda: cache.get_or_compute(1, 2),  # type: ignore[arg-type]
        "number": lambda: cache.get_or_compute(1, lambda: 10**5000),
    }
    try:
        calls[what]()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def in_threads(log: str, key: Any, count: int) -> list[Any]:
    """Ask for one key from many threads of a job."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: look_up(log, key, threading.get_ident()), range(count)))


async def in_tasks(log: str, key: Any, count: int) -> list[Any]:
    return list(await asyncio.gather(*(look_up_async(log, key) for _ in range(count))))


def repeat(log: str, keys: list[Any], size: int) -> None:
    """Look up many keys, one by one, each of its own size."""
    for key in keys:
        look_up(log, key, "x" * size)


def stand_with_a_wait(log: str, key: Any, port: int) -> Any:
    """Say that it is there, then wait for a key that somebody else computes."""
    standing.stand(port, "waiter")
    return look_up(log, key)


def expected(key: int, *, large: bool = False) -> Any:
    """Return what a value of the jobs below is."""
    if large:
        return [200_000, key]
    return [key, None if key < 3 else expected(key // 3)]


def nested(log: str, key: int) -> Any:
    """Compute a value out of another one."""

    def compute() -> Any:
        note(log, key)
        time.sleep(0.002)
        return [key, None if key < 3 else nested(log, key // 3)]

    return child.cache("nested").get_or_compute(key, compute)


async def nested_async(log: str, key: int) -> Any:
    async def compute() -> Any:
        note(log, key)
        await asyncio.sleep(0.002)
        return [key, None if key < 3 else await nested_async(log, key // 3)]

    return await child.cache("nested").get_or_compute(key, compute)


def look_up_large(log: str, key: int) -> list[int]:
    def compute() -> bytes:
        note(log, f"large {key}")
        return bytes([key]) * 200_000

    value = child.cache("large").get_or_compute(key, compute)
    return [len(value), value[0]]
