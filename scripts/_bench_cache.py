"""The cache's measurements: what a value costs that is there, one that is not, and many at a time."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestrator import Supervisor, child

Figures = dict[str, float | None]
# What a small model makes of a text: some eight kilobytes as JSON.
EMBEDDING = [number / 7 for number in range(384)]


def cache(hits: int, workers: int, batch: int, large: int) -> Figures:
    """Measure with the values in a file, as a batch keeps them."""

    async def body() -> Figures:
        with tempfile.TemporaryDirectory(prefix="bench-cache-") as folder:
            async with Supervisor(workers=workers, cache=Path(folder) / "cache.db") as supervisor:

                async def together(key: str) -> float:
                    began = time.perf_counter()
                    jobs = [await supervisor.submit(one_by_one, key, hits) for _ in range(workers)]
                    for job in jobs:
                        await job.result()
                    return workers * hits / (time.perf_counter() - began)

                await supervisor.run(one_by_one, "warm", 20)
                new = await supervisor.run(different, "new", hits // 4)
                small = sorted(await supervisor.run(one_by_one, "small", hits, 1))
                small_rate = await together("small")
                found = sorted(await supervisor.run(one_by_one, "key", hits))
                rate = await together("key")
                filled, looked_up = await supervisor.run(in_batches, 20, batch)
                computed, read = await supervisor.run(large_value, large)
        return {
            "small": small[hits // 2],
            "small_rate": small_rate,
            "p50": found[hits // 2],
            "p99": found[int(hits * 0.99)],
            "rate": rate,
            "fill": sorted(new)[len(new) // 2],
            "many": 20 * batch / looked_up,
            "many_filled": 20 * batch / filled,
            "large": read,
            "large_filled": computed,
        }

    return asyncio.run(body())


def one_by_one(key: str, count: int, value: Any = None) -> list[float]:
    """Look one value up again and again, by default an embedding; return how long each took."""
    cache = child.cache("bench")
    times = []
    for _ in range(count):
        began = time.perf_counter()
        cache.get_or_compute(key, lambda: EMBEDDING if value is None else value)
        times.append(time.perf_counter() - began)
    return times


def different(name: str, count: int) -> list[float]:
    """Compute embeddings one by one; return how long each took to be kept."""
    cache = child.cache(name)
    times = []
    for number in range(count):
        began = time.perf_counter()
        cache.get_or_compute(number, lambda: [*EMBEDDING, number])  # noqa: B023  it is called here and now
        times.append(time.perf_counter() - began)
    return times


def in_batches(count: int, size: int) -> list[float]:
    """Look up embeddings, many at a time, before and when they are there; return how long it took in all."""
    cache = child.cache("batches")

    def compute(keys: list[Any]) -> list[Any]:
        return [[*EMBEDDING, *key] for key in keys]

    times = []
    for _ in range(2):
        began = time.perf_counter()
        for batch in range(count):
            cache.get_many([[batch, number] for number in range(size)], compute)
        times.append(time.perf_counter() - began)
    return times


def large_value(size: int) -> list[float]:
    """Compute and then find one large value; return how long each took."""
    cache = child.cache("large")
    value = b"x" * size
    times = []
    for _ in range(2):
        began = time.perf_counter()
        cache.get_or_compute("large", lambda: value)
        times.append(time.perf_counter() - began)
    return times
