"""One list of scenarios that come out the same whether jobs run in child processes or in threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import chores
import doors
import exactness
import gates
import hosting
import pytest

from orchestrator import Job, Limit, RetryPolicy, Supervisor, callback
from orchestrator._events import Item, Progress, StateChange
from orchestrator.exceptions import JobCancelled, JobExpired, JobFailed, JobTimedOut, PayloadError, PayloadTooLarge


@contextlib.asynccontextmanager
async def opened(isolation: str, **options: Any) -> AsyncIterator[Supervisor]:
    options = {"workers": 2, "grace": 0.3, "limits": hosting.LIMITS, **options}
    async with Supervisor(isolation=isolation, **options) as supervisor:  # type: ignore[arg-type]
        yield supervisor
        statistics = supervisor.statistics()
        assert statistics.submitted == sum(statistics.settled.values())
        assert (statistics.queued, statistics.running, statistics.waiting) == (0, 0, 0)
        assert statistics.abandoned_threads == 0
        assert [limit.held for limit in statistics.limits] == [0] * len(statistics.limits)


SCENARIOS: list[Callable[[str, Path], Awaitable[None]]] = []


def scenario(function: Callable[[str, Path], Awaitable[None]]) -> Callable[[str, Path], Awaitable[None]]:
    SCENARIOS.append(function)
    return function


@scenario
async def values_arrive(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        assert await supervisor.run(chores.same, {"a": [1, None, "ä", 2.5]}) == {"a": [1, None, "ä", 2.5]}
        assert await supervisor.run(chores.same_async, [1]) == [1]
        assert await supervisor.run("chores:same", value=(1, 2)) == [1, 2]
        assert await supervisor.run("chores:same_async", 3) == 3
        assert await supervisor.run(hosting.count, 3) == [0, 1, 2]
        assert await supervisor.run("hosting:count_async", 3) == [0, 1, 2]


@scenario
async def values_do_not_share_memory(isolation: str, folder: Path) -> None:
    mine = {"list": [1]}
    async with opened(isolation) as supervisor:
        found = await supervisor.run(chores.same, mine)
    assert found == mine
    assert found is not mine
    assert found["list"] is not mine["list"]


@scenario
async def large_values_arrive(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        text = "ä" * 1_000_000
        assert await supervisor.run(chores.same, text) == text
        assert await supervisor.run(chores.same_async, text) == text
        assert await supervisor.run(doors.large, 2_000_000) == ["x" * 2_000_000]


@scenario
async def what_is_too_large_or_inexact_is_refused(isolation: str, folder: Path) -> None:
    async with opened(isolation, max_message_bytes=10_000) as supervisor:
        with pytest.raises(PayloadError, match=r"args\[0\]"):
            await supervisor.run(chores.same, {1, 2})
        with pytest.raises(PayloadTooLarge):
            await supervisor.run(chores.same, "x" * 20_000)
        with pytest.raises(PayloadTooLarge):
            await supervisor.run(doors.large, 20_000)
        assert await supervisor.run(chores.same, 1) == 1


@scenario
async def errors_bring_their_traceback(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        with pytest.raises(JobFailed, match="ValueError: no way") as failed:
            await supervisor.run(hosting.refuse, "no way")
        assert "in refuse" in failed.value.error.traceback
        with pytest.raises(JobFailed, match="SystemExit: 3"):
            await supervisor.run(doors.leave_by_exit, 3)
        with pytest.raises(JobFailed, match="ModuleNotFoundError"):
            await supervisor.run("chores.inside:at_all")
        with pytest.raises(JobFailed, match="AttributeError"):
            await supervisor.run("chores:no_such_function")


@scenario
async def events_are_told(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        handle = await supervisor.submit(hosting.tell, __file__)
        events = [event async for event in handle.events()]
        kinds = [event.kind for event in events if event.kind != "log"]
        assert kinds == ["state", "state", "progress", "item", "artifact", "state"]
        assert [(event.text, event.fields) for event in events if event.kind == "log" and event.stream == "log"] == [
            ("a line", {"page": 3})
        ]
        assert [event.state for event in events if isinstance(event, StateChange)] == [
            "queued", "running", "succeeded",
        ]  # fmt: skip


@scenario
async def last_progress_arrives(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        handle = await supervisor.submit(chores.progress_often, 500)
        told = [event async for event in handle.events() if isinstance(event, Progress)]
        assert (told[-1].done, told[-1].text) == (500, "all")


@scenario
async def callbacks_are_called_in_order(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        for target in (doors.call_many, doors.call_many_async):
            seen: list[int] = []
            # More than may be ahead.
            assert await supervisor.run(target, callback(seen.append), 1500) == "called"
            assert seen == list(range(1500))


@scenario
async def an_error_in_a_callback_comes_back(isolation: str, folder: Path) -> None:
    def break_down(number: int) -> None:
        raise LookupError(number)

    async with opened(isolation) as supervisor:
        with pytest.raises(LookupError, match="0"):
            await supervisor.run(doors.call_many, callback(break_down), 100_000)


@scenario
async def generators_wait_for_their_reader(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        for target in (doors.yield_noting, doors.yield_noting_async):
            path = folder / target.__name__
            async with supervisor.stream(target, str(path)) as items:
                for number in range(20):
                    assert await anext(items) == number
                # 16 may be ahead of what was read, one is in the generator's hands.
                assert int(path.read_text() or 0) <= 20 + 16 + 1


@scenario
async def emitted_items_all_arrive(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        for target in (doors.emit_many, doors.emit_many_async):
            handle = await supervisor.submit(target, 200)
            assert [event.value async for event in handle.events() if isinstance(event, Item)] == list(range(200))
        handle = await supervisor.submit(doors.yield_and_emit, 50)
        values = [event.value async for event in handle.events() if isinstance(event, Item)]
        assert sorted(values) == sorted([*range(50), *(-number for number in range(50))])


@scenario
async def retries_are_counted(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        job = Job(chores.fail_times, args=(str(folder / "runs"), 2), retry=RetryPolicy(attempts=3, backoff=0.01))
        outcome = await (await supervisor.submit(job)).outcome()
        assert (outcome.value, outcome.attempts) == (3, 3)
        assert supervisor.statistics().retries == 2


@scenario
async def async_jobs_time_out_where_they_are(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        assert await supervisor.run(hosting.double_async, 1) == 2  # its module is imported now
        with pytest.raises(JobTimedOut) as timed_out:
            await supervisor.run(Job(hosting.hold_async, timeout=0.1))
        assert "in hold_async" in timed_out.value.stack
        assert await supervisor.run(chores.same_async, 1) == 1


@scenario
async def sync_jobs_that_look_for_the_end_time_out(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        with doors.Door() as door, pytest.raises(JobTimedOut) as timed_out:
            await supervisor.run(Job(doors.stand_and_report, args=(door.port,), timeout=0.2))
        assert "in stand_and_report" in timed_out.value.stack
        with pytest.raises(JobTimedOut, match="progress_timeout"):
            await supervisor.run(Job(hosting.hold_async, progress_timeout=0.1))
        assert await supervisor.run(chores.same, 1) == 1


@scenario
async def jobs_that_wait_too_long_expire(isolation: str, folder: Path) -> None:
    async with opened(isolation, workers=1) as supervisor, gates.Gate() as gate:
        first = await supervisor.submit(gates.stand, gate.port)
        await gate.arrived()
        with pytest.raises(JobExpired):
            await supervisor.run(Job(chores.same, args=(1,), queue_timeout=0.05))
        gate.open()
        assert await first.result() == ""


@scenario
async def cancels_reach_jobs_everywhere(isolation: str, folder: Path) -> None:
    async with opened(isolation, workers=1) as supervisor, gates.Gate() as gate:
        running = await supervisor.submit(gates.stand_async, gate.port)
        await gate.arrived()
        waiting = [await supervisor.submit(chores.same_async, number) for number in range(3)]
        for handle in (*waiting, running):
            handle.cancel()
        for handle in (*waiting, running):
            with pytest.raises(JobCancelled):
                await handle.result()
        # Before the job's first step, too.
        for target in (hosting.hold_async, hosting.double_async):
            handle = await supervisor.submit(Job(target, args=() if target is hosting.hold_async else (1,)))
            handle.cancel()
            assert (await handle.outcome()).status in ("cancelled", "succeeded")
        assert await supervisor.run(chores.same, 1) == 1


@scenario
async def a_cancel_ends_a_wait_for_a_permit(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor, gates.Gate() as gate:
        holder = await supervisor.submit(chores.use_permit, gate.port, "door")
        await gate.arrived()
        with doors.Door() as door:
            handle = await supervisor.submit(doors.wait_for_permit, door.port, "door")
            await asyncio.to_thread(door.wait)
            while supervisor.statistics().limits[0].waiting == 0:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
            handle.cancel()
            assert (await handle.outcome()).status == "cancelled"
        assert supervisor.statistics().limits[0].waiting == 0
        gate.open()
        assert await holder.result() == "holding"


@scenario
async def limits_bound_jobs(isolation: str, folder: Path) -> None:
    async with opened(isolation, limits=[Limit("door", concurrency=1)]) as supervisor, gates.Gate() as gate:
        handles = [
            await supervisor.submit(Job(gates.stand, args=(gate.port, str(number)), limits={"door": 1}))
            for number in range(3)
        ]
        await gate.arrived()
        assert supervisor.statistics().running == 1
        gate.open()
        assert [await handle.result() for handle in handles] == ["0", "1", "2"]


@scenario
async def permits_are_granted_to_both_kinds(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor, gates.Gate() as gate:
        gate.open()
        assert await supervisor.run(chores.use_permit, gate.port, "door") == "holding"
        assert await supervisor.run(chores.use_permit_async, gate.port, "door") == "holding"
        with pytest.raises(JobFailed, match="no such limit"):
            await supervisor.run(chores.permit_unknown)


@scenario
async def workers_run_at_the_same_time(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor, gates.Gate() as gate:
        handles = [await supervisor.submit(gates.stand, gate.port, str(number)) for number in range(2)]
        assert {arrival.label for arrival in await gate.arrived(2)} == {"0", "1"}
        gate.open()
        assert [await handle.result() for handle in handles] == ["0", "1"]


@scenario
async def async_jobs_share_a_child(isolation: str, folder: Path) -> None:
    async with opened(isolation, workers=1, concurrency=3) as supervisor, gates.Gate() as gate:
        handles = [await supervisor.submit(gates.stand_async, gate.port, str(number)) for number in range(3)]
        await gate.arrived(3)
        gate.open()
        assert [await handle.result() for handle in handles] == ["0", "1", "2"]


@scenario
async def flavours_change(isolation: str, folder: Path) -> None:
    async with opened(isolation, workers=1) as supervisor:
        for number in range(3):
            assert await supervisor.run(chores.same, number) == number
            assert await supervisor.run(chores.same_async, number) == number


@scenario
async def context_does_not_leak_between_async_jobs(isolation: str, folder: Path) -> None:
    doors.leaking.set("of the host")
    async with opened(isolation, workers=1) as supervisor:
        assert [await supervisor.run(doors.exchange_async, "mine") for _ in range(3)] == ["clean"] * 3
        assert await supervisor.run(doors.exchange, "mine") == "clean"


@scenario
async def methods_and_conversions_work(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        assert await supervisor.run(exactness.take_point, exactness.Point(1, 2.5)) == exactness.Point(2, 2.5)
        job = Job("exactness:Greeter.greet", args=("hello",), init={"name": "you"})
        assert await supervisor.run(job) == "hello you!"


@scenario
async def maps_are_whole(isolation: str, folder: Path) -> None:
    async with opened(isolation) as supervisor:
        async with supervisor.map(chores.odd_fails, range(100)) as outcomes:
            found = {outcome.item: str(outcome.status) async for outcome in outcomes}
        assert found == {number: "failed" if number % 2 else "succeeded" for number in range(100)}
        async with supervisor.map(chores.same, iter(int, 1)) as outcomes:
            assert (await anext(outcomes)).value == 0


@scenario
async def scaling_and_draining_work(isolation: str, folder: Path) -> None:
    async with opened(isolation, workers=1) as supervisor, gates.Gate() as gate:
        await supervisor.scale(3)
        handles = [await supervisor.submit(gates.stand, gate.port, str(number)) for number in range(3)]
        await gate.arrived(3)
        gate.open()
        await supervisor.scale(1)
        await supervisor.drain()
        assert [handle.state for handle in handles] == ["succeeded"] * 3


@scenario
async def children_are_recycled(isolation: str, folder: Path) -> None:
    async with opened(isolation, workers=1, max_jobs=2) as supervisor:
        assert [await supervisor.run(chores.same, number) for number in range(7)] == list(range(7))
        assert supervisor.statistics().workers[0].generation >= 3


@scenario
async def leaving_with_an_error_cancels(isolation: str, folder: Path) -> None:
    async with gates.Gate() as gate:
        with pytest.raises(LookupError):
            async with Supervisor(workers=2, isolation=isolation, grace=0.3) as supervisor:  # type: ignore[arg-type]
                handle = await supervisor.submit(gates.stand_async, gate.port)
                await gate.arrived()
                raise LookupError
        assert (await handle.outcome()).status == "cancelled"


@pytest.mark.parametrize("isolation", ["process", "inline"])
@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
async def test_is_the_same(play: Callable[[str, Path], Awaitable[None]], isolation: str, tmp_path: Path) -> None:
    await play(isolation, tmp_path)
