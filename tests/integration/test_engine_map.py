"""Many jobs from one iterable, and many values from one job: bounded memory, early exit, errors on either side."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import chores
import dying
import gates
import hanging
import pytest

from orchestrator import Job, RetryPolicy, Supervisor
from orchestrator.exceptions import ConfigurationError, JobCrashed, JobFailed, TargetError


async def test_outcomes_of_all_items_and_in_order_if_asked() -> None:
    async with Supervisor(workers=2) as supervisor:
        async with supervisor.map(chores.same, range(500)) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert sorted(outcome.value for outcome in found) == list(range(500))
        assert all(outcome.item == outcome.value == outcome.index for outcome in found)
        async with supervisor.map(chores.same, range(500), ordered=True) as outcomes:
            assert [outcome.value async for outcome in outcomes] == list(range(500))


async def test_ordered_waits_for_the_first() -> None:
    async with gates.Gate() as gate, Supervisor(workers=3) as supervisor:
        jobs = [Job(gates.stand, args=(gate.port, "first")), *(Job(chores.same, args=(n,)) for n in range(20))]
        async with supervisor.map(jobs, ordered=True) as outcomes:
            first = asyncio.ensure_future(anext(outcomes))
            await gate.arrived()
            assert not first.done()
            gate.open()
            assert (await first).value == "first"
            assert [outcome.value async for outcome in outcomes] == list(range(20))


async def test_unordered_does_not_wait_for_the_slow() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2) as supervisor:
        jobs = [Job(gates.stand, args=(gate.port, "slow")), *(Job(chores.same, args=(n,)) for n in range(50))]
        async with supervisor.map(jobs) as outcomes:
            found = [(await anext(outcomes)).value for _ in range(50)]
            assert sorted(found) == list(range(50))
            gate.open()
            assert (await anext(outcomes)).value == "slow"


async def test_a_source_that_waits_holds_back_no_outcome() -> None:
    taken = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            # Inside of its `__anext__`, until the outcome of what it gave is in the caller's hands.
            await taken.wait()
            taken.clear()

    async with asyncio.timeout(30), Supervisor(workers=2) as supervisor:
        async with supervisor.map(chores.same, source()) as outcomes:
            async for outcome in outcomes:
                assert outcome.value == outcome.index
                taken.set()
        assert supervisor.statistics().settled == {"succeeded": 10}


async def test_leaving_while_the_source_waits() -> None:
    left = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            left.set()

    async with asyncio.timeout(30), Supervisor(workers=1) as supervisor:
        async with supervisor.map(chores.same, source()) as outcomes:
            assert (await anext(outcomes)).value == 1
        assert left.is_set()


async def test_a_template_is_checked_once_and_its_items_are_not_its_own() -> None:
    template = Job(chores.same, kwargs={}, convert="json", retry=RetryPolicy(on="crash"), key="run")
    async with Supervisor(workers=1) as supervisor:
        for _ in range(2):
            async with supervisor.map(template, ({"n": n} for n in range(100)), ordered=True) as outcomes:
                found = [outcome async for outcome in outcomes]
            assert [outcome.value for outcome in found] == [{"n": n} for n in range(100)]
            assert {outcome.key for outcome in found} == {"run"}
        assert template.args == ()
        async with supervisor.map(Job("chores:no_such_target"), [1]) as outcomes:
            assert [outcome.status async for outcome in outcomes] == ["failed"]
        async with supervisor.map(Job(chores.same, limits={"none": 1}), [1, 2]) as outcomes:
            with pytest.raises(ConfigurationError, match="none"):
                [outcome async for outcome in outcomes]


async def test_failures_are_outcomes_like_others(tmp_path: Path) -> None:
    async with Supervisor(workers=2) as supervisor:
        template = Job(chores.odd_fails, retry=RetryPolicy(attempts=2, backoff=0.001))
        async with supervisor.map(template, range(20), ordered=True) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert [outcome.succeeded for outcome in found] == [n % 2 == 0 for n in range(20)]
        assert all(outcome.attempts == 1 + outcome.item % 2 for outcome in found)
        async with supervisor.map([Job(dying.note_and_die, args=(str(tmp_path / "n"), "x"))]) as outcomes:
            [outcome] = [outcome async for outcome in outcomes]
        assert isinstance(outcome.error, JobCrashed)


async def test_an_endless_generator_costs_bounded_memory() -> None:
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        for number in itertools.count():
            pulled += 1
            yield number

    async with Supervisor(workers=2) as supervisor, supervisor.map(chores.same, endless()) as outcomes:
        await anext(outcomes)
        most = 0
        for taken in range(1, 5_000):
            await anext(outcomes)
            most = max(most, pulled - taken)
        assert most <= 600
        gc.collect()
        tracemalloc.start()
        for _ in range(5_000):
            await anext(outcomes)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size < 1_000_000


async def test_an_endless_iterable_waits_for_a_reader_that_pauses() -> None:
    async with Supervisor(workers=2) as supervisor, supervisor.map(chores.same, itertools.count()) as outcomes:
        for _ in range(10):
            await anext(outcomes)
        before = -1
        # Until nothing moves any more: the map is full, and nobody reads.
        async with asyncio.timeout(30):
            while before != (before := supervisor.statistics().submitted):  # noqa: ASYNC110  it is about nothing happening
                await asyncio.sleep(0.2)
        assert before <= 10 + 2 * 128 + 1


async def test_leaving_early_cancels_the_rest(tmp_path: Path) -> None:
    closed = []

    def items(port: int) -> Generator[int, None, None]:
        try:
            while True:
                yield port
        finally:
            closed.append(True)

    async with gates.Gate() as gate, Supervisor(workers=2, grace=5) as supervisor:
        source = items(gate.port)
        async with asyncio.timeout(30):
            async with supervisor.map(hanging.wait_for_ever, source) as outcomes:
                waiting = asyncio.ensure_future(anext(outcomes))
                await gate.arrived(2)
                waiting.cancel()
            s = supervisor.statistics()
            assert (s.running, s.queued) == (0, 0)
            assert set(s.settled) == {"cancelled"}
        source.close()
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
        assert await supervisor.run(chores.same, 1) == 1
    assert closed


async def test_an_error_of_the_iterable_comes_after_the_outcomes_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise LookupError("of the iterable")

    async with Supervisor(workers=1) as supervisor:
        found = []
        with pytest.raises(LookupError, match="of the iterable"):
            async with supervisor.map(chores.same, items()) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.value)  # noqa: PERF401  what came before the error counts
        assert sorted(found) == list(range(5))


async def test_an_item_that_cannot_travel_comes_after_the_outcomes_before_it() -> None:
    async with Supervisor(workers=1) as supervisor:
        found = []
        with pytest.raises(TypeError, match=r"args\[0\]"):
            async with supervisor.map(chores.same, [1, 2, object()]) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.value)  # noqa: PERF401  what came before the error counts
        assert found == [1, 2]
        with pytest.raises(TargetError):
            async with supervisor.map(lambda x: x, [1]) as outcomes:
                await anext(outcomes)


async def test_async_iterables_are_closed() -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(True)

    async with Supervisor(workers=1) as supervisor:
        async with supervisor.map(chores.same, items()) as outcomes:
            assert sorted([(await anext(outcomes)).value for _ in range(10)]) == list(range(10))
        assert closed == [True]


async def test_cancelling_the_reader_of_a_map() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1) as supervisor:

        async def read() -> None:
            async with supervisor.map(hanging.wait_for_ever, [gate.port] * 5) as outcomes:
                async for _ in outcomes:
                    pass

        reader = asyncio.create_task(read())
        await gate.arrived()
        reader.cancel()
        await asyncio.wait([reader])
        assert reader.cancelled()
        assert supervisor.statistics().settled == {"cancelled": 5}


async def test_a_map_dropped_without_closing_warns() -> None:
    async with Supervisor(workers=1) as supervisor:

        async def drop() -> None:
            outcomes = supervisor.map(chores.same, itertools.count())
            await anext(outcomes)

        with pytest.warns(ResourceWarning, match="map"):
            await drop()
            async with asyncio.timeout(30):
                while supervisor.statistics().running:
                    await asyncio.sleep(0.01)
                    gc.collect()


# Streams


@pytest.mark.parametrize("target", [chores.count_to, chores.count_to_async, "chores:count_to", "chores:count_to_async"])
async def test_a_stream_yields_what_the_job_yields(target: Any) -> None:
    async with Supervisor(workers=1) as supervisor:
        async with supervisor.stream(target, 300) as items:
            assert [item async for item in items] == list(range(300))
        async with supervisor.stream(target, 0) as items:
            assert [item async for item in items] == []
        assert supervisor.statistics().settled == {"succeeded": 2}


async def test_a_generator_s_items_are_its_value() -> None:
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(chores.count_to, 100) == list(range(100))
        assert await supervisor.run(chores.count_to, 0) == []


async def test_a_stream_is_at_most_sixteen_ahead_and_closes_the_generator_early(tmp_path: Path) -> None:
    path = tmp_path / "stamps"
    async with Supervisor(workers=1) as supervisor:
        async with supervisor.stream(chores.count_noting, str(path), 100_000) as items:
            assert [await anext(items) for _ in range(5)] == [0, 1, 2, 3, 4]
        labels = [line.split(" ")[1] for line in path.read_text().splitlines()]
        assert labels[-1] == "closed"
        assert len(labels) - 1 <= 5 + 16 + 1
        assert supervisor.statistics().settled == {"cancelled": 1}
        assert await supervisor.run(chores.same, 1) == 1


async def test_a_failure_comes_after_the_items() -> None:
    async with Supervisor(workers=1) as supervisor:
        for target, error in ((chores.count_then_fail, JobFailed), (chores.count_then_die, JobCrashed)):
            found = []
            with pytest.raises(error):
                async with supervisor.stream(target, 40) as items:
                    async for item in items:
                        found.append(item)  # noqa: PERF401  what came before the error counts
            assert found == list(range(40))


async def test_a_stream_dropped_without_closing_warns() -> None:
    async with Supervisor(workers=1) as supervisor:

        async def drop() -> None:
            items = supervisor.stream(chores.count_to, 10_000)
            await anext(items)

        with pytest.warns(ResourceWarning, match="stream"):
            await drop()
            gc.collect()
