"""Cancel: wherever the job is, it ends, and nothing that it started is there any more when the call returns."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import dying
import gates
import hanging
import psutil
import pytest

from orchestrator import Job, JobHandle, Limit, RetryPolicy, Supervisor
from orchestrator.exceptions import JobCancelled

posix = pytest.mark.skipif(sys.platform == "win32", reason="asks for POSIX sessions")


async def until_progress(handle: JobHandle) -> None:
    """Wait until the job reports its first progress."""
    async with asyncio.timeout(30):
        async for event in handle.events():
            if event.kind == "progress":
                return
    raise AssertionError("the job ended first")


async def cancelled(handle: JobHandle) -> float:
    """Cancel a job; returns the seconds until it had ended."""
    start = time.monotonic()
    handle.cancel()
    outcome = await handle.outcome()
    assert outcome.status == "cancelled"
    assert isinstance(outcome.error, JobCancelled)
    return time.monotonic() - start


@pytest.mark.parametrize("target", [hanging.sleep_for_ever, hanging.sleep_for_ever_async, hanging.wait_for_lock])
async def test_soft_cancel_leaves_the_child_alive(target: Any) -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(target)
        await until_progress(handle)
        pid = supervisor.statistics().workers[0].pid
        assert await cancelled(handle) < 1.9  # the grace time is two seconds
        handle.cancel()  # once more does nothing
        assert supervisor.statistics().workers[0].pid == pid
        assert supervisor.statistics().restarts == 0
        assert supervisor.statistics().settled == {"cancelled": 1}
        kind = gates.stand_async if target is hanging.sleep_for_ever_async else gates.stand
        async with gates.Gate() as gate:
            gate.open()
            assert await supervisor.run(kind, gate.port, "next") == "next"
        assert gate.arrivals[0].pid == pid


@pytest.mark.parametrize("target", [hanging.clean_up, hanging.clean_up_async])
async def test_finally_blocks_run(target: Any, tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(target, str(tmp_path / "cleaned"))
        await until_progress(handle)
        await cancelled(handle)
    assert (tmp_path / "cleaned").read_text() == "cleaned"


async def test_what_swallows_the_cancel_is_killed_after_the_grace() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, grace=0.3) as supervisor:
        handle = await supervisor.submit(hanging.swallow_everything, gate.port)
        [arrival] = await gate.arrived()
        took = await cancelled(handle)
        assert 0.3 <= took < 2.3 + 1  # promise 3, and slack for a busy machine
        assert not psutil.pid_exists(arrival.pid)
        assert await supervisor.run(dying.pid) != arrival.pid


async def test_an_async_job_that_swallows_the_cancel_is_killed() -> None:
    async with Supervisor(workers=1, grace=0.2) as supervisor:
        handle = await supervisor.submit(hanging.swallow_everything_async)
        await until_progress(handle)
        assert await cancelled(handle) >= 0.2


async def test_what_holds_the_gil_is_killed() -> None:
    async with Supervisor(workers=1, grace=0.2) as supervisor:
        handle = await supervisor.submit(hanging.hold_the_gil)
        await until_progress(handle)
        assert 0.2 <= await cancelled(handle) < 3.2


async def test_a_job_that_returns_when_it_is_cancelled_is_cancelled() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(hanging.answer_the_cancel)
        await until_progress(handle)
        handle.cancel()
        outcome = await handle.outcome()
        assert outcome.status in ("cancelled", "succeeded")
        assert supervisor.statistics().settled == {str(outcome.status): 1}


@pytest.mark.parametrize("target", [hanging.import_slowly, "imported_slowly:value"])
async def test_a_cancel_waits_for_the_end_of_an_import(target: Any) -> None:
    """A package whose import is broken off could not be imported again: every later job in that child would fail."""
    async with gates.Gate() as gate:
        env = {"IMPORT_GATE": str(gate.port)}
        async with Supervisor(workers=1, grace=20, env=env) as supervisor:
            handle = await supervisor.submit(target)
            [arrival] = await gate.arrived()
            handle.cancel()
            with pytest.raises(TimeoutError):  # long enough for a signal that would have broken the import off
                async with asyncio.timeout(0.3):
                    await handle.outcome()
            gate.open()
            assert (await handle.outcome()).status in ("cancelled", "succeeded")  # it has little more to do
            assert await supervisor.run(target) == 5
            assert await supervisor.run(dying.pid) == arrival.pid
    assert len(gate.arrivals) == 1


async def test_cancel_of_a_queued_job_never_runs_it(tmp_path: Path) -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        first = await supervisor.submit(gates.stand, gate.port)
        await gate.arrived()
        second = await supervisor.submit(dying.note, str(tmp_path / "notes"), "x")
        await cancelled(second)
        assert (await second.outcome()).attempts == 0
        gate.open()
        assert (await first.outcome()).succeeded
    assert not (tmp_path / "notes").exists()


async def test_cancel_of_a_job_that_was_sent_ahead(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with Supervisor(workers=1) as supervisor:
        for _ in range(20):  # learnt to be quick
            await supervisor.run(dying.note, os.devnull, "-")
        handles = [await supervisor.submit(dying.note, str(notes), f"{number}") for number in range(40)]
        for handle in handles[10:]:
            handle.cancel()
        outcomes = [await handle.outcome() for handle in handles]
    ran = notes.read_text().split()
    assert len(ran) == len(set(ran))
    for number, outcome in enumerate(outcomes):
        assert outcome.status == "succeeded" if number < 10 else outcome.status in ("cancelled", "succeeded")
        if outcome.succeeded:
            assert str(number) in ran
        if outcome.attempts == 0:
            assert str(number) not in ran


async def test_cancel_of_a_job_that_waits_for_its_retry() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(Job(hanging.fail, retry=RetryPolicy(attempts=5, backoff=600)))
        async with asyncio.timeout(30):
            async for event in handle.events():
                if event.kind == "state" and event.state == "waiting":
                    break
        assert supervisor.statistics().waiting == 1
        await cancelled(handle)
        assert (await handle.outcome()).attempts == 1
        assert supervisor.statistics().waiting == 0


async def test_cancel_of_a_job_that_waits_for_a_limit() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2, limits=[Limit("one", concurrency=1)]) as supervisor:
        first = await supervisor.submit(Job(gates.stand, args=(gate.port,), limits={"one": 1}))
        await gate.arrived()
        second = await supervisor.submit(Job(dying.pid, limits={"one": 1}))
        await cancelled(second)
        third = await supervisor.submit(Job(dying.pid, limits={"one": 1}))
        gate.open()
        assert (await first.outcome()).succeeded
        assert (await third.outcome()).succeeded
        [limit] = supervisor.statistics().limits
        assert (limit.held, limit.waiting) == (0, 0)


async def test_cancel_of_a_job_that_asks_for_its_rate_lets_the_next_one_ask() -> None:
    async with Supervisor(workers=1, limits=[Limit("slow", rate=1, per=1)]) as supervisor:
        limits = {"slow": 1}
        await supervisor.run(Job(dying.pid, limits=limits))
        for options in ({}, {"queue_timeout": 0.1}):
            first = await supervisor.submit(Job(dying.pid, limits=limits, **options))
            second = await supervisor.submit(Job(dying.pid, limits=limits))
            if not options:
                await cancelled(first)
            async with asyncio.timeout(20):
                assert (await second.outcome()).succeeded
                assert (await first.outcome()).status == ("expired" if options else "cancelled")


async def test_cancel_of_a_job_that_wants_another_child_lets_the_others_go_on() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, concurrency=100) as supervisor:
        first = await supervisor.submit(gates.stand_async, gate.port, "first")
        await gate.arrived()
        sync_one = await supervisor.submit(dying.pid)
        async with asyncio.timeout(30):
            while True:  # until the child is to be replaced, and takes no more
                held_up = await supervisor.submit(gates.stand_async, gate.port, "held up")
                await asyncio.sleep(0.1)
                if held_up.state == "queued":
                    break
        await cancelled(sync_one)
        async with asyncio.timeout(30):
            while held_up.state == "queued":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        gate.open()
        assert (await first.outcome()).succeeded and (await held_up.outcome()).succeeded


# Cancelling `run`


async def test_run_under_asyncio_timeout() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await supervisor.run(hanging.wait_for_ever, gate.port)
        assert supervisor.statistics().running == 0
        assert supervisor.statistics().settled == {"cancelled": 1}


async def test_run_in_a_task_that_is_cancelled_twice() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, grace=0.3) as supervisor:
        task = asyncio.create_task(supervisor.run(hanging.swallow_everything, gate.port))
        [arrival] = await gate.arrived()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert supervisor.statistics().settled == {"cancelled": 1}
        assert not psutil.pid_exists(arrival.pid)


async def test_run_in_an_anyio_scope() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        with anyio.move_on_after(0.5) as scope:
            await supervisor.run(hanging.wait_for_ever, gate.port)
        assert scope.cancelled_caught
        assert supervisor.statistics().settled == {"cancelled": 1}
        assert await supervisor.run(dying.size_of, "abc") == 3


async def test_run_in_an_anyio_scope_that_kills() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, grace=0.2) as supervisor:
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.run, hanging.swallow_everything, gate.port)
            [arrival] = await gate.arrived()
            group.cancel_scope.cancel()
        assert not psutil.pid_exists(arrival.pid)
        assert supervisor.statistics().settled == {"cancelled": 1}


async def test_cancelling_outcome_only_stops_waiting() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(gates.stand, gate.port, "still here")
        await gate.arrived()
        for wait in (handle.outcome, handle.result):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async for _ in handle.events():
                    pass
        gate.open()
        assert await handle.result() == "still here"


async def test_the_body_s_exception_cancels_what_runs() -> None:
    async with gates.Gate() as gate:
        start = time.monotonic()
        with pytest.raises(KeyError, match="body"):
            async with Supervisor(workers=1) as supervisor:
                handle = await supervisor.submit(hanging.wait_for_ever, gate.port)
                await gate.arrived()
                raise KeyError("body")
        assert (await handle.outcome()).status == "cancelled"
        assert time.monotonic() - start < 7


# What a cancelled job started


@posix
async def test_descendants_are_gone_when_the_cancelled_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        task = asyncio.create_task(supervisor.run(hanging.start_descendants, gate.port, str(path)))
        [arrival] = await gate.arrived()
        pids = [int(pid) for pid in path.read_text().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [pid for pid in pids if _lives(pid)] == []
        assert await supervisor.run(dying.pid) == arrival.pid  # the child itself obeyed, and stays


@posix
@pytest.mark.parametrize("reap", [True, False])
async def test_orphans_are_gone_when_the_cancelled_call_returns(tmp_path: Path, reap: bool) -> None:
    kept, path = tmp_path / "kept", tmp_path / "pids"
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        # What a job left that was not cancelled stays; the clock of processes ticks a hundred times a second.
        await supervisor.run(hanging.leave_orphans, gate.port, str(kept), reap=reap, hang=False)
        await supervisor.run(time.sleep, 0.05)
        for _ in range(2):
            gate.arrivals.clear()
            task = asyncio.create_task(supervisor.run(hanging.leave_orphans, gate.port, str(path), reap=reap))
            [arrival] = await gate.arrived()
            pids = [int(pid) for pid in path.read_text().split()]
            assert all(_lives(pid) for pid in pids)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [pid for pid in pids if _lives(pid)] == []
            assert await supervisor.run(dying.pid) == arrival.pid
            assert all(_lives(int(pid)) for pid in kept.read_text().split())
    assert not any(_lives(int(pid)) for pid in kept.read_text().split())


@posix
async def test_descendants_of_an_async_job_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(hanging.start_descendants_async, gate.port, str(path))
        await gate.arrived()
        await cancelled(handle)
        assert not _lives(int(path.read_text()))


@posix
async def test_descendants_of_a_timed_out_and_a_killed_job_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(Job(hanging.start_descendants, args=(gate.port, str(path)), timeout=2))
        await gate.arrived()
        assert (await handle.outcome()).status == "timed_out"
        assert [pid for pid in path.read_text().split() if _lives(int(pid))] == []


@posix
async def test_a_resource_s_process_stays(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(hanging.use_helper_and_hang, gate.port, str(path))
        [arrival] = await gate.arrived()
        await cancelled(handle)
        assert [pid for pid in path.read_text().split() if _lives(int(pid))] == []
        pid, helper = await supervisor.run(hanging.use_helper)
        assert pid == arrival.pid
        assert psutil.Process(helper).ppid() == pid
        assert _lives(helper)
    assert not _lives(helper)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
