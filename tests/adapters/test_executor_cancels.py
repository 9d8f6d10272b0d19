"""Calls that are cancelled while they run, in the ways and at the moments that are hard on a pool of processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import executing
import misbehaving
import pytest
from misbehaving import DEADLINE, LARGE, until_gone, until_written
from orchestrator_adapters.executor import CallCrashed, OrchestratorExecutor

from orchestrator.testing import nothing_left

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="what the calls do is that of POSIX systems")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def executor() -> Iterator[OrchestratorExecutor]:
    with OrchestratorExecutor(2, kill_running=True, grace=0.05) as made:
        yield made


def works(executor: OrchestratorExecutor) -> bool:
    return list(executor.map(executing.add, range(4), timeout=DEADLINE)) == [1, 2, 3, 4]


# What is cancelled


@pytest.mark.parametrize("target", misbehaving.ENDLESS, ids=lambda each: each.__name__)
def test_a_call_that_will_not_end_is_ended(
    executor: OrchestratorExecutor, target: Callable[[str], None], tmp_path: Path
) -> None:
    future = executor.submit(target, str(tmp_path / "pid"))
    pids = until_written(tmp_path / "pid")
    bystander = executor.submit(executing.hold, str(tmp_path))
    assert future.cancel() and future.cancelled()
    assert executor.submit(executing.add, 1).result(DEADLINE) == 2
    if target in (misbehaving.swallow_everything, misbehaving.sleep_with_the_gil):
        until_gone(pids)
    (tmp_path / "go").touch()
    assert bystander.result(DEADLINE) == "running"


@pytest.mark.parametrize("target", misbehaving.FAMILIES, ids=lambda each: each.__name__)
def test_what_a_cancelled_call_has_started_goes_with_it(
    executor: OrchestratorExecutor, target: Callable[[str], None], tmp_path: Path
) -> None:
    future = executor.submit(target, str(tmp_path / "pids"))
    started, _ = until_written(tmp_path / "pids", 2)
    assert future.cancel()
    assert works(executor)
    until_gone([started])


# When, and by whom


def cancel_from_threads(futures: list[concurrent.futures.Future[None]], count: int) -> list[bool]:
    start = threading.Barrier(count)
    found: list[bool] = []

    def cancel() -> None:
        start.wait(DEADLINE)
        found.extend([future.cancel() for future in futures])

    threads = [threading.Thread(target=cancel) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_of_many_threads_that_cancel_each_is_told_the_same(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / str(number)
        futures = [executor.submit(misbehaving.sleep, str(path)) for _ in range(2)]
        until_written(path, 2)
        told: list[concurrent.futures.Future[None]] = []
        for future in futures:
            future.add_done_callback(told.append)
        assert cancel_from_threads(futures, 8) == [True] * 16
        assert len(told) == 2 and set(told) == set(futures)
    assert works(executor)


def cancel_at_random(executor: OrchestratorExecutor, count: int, seed: int) -> None:
    dice = random.Random(seed)
    cancelled = 0
    for number in range(count):
        future = executor.submit(misbehaving.nap, number, dice.uniform(0, 0.004))
        neighbour = executor.submit(misbehaving.nap, -number, dice.uniform(0, 0.004))
        try:
            future.result(dice.uniform(0, 0.006))
        except concurrent.futures.TimeoutError:
            cancelled += future.cancel()
        assert concurrent.futures.wait([future], DEADLINE).done
        assert future.cancelled() or future.result() == number
        assert neighbour.result(DEADLINE) == -number
    assert cancelled
    assert works(executor)


def test_a_call_cancelled_in_the_moment_of_its_end_is_cancelled_or_has_its_value() -> None:
    with OrchestratorExecutor(2, kill_running=True, grace=5) as executor:
        cancel_at_random(executor, 300, 1)


@pytest.mark.soak
def test_thousands_of_calls_cancelled_in_the_moment_of_their_end() -> None:
    for grace in (0, 0.002, 5):
        with OrchestratorExecutor(2, kill_running=True, grace=grace) as executor:
            cancel_at_random(executor, 600, int(grace * 1000))


def test_who_waits_for_a_call_hears_that_another_cancelled_it(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    future = executor.submit(misbehaving.sleep, str(tmp_path / "pid"))
    until_written(tmp_path / "pid")
    found: list[type[BaseException]] = []

    def wait() -> None:
        try:
            future.result()
        except BaseException as error:
            found.append(type(error))

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    misbehaving.until_awaited(future, 3)
    future.cancel()
    for thread in threads:
        thread.join(DEADLINE)
    assert found == [concurrent.futures.CancelledError] * 3


def test_a_callback_may_cancel_another_call(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    endless = executor.submit(misbehaving.sleep, str(tmp_path / "pid"))
    until_written(tmp_path / "pid")
    found: list[bool] = []
    large = executor.submit(executing.repeat, 10_000)
    large.add_done_callback(lambda _: found.append(endless.cancel()))
    assert concurrent.futures.wait([endless], DEADLINE).done == {endless}
    assert large.result(DEADLINE) and works(executor)
    executor.shutdown()  # the callback has returned then
    assert found == [True]


@pytest.mark.parametrize("turns", [0, 1, 10_000])
def test_a_call_may_be_cancelled_while_it_is_sent(executor: OrchestratorExecutor, turns: int) -> None:
    assert works(executor)
    data = b"x" * LARGE
    futures = [executor.submit(misbehaving.take, data) for _ in range(3)]
    while not (futures[0].running() or futures[0].done()):
        pass
    for _ in range(turns):  # some moment later
        pass
    for future in futures:
        assert future.cancel() or future.result(0) == LARGE
    assert works(executor)


def test_a_call_may_be_cancelled_while_its_result_is_on_its_way(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / str(number)
        futures = [executor.submit(misbehaving.give, str(path)) for _ in range(2)]
        until_written(path, 2)
        for future in futures:
            assert future.cancel() or len(future.result(0)) == LARGE
        assert works(executor)


def test_many_cancels_while_much_is_on_its_way_in_both_directions(
    executor: OrchestratorExecutor, tmp_path: Path
) -> None:
    dice = random.Random(3)
    data = b"x" * 3_000_000
    futures: list[concurrent.futures.Future[object]] = []
    for number in range(30):
        if number % 2:
            futures.append(executor.submit(misbehaving.take, data))
        else:
            futures.append(executor.submit(misbehaving.give, str(tmp_path / "given"), len(data)))
        if number % 3 == 2:
            dice.choice(futures).cancel()
    dice.shuffle(futures)
    for future in futures[::2]:
        future.cancel()
    assert concurrent.futures.wait(futures, DEADLINE).not_done == set()
    for future in futures:
        assert future.cancelled() or future.result() in (data, len(data))
    assert works(executor)


@pytest.mark.parametrize("count", [1, 5])
def test_kill_workers_while_much_is_sent_ends(count: int) -> None:
    executor = OrchestratorExecutor(1, grace=0)
    assert executor.submit(executing.add, 1).result(DEADLINE) == 2
    futures = [executor.submit(misbehaving.take, b"x" * 400_000) for _ in range(count)]
    executor.kill_workers()
    assert all(isinstance(future.exception(DEADLINE), (BrokenProcessPool, type(None))) for future in futures)


# From asyncio


async def test_a_timeout_ends_the_call(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, executing.add, 1) == 2
    call = loop.run_in_executor(executor, misbehaving.swallow_everything, str(tmp_path / "pid"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 1)
    pids = (tmp_path / "pid").read_text("ascii").split() if (tmp_path / "pid").exists() else []
    await asyncio.to_thread(until_gone, [int(pid) for pid in pids])
    assert await loop.run_in_executor(executor, executing.add, 1) == 2


async def test_a_cancelled_task_ends_its_call(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await loop.run_in_executor(executor, misbehaving.swallow_everything, str(tmp_path / "pid"))

    task = asyncio.create_task(wait())
    pids = await asyncio.to_thread(until_written, tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(until_gone, pids)


async def test_of_calls_that_are_gathered_only_the_one_that_crashes_fails(executor: OrchestratorExecutor) -> None:
    loop = asyncio.get_running_loop()
    calls = [loop.run_in_executor(executor, misbehaving.crash_in_chunk, number) for number in range(10, 20)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found.pop(3), CallCrashed)
    assert found == [10, 11, 12, 14, 15, 16, 17, 18, 19]


async def test_a_task_group_that_fails_ends_the_calls_of_its_tasks(
    executor: OrchestratorExecutor, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    pids: list[int] = []

    async def wait() -> None:
        await loop.run_in_executor(executor, misbehaving.swallow_everything, str(tmp_path / "pid"))

    async def fail() -> None:
        pids.extend(await asyncio.to_thread(until_written, tmp_path / "pid"))
        await loop.run_in_executor(executor, executing.segfault)

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait())
            tasks.create_task(fail())
    assert [type(error) for error in raised.value.exceptions] == [CallCrashed]
    await asyncio.to_thread(until_gone, pids)


def test_many_loops_share_an_executor(executor: OrchestratorExecutor) -> None:
    found: list[list[int]] = []

    async def use(first: int) -> None:
        loop = asyncio.get_running_loop()
        late = loop.run_in_executor(executor, misbehaving.nap, 0, 3600)
        calls = [loop.run_in_executor(executor, executing.add, first, number) for number in range(25)]
        late.cancel()
        found.append(await asyncio.wait_for(asyncio.gather(*calls), DEADLINE))

    threads = [threading.Thread(target=asyncio.run, args=(use(number * 100),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [list(range(first, first + 25)) for first in range(0, 600, 100)]


# map


def test_what_a_map_has_not_done_in_time_is_ended(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(20)]
    results = executor.map(misbehaving.swallow_everything, paths, timeout=1)
    with pytest.raises(TimeoutError):
        next(results)
    assert works(executor)  # which it could not with a child in one of them
    assert not Path(paths[-1]).exists()


def test_a_chunk_that_crashes_costs_no_other(executor: OrchestratorExecutor) -> None:
    results = executor.map(misbehaving.crash_in_chunk, range(20), chunksize=5)
    assert list(itertools.islice(results, 10)) == list(range(10))
    with pytest.raises(CallCrashed):
        next(results)
    assert list(executor.map(misbehaving.crash_in_chunk, range(14, 30), chunksize=5)) == list(range(14, 30))


@pytest.mark.parametrize("chunksize", [1, 3])
def test_closing_a_map_ends_its_calls(executor: OrchestratorExecutor, chunksize: int, tmp_path: Path) -> None:
    targets = [misbehaving.report_and_return] * chunksize + [misbehaving.sleep] * 6
    paths = [str(tmp_path / "quick")] * chunksize + [str(tmp_path / "slow")] * 6
    results = executor.map(misbehaving.apply, targets, paths, chunksize=chunksize)
    assert next(results) is None
    until_written(tmp_path / "slow", 2)
    results.close()  # type: ignore[attr-defined]
    assert works(executor)


def test_an_endless_input_may_be_left_early(executor: OrchestratorExecutor) -> None:
    numbers = itertools.count()
    results = executor.map(executing.add, numbers, buffersize=4)
    assert list(itertools.islice(results, 30)) == list(range(1, 31))
    results.close()  # type: ignore[attr-defined]
    assert next(numbers) <= 40 and works(executor)


def test_an_input_that_fails_after_a_while_is_told_where_it_is_read(executor: OrchestratorExecutor) -> None:
    with pytest.raises(LookupError, match="no more items"):
        executor.map(executing.add, misbehaving.items_then_error(5))
    results = executor.map(executing.add, misbehaving.items_then_error(5), buffersize=2)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(LookupError, match="no more items"):
        next(results)
    assert works(executor)


def test_an_input_is_read_to_its_end_once() -> None:
    class Input:
        """Has more after its end, as a file may that grows."""

        ends = 0

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            self.ends += 1
            if self.ends % 4 == 0:
                raise StopIteration
            return self.ends

    given = Input()
    with OrchestratorExecutor(1) as executor:
        assert list(executor.map(executing.add, given)) == [2, 3, 4]
    assert given.ends == 4


def test_results_of_a_map_may_be_dropped_unread(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(20)]
    executor.map(executing.note, paths)
    executor.shutdown()
    assert all(Path(path).read_text("ascii") == "x" for path in paths)  # as with the standard library's


def test_an_item_that_cannot_be_pickled_fails_where_it_stands(executor: OrchestratorExecutor) -> None:
    results = executor.map(executing.kept, [1, threading.Lock(), 3])
    assert next(results) == []
    with pytest.raises(TypeError, match="pickle"):
        next(results)
    assert works(executor)
