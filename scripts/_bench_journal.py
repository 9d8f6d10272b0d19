"""The journal's measurements: one durable submit at a time, and how much one thread records beside a busy loop."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import _bench_jobs

from orchestrator import Supervisor
from orchestrator._journal import Journal
from orchestrator._store import Store
from orchestrator._store_rows import StoredAttempt, StoredJob, StoredOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Figures = dict[str, float | None]


def journal_submit(jobs: int) -> Figures:
    """Measure `submit` at power durability, one after the other; each job ends before the next is submitted."""

    async def body() -> Figures:
        with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
            journal = Journal(Path(folder) / "j.db", durability="power")
            async with Supervisor(workers=1, journal=journal) as supervisor:
                times = []
                for number in range(-20, jobs):
                    began = time.perf_counter()
                    handle = await supervisor.submit(_bench_jobs.noop, number)
                    if number >= 0:  # the first ones warm caches
                        times.append(time.perf_counter() - began)
                    await handle.result()
        times.sort()
        return {"p50": statistics.median(times), "p99": times[int(len(times) * 0.99)]}

    return asyncio.run(body())


def journal_rate(jobs: int, window: int) -> Figures:
    """Measure jobs that are submitted, leased and settled, each step recorded before the next, many in flight.

    The loop that drives them is busy all the time, as a supervisor's is.
    """

    async def body(store: Store) -> Figures:
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = settled = 0

        def begin() -> None:
            nonlocal begun
            if begun < jobs:
                begun += 1
                number = begun
                store.submit(_job(number), lambda _: lease(number))

        def lease(number: int) -> None:
            store.attempt(_attempt(number, "leased"), lambda: settle(number))

        def settle(number: int) -> None:
            store.attempt(_attempt(number, "ended"))
            store.settle(number, StoredOutcome("succeeded", "1", False, None, 1, 0, 0.01, "bench/1"), end)

        def end() -> None:
            nonlocal settled
            settled += 1
            if settled == jobs:
                finished.set_result(None)
            begin()

        began, used = time.perf_counter(), time.process_time()
        for _ in range(window):
            begin()
        await finished
        return {
            "rate": jobs / (time.perf_counter() - began),
            "cpu": (time.process_time() - used) / jobs,
        }

    return asyncio.run(_with_store(body))


async def _with_store(body: Callable[[Store], Awaitable[Figures]]) -> Figures:
    def refuse(error: Exception) -> None:
        raise error

    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        journal = Journal(Path(folder) / "j.db")
        store = Store(journal, asyncio.get_running_loop(), on_stall=refuse, on_recover=lambda: None)
        await store.open()
        try:
            return await body(store)
        finally:
            await store.aclose()


def _job(number: int) -> StoredJob:
    body = b'"args":[%d]' % number
    head = b'"target":"jobs:noop",'
    return StoredJob(
        number, None, None, "jobs:noop", head, body, "{}", "pure", 0, b"0" * 16, 0, 0, False, time.time()
    )  # fmt: skip


def _attempt(number: int, state: str) -> StoredAttempt:
    return StoredAttempt(number, number, 1, "bench/1", 1, state, None, None, False)
