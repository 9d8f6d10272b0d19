"""Poison jobs, and environments that break, with real children: who is charged, and what the others notice of it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import blaming
import dying
import gates
import pytest

from orchestrator import Job, Outcome, RestartPolicy, RetryPolicy, Supervisor
from orchestrator.exceptions import JobCrashed, JobQuarantined, PoolBroken

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="dies by signals")
AGAIN = RetryPolicy(attempts=5, on="crash", backoff=0.05)
soak = pytest.mark.soak


def deaths_in(folder: Path) -> dict[int, list[int]]:
    """Return, by job, how many jobs its child had begun when it died, of each death."""
    found: dict[int, list[int]] = {}
    path = folder / "deaths"
    for line in path.read_text().splitlines() if path.exists() else ():
        number, ran = line.split()
        found.setdefault(int(number), []).append(int(ran))
    return found


async def run_all(workers: int, count: int, folder: Path, poisons: set[int], seconds: float = 0.002) -> list[Outcome]:
    jobs = (
        Job(blaming.work, args=(str(folder), number, number in poisons, seconds), retry=AGAIN)
        for number in range(count)
    )
    async with Supervisor(workers=workers) as supervisor, supervisor.map(jobs, ordered=True) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize(
    ("workers", "count", "poisons"),
    [
        (2, 300, {150}),
        (2, 300, {0}),
        (4, 300, {100, 101, 102, 103, 104}),
        pytest.param(8, 1_000, {500}, marks=soak),
        pytest.param(2, 1_000, {500}, marks=soak),
        pytest.param(8, 1_000, set(range(500, 510)), marks=soak),
        pytest.param(2, 1_000, set(range(500, 510)), marks=soak),
        pytest.param(8, 1_000, set(range(10)), marks=soak),
    ],
)
async def test_poisons_die_three_times_and_nobody_else_is_charged(
    workers: int, count: int, poisons: set[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = await run_all(workers, count, tmp_path, poisons)
    deaths = deaths_in(tmp_path)
    assert {number: len(ran) for number, ran in deaths.items()} == dict.fromkeys(poisons, 3)
    assert all(ran[1:] == [1, 1] for ran in deaths.values()), f"suspects run in children that ran nothing: {deaths}"
    assert Counter(outcome.status for outcome in outcomes) == {
        "succeeded": count - len(poisons),
        "quarantined": len(poisons),
    }
    assert {outcome.attempts for outcome in outcomes if outcome.succeeded} == {1}
    assert "environment_blamed" not in caplog.text


@soak
@pytest.mark.parametrize("workers", [2, 8])
async def test_one_poison_costs_the_others_little_time(workers: int, tmp_path: Path) -> None:
    took = {}
    for poisons in (set(), {500}):
        (folder := tmp_path / str(len(poisons))).mkdir()
        began = time.monotonic()
        await run_all(workers, 1_000, folder, poisons, seconds=0.02)
        took[len(poisons)] = time.monotonic() - began
    print(f"1,000 jobs of 20 ms on {workers} workers: {took[0]:.2f} s, with one poison {took[1]:.2f} s")
    assert took[1] < 1.5 * took[0] + 1


@pytest.mark.parametrize(("count", "broken_for"), [(800, 2.0), pytest.param(1_000, 60.0, marks=soak)])
async def test_an_environment_that_breaks_for_a_while(
    count: int, broken_for: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    broken = tmp_path / "broken"
    async with asyncio.timeout(broken_for + 180), Supervisor(workers=4) as supervisor:
        handles = [
            await supervisor.submit(Job(blaming.work, args=(str(tmp_path), number, False, 0.005), retry=AGAIN))
            for number in range(count)
        ]
        await handles[20].outcome()
        broken.touch()
        await asyncio.sleep(broken_for)
        assert "pool.environment_blamed" in caplog.text
        broken.unlink()
        outcomes = [await handle.outcome() for handle in handles]
    assert {(outcome.status, outcome.attempts) for outcome in outcomes} == {("succeeded", 1)}
    assert "pool.environment_recovered" in caplog.text


async def test_a_crash_loop_at_import_tells_every_caller_why() -> None:
    env = {"BREAKS_AT_IMPORT": "1"}
    quick = RestartPolicy(backoff=0.05, max_backoff=0.2)
    async with (
        asyncio.timeout(60),
        Supervisor(workers=4, env=env, preload=["breaking_at_import"], restart=quick) as supervisor,
    ):
        calls = [supervisor.run(dying.size_of, "abc") for _ in range(50)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, PoolBroken) and "exited with code 78" in str(error) and "no luck" in str(error)
        assert sum(worker.generation for worker in supervisor.statistics().workers) <= 12


@pytest.mark.parametrize("rounds", [5, pytest.param(30, marks=soak)])
async def test_a_child_killed_in_the_middle_of_a_job_is_replaced_at_once(rounds: int) -> None:
    waits = []
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        for _ in range(rounds):
            running = asyncio.create_task(supervisor.run(gates.stand, gate.port))
            arrived = (await gate.arrived(len(gate.arrivals) + 1))[-1]
            os.kill(arrived.pid, signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(JobCrashed):
                await running
            assert await supervisor.run(dying.size_of, "abc") == 3
            waits.append(time.monotonic() - killed)
        assert supervisor.statistics().restarts == rounds
    print(f"{rounds} kills: a job's result from the next child after at most {max(waits) * 1e3:.0f} ms")
    assert max(waits) < 5, "no wait between two starts"


async def test_a_job_that_was_forgiven_to_the_end_says_how_many_children_it_killed() -> None:
    async with Supervisor(workers=1) as supervisor:
        for _ in range(2):
            assert (await (await supervisor.submit("os:_exit", 3)).outcome()).status == "crashed"
        outcome = await (await supervisor.submit(Job("os:_exit", args=(3,), retry=AGAIN))).outcome()
    assert isinstance(outcome.error, JobQuarantined)
    assert re.search(r" killed its child [34] times and is given up", str(outcome.error))
