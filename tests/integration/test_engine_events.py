"""What a job says while it runs: events, items and calls of the caller's functions, in order and before the outcome."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from typing import Any

import chores
import gates
import pytest

from orchestrator import Job, Supervisor, callback
from orchestrator.exceptions import JobFailed


async def test_events_tell_the_job_s_story_in_order() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(Job(chores.emit_some, key="k"))
        assert handle.key == "k" and handle.id == 1 and handle.job.key == "k"
        events = [event async for event in handle.events()]
        assert [event.kind for event in events] == ["state", "state", "item", "item", "item", "artifact", "state"]
        assert [event.state for event in events if event.kind == "state"] == ["queued", "running", "succeeded"]
        assert [event.value for event in events if event.kind == "item"] == [{"number": n} for n in range(3)]
        artifact = events[-2]
        assert artifact.kind == "artifact" and artifact.path == chores.__file__
        assert handle.state == "succeeded"
        assert [event async for event in handle.events()] == []


async def test_events_before_the_first_reader_are_kept() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(chores.emit_some)
        await handle.outcome()
        assert [event.kind for event in [event async for event in handle.events()]].count("item") == 3


async def test_progress_is_the_latest_and_the_last_is_never_lost() -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(chores.progress_often, 20_000)
        progress = [event async for event in handle.events() if event.kind == "progress"]
        assert (progress[-1].done, progress[-1].total, progress[-1].text) == (20_000, 20_000, "all")
        assert len(progress) < 200
        done = [event.done for event in progress]
        assert done == sorted(done)


@pytest.mark.parametrize("target", [chores.count_to, chores.count_to_async, chores.emit_count])
@pytest.mark.parametrize("closed", [False, True])
async def test_a_job_whose_reader_left_goes_on_alone(target: Any, closed: bool) -> None:
    async with asyncio.timeout(60), Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(target, 200)
        events = handle.events()
        async for event in events:
            if event.kind == "item":
                break
        if closed:
            await events.aclose()
        else:
            del events
        assert (await handle.outcome()).succeeded
        # They were kept for whoever comes back, as far as the last thousand events reach.
        items = [event.value async for event in handle.events() if event.kind == "item"]
        assert items == list(range(1, 200))


async def test_readers_who_take_turns_miss_nothing() -> None:
    async with asyncio.timeout(60), Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(chores.count_to, 500)
        seen = []
        while len(seen) < 100:
            async for event in handle.events():
                if event.kind == "item":
                    seen.append(event.value)
                    break
        seen += [event.value async for event in handle.events() if event.kind == "item"]
        assert seen == list(range(500)) and (await handle.outcome()).succeeded


async def test_unobserved_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Supervisor(workers=1) as supervisor:
        with caplog.at_level(logging.ERROR, logger="orchestrator"):
            handle = await supervisor.submit(chores.odd_fails, 1)
            seen = await supervisor.submit(chores.odd_fails, 3)
            await seen.outcome()
            await supervisor.drain()
            del handle, seen
            gc.collect()
            text = caplog.text
    assert "job.failed_unobserved" in text and "1 is odd" in text and "3 is odd" not in text


# Callbacks


@pytest.mark.parametrize("target", [chores.call_back, chores.call_back_async])
async def test_calls_come_in_order_before_the_outcome_on_this_loop(target: Any) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    calls: list[Any] = []
    loop = asyncio.get_running_loop()

    def show(number: int, *, double: int) -> None:
        assert asyncio.get_running_loop() is loop
        calls.append((number, double, variable.get()))

    async with Supervisor(workers=1) as supervisor:
        variable.set("of the caller")
        assert await supervisor.run(target, callback(show), 2_500) == "called"
        assert calls == [(number, 2 * number, "of the caller") for number in range(2_500)]
        calls.clear()
        handle = await supervisor.submit(Job(target, kwargs={"callback": callback(show), "times": 5}))
        assert await handle.result() == "called"
        assert len(calls) == 5


async def test_two_callbacks() -> None:
    left: list[int] = []
    right: list[int] = []
    async with Supervisor(workers=1) as supervisor:
        await supervisor.run(chores.call_back_two, callback(left.append), right=callback(right.append))
    assert left == [1, 3, 5, 7, 9] and right == [0, 2, 4, 6, 8]


async def test_a_callback_may_be_slow_and_the_loop_goes_on() -> None:
    calls: list[int] = []
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Supervisor(workers=1) as supervisor:
        turner = asyncio.create_task(turn())
        await supervisor.run(chores.call_back, callback(lambda number, double: calls.append(number)), 500)
        turner.cancel()
        await asyncio.wait([turner])
        assert turner.cancelled()
    assert calls == list(range(500)) and turns >= 500  # one call, then the loop's other work


async def test_latest_calls_may_be_skipped_but_not_the_last() -> None:
    calls: list[int] = []
    async with Supervisor(workers=1) as supervisor:
        latest = callback(lambda number, double: calls.append(number), latest=True)
        assert await supervisor.run(chores.call_back, latest, 20_000) == "called"
    assert calls[-1] == 19_999 and calls == sorted(calls) and len(calls) < 20_000


async def test_an_exception_of_a_callback_cancels_the_job_and_reaches_the_caller() -> None:
    def break_down(_: str) -> None:
        raise LookupError("from the callback")

    async with Supervisor(workers=1) as supervisor:
        async with asyncio.timeout(30):
            with pytest.raises(LookupError, match="from the callback"):
                await supervisor.run(chores.call_back_and_hang, callback(break_down))
            handle = await supervisor.submit(chores.call_back_and_hang, callback(break_down))
            with pytest.raises(LookupError):
                await handle.result()
            assert (await handle.outcome()).status == "cancelled"
        assert supervisor.statistics().settled == {"cancelled": 2}
        assert await supervisor.run(chores.same, 1) == 1


async def test_what_cannot_travel_back_fails_the_call_in_the_job() -> None:
    async with Supervisor(workers=1) as supervisor:
        with pytest.raises(JobFailed, match=r"callback.args\[0\]"):
            await supervisor.run(chores.call_back_wrongly, callback(print))


async def test_a_callback_may_use_the_supervisor() -> None:
    async with Supervisor(workers=2) as supervisor:
        tasks: list[asyncio.Task[Any]] = []

        def more(number: int, double: int) -> None:
            tasks.append(asyncio.create_task(supervisor.run(chores.same, double)))

        await supervisor.run(chores.call_back, callback(more), 5)
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8]


# Cancelling from within


async def test_a_callback_may_cancel_its_own_job() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:
        gate.open()
        handles: list[Any] = []
        handle = await supervisor.submit(chores.call_back_and_hang, callback(lambda _: handles[0].cancel()))
        handles.append(handle)
        assert (await handle.outcome()).status == "cancelled"
        handles.clear()
