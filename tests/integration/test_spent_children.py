"""A job that leaves what others cannot stand: its child is replaced, and nobody notices."""

from __future__ import annotations

import asyncio

import desks
import gates
import psutil
import pytest

from orchestrator import BlockingSupervisor, Job, Supervisor
from orchestrator.exceptions import JobFailed


def lives(pid: int) -> bool:
    """Return whether a process is there, and not only its entry that its parent has not read."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


PUBLISH = Job("desks:Unclosed.publish", init={})


async def test_a_class_that_closes_nothing_works_ten_times() -> None:
    async with Supervisor(workers=1) as supervisor:
        found = [await supervisor.run(PUBLISH) for _ in range(10)]
        assert len({pid for pid, _ in found}) == 10
        statistics = supervisor.statistics()
        assert statistics.restarts == 0 and statistics.broken_reason is None
        assert all(worker.restarts == 0 for worker in statistics.workers)
        assert await supervisor.run(desks.tick, 0) == (0, False)
        async with asyncio.timeout(60):
            while any(lives(started) for _, started in found):  # noqa: ASYNC110 - nobody tells of the end of these
                await asyncio.sleep(0.01)


def test_also_for_hosts_without_a_loop() -> None:
    with BlockingSupervisor(workers=1) as supervisor:
        assert len({supervisor.run(PUBLISH)[0] for _ in range(3)}) == 3


async def test_its_failures_are_its_own() -> None:
    async with Supervisor(workers=1) as supervisor:
        for _ in range(2):
            with pytest.raises(JobFailed, match="on purpose"):
                await supervisor.run(Job("desks:Unclosed.publish", args=(True,), init={}))
        assert supervisor.statistics().restarts == 0


async def test_jobs_that_were_sent_ahead_run_elsewhere_free_of_charge() -> None:
    async with Supervisor(workers=1) as supervisor:
        for number in range(50):
            await supervisor.run(desks.tick, number)  # learnt to be quick: many are sent at once
        async with supervisor.map(Job(desks.tick, kwargs={"leaving": 100}), range(300)) as results:
            outcomes = [outcome async for outcome in results]
        assert sorted(outcome.value[0] for outcome in outcomes) == list(range(300))
        assert not any(outcome.value[1] for outcome in outcomes)
        assert {outcome.attempts for outcome in outcomes} == {1}
        assert supervisor.statistics().restarts == 0


async def test_other_workers_go_on() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2) as supervisor:
        leaving = asyncio.create_task(supervisor.run(desks.stand_and_leave, gate.port, "leaving"))
        other = asyncio.create_task(supervisor.run(gates.stand, gate.port, "other"))
        pids = {arrival.label: arrival.pid for arrival in await gate.arrived(2)}
        gate.let("leaving")
        assert await leaving == pids["leaving"]
        fresh = await supervisor.run(desks.plain_facts)
        assert fresh["pid"] not in pids.values() and not fresh["loop"]
        gate.let("other")
        assert await other == "other"


async def test_async_resources_are_closed_all_the_same() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(desks.leave_resource_and_loop)
        assert (await handle.outcome()).succeeded
        assert not (await supervisor.run(desks.plain_facts))["loop"]
        assert supervisor.statistics().restarts == 0
        death = supervisor.statistics().workers[0].last_death
        assert death is not None and (death.reason, death.exit_code, death.stderr) == ("recycled", 0, ())
