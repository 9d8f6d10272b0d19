"""One of eight busy children is killed, again and again: its job runs elsewhere, and the seven others do not notice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from itertools import count

import pytest
from gates import Gate, stand

from orchestrator import Job, RetryPolicy, Supervisor

WORKERS = 8
# Each round takes about 60 ms on an idle machine; this is for a busy one.
DEADLINE = 3.0


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=pytest.mark.soak)])
async def test_a_killed_child_costs_its_neighbours_nothing(rounds: int) -> None:
    labels = count()
    arrivals = WORKERS
    async with Gate() as gate, Supervisor(WORKERS) as supervisor:

        async def begin() -> tuple[str, asyncio.Task[object]]:
            label = f"job {next(labels)}"
            job = Job(stand, args=(gate.port, label), retry=RetryPolicy(attempts=2, on="crash", backoff=0.0))
            handle = await supervisor.submit(job)
            return label, asyncio.create_task(handle.outcome())

        running = dict([await begin() for _ in range(WORKERS)])
        await gate.arrived(WORKERS)
        for _ in range(rounds):
            # The oldest: whoever was killed last time runs under another pid now.
            label = next(iter(running))
            pid = [arrival.pid for arrival in gate.arrivals if arrival.label == label][-1]
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            arrivals += 1
            again = (await gate.arrived(arrivals))[-1]
            assert time.monotonic() - began < DEADLINE
            assert again.label == label and again.pid != pid, "its job runs once more, in another child"
            gate.let(label)
            outcome = await running.pop(label)
            assert (outcome.value, outcome.attempts) == (label, 2)  # type: ignore[attr-defined]
            following, task = await begin()
            running[following] = task
            arrivals += 1
            await gate.arrived(arrivals)
        gate.open()
        others = await asyncio.gather(*running.values())
    assert {outcome.attempts for outcome in others} == {1}, "a neighbour was charged"  # type: ignore[attr-defined]
