"""Retries, priorities, limits, resources, environment, recycling, scaling: what a supervisor does for its jobs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import chores
import dying
import gates
import hanging
import pytest

from orchestrator import Job, Limit, RetryPolicy, Supervisor
from orchestrator.exceptions import JobFailed, SupervisorClosed

posix = pytest.mark.skipif(sys.platform == "win32", reason="looks into /proc, or sends signals")


def stamps(path: Path) -> list[tuple[float, str]]:
    return [(float(at), label) for at, _, label in (line.partition(" ") for line in path.read_text().splitlines())]


# Retries


@pytest.mark.parametrize(
    ("name", "on", "retried"),
    [
        ("Flaky", "error", True),
        ("Flaky", "any", True),
        ("Flaky", "Flaky", True),
        ("Flaky", "chores.Flaky", True),
        ("Flaky", chores.Flaky, True),
        ("Flaky", ("Fatal", "Flaky"), True),
        ("Flaky", "Exception", True),
        ("OSError", OSError, True),
        ("OSError", "OSError", True),
        ("Fatal", "Flaky", False),
        ("Fatal", "crash", False),
    ],
)
async def test_retry_on_names(tmp_path: Path, name: str, on: Any, retried: bool) -> None:
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=3, on=on, backoff=0.01)
        handle = await supervisor.submit(Job(chores.fail_times, args=(str(tmp_path / "runs"), 2, name), retry=retry))
        outcome = await handle.outcome()
        assert (outcome.succeeded, outcome.attempts) == ((True, 3) if retried else (False, 1))
        assert supervisor.statistics().retries == (2 if retried else 0)


async def test_nothing_is_retried_by_default_and_attempts_are_bounded(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobFailed) as caught:
            await supervisor.run(chores.fail_times, str(tmp_path / "once"), 1)
        assert caught.value.attempts == 1
        with pytest.raises(JobFailed, match="run 3") as caught:
            retry = RetryPolicy(attempts=3, backoff=0.01)
            await supervisor.run(Job(chores.fail_times, args=(str(tmp_path / "runs"), 9), retry=retry))
        assert caught.value.attempts == 3


async def test_backoff_doubles(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=4, backoff=0.1, jitter=False)
        start = time.monotonic()
        job = Job(chores.fail_times, args=(str(tmp_path / "runs"), 3), retry=retry)
        handle = await supervisor.submit(job)
        states = [event.state async for event in handle.events() if event.kind == "state"]
        assert time.monotonic() - start >= 0.1 + 0.2 + 0.4
        assert states == ["queued", "running"] + ["waiting", "running"] * 3 + ["succeeded"]


async def test_a_waiting_retry_holds_no_child(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        retry = RetryPolicy(attempts=2, backoff=0.5, jitter=False)
        handle = await supervisor.submit(Job(chores.fail_times, args=(str(tmp_path / "runs"), 1), retry=retry))
        async for event in handle.events():
            if event.kind == "state" and event.state == "waiting":
                break
        assert await supervisor.run(chores.same, 1) == 1
        assert supervisor.statistics().waiting == 1
        assert await handle.result() == 2


# Order


async def test_priorities_then_arrival(tmp_path: Path) -> None:
    path = tmp_path / "order"
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        first = await supervisor.submit(gates.stand, gate.port)
        await gate.arrived()
        handles = []
        for number, priority in enumerate([0, 5, -3, 5, 0, 100]):
            job = Job(chores.stamp, args=(str(path), f"{priority}/{number}"), priority=priority)
            handles.append(await supervisor.submit(job))
        gate.open()
        for handle in [first, *handles]:
            await handle.result()
    assert [label for _, label in stamps(path)] == ["100/5", "5/1", "5/3", "0/0", "0/4", "-3/2"]


# Limits


async def test_concurrency_of_a_limit_across_children() -> None:
    async with gates.Gate() as gate, Supervisor(workers=4, limits=[Limit("two", concurrency=2)]) as supervisor:
        handles = [
            await supervisor.submit(Job(gates.stand, args=(gate.port, f"{number}"), limits={"two": 1}))
            for number in range(6)
        ]
        for done in range(6):
            arrivals = await gate.arrived(min(6, 2 + done))
            assert len(arrivals) <= 2 + done
            [limit] = supervisor.statistics().limits
            assert limit.held <= 2
            gate.let(arrivals[done].label)
            await handles[int(arrivals[done].label)].result()
        # A job that waits for its limit holds no child.
        assert supervisor.statistics().limits[0].held == 0


async def test_jobs_that_wait_for_a_limit_do_not_hold_others_up() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2, limits=[Limit("one", concurrency=1)]) as supervisor:
        limited = [await supervisor.submit(Job(gates.stand, args=(gate.port,), limits={"one": 1})) for _ in range(10)]
        await gate.arrived()
        for number in range(20):
            assert await supervisor.run(chores.same, number) == number
        gate.open()
        for handle in limited:
            await handle.result()


def most_in_window(times: list[float], window: float) -> int:
    times = sorted(times)
    return max(sum(start <= at < start + window for at in times) for start in times)


async def test_a_rate_across_children(tmp_path: Path) -> None:
    path = tmp_path / "stamps"
    async with Supervisor(workers=4, limits=[Limit("api", rate=10, per=0.5)]) as supervisor:
        await asyncio.gather(
            *(supervisor.run(Job(chores.stamp, args=(str(path),), limits={"api": 1})) for _ in range(35))
        )
        assert supervisor.statistics().limits[0].granted == 35
    times = [at for at, _ in stamps(path)]
    # Stamps are taken later than grants, by as much as the machine is busy: a narrower window forgives that.
    assert most_in_window(times, 0.4) <= 10
    assert max(times) - min(times) >= 1.0


async def test_permits_inside_jobs_keep_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "stamps"
    async with Supervisor(workers=3, limits=[Limit("api", rate=10, per=0.5)]) as supervisor:
        await asyncio.gather(*(supervisor.run(chores.permit_stamp, str(path), "api", 10) for _ in range(3)))
    assert most_in_window([at for at, _ in stamps(path)], 0.4) <= 10


@pytest.mark.parametrize("target", [chores.use_permit, chores.use_permit_async])
async def test_permits_of_jobs(target: Any) -> None:
    async with gates.Gate() as gate, Supervisor(workers=3, limits=[Limit("one", concurrency=1)]) as supervisor:
        handles = [await supervisor.submit(target, gate.port, "one") for _ in range(3)]
        for number in range(3):
            await gate.arrived(number + 1)
            assert len(gate.arrivals) == number + 1
            gate.let("holding")
        for handle in handles:
            await handle.result()
        assert supervisor.statistics().limits[0].held == 0


async def test_permits_of_a_dead_child_come_back() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2, limits=[Limit("one", concurrency=1)]) as supervisor:
        dead = await supervisor.submit(chores.die_with_permit, gate.port, "one")
        await gate.arrived(1)
        waiting = await supervisor.submit(chores.use_permit, gate.port, "one")
        assert supervisor.statistics().limits[0].held == 1
        gate.open()
        assert (await dead.outcome()).status == "crashed"
        assert await waiting.result() == "holding"
        assert supervisor.statistics().limits[0].held == 0


async def test_permits_of_a_cancelled_job_come_back() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2, limits=[Limit("one", concurrency=1)]) as supervisor:
        holding = await supervisor.submit(chores.use_permit, gate.port, "one")
        await gate.arrived(1)
        waiting = await supervisor.submit(chores.use_permit, gate.port, "one")
        async for event in waiting.events():
            if event.kind == "state" and event.state == "running":
                break
        waiting.cancel()
        assert (await waiting.outcome()).status == "cancelled"
        holding.cancel()
        assert (await holding.outcome()).status == "cancelled"
        [limit] = supervisor.statistics().limits
        assert (limit.held, limit.waiting) == (0, 0)


async def test_permits_of_a_job_that_waits_for_its_retry_come_back(tmp_path: Path) -> None:
    async with Supervisor(workers=2, limits=[Limit("one", concurrency=1)]) as supervisor:
        retry = RetryPolicy(attempts=2, backoff=600)
        args = (str(tmp_path / "runs"), 1)
        handle = await supervisor.submit(Job(chores.fail_times, args=args, limits={"one": 1}, retry=retry))
        async for event in handle.events():
            if event.kind == "state" and event.state == "waiting":
                break
        assert await supervisor.run(Job(chores.same, args=(1,), limits={"one": 1})) == 1
        handle.cancel()
        await handle.outcome()


async def test_throttled_pauses_for_everybody() -> None:
    async with Supervisor(workers=2, limits=[Limit("api", concurrency=4)]) as supervisor:
        at = await supervisor.run(chores.throttle, "api", 0.6)
        started = await asyncio.gather(
            *(supervisor.run(Job(chores.throttle, args=("api", 0), limits={"api": 1})) for _ in range(2))
        )
        assert all(later - at >= 0.5 for later in started)


async def test_an_unknown_permit_is_refused() -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobFailed, match="no such limit"):
            await supervisor.run(chores.permit_unknown)


# Children


async def test_children_are_recycled_after_max_jobs() -> None:
    async with Supervisor(workers=1, max_jobs=3) as supervisor:
        pids = [await supervisor.run(chores.pid) for _ in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        assert supervisor.statistics().restarts == 0  # planned
    async with Supervisor(workers=2, max_jobs=5) as supervisor:
        async with supervisor.map(chores.pid, range(60)) as outcomes:
            pids = [outcome.value async for outcome in outcomes]
        assert max(pids.count(pid) for pid in set(pids)) <= 5
    async with Supervisor(workers=1, max_jobs=2, concurrency=4) as supervisor:
        pids = await asyncio.gather(*(supervisor.run(chores.pid_async) for _ in range(6)))
        assert max(pids.count(pid) for pid in set(pids)) <= 2


async def test_sync_and_async_jobs_take_turns() -> None:
    async with Supervisor(workers=1) as supervisor:
        for number in range(4):
            assert await supervisor.run(chores.same, number) == number
            assert await supervisor.run(chores.same_async, number) == number
        results = await asyncio.gather(
            *(supervisor.run(chores.same if number % 2 else chores.same_async, number) for number in range(20)),
            supervisor.run("chores:same", 20),
            supervisor.run("chores:same_async", 21),
        )
        assert results == list(range(22))


async def test_async_jobs_run_at_once_up_to_concurrency() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, concurrency=3) as supervisor:
        handles = [await supervisor.submit(gates.stand_async, gate.port, f"{number}") for number in range(4)]
        await gate.arrived(3)
        assert supervisor.statistics().running == 3
        assert supervisor.statistics().queued == 1
        gate.let("0")
        await gate.arrived(4)
        gate.open()
        assert {arrival.pid for arrival in gate.arrivals} == {gate.arrivals[0].pid}
        for handle in handles:
            await handle.result()


async def test_scaling_up_and_down() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handles = [await supervisor.submit(gates.stand, gate.port, f"{number}") for number in range(5)]
        await gate.arrived(1)
        await supervisor.scale(3)
        await gate.arrived(3)
        assert len(supervisor.statistics().workers) == 3
        await supervisor.scale(1)  # those that are too many finish their jobs first
        assert supervisor.statistics().running == 3
        gate.open()
        assert [await handle.result() for handle in handles] == [f"{number}" for number in range(5)]
        async with asyncio.timeout(20):
            while len(supervisor.statistics().workers) > 1:  # noqa: ASYNC110  nobody tells when a worker has retired
                await asyncio.sleep(0.01)
        assert await supervisor.run(chores.same, 1) == 1
        assert supervisor.statistics().restarts == 0


async def test_drain_takes_no_more_and_waits() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(gates.stand, gate.port)
        waiting = await supervisor.submit(chores.same, 5)
        await gate.arrived()
        draining = asyncio.create_task(supervisor.drain())
        await asyncio.sleep(0)
        assert supervisor.statistics().state == "draining"
        with pytest.raises(SupervisorClosed, match="draining"):
            await supervisor.run(chores.same, 1)
        assert not draining.done()
        gate.open()
        await draining
        assert (await handle.outcome()).succeeded and (await waiting.outcome()).value == 5


async def test_on_exit_drain_and_cancel(tmp_path: Path) -> None:
    async with Supervisor(workers=2) as supervisor:
        handles = [await supervisor.submit(chores.stamp, str(tmp_path / "stamps")) for _ in range(50)]
    assert [(await handle.outcome()).status for handle in handles] == ["succeeded"] * 50
    async with gates.Gate() as gate:
        async with Supervisor(workers=1, on_exit="cancel") as supervisor:
            running = await supervisor.submit(hanging.wait_for_ever, gate.port)
            waiting = await supervisor.submit(chores.same, 1)
            await gate.arrived()
        assert [(await handle.outcome()).status for handle in (running, waiting)] == ["cancelled", "cancelled"]


async def test_a_closed_supervisor_refuses() -> None:
    supervisor = Supervisor(workers=1)
    with pytest.raises(SupervisorClosed, match="not open"):
        await supervisor.run(chores.same, 1)
    async with supervisor:
        assert await supervisor.run(chores.same, 1) == 1
    with pytest.raises(SupervisorClosed):
        await supervisor.run(chores.same, 1)
    with pytest.raises(SupervisorClosed):
        async with supervisor:
            pass
    await supervisor.aclose()


# Resources


@pytest.mark.parametrize("target", [chores.use_counter, chores.use_async_counter])
async def test_resources_are_kept_and_closed(tmp_path: Path, target: Any) -> None:
    log = tmp_path / "log"
    async with Supervisor(workers=1, env={"RESOURCE_LOG": str(log)}) as supervisor:
        assert [await supervisor.run(target) for _ in range(3)] == [1, 2, 3]
    assert [label for _, label in stamps(log)] == ["made", "closed"]


async def test_resources_are_closed_when_a_child_is_recycled(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Supervisor(workers=1, max_jobs=2, env={"RESOURCE_LOG": str(log)}) as supervisor:
        assert [await supervisor.run(chores.use_counter) for _ in range(4)] == [1, 2, 1, 2]
    assert [label for _, label in stamps(log)] == ["made", "closed", "made", "closed"]


# Environment


async def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORC_A", "inherited")
    monkeypatch.setenv("ORC_B", "removed")
    monkeypatch.setenv("ORC_C", "replaced")
    async with Supervisor(workers=1, env={"ORC_B": None, "ORC_C": "new", "ORC_D": "ü"}) as supervisor:
        names = ("ORC_A", "ORC_B", "ORC_C", "ORC_D")
        assert await supervisor.run(chores.environ, *names) == ["inherited", None, "new", "ü"]
    async with Supervisor(workers=1, env_allow=["ORC_A"], env={"ORC_D": "set"}) as supervisor:
        assert await supervisor.run(chores.environ, "ORC_A", "ORC_C", "ORC_D") == ["inherited", None, "set"]


@posix
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_secrets_are_not_in_the_environment_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORC_SECRET", "hunter2")
    async with Supervisor(workers=1, secrets=["ORC_SECRET"]) as supervisor:
        assert await supervisor.run(chores.environ, "ORC_SECRET") == ["hunter2"]
        assert await supervisor.run(chores.start_environ, "ORC_SECRET") is False
        assert await supervisor.run(chores.start_environ, "PATH") is True


async def test_working_directory_and_temp_folder(tmp_path: Path) -> None:
    async with Supervisor(workers=1, cwd=tmp_path) as supervisor:
        cwd, temp = await supervisor.run(chores.where)
        assert os.path.samefile(cwd, tmp_path)
        assert os.path.isdir(os.path.dirname(temp))
    assert not os.path.exists(os.path.dirname(temp))
    assert await _dying_leaves_no_folder()


async def _dying_leaves_no_folder() -> bool:
    async with Supervisor(workers=1) as supervisor:
        _, temp = await supervisor.run(chores.where)
        pid = await supervisor.run(chores.pid)
        os.kill(pid, 9 if sys.platform != "win32" else 15)
        assert await supervisor.run(dying.pid) != pid
    return not os.path.exists(os.path.dirname(temp))


# Statistics


async def test_the_counts_add_up_at_every_moment(tmp_path: Path) -> None:
    async with Supervisor(workers=2, limits=[Limit("one", concurrency=1)]) as supervisor:
        checks = 0

        def check() -> None:
            nonlocal checks
            s = supervisor.statistics()
            assert s.submitted == s.queued + s.running + s.waiting + sum(s.settled.values()), s
            assert min(s.queued, s.running, s.waiting) >= 0, s
            assert s.running <= sum(worker.running for worker in s.workers) + 1
            checks += 1

        async def watch() -> None:
            while True:
                check()
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        retry = RetryPolicy(attempts=2, on="any", backoff=0.01)
        handles = []
        for number in range(40):
            handles += [
                await supervisor.submit(chores.same, number),
                await supervisor.submit(chores.odd_fails, number),
                await supervisor.submit(Job(chores.odd_fails, args=(number,), retry=retry)),
                await supervisor.submit(Job(chores.same, args=(number,), limits={"one": 1})),
            ]
            check()
        handles.append(await supervisor.submit(Job(dying.die_unless, args=(str(tmp_path / "flag"),), retry=retry)))
        handles.append(await supervisor.submit(Job(hanging.sleep_for_ever, timeout=0.1)))
        cancelled = await supervisor.submit(hanging.sleep_for_ever)
        cancelled.cancel()
        check()
        outcomes = [await handle.outcome() for handle in [*handles, cancelled]]
        watcher.cancel()
        await asyncio.wait([watcher])
        assert watcher.cancelled()
        s = supervisor.statistics()
        assert s.submitted == len(outcomes) == sum(s.settled.values())
        assert s.settled == {"succeeded": 121, "failed": 40, "timed_out": 1, "cancelled": 1}
        assert s.retries == 20 + 1
        assert checks > 200
    assert supervisor.statistics().state == "closed"


async def test_a_full_queue_makes_submit_wait() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, queue_size=3) as supervisor:
        first = await supervisor.submit(gates.stand, gate.port)
        await gate.arrived()
        handles = [await supervisor.submit(chores.same, number) for number in range(3)]
        waiting = asyncio.create_task(supervisor.submit(chores.same, 3))
        running = asyncio.create_task(supervisor.run(chores.same, 4))
        await asyncio.sleep(0.05)
        assert not waiting.done() and supervisor.statistics().submitted == 4
        dropped = asyncio.create_task(supervisor.submit(chores.same, 5))
        await asyncio.sleep(0)
        dropped.cancel()
        gate.open()
        handles.append(await waiting)
        assert [await handle.result() for handle in handles] == [0, 1, 2, 3]
        assert await running == 4
        await first.result()
        assert supervisor.statistics().submitted == 6


async def test_submitters_that_wait_for_space_take_their_turns() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, queue_size=4) as supervisor:
        first = await supervisor.submit(gates.stand, gate.port)
        await gate.arrived()
        waiting = [asyncio.create_task(supervisor.submit(chores.same, number)) for number in range(50)]
        await asyncio.sleep(0)
        gate.open()
        ids = [handle.id for handle in await asyncio.gather(*waiting)]
        assert ids == sorted(ids)
        await first.result()
