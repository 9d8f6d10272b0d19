"""Where in a host's tasks a supervisor may be entered, used, left and cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NoReturn

import anyio
import gates
import hosting
import pytest
import pytest_asyncio

from orchestrator import Job, Supervisor
from orchestrator.exceptions import JobCancelled, SupervisorClosed

# Grace and two seconds more is the promise; a busy machine gets some more.
PROMISE = 0.5 + 2 + 3


async def cannot(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError


@pytest_asyncio.fixture(params=["own-loop", "private-thread"], autouse=True)
async def engine_on(request: pytest.FixtureRequest) -> None:
    """Run each test twice: with the engine on the test's loop, and on a thread because this loop cannot spawn."""
    if request.param == "private-thread":
        asyncio.get_running_loop()._make_subprocess_transport = cannot  # type: ignore[attr-defined]


def new(**options: object) -> Supervisor:
    return Supervisor(**{"workers": 2, "limits": hosting.LIMITS, "grace": 0.5, **options})  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def supervisor(engine_on: None) -> AsyncIterator[Supervisor]:
    # pytest-asyncio runs what is before and what is after the yield in tasks of their own.
    async with new() as supervisor:
        yield supervisor


async def test_entered_and_left_in_other_tasks(supervisor: Supervisor) -> None:
    await hosting.use(supervisor)


async def test_entered_in_a_task_that_is_over() -> None:
    supervisor = new()
    await asyncio.create_task(supervisor.__aenter__())
    assert await asyncio.create_task(supervisor.run(hosting.double, 4)) == 8
    await asyncio.create_task(supervisor.aclose())
    with pytest.raises(SupervisorClosed, match="is closed"):
        await supervisor.run(hosting.double, 4)


async def test_in_a_task_group_of_a_running_app() -> None:
    beats = 0

    async def app() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        beating = group.create_task(app())
        begun = time.monotonic()
        await group.create_task(hosting.use_one())
        took = time.monotonic() - begun
        beating.cancel()
    assert beats > took / 0.01 / 4, "the app stood still"


async def test_two_supervisors_at_once() -> None:
    async with new(name="one") as one, new(name="two") as two:
        await asyncio.gather(hosting.use(one), hosting.use(two))


async def test_error_of_the_body_comes_out_bare() -> None:
    started = time.monotonic()
    with pytest.raises(LookupError, match="mine"):
        async with new() as supervisor:
            handle = await hosting.is_running(supervisor, Job(hosting.hold))
            raise LookupError("mine")
    assert (await handle.outcome()).status == "cancelled"
    assert time.monotonic() - started < PROMISE + 5


async def test_scope_around_run_cancels_its_job() -> None:
    async with gates.Gate() as gate, new() as supervisor:
        with anyio.move_on_after(60) as scope:
            async with asyncio.TaskGroup() as group:
                group.create_task(when_arrived(gate, scope.cancel))
                await supervisor.run(gates.stand, gate.port)
        assert scope.cancelled_caught
        assert supervisor.statistics().settled == {"cancelled": 1}
        assert supervisor.statistics().running == 0
        assert await supervisor.run(hosting.double, 2) == 4


async def when_arrived(gate: gates.Gate, then: object) -> None:
    await gate.arrived()
    then()  # type: ignore[operator]


async def test_deadline_around_run_raises_timeout() -> None:
    async with new() as supervisor:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.3):
                await supervisor.run(hosting.hold)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await supervisor.run(hosting.hold_async)
        assert supervisor.statistics().settled == {"cancelled": 2}
        # A deadline around what waits only ends the waiting.
        handle = await hosting.is_running(supervisor, Job(hosting.hold))
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            await handle.outcome()
        assert handle.state == "running"
        handle.cancel()
        with pytest.raises(JobCancelled):
            await handle.result()


async def test_scope_around_everything() -> None:
    with anyio.move_on_after(60) as scope:
        async with new() as supervisor:
            handles = [
                await hosting.is_running(supervisor, Job(target)) for target in (hosting.hold, hosting.hold_async)
            ]
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [(await handle.outcome()).status for handle in handles] == ["cancelled", "cancelled"]


async def test_scope_that_ends_while_jobs_are_waited_for() -> None:
    begun = time.monotonic()
    with anyio.move_on_after(60) as scope:
        async with new() as supervisor:
            handle = await hosting.is_running(supervisor, Job(hosting.hold))
            asyncio.get_running_loop().call_later(0.1, scope.cancel)
    assert scope.cancelled_caught
    assert (await handle.outcome()).status == "cancelled"
    assert time.monotonic() - begun < PROMISE + 5


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("where", ["body", "exit"])
async def test_host_task_is_cancelled(times: int, where: str) -> None:
    handles = []
    reached = asyncio.Event()

    async def host() -> None:
        async with new() as supervisor:
            handles.append(await hosting.is_running(supervisor, Job(hosting.hold)))
            handles.append(await supervisor.submit(hosting.hold_async))
            reached.set()
            if where == "body":
                await asyncio.Event().wait()

    task = asyncio.create_task(host())
    await reached.wait()
    for _ in range(times):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Closed, not only about to be.
    assert [handle.done for handle in handles] == [True, True]
    assert [(await handle.outcome()).status for handle in handles] == ["cancelled", "cancelled"]


async def test_cancelled_while_it_opens() -> None:
    for steps in range(12):
        task = asyncio.create_task(new().__aenter__())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).aclose()


async def test_cancelled_while_it_submits() -> None:
    async with new(queue_size=1) as supervisor, gates.Gate() as gate:
        running = [await supervisor.submit(gates.stand, gate.port) for _ in range(2)]
        await gate.arrived(2)
        last = await supervisor.submit(hosting.double, 1)
        blocked = asyncio.create_task(supervisor.run(hosting.double, 2))
        await asyncio.sleep(0.05)
        assert not blocked.done()
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked
        gate.open()
        assert await last.result() == 2
        assert [await handle.result() for handle in running] == ["", ""]
        assert supervisor.statistics().submitted == 3
        assert await supervisor.run(hosting.double, 3) == 6


async def test_closed_by_two_tasks_at_once() -> None:
    supervisor = await new().__aenter__()
    handle = await supervisor.submit(hosting.double, 1)
    await asyncio.gather(supervisor.aclose(), supervisor.aclose())
    await supervisor.aclose()
    assert (await handle.outcome()).value == 2


async def test_closed_while_others_wait_for_it() -> None:
    async with gates.Gate() as gate:
        supervisor = await new(queue_size=1, on_exit="cancel").__aenter__()
        waiting = [asyncio.create_task(supervisor.run(gates.stand, gate.port)) for _ in range(12)]
        await gate.arrived(2)
        await supervisor.aclose()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} <= {JobCancelled, SupervisorClosed}
        assert len(ends) == 12
