"""Children that take too much memory, by themselves or through what they start, and children that grow old."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stalling
from gates import Gate
from stalling import MB

from orchestrator import BlockingSupervisor, Job, RetryPolicy, Supervisor
from orchestrator.exceptions import ConfigurationError, JobCrashed
from tests.integration.test_survival_hang import Told, told

__all__ = ("told",)

LIMIT = 160 * MB
MOST = 2_000 * MB

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Supervisor]:
    async with asyncio.timeout(60), Supervisor(**{"workers": 1, **options}) as supervisor:
        yield supervisor


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"memory_limit": 1000}, "memory_limit: is in bytes and must be at least 16,777,216, not 1,000"),
        ({"max_rss": "2G"}, "max_rss: must be a whole number of bytes, such as"),
        ({"max_rss": 200 * MB, "memory_limit": 100 * MB}, "max_rss: must be below memory_limit=104,857,600"),
        ({"max_age": 0}, "max_age: must be greater than 0"),
        ({"spares": -1}, "spares: must be a whole number of at least 0"),
        ({"spares": 20_000}, "spares: must be at most 10,000"),
    ],
)
def test_options_are_checked(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Supervisor(**options)
    assert told in str(caught.value)


@pytest.mark.parametrize("target", [stalling.grow, stalling.grow_in_a_grandchild])
async def test_a_bomb_is_killed_in_time_and_charged_to_its_job(target: Any) -> None:
    async with opened(workers=2, memory_limit=LIMIT) as supervisor:
        neighbour = asyncio.create_task(supervisor.run(stalling.sleep_for, 1.5))
        handle = await supervisor.submit(Job(target, args=(MOST,), key="bomb"))
        over: float | None = None
        async for event in handle.events():
            if event.kind == "progress" and event.done > LIMIT and over is None:
                over = time.monotonic()
        outcome = await handle.outcome()
        late = time.monotonic()
        assert isinstance(outcome.error, JobCrashed)
        certificate = outcome.error.certificate
        assert (certificate.reason, certificate.phase) == ("memory_limit", "running")
        assert certificate.peak_memory is not None and LIMIT < certificate.peak_memory < MOST
        assert "memory_limit is 160 MiB" in certificate.detail
        assert over is None or late - over < 2.0 + 2.0  # two, and what a busy machine takes
        assert await neighbour == "slept"
        assert await supervisor.run(stalling.length, "abc") == 3


async def test_a_bomb_is_retried_as_a_crash_is() -> None:
    async with opened(memory_limit=LIMIT) as supervisor:
        retry = RetryPolicy(attempts=2, on="crash", backoff=0.01)
        handle = await supervisor.submit(Job(stalling.grow, args=(MOST,), retry=retry))
        outcome = await handle.outcome()
        assert outcome.status == "crashed" and outcome.attempts == 2


def test_sync_code_gets_the_same() -> None:
    with BlockingSupervisor(1, memory_limit=LIMIT) as supervisor, pytest.raises(JobCrashed, match="memory_limit"):
        supervisor.run(stalling.grow, MOST)


async def test_a_large_child_is_replaced_between_jobs(told: Told) -> None:
    async with opened(max_rss=100 * MB) as supervisor:
        first = await supervisor.run(stalling.grow, 150 * MB)  # not in the middle of it
        await told.heard("worker.child_ended")
        second = await supervisor.run(os.getpid)
        assert second != first
        fields = next(fields for event, fields in told.events if event == "worker.grew_large")
        assert fields["memory"] > 100 * MB and fields["max_rss"] == 100 * MB
        death = supervisor.statistics().workers[0].last_death
        assert death is not None and death.reason == "recycled"
        assert death.peak_memory is not None and death.peak_memory > 100 * MB  # it may be seen on its way up
        assert supervisor.statistics().restarts == 0


async def test_one_that_works_is_replaced_when_it_is_done(told: Told) -> None:
    async with Gate() as gate, opened(max_rss=100 * MB) as supervisor:
        job = asyncio.create_task(supervisor.run(stalling.grow_then_stand, 150 * MB, gate.port))
        pid = (await gate.arrived())[0].pid
        await told.heard("worker.grew_large")
        waiting = asyncio.create_task(supervisor.run(os.getpid))
        gate.open()
        assert await job == pid
        assert await waiting != pid


async def test_a_death_by_something_else_tells_the_peak() -> None:
    async with Gate() as gate, opened(memory_limit=MOST) as supervisor:
        job = asyncio.create_task(supervisor.run(stalling.grow_and_die, 64 * MB, gate.port))
        await gate.arrived()
        await asyncio.sleep(1.2)  # two looks
        gate.open()
        with pytest.raises(JobCrashed) as caught:
            await job
        certificate = caught.value.certificate
        assert certificate.reason == "exit"
        assert certificate.peak_memory is not None and 64 * MB < certificate.peak_memory < 200 * MB


async def test_nobody_looks_when_nobody_asked() -> None:
    async with Gate() as gate, opened() as supervisor:
        gate.open()
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(stalling.grow_and_die, MB * 16, gate.port)
        assert caught.value.certificate.peak_memory is None


async def test_an_old_child_is_replaced_while_idle_and_while_busy(told: Told) -> None:
    async with Gate() as gate, opened(max_age=0.5) as supervisor:
        first = await supervisor.run(os.getpid)
        await told.heard("worker.child_ended")
        busy = asyncio.create_task(supervisor.run(stalling.pid_after, gate.port))
        second = (await gate.arrived())[0].pid
        await asyncio.sleep(0.8)
        gate.open()
        assert await busy == second != first
        await told.heard("worker.child_ended", 2)
        assert {fields["reason"] for event, fields in told.events if event == "worker.child_ended"} == {"recycled"}
        assert supervisor.statistics().restarts == 0


@linux
async def test_the_kernel_is_offered_the_children_first() -> None:
    with open("/proc/self/oom_score_adj") as file:
        own = int(file.read())
    async with opened() as supervisor:
        assert await supervisor.run(stalling.oom_score) == min(1000, own + 500)


@linux
async def test_a_kill_that_the_kernel_counts_is_one_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import _memory

    monkeypatch.setattr(_memory.OomCounter, "rose", lambda self: True)
    async with opened() as supervisor:
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(stalling.kill_self)
        assert caught.value.certificate.reason == "oom" and "want of memory" in caught.value.certificate.detail
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(stalling.exit_by_itself)
        assert caught.value.certificate.reason == "exit"


@linux
async def test_a_kill_that_the_kernel_does_not_count_is_just_a_signal() -> None:
    async with opened() as supervisor:
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(stalling.kill_self)
        assert caught.value.certificate.reason == "signal"


async def test_inline_says_what_it_cannot_do(told: Told) -> None:
    async with opened(isolation="inline", memory_limit=LIMIT, spares=2) as supervisor:
        assert await supervisor.run(stalling.length, "abc") == 3
        assert (await told.heard("supervisor.options_ignored"))["options"] == ["memory_limit", "spares"]
        assert len(supervisor.statistics().workers) == 1
