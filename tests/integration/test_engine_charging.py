"""Who is charged for a death: the job that ran, never one that waited in the child; and when a job is given up."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import dying
import gates
import hanging
import pytest

from orchestrator import Job, JobHandle, RestartPolicy, RetryPolicy, Supervisor
from orchestrator._child_process import Child
from orchestrator.exceptions import JobCrashed, JobQuarantined

posix = pytest.mark.skipif(sys.platform == "win32", reason="stops and kills processes by signals")


async def pid_of(supervisor: Supervisor) -> int:
    pid: int = await supervisor.run(dying.pid)
    return pid


async def until_stopped(pid: int) -> None:
    """Wait until every thread of a process that was sent SIGSTOP stands still."""
    for _ in range(10_000):
        states = [Path(f"/proc/{pid}/task/{task}/stat").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        if all(state.rpartition(")")[2].split()[0] == "T" for state in states):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{pid} did not stop")


@posix
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("fresh", [False, True])
async def test_killed_before_it_started_runs_again_uncharged(tmp_path: Path, fresh: bool) -> None:
    notes = tmp_path / "notes"
    async with Supervisor(workers=1) as supervisor:
        if fresh:
            async with asyncio.timeout(30):
                while supervisor.statistics().workers[0].state != "ready":  # noqa: ASYNC110  no job, so no event
                    await asyncio.sleep(0.005)
            first = supervisor.statistics().workers[0].pid
            assert first is not None
        else:
            first = await pid_of(supervisor)
        os.kill(first, signal.SIGSTOP)
        await until_stopped(first)
        handles = [await supervisor.submit(dying.note, str(notes), f"{number}") for number in range(3)]
        os.kill(first, signal.SIGKILL)
        outcomes = [await handle.outcome() for handle in handles]
        assert [outcome.status for outcome in outcomes] == ["succeeded"] * 3
        assert [outcome.attempts for outcome in outcomes] == [1] * 3
        assert await pid_of(supervisor) != first
        assert supervisor.statistics().retries == 0
    assert notes.read_text().split() == ["0", "1", "2"]


async def killed_at_random(rounds: int, tmp_path: Path, seed: int) -> None:
    """Send 64 quick jobs ahead to a child that is killed at a random moment, again and again."""
    chance = random.Random(seed)
    charged = 0
    # Some kills come when all jobs are done: such a death is the child's own, and its restart would wait longer.
    async with Supervisor(workers=1, restart=RestartPolicy(backoff=0.01, max_backoff=0.01)) as supervisor:
        for number in range(rounds):
            notes = tmp_path / f"notes-{number}"
            for _ in range(3):  # learnt to be quick
                await supervisor.run(dying.note, os.devnull, "-")
            pid = await pid_of(supervisor)
            delay = chance.uniform(0, 0.006)
            asyncio.get_running_loop().call_later(delay, os.kill, pid, signal.SIGKILL)
            handles = [await supervisor.submit(dying.note, str(notes), f"{job}") for job in range(64)]
            outcomes = [await handle.outcome() for handle in handles]
            ran = Counter(notes.read_text().split() if notes.exists() else ())
            assert max(ran.values(), default=0) <= 1, f"round {number}: ran twice: {ran.most_common(3)}"
            crashed = [index for index, outcome in enumerate(outcomes) if outcome.status == "crashed"]
            succeeded = [index for index, outcome in enumerate(outcomes) if outcome.succeeded]
            assert len(crashed) <= 1 and len(crashed) + len(succeeded) == 64
            assert all(ran[str(index)] == 1 for index in succeeded), f"round {number}: lost"
            assert all(outcome.attempts == 1 for outcome in outcomes)
            charged += len(crashed)
            # The child may have outlived the jobs; it must be seen dead before the next round asks for a pid.
            async with asyncio.timeout(30):
                while await pid_of_any(supervisor) == pid:
                    pass
    assert charged < rounds


async def pid_of_any(supervisor: Supervisor) -> int:
    """A child's pid; a child that dies meanwhile is asked no more."""
    try:
        return await pid_of(supervisor)
    except JobCrashed:
        return 0


@posix
async def test_no_job_runs_twice_or_is_lost(tmp_path: Path) -> None:
    await killed_at_random(40, tmp_path, seed=1)


@posix
@pytest.mark.soak
async def test_no_job_runs_twice_or_is_lost_in_a_thousand_rounds(tmp_path: Path) -> None:
    await killed_at_random(1_000, tmp_path, seed=2)


async def test_a_job_that_ran_is_not_run_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(dying.note_and_die, str(notes), "once")
        assert caught.value.attempts == 1
    assert notes.read_text() == "once\n"


@pytest.mark.parametrize("on", ["crash", "any", ("crash", "timeout")])
async def test_a_job_that_ran_is_run_again_if_its_policy_says_so(tmp_path: Path, on: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=2, on=on, backoff=0.01)
        handle = await supervisor.submit(Job(dying.die_unless, args=(str(tmp_path / "flag"),), retry=retry))
        outcome = await handle.outcome()
        assert outcome.succeeded and outcome.attempts == 2
        assert supervisor.statistics().retries == 1


@pytest.mark.parametrize("on", ["error", "timeout"])
async def test_another_policy_does_not_cover_a_crash(tmp_path: Path, on: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        job = Job(dying.die_unless, args=(str(tmp_path / "flag"),), retry=RetryPolicy(attempts=3, on=on))
        with pytest.raises(JobCrashed):
            await supervisor.run(job)


async def test_three_deaths_quarantine(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=10, on="crash", backoff=0.01)
        handle = await supervisor.submit(Job(dying.die_counting, args=(str(runs), 5), retry=retry, key="bad"))
        outcome = await handle.outcome()
        assert outcome.status == "quarantined" and outcome.attempts == 3
        assert isinstance(outcome.error, JobQuarantined)
        assert outcome.error.certificate.exit_code == 9
        assert "'bad'" in str(outcome.error)
        assert supervisor.statistics().settled == {"quarantined": 1}
        assert await supervisor.run(dying.size_of, "abc") == 3
    assert runs.read_bytes() == b"xxx"


async def test_two_deaths_are_survived(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=3, on="crash", backoff=0.01)
        assert await supervisor.run(Job(dying.die_counting, args=(str(tmp_path / "runs"), 2), retry=retry)) == 3


async def start_together(supervisor: Supervisor, gate: gates.Gate, *jobs: Job) -> list[JobHandle]:
    handles = [await supervisor.submit(job) for job in jobs]
    await gate.arrived(len(jobs))
    return handles


@posix
async def test_async_neighbours_of_a_death_are_suspects_and_charged_by_nobody(tmp_path: Path) -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, concurrency=4) as supervisor:
        retry = RetryPolicy(attempts=2, on="crash", backoff=0.01)
        jobs = [Job(gates.stand_async, args=(gate.port, f"{number}"), retry=retry) for number in range(4)]
        handles = await start_together(supervisor, gate, *jobs)
        pid = gate.arrivals[0].pid
        assert {arrival.pid for arrival in gate.arrivals} == {pid}
        os.kill(pid, signal.SIGKILL)
        # They run one by one from now on: nobody else may come to the gate until one is let go.
        for number in range(4):
            arrivals = await gate.arrived(5 + number)
            assert supervisor.statistics().running == 1
            gate.let(arrivals[-1].label)
        outcomes = [await handle.outcome() for handle in handles]
        assert [outcome.status for outcome in outcomes] == ["succeeded"] * 4
        # Nobody knows whose fault it was, so the attempt that ended by the neighbour's death counts for none of them.
        assert [outcome.attempts for outcome in outcomes] == [1] * 4


@posix
async def test_async_neighbours_without_a_policy_crash_together(tmp_path: Path) -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, concurrency=3) as supervisor:
        jobs = [Job(gates.stand_async, args=(gate.port,)) for _ in range(3)]
        handles = await start_together(supervisor, gate, *jobs)
        os.kill(gate.arrivals[0].pid, signal.SIGKILL)
        assert {(await handle.outcome()).status for handle in handles} == {"crashed"}
        gate.open()
        assert await supervisor.run(gates.stand_async, gate.port, "after") == "after"


@posix
async def test_the_culprit_among_async_suspects_is_found(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with gates.Gate() as gate, Supervisor(workers=1, concurrency=2) as supervisor:
        retry = RetryPolicy(attempts=9, on="crash", backoff=0.01)
        innocent = await supervisor.submit(Job(gates.stand_async, args=(gate.port, "innocent"), retry=retry))
        await gate.arrived(1)
        guilty = await supervisor.submit(Job(dying.note_and_die_async, args=(str(runs), "g"), retry=retry))
        await gate.arrived(2)
        gate.open()
        assert (await innocent.outcome()).succeeded
        assert (await innocent.outcome()).attempts == 1
        outcome = await guilty.outcome()
        assert outcome.status == "quarantined"
    assert runs.read_text() == "g\n" * 4  # once beside the innocent, three times alone


async def test_when_every_job_dies_it_is_the_environment_and_nobody_is_charged(tmp_path: Path) -> None:
    async with gates.Gate() as gate, Supervisor(workers=3) as supervisor:
        retry = RetryPolicy(attempts=2, on="crash", backoff=0.3, jitter=False)
        deaths = {"a": 1, "b": 1, "c": 2}
        handles = {}
        for label, count in deaths.items():
            args = (gate.port, label, str(tmp_path / label), count)
            handles[label] = await supervisor.submit(Job(dying.die_counting_at_gate, args=args, retry=retry))
        await gate.arrived(3)
        for label, handle in handles.items():
            gate.let(label)
            async for event in handle.events():
                if event.kind == "state" and event.state == "waiting":
                    break
        gate.open()
        outcomes = {label: await handle.outcome() for label, handle in handles.items()}
        assert {label: outcome.status for label, outcome in outcomes.items()} == dict.fromkeys("abc", "succeeded")
        # The first death of each is nobody's; the second one of the last is its own, if others had run in between.
        assert [outcomes[label].attempts for label in "ab"] == [1, 1]
        assert outcomes["c"].attempts in (1, 2)
        assert sum(outcome.attempts for outcome in outcomes.values()) <= 4


async def test_after_a_cancelled_canary_the_next_one_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buried = asyncio.Event()
    bury = Child._bury

    def bury_late(child: Child) -> tuple[int, ...]:
        survivors = bury(child)
        if child.name == late:
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(buried.wait(), 30), loop).result()
        return survivors

    late = ""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Child, "_bury", bury_late)
    async with gates.Gate() as gate, Supervisor(workers=1, grace=0.1) as supervisor:
        for _ in range(3):
            with pytest.raises(JobCrashed):
                await supervisor.run(dying.note_and_die, str(tmp_path / "runs"), "dies")
        canary = await supervisor.submit(hanging.swallow_everything, gate.port)
        await gate.arrived()
        [worker] = supervisor.statistics().workers
        late = f"{worker.name}-{worker.generation}"
        next_one = await supervisor.submit(dying.pid)
        canary.cancel()
        async with asyncio.timeout(30):
            while supervisor.statistics().workers[0].state != "ready":  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        buried.set()
        assert (await canary.outcome()).status == "cancelled"
        async with asyncio.timeout(30):
            assert (await next_one.outcome()).succeeded
