"""Time bounds: on the run, on silence, on the wait, on everything; and the stack that shows where a job hung."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

import dying
import gates
import hanging
import pytest

from orchestrator import Job, RetryPolicy, Supervisor
from orchestrator.exceptions import JobExpired, JobTimedOut


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (hanging.sleep_for_ever, "THE SYNC LINE"),
        (hanging.sleep_for_ever_async, "THE ASYNC LINE"),
        (hanging.block_the_loop, "THE BLOCKING LINE"),
        (hanging.wait_for_lock, "THE LOCK LINE"),
        (hanging.hold_the_gil, "THE GIL LINE"),
        (hanging.wait_for_a_greenlet, "THE GREENLET LINE"),
    ],
)
async def test_the_stack_shows_the_line_of_user_code(target: Any, line: str) -> None:
    async with Supervisor(workers=1, grace=0.2) as supervisor:
        with pytest.raises(JobTimedOut, match="timeout=0.4 s") as caught:
            await supervisor.run(Job(target, timeout=0.4))
        assert line in caught.value.stack
        assert "hanging.py" in caught.value.stack
        assert caught.value.timeout == 0.4
        assert caught.value.attempts == 1
        assert "orchestrator/child" not in caught.value.stack
        assert supervisor.statistics().settled == {"timed_out": 1}
        assert await supervisor.run(dying.size_of, "abc") == 3


async def test_what_swallows_its_timeout_is_killed_and_shows_its_stack() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, grace=0.2) as supervisor:
        gate.open()
        start = time.monotonic()
        with pytest.raises(JobTimedOut) as caught:
            await supervisor.run(Job(hanging.swallow_everything, args=(gate.port,), timeout=timedelta(seconds=0.5)))
        assert time.monotonic() - start < 0.5 + 0.2 + 2 + 1
        assert "threading.Event().wait()" in caught.value.stack
        assert supervisor.statistics().workers[0].last_death.reason == "timeout"  # type: ignore[union-attr]


async def test_timeout_does_not_count_the_wait() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        first = await supervisor.submit(gates.stand, gate.port)
        await gate.arrived()
        second = await supervisor.submit(Job(dying.size_of, args=("abc",), timeout=0.5))
        await asyncio.sleep(0.7)  # the length of this wait is what is tested
        gate.open()
        assert (await second.outcome()).value == 3
        assert (await first.outcome()).succeeded


async def test_progress_keeps_a_job_alive_and_silence_ends_it() -> None:
    async with Supervisor(workers=1) as supervisor:
        job = Job(hanging.report_slowly, args=(12, 0.1), progress_timeout=0.8)
        assert await supervisor.run(job) == "done"
        with pytest.raises(JobTimedOut, match="progress_timeout=0.4 s") as caught:
            await supervisor.run(Job(hanging.fall_silent, progress_timeout=0.4))
        assert "THE SILENT LINE" in caught.value.stack


async def test_queue_timeout_expires_only_what_waits() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        running = await supervisor.submit(Job(gates.stand, args=(gate.port, "run"), queue_timeout=5))
        await gate.arrived()
        with pytest.raises(JobExpired, match="queue_timeout=0.1 s") as caught:
            await supervisor.run(Job(dying.pid, queue_timeout=0.1))
        assert caught.value.attempts == 0
        gate.open()
        assert (await running.outcome()).value == "run"
        assert supervisor.statistics().settled == {"expired": 1, "succeeded": 1}


async def test_queue_timeout_does_not_end_a_job_that_runs() -> None:
    async with Supervisor(workers=1) as supervisor:
        await supervisor.run(dying.pid)
        assert await supervisor.run(Job(hanging.nap, args=(0.6,), queue_timeout=0.3)) == 0.6


async def test_total_timeout_covers_run_and_retries() -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobExpired, match="total_timeout=0.4 s"):
            await supervisor.run(Job(hanging.sleep_for_ever, total_timeout=0.4))
        retry = RetryPolicy(attempts=1000, backoff=0.05, jitter=False, max_backoff=0.05)
        with pytest.raises(JobExpired) as caught:
            await supervisor.run(Job(hanging.fail, total_timeout=0.5, retry=retry))
        assert 2 <= caught.value.attempts < 30
        with pytest.raises(JobExpired):
            await supervisor.run(Job(hanging.fail, total_timeout=0.3, retry=RetryPolicy(attempts=9, backoff=600)))


async def test_a_timeout_is_retried_if_the_policy_says_so() -> None:
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=2, on="timeout", backoff=0.01)
        with pytest.raises(JobTimedOut) as caught:
            await supervisor.run(Job(hanging.sleep_for_ever, timeout=0.2, retry=retry))
        assert caught.value.attempts == 2
        assert supervisor.statistics().retries == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a blocking call there is ended by the kill")
async def test_a_timed_out_job_leaves_its_child_to_the_next() -> None:
    async with Supervisor(workers=1) as supervisor:
        pid = await supervisor.run(dying.pid)
        with pytest.raises(JobTimedOut):
            await supervisor.run(Job(hanging.sleep_for_ever, timeout=0.2))
        assert await supervisor.run(dying.pid) == pid
