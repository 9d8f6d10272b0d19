"""What the host does to a supervisor: cancels it anywhere, fails beside it, is interrupted, drains, loses holders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time

import anyio
import chores
import dying
import gates
import hanging
import pytest

from orchestrator import Job, Limit, RetryPolicy, Supervisor
from orchestrator.exceptions import JobCrashed, SupervisorClosed
from orchestrator.testing import nothing_left

posix = pytest.mark.skipif(sys.platform == "win32", reason="interrupts by signals")
soak = pytest.mark.soak
# The grace, two seconds for the kill set, and as much again for a busy machine.
GRACE = 0.3
PROMISE = 2 * (GRACE + 2)


class Sibling(Exception):
    """What fails beside a supervisor."""


async def use(port: int) -> None:
    """Have jobs that heed their cancel, jobs that do not, and jobs that wait."""
    async with Supervisor(workers=2, grace=GRACE) as supervisor:
        handles = [
            await supervisor.submit(hanging.swallow_everything, port),
            await supervisor.submit(gates.stand, port),
        ]
        async with supervisor.map(chores.same, range(10_000)) as outcomes:
            async for _ in outcomes:
                pass
        for handle in handles:
            await handle.outcome()


async def cancelled(port: int, delay: float, began: list[float]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(use, port)
        await anyio.sleep(delay)
        began.append(time.monotonic())
        group.cancel_scope.cancel()


async def beside_a_failure(port: int, delay: float, began: list[float]) -> None:
    async def fail() -> None:
        await asyncio.sleep(delay)
        began.append(time.monotonic())
        raise Sibling("first")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            using = group.create_task(use(port))
            group.create_task(fail())
    assert [(type(error), str(error)) for error in caught.value.exceptions] == [(Sibling, "first")]
    assert using.cancelled()


async def interrupted(port: int, delay: float, began: list[float]) -> None:
    def interrupt() -> None:
        began.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    asyncio.get_running_loop().call_later(delay, interrupt)
    await use(port)


def host(how: str, delay: float) -> float:
    """Run a host that is ended after a while; returns how long that took."""
    began: list[float] = []

    async def scenario() -> None:
        async with gates.Gate() as gate:
            if how == "cancelled":
                await cancelled(gate.port, delay, began)
            elif how == "failure":
                await beside_a_failure(gate.port, delay, began)
            else:
                await interrupted(gate.port, delay, began)

    with nothing_left():
        if how == "interrupt":
            with pytest.raises(KeyboardInterrupt):
                asyncio.run(scenario())
        else:
            asyncio.run(scenario())
    return time.monotonic() - began[0]


@posix
@pytest.mark.parametrize("how", ["cancelled", "failure", "interrupt"])
@pytest.mark.parametrize("rounds", [6, pytest.param(334, marks=soak)])
def test_a_host_that_ends_anywhere_leaves_nothing(how: str, rounds: int) -> None:
    chance = random.Random(f"{how} {rounds}")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        took = [host(how, chance.uniform(0, 0.5)) for _ in range(rounds)]
    finally:
        signal.signal(signal.SIGINT, handler)
    print(f"{how}: {rounds} times, gone after {sorted(took)[len(took) // 2]:.2f} s, at most {max(took):.2f} s")
    assert max(took) < PROMISE


# Draining


async def eight_that_stand(supervisor: Supervisor, gate: gates.Gate) -> list[asyncio.Task[str]]:
    running = [asyncio.create_task(supervisor.run(gates.stand, gate.port, f"{number}")) for number in range(8)]
    await gate.arrived(8)
    return running


async def test_a_drain_finishes_what_runs_and_takes_nothing_new() -> None:
    async with gates.Gate() as gate, Supervisor(workers=8) as supervisor:
        running = await eight_that_stand(supervisor, gate)
        draining = asyncio.create_task(supervisor.drain())
        await asyncio.sleep(0)
        assert supervisor.statistics().state == "draining"
        with pytest.raises(SupervisorClosed, match="draining"):
            await supervisor.run(chores.same, 1)
        assert not draining.done()
        gate.open()
        assert sorted(await asyncio.gather(*running)) == [str(number) for number in range(8)]
        await draining
        assert supervisor.statistics().settled == {"succeeded": 8}


async def test_who_is_told_to_go_while_it_drains_goes_at_once() -> None:
    async with gates.Gate() as gate:
        supervisor = await Supervisor(workers=8, grace=GRACE).__aenter__()
        running = await eight_that_stand(supervisor, gate)
        draining = asyncio.create_task(supervisor.drain())
        await asyncio.sleep(0)
        began = time.monotonic()
        error = Sibling("enough")
        await supervisor.__aexit__(Sibling, error, None)
        assert time.monotonic() - began < PROMISE
        await draining
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*running, return_exceptions=True)
        assert supervisor.statistics().settled == {"cancelled": 8}


# Holders of permits


@posix
@pytest.mark.parametrize("rounds", [10, pytest.param(500, marks=soak)])
async def test_permits_of_the_dead_come_back(rounds: int) -> None:
    limit = Limit("door", concurrency=2)
    again = RetryPolicy(attempts=1)
    async with gates.Gate() as gate, Supervisor(workers=2, limits=[limit]) as supervisor:
        for _ in range(rounds):
            before = len(gate.arrivals)
            # One asks for its permit itself, the other has it before it is sent; both die with it.
            jobs = [
                Job(chores.use_permit, args=(gate.port, "door"), retry=again),
                Job(gates.stand, args=(gate.port,), limits={"door": 1}, retry=again),
            ]
            running = [asyncio.create_task(supervisor.run(job)) for job in jobs]
            arrivals = (await gate.arrived(before + 2))[before:]
            assert supervisor.statistics().limits[0].held == 2
            for arrival in arrivals:
                os.kill(arrival.pid, signal.SIGKILL)
            for error in await asyncio.gather(*running, return_exceptions=True):
                assert isinstance(error, JobCrashed)
            assert supervisor.statistics().limits[0].held == 0
            assert await supervisor.run(dying.size_of, "abc") == 3
        gate.open()
        permits = [supervisor.run(chores.use_permit, gate.port, "door") for _ in range(4)]
        await asyncio.gather(*permits)
