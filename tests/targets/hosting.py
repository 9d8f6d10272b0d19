"""One small scenario with every feature in it: what must hold in whatever host a supervisor lives."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading

import pytest
from hosted import (
    count,
    count_async,
    count_down,
    count_down_then_hold,
    double,
    double_async,
    hold,
    hold_async,
    leave,
    process,
    refuse,
    tell,
    text_of,
)

from orchestrator import Job, Limit, Supervisor, callback
from orchestrator._events import Artifact, Item, Log, Progress, StateChange
from orchestrator.exceptions import JobCancelled, JobCrashed, JobFailed, JobTimedOut, PayloadError, SupervisorClosed

LIMITS = [Limit("door", concurrency=1)]

request = contextvars.ContextVar("request", default="")


async def is_running(supervisor: Supervisor, job: Job) -> object:
    """Submit a job and return its handle when the job said that it runs."""
    handle = await supervisor.submit(job)
    async for event in handle.events():
        if isinstance(event, Progress):
            return handle
    raise AssertionError(f"{handle} ended: {(await handle.outcome()).error}")


async def _calls(supervisor: Supervisor) -> None:
    """Callbacks come in order, on the caller's loop and thread, in the caller's context, before the result."""
    seen: list[int] = []
    wrong: list[object] = []
    here = (threading.get_ident(), asyncio.get_running_loop())
    request.set("mine")

    def show(left: int) -> None:
        seen.append(left)
        found = (threading.get_ident(), asyncio.get_running_loop())
        if found != here or request.get() != "mine":
            wrong.append((found, request.get()))

    # More than one lot of credits.
    assert await supervisor.run(count_down, 250, callback(show)) == "lift-off"
    assert seen == list(range(250, 0, -1))
    assert wrong == []

    def break_down(left: int) -> None:
        raise LookupError(left)

    with pytest.raises(LookupError, match="3"):
        await supervisor.run(count_down, 3, show=callback(break_down))


async def _events(supervisor: Supervisor) -> None:
    handle = await supervisor.submit(tell, __file__)
    events = [event async for event in handle.events()]
    states = [event.state for event in events if isinstance(event, StateChange)]
    assert states == ["queued", "running", "succeeded"]
    assert events[-1].kind == "state"
    assert [(event.done, event.total, event.text) for event in events if isinstance(event, Progress)] == [
        (1, 2, "half")
    ]
    logs = {(event.stream, event.text): event for event in events if isinstance(event, Log)}
    assert logs.keys() == {("log", "a line"), ("stdout", "a print")}
    assert logs["log", "a line"].fields == {"page": 3}
    assert [event.value for event in events if isinstance(event, Item)] == [{"n": 1}]
    assert [(event.path, event.name) for event in events if isinstance(event, Artifact)] == [(__file__, "file")]
    assert await handle.result() == "told"


async def _streams(supervisor: Supervisor) -> None:
    # More than the 16 that may be ahead.
    assert [value async for value in supervisor.stream(count, 40)] == list(range(40))
    assert [value async for value in supervisor.stream(count_async, 40)] == list(range(40))
    async with supervisor.stream(count, 10**9) as values:
        assert await anext(values) == 0
    assert await supervisor.run(count, 3) == [0, 1, 2]


async def _maps(supervisor: Supervisor) -> None:
    async with supervisor.map(double, range(50)) as outcomes:
        found = {outcome.index: (outcome.item, outcome.value) async for outcome in outcomes}
    assert found == {index: (index, 2 * index) for index in range(50)}
    async with supervisor.map(Job(double), range(20), ordered=True) as outcomes:
        assert [outcome.value async for outcome in outcomes] == [2 * index for index in range(20)]
    async with supervisor.map(double, iter(int, 1)) as outcomes:  # an endless iterable, left early
        assert (await anext(outcomes)).value == 0


async def _errors(supervisor: Supervisor) -> None:
    with pytest.raises(JobFailed, match="ValueError: no way"):
        await supervisor.run(refuse, "no way")
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        await supervisor.run(double, object())
    with pytest.raises(JobCrashed) as crash:
        await supervisor.run(leave, 3)
    assert crash.value.certificate.exit_code == 3
    assert await supervisor.run(double, 4) == 8
    with pytest.raises(JobTimedOut):
        await supervisor.run(Job(hold, timeout=0.1))


async def _cancels(supervisor: Supervisor) -> None:
    for target in (hold, hold_async):
        handle = await is_running(supervisor, Job(target))
        handle.cancel()  # type: ignore[attr-defined]
        assert (await handle.outcome()).status == "cancelled"  # type: ignore[attr-defined]
        with pytest.raises(JobCancelled):
            await handle.result()  # type: ignore[attr-defined]
        held = asyncio.Event()
        task = asyncio.create_task(supervisor.run(count_down_then_hold, callback(held.set)))
        await held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        statistics = supervisor.statistics()
        assert (statistics.running, statistics.queued) == (0, 0)


async def use(supervisor: Supervisor) -> None:
    """Use everything that an open supervisor (with `LIMITS`) has; it must be new."""
    assert await supervisor.run(double, 1) == 2
    assert await supervisor.run(double_async, 1) == 2
    assert await supervisor.run("hosted:double", number=1) == 2
    assert await supervisor.run(len, "x" * 2_000_000) == 2_000_000
    assert len(await supervisor.run(text_of, 2_000_000)) == 2_000_000
    await _calls(supervisor)
    await _events(supervisor)
    await _streams(supervisor)
    await _maps(supervisor)
    await _errors(supervisor)
    await _cancels(supervisor)
    await supervisor.scale(3)
    assert len(supervisor.statistics().workers) == 3
    assert await supervisor.run(process) != os.getpid()
    statistics = supervisor.statistics()
    assert statistics.submitted == sum(statistics.settled.values())
    assert (statistics.queued, statistics.running, statistics.waiting) == (0, 0, 0)
    waiting = [await supervisor.submit(double, number) for number in range(20)]
    await supervisor.drain()
    assert [handle.state for handle in waiting] == ["succeeded"] * 20
    with pytest.raises(SupervisorClosed, match="draining"):
        await supervisor.run(double, 1)


async def use_one() -> None:
    """Open a supervisor, use all of it, and close it."""
    async with Supervisor(workers=2, limits=LIMITS) as supervisor:
        await use(supervisor)
    with pytest.raises(SupervisorClosed):
        await supervisor.run(double, 1)
