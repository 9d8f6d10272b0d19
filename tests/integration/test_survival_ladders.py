"""Stops and kills end when the whole kill set is gone, whatever its members do about it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import surviving

from orchestrator import Supervisor, _worker
from orchestrator._guardian import Guardian
from orchestrator._killset import KillSet
from orchestrator._recipe import Birth
from orchestrator.exceptions import JobCancelled, JobCrashed, LaunchError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups, sessions and signals of POSIX")


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(*pids: int) -> float:
    """Wait until none of them lives, and return for how long."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        while any(map(lives, pids)):  # noqa: ASYNC110 - nobody tells of the end of a process that is not ours
            await asyncio.sleep(0.002)
    return time.monotonic() - began


async def first_item(handle: Any) -> Any:
    async for event in handle.events():
        if event.kind == "item":
            return event.value
    raise AssertionError((await handle.outcome()).error)


async def kill_a_worker(supervisor: Supervisor) -> tuple[float, float]:
    """Return when the caller heard of the crash, and when all that the child had started was gone."""
    handle = await supervisor.submit(surviving.hold)
    strays = await first_item(handle)
    [worker] = supervisor.statistics().workers
    assert worker.pid is not None
    began = time.monotonic()
    os.kill(worker.pid, signal.SIGKILL)
    outcome = await handle.outcome()
    heard = time.monotonic() - began
    assert isinstance(outcome.error, JobCrashed) and outcome.error.certificate.signal == "SIGKILL"
    await gone(*strays)
    emptied = time.monotonic() - began
    # One that ends well in between, or the environment would be to blame, and jobs be tried less and less often.
    assert await supervisor.run(surviving.pid)
    return heard, emptied


async def test_the_end_of_a_worker_is_seen_though_its_pipes_are_held() -> None:
    async with Supervisor(workers=1) as supervisor:
        for _ in range(5):
            heard, emptied = await kill_a_worker(supervisor)
            assert heard < 0.1 * 5 and emptied < 1.0 * 2  # on a busy machine


@pytest.mark.soak
async def test_the_end_of_three_hundred_workers_is_seen_though_their_pipes_are_held() -> None:
    async with Supervisor(workers=1) as supervisor:
        times = [await kill_a_worker(supervisor) for _ in range(300)]
    heard, emptied = (sorted(each)[296] for each in zip(*times, strict=True))
    print(f"p99: crash heard after {heard:.3f} s, tree empty after {emptied:.3f} s")
    assert heard < 0.1 and emptied < 1.0


async def stop(target: Callable[[], int]) -> tuple[float, int]:
    """Return how long a planned stop took, and the pid that the job left behind."""
    async with Supervisor(workers=1) as supervisor:
        left = await supervisor.run(target)
        assert lives(left)
        began = time.monotonic()
    return time.monotonic() - began, left


@pytest.mark.parametrize("target", [surviving.leave_a_group_member, surviving.leave_one_and_hang_at_exit])
async def test_a_stop_returns_when_the_group_is_empty_though_the_leader_went_at_once(
    target: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_worker, "_STOP_ASK", 0.2)
    took, left = await stop(target)
    assert not lives(left)
    assert took < 5


async def test_a_child_that_ignores_all_requests_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "_STOP_ASK", 0.2)
    monkeypatch.setattr(_worker, "_STOP_TERM", 0.3)
    took, left = await stop(surviving.ignore_everything)
    assert not lives(left)
    assert 0.5 <= took < 5


@pytest.mark.soak
async def test_stops_take_ten_seconds_at_most() -> None:
    stubborn = await asyncio.gather(*(stop(surviving.ignore_everything) for _ in range(10)))
    assert all(7.5 <= took < 10 and not lives(left) for took, left in stubborn), stubborn
    for _ in range(10):
        hanging = await asyncio.gather(*(stop(surviving.leave_one_and_hang_at_exit) for _ in range(10)))
        assert all(took < 10 and not lives(left) for took, left in hanging), hanging


async def test_two_hundred_processes_of_a_job_are_gone_with_it() -> None:
    async with Supervisor(workers=1, grace=0.1) as supervisor:
        handle = await supervisor.submit(surviving.fork_two_hundred)
        pid = await first_item(handle)
        forked = [process.pid for process in psutil.Process(pid).children()]
        assert len(forked) == 200
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        assert isinstance((await handle.outcome()).error, JobCrashed)
        await gone(*forked)
        assert time.monotonic() - began < 2 * 2


async def test_a_cancel_takes_two_hundred_processes_with_it() -> None:
    async with Supervisor(workers=1, grace=0.1) as supervisor:
        handle = await supervisor.submit(surviving.fork_two_hundred)
        pid = await first_item(handle)
        forked = [process.pid for process in psutil.Process(pid).children()]
        handle.cancel()
        assert (await handle.outcome()).status == "cancelled"
        assert not any(map(lives, forked))


async def test_what_cannot_be_killed_is_said_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = KillSet.sweep

    def all_but_one(kill_set: KillSet, timeout: float) -> tuple[int, ...]:
        return (*sweep(kill_set, timeout), 999_999_999)

    monkeypatch.setattr(KillSet, "sweep", all_but_one)
    async with Supervisor(workers=1, grace=0.1) as supervisor:
        handle = await supervisor.submit(surviving.take_no_hint)
        await first_item(handle)
        handle.cancel()
        error = (await handle.outcome()).error
        assert isinstance(error, JobCancelled) and error.survivors == (999_999_999,)
        assert "of what it started, 999999999 could not be killed" in str(error)
        statistics = supervisor.statistics()
        assert statistics.survivors == (999_999_999,)
        assert statistics.workers[0].last_death is not None
        assert statistics.workers[0].last_death.survivors == (999_999_999,)
        # Somebody else's trouble.
        assert await supervisor.run(surviving.pid)


async def test_a_host_without_file_descriptors_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = KillSet.sweep
    refused: list[float] = []

    def refuse_twice(kill_set: KillSet, timeout: float) -> tuple[int, ...]:
        if len(refused) < 2:
            refused.append(timeout)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return sweep(kill_set, timeout)

    monkeypatch.setattr(KillSet, "sweep", refuse_twice)
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(surviving.hold)
        strays = await first_item(handle)
        [worker] = supervisor.statistics().workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        assert isinstance((await handle.outcome()).error, JobCrashed)
        await gone(*strays)
        assert await supervisor.run(surviving.pid)
    assert len(refused) == 2


async def test_a_witness_that_never_answers_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    born = Guardian.born
    asked = asyncio.Event()

    async def hear_the_first(guardian: Guardian, birth: Birth) -> None:
        await born(guardian, birth)
        if birth.worker != "w1":
            asked.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Guardian, "born", hear_the_first)
    with pytest.raises(LookupError):
        async with Supervisor(workers=2, grace=0.1) as supervisor, asyncio.timeout(30):
            handles = [await supervisor.submit(surviving.take_no_hint) for _ in range(2)]
            await first_item(handles[0])
            await asked.wait()
            raise LookupError
    assert [(await handle.outcome()).status for handle in handles] == ["cancelled", "cancelled"]


async def test_a_witness_that_refuses_is_the_reason_why_there_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(guardian: Guardian, birth: Birth) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Guardian, "born", refuse)
    with pytest.raises(LaunchError, match="No space left"):
        async with Supervisor(workers=1):
            pass
