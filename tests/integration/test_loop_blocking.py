"""Whatever floods a supervisor, no callback of its loop takes more than 50 ms of CPU time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import flooding
import gates
import hosting
import pytest

from orchestrator import Job, Supervisor, callback

LONGEST = 0.050


class Monitor:
    """Measures the CPU time of each callback of each loop, on the thread that runs it."""

    def __init__(self) -> None:
        self.slow: list[tuple[float, str]] = []
        self.longest = 0.0
        self.callbacks = 0
        self.measuring = False

    def run(self, handle: asyncio.Handle) -> None:
        if not self.measuring:
            _run(handle)
            return
        begun = time.thread_time()
        _run(handle)
        took = time.thread_time() - begun
        if self.measuring:
            self.callbacks += 1
            self.longest = max(self.longest, took)
            if took > LONGEST:
                self.slow.append((took, repr(handle)[:400]))


_run = asyncio.Handle._run  # type: ignore[attr-defined]


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Monitor:
    monitor = Monitor()
    monkeypatch.setattr(asyncio.Handle, "_run", lambda handle: monitor.run(handle))
    return monitor


@asynccontextmanager
async def measured(monitor: Monitor) -> AsyncIterator[None]:
    """Measure what happens inside; the collector's work, whose size is the test's own, is done before."""
    gc.collect()
    gc.disable()
    monitor.measuring = True
    await asyncio.sleep(0)  # what is measured begins with a callback of its own
    try:
        yield
        await asyncio.sleep(0)
    finally:
        monitor.measuring = False
        gc.enable()
    assert monitor.callbacks
    told = "\n".join(f"{1000 * took:.0f} ms: {text}" for took, text in monitor.slow)
    print(f"longest {1000 * monitor.longest:.1f} ms of {monitor.callbacks}")
    assert not monitor.slow, told


async def started(supervisor: Supervisor) -> None:
    """Have all children up: their start is measured by another test."""
    async with gates.Gate() as gate:
        count = len(supervisor.statistics().workers)
        standing = [await supervisor.submit(gates.stand, gate.port) for _ in range(count)]
        await gate.arrived(count)
        gate.open()
        for handle in standing:
            await handle.result()


async def test_the_monitor_sees_a_blocked_loop(monitor: Monitor) -> None:
    with pytest.raises(AssertionError, match="ms: <Handle"):
        async with measured(monitor):
            for _ in range(20):
                await asyncio.sleep(0)
            end = time.thread_time() + 1.5 * LONGEST
            while time.thread_time() < end:
                pass


async def test_start_and_close_of_many_children(monitor: Monitor) -> None:
    async with Supervisor(workers=1):
        pass  # what is imported once per process
    async with (
        measured(monitor),
        Supervisor(workers=8) as supervisor,
        supervisor.map(flooding.same, range(200)) as outcomes,
    ):
        assert sum([outcome.value async for outcome in outcomes]) == sum(range(200))


@pytest.mark.parametrize("target", [flooding.same, flooding.same_async])
async def test_map_over_20_000_rows(monitor: Monitor, target: Any) -> None:
    total = 0
    async with (
        Supervisor(workers=2, concurrency=16) as supervisor,
        measured(monitor),
        supervisor.map(target, range(20_000)) as outcomes,
    ):
        async for outcome in outcomes:
            total += outcome.value
    assert total == sum(range(20_000))


async def test_map_ahead_of_many_workers(monitor: Monitor) -> None:
    # Thousands of jobs may be ahead of the reader, and are submitted as fast as it goes.
    async with (
        Supervisor(workers=2, concurrency=32) as supervisor,
        measured(monitor),
        supervisor.map(flooding.same, range(15_000), ordered=True) as outcomes,
    ):
        assert [outcome.value async for outcome in outcomes] == list(range(15_000))


async def test_10_000_submitted_jobs(monitor: Monitor) -> None:
    async with Supervisor(workers=2) as supervisor, measured(monitor):
        handles = [await supervisor.submit(flooding.same, number) for number in range(10_000)]
        for number, handle in enumerate(handles):
            assert await handle.result() == number


async def test_10_000_jobs_that_are_awaited_one_by_one(monitor: Monitor) -> None:
    async def some(first: int) -> int:
        return sum([await supervisor.run(flooding.same, number) for number in range(first, first + 100)])

    async with Supervisor(workers=2) as supervisor, measured(monitor):
        sums = await asyncio.gather(*[some(first) for first in range(0, 10_000, 100)])
    assert sum(sums) == sum(range(10_000))


@pytest.mark.parametrize("how", ["cancel", "exit", "queue_timeout", "map"])
async def test_end_of_10_000_waiting_jobs(monitor: Monitor, how: str) -> None:
    async with Supervisor(workers=2, on_exit="cancel", grace=0.2, queue_size=20_000) as supervisor:
        for _ in range(2):
            await hosting.is_running(supervisor, Job(flooding.hold))
        job = Job(flooding.hold, queue_timeout=0.5 if how == "queue_timeout" else None)
        async with measured(monitor):
            handles = [await supervisor.submit(job) for _ in range(10_000)]
            if how == "cancel":
                for number, handle in enumerate(handles):
                    handle.cancel()
                    if number % 100 == 0:  # that loop is the caller's own
                        await asyncio.sleep(0)
            if how == "exit":
                await supervisor.aclose()
            elif how == "map":
                async with supervisor.map(flooding.hold, range(10_000)) as outcomes:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.3):
                            await anext(outcomes)
                await supervisor.aclose()
            ends = [(await handle.outcome()).status for handle in handles]
    assert set(ends) == {"expired" if how == "queue_timeout" else "cancelled"}


@pytest.mark.parametrize("size", [100_000, 1_000_000, 10_000_000])
async def test_large_texts(monitor: Monitor, size: int) -> None:
    text = "x" * size
    async with Supervisor(workers=2) as supervisor, measured(monitor):
        assert await asyncio.gather(*[supervisor.run(flooding.text_of, size) for _ in range(4)]) == [text] * 4
        assert await asyncio.gather(*[supervisor.run(len, text) for _ in range(4)]) == [size] * 4
        handles = [await supervisor.submit(flooding.echo, text) for _ in range(2)]
        assert [len(await handle.result()) for handle in handles] == [size] * 2


async def test_large_nested_values(monitor: Monitor) -> None:
    value = flooding.nested(60_000)  # 5 MB
    numbers = list(range(700_000))
    names = {f"key {number}": number for number in range(200_000)}
    async with Supervisor(workers=2) as supervisor:
        await started(supervisor)
        async with measured(monitor):
            for each in (value, numbers, names, [value[:30_000]] * 2):
                back = await supervisor.run(flooding.echo, each)
                await asyncio.sleep(0)
                assert len(back) == len(each)
            assert len(await supervisor.run(Job(flooding.echo, kwargs={"value": value}))) == len(value)


async def test_large_typed_values(monitor: Monitor) -> None:
    value = flooding.rows(20_000)
    small = flooding.rows(1_500)
    async with Supervisor(workers=2) as supervisor:
        await started(supervisor)
        async with measured(monitor):
            assert await supervisor.run(flooding.count_rows, value) == len(value)
            assert len(await supervisor.run(flooding.echo_rows, value)) == len(value)
            assert len(await supervisor.run(flooding.rows, 20_000)) == 20_000
            for _ in range(3):
                assert len(await supervisor.run(flooding.echo_rows, small)) == len(small)


@pytest.mark.parametrize("target", [flooding.shout, flooding.shout_one_line])
async def test_100_megabytes_of_stderr(monitor: Monitor, target: Any) -> None:
    async with Supervisor(workers=2) as supervisor, measured(monitor):
        assert await supervisor.run(target, 100) == "shouted"
        handle = await supervisor.submit(target, 2)
        async for _ in handle.events():
            pass


async def test_floods_of_events_items_and_calls(monitor: Monitor) -> None:
    heard: list[int] = []
    async with Supervisor(workers=2) as supervisor:
        await started(supervisor)
        async with measured(monitor):
            assert await supervisor.run(flooding.chatter, 5_000) == "chattered"
            handle = await supervisor.submit(flooding.chatter, 5_000)
            async for _ in handle.events():
                pass
            assert await supervisor.run(flooding.count_up, 20_000) == list(range(20_000))
            assert [value async for value in supervisor.stream(flooding.count_up, 5_000)] == list(range(5_000))
            await supervisor.run(flooding.call_often, 5_000, callback(heard.append))
    assert heard == list(range(5_000))


async def test_crash_of_many_children(monitor: Monitor) -> None:
    # Every other job succeeds, else the environment would be blamed and jobs tried one by one.
    jobs = [Job(target, args=(number,)) for number in range(1, 25) for target in (flooding.same, flooding.die)]
    async with Supervisor(workers=4) as supervisor, measured(monitor), supervisor.map(jobs) as outcomes:
        ends = [outcome.status async for outcome in outcomes]
    assert sorted(ends) == ["crashed"] * 24 + ["succeeded"] * 24


async def test_kill_of_a_job_with_many_descendants(monitor: Monitor) -> None:
    async with Supervisor(workers=1, grace=0.0, on_exit="cancel") as supervisor:
        for cancel in (True, False):
            handle: Any = await hosting.is_running(supervisor, Job(flooding.hold_with_descendants, args=(40,)))
            async with measured(monitor):
                if cancel:
                    handle.cancel()
                    assert (await handle.outcome()).status == "cancelled"
                else:
                    await supervisor.aclose()
