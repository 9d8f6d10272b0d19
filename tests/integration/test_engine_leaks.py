"""Supervisors that come and go leave nothing, whatever happened in them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import chores
import dying
import gates
import hanging
import psutil
import pytest

from orchestrator import Job, Limit, RetryPolicy, Supervisor, callback
from orchestrator.testing import Resources, leftovers

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def succeed() -> None:
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(dying.size_of, "abc") == 3


async def succeed_async() -> None:
    async with Supervisor(workers=1, limits=[Limit("api", rate=1000)]) as supervisor:
        job = Job(chores.same_async, args=(1,), limits={"api": 1})
        assert await supervisor.run(job) == 1


async def do_nothing() -> None:
    async with Supervisor(workers=2):
        pass


async def crash() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        gate.open()
        outcome = await (await supervisor.submit(dying.exit_at_once, gate.port, 1)).outcome()
        assert outcome.status == "crashed"


async def cancel() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(hanging.wait_for_ever, gate.port)
        await gate.arrived()
        handle.cancel()
        assert (await handle.outcome()).status == "cancelled"


async def leave_early() -> None:
    async with Supervisor(workers=1) as supervisor, supervisor.map(chores.same, itertools.count()) as outcomes:
        await anext(outcomes)


WAYS = [succeed, succeed_async, do_nothing, crash, cancel, leave_early]


async def cycles(count: int, ways: Sequence[Callable[[], Awaitable[None]]]) -> None:
    me = psutil.Process()
    for way in (*ways, *ways):  # what is made once is made
        await way()
    before, threads, fds, held = Resources.now(), threading.active_count(), me.num_fds(), objects()
    for number in range(count):
        await ways[number % len(ways)]()
    assert leftovers(before, Resources.now()) == []
    assert (threading.active_count(), me.num_fds()) == (threads, fds)
    assert objects() - held < 20 * count**0.5 + 200


@pytest.mark.skipif(sys.platform == "win32", reason="counts file descriptors")
async def test_twenty_supervisors_leave_the_counts_flat() -> None:
    await cycles(20, WAYS)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="counts file descriptors")
async def test_two_hundred_supervisors_leave_the_counts_flat() -> None:
    await cycles(200, WAYS)


async def test_one_supervisor_does_not_grow_with_its_jobs() -> None:
    async with Supervisor(workers=1) as supervisor:

        async def jobs(count: int) -> None:
            for number in range(count):
                assert await supervisor.run(chores.same, number) == number
                handle = await supervisor.submit(chores.odd_fails, number)
                await handle.outcome()

        await jobs(300)
        held = objects()
        await jobs(1_500)
        assert objects() - held < 300


@posix
async def test_a_storm_of_everything_settles_every_job_once(tmp_path: Path) -> None:
    await storm(7, tmp_path)


@posix
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
async def test_thirty_storms(tmp_path: Path, seed: int) -> None:
    await storm(seed, tmp_path)


async def storm(seed: int, tmp_path: Path) -> None:
    """Run jobs that succeed, fail, crash, hang, stream and call back, while children are killed and jobs cancelled."""
    chance = random.Random(seed)
    calls: list[int] = []
    retry = RetryPolicy(attempts=3, on="any", backoff=0.01)

    def any_job(number: int) -> Job:
        kinds: list[Callable[[], Job]] = [
            lambda: Job(chores.same, args=(number,)),
            lambda: Job(chores.same_async, args=(number,), limits={"two": 1}),
            lambda: Job(chores.odd_fails, args=(number,), retry=retry),
            lambda: Job(hanging.nap, args=(chance.uniform(0, 0.05),), retry=retry),
            lambda: Job(hanging.sleep_for_ever, timeout=0.05),
            lambda: Job(hanging.sleep_for_ever_async, timeout=0.05),
            lambda: Job(dying.die_unless, args=(str(tmp_path / f"flag-{number}"),), retry=retry),
            lambda: Job(chores.count_to, args=(50,)),
            lambda: Job(chores.call_back, args=(callback(lambda n, double: calls.append(n)), 3)),
            lambda: Job(dying.make_text, args=(300_000,), queue_timeout=5),
        ]
        return chance.choice(kinds)()

    async with Supervisor(workers=3, concurrency=3, limits=[Limit("two", concurrency=2)], grace=0.5) as supervisor:

        async def kill_children() -> None:
            ended = -1
            while True:
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                # Some must end in between: else it is the environment, and jobs are held back for long.
                before, ended = ended, sum(supervisor.statistics().settled.values())
                if ended == before:
                    continue
                pids = [
                    worker.pid for worker in supervisor.statistics().workers if worker.state == "busy" and worker.pid
                ]
                if pids:
                    with contextlib.suppress(ProcessLookupError):  # reaped, and about to be noticed
                        os.kill(chance.choice(pids), signal.SIGKILL)

        killer = asyncio.create_task(kill_children())
        handles: list[Any] = []
        for number in range(250):
            handles.append(await supervisor.submit(any_job(number)))
            if chance.random() < 0.1:
                chance.choice(handles).cancel()
            if chance.random() < 0.2:
                await asyncio.sleep(0.01)
            s = supervisor.statistics()
            assert s.submitted == s.queued + s.running + s.waiting + sum(s.settled.values()) == number + 1
        async with asyncio.timeout(90):
            outcomes = [await handle.outcome() for handle in handles[:200]]
            killer.cancel()
            await asyncio.wait([killer])
            assert killer.cancelled()
            outcomes += [await handle.outcome() for handle in handles[200:]]
        s = supervisor.statistics()
        assert sum(s.settled.values()) == len(outcomes) == 250
        assert s.queued == s.running == s.waiting == 0
        assert all(limit.held == 0 for limit in s.limits)
        assert {"succeeded", "cancelled", "timed_out"} <= set(s.settled)
