"""Calls through the executor as through any of `concurrent.futures`: values, errors, order, threads, children."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executing
import pytest
from orchestrator_adapters.executor import CallUnreadable, InitializerFailed, OrchestratorExecutor

DEADLINE = 60


@pytest.fixture
def executor() -> Iterator[OrchestratorExecutor]:
    with OrchestratorExecutor(2) as made:
        yield made


# submit


def test_a_call_returns_its_value(executor: OrchestratorExecutor) -> None:
    assert executor.submit(executing.add, 2, b=3).result(DEADLINE) == 5
    assert isinstance(executor, concurrent.futures.Executor)


def test_an_exception_comes_back_as_it_was_raised(executor: OrchestratorExecutor) -> None:
    with pytest.raises(ValueError, match="^no$") as raised:
        executor.submit(executing.fail, "no").result(DEADLINE)
    assert "in fail" in str(raised.value.__cause__) and "_child.py" not in str(raised.value.__cause__)


def test_exit_in_a_call_is_its_exception_and_not_ours(executor: OrchestratorExecutor) -> None:
    before = executor.submit(executing.pid).result(DEADLINE)
    assert isinstance(executor.submit(executing.sys_exit).exception(DEADLINE), SystemExit)
    assert executor.submit(executing.pid).result(DEADLINE) == before


def test_what_cannot_be_pickled_here_is_told_by_the_future(executor: OrchestratorExecutor) -> None:
    future = executor.submit(executing.size, threading.Lock())  # type: ignore[arg-type]
    assert isinstance(future.exception(DEADLINE), TypeError)
    assert isinstance(executor.submit(lambda: 1).exception(DEADLINE), (AttributeError, pickle.PicklingError))
    assert executor.submit(executing.add, 1).result(DEADLINE) == 2


@pytest.mark.parametrize(
    "target", [executing.raise_hostile, executing.raise_unpicklable], ids=lambda each: each.__name__
)
def test_an_exception_that_cannot_travel_fails_its_call_alone(executor: OrchestratorExecutor, target: Any) -> None:
    error = executor.submit(target).exception(DEADLINE)
    assert isinstance(error, CallUnreadable) and error.__cause__ is not None
    assert executor.submit(executing.add, 1).result(DEADLINE) == 2


def test_values_of_any_size_travel(executor: OrchestratorExecutor) -> None:
    assert executor.submit(executing.size, b"x" * 20_000_000).result(DEADLINE) == 20_000_000
    assert len(executor.submit(executing.repeat, 20_000_000).result(DEADLINE)) == 20_000_000


def test_many_threads_may_submit(executor: OrchestratorExecutor) -> None:
    found: list[list[int]] = []

    def submit_many(first: int) -> None:
        futures = [executor.submit(executing.add, first, number) for number in range(50)]
        found.append([future.result(DEADLINE) - first for future in futures])

    threads = [threading.Thread(target=submit_many, args=(number * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(50))] * 8


def test_a_callback_may_submit_and_even_shut_down(executor: OrchestratorExecutor) -> None:
    ended: concurrent.futures.Future[int] = concurrent.futures.Future()

    def go_on(done: concurrent.futures.Future[int]) -> None:
        following = executor.submit(executing.add, done.result())
        following.add_done_callback(lambda future: ended.set_result(future.result()))
        executor.shutdown(wait=True)  # it cannot wait for the end of the very callback

    executor.submit(executing.add, 1).add_done_callback(go_on)
    assert ended.result(DEADLINE) == 3


def test_a_callback_that_calls_exit_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    with OrchestratorExecutor(1) as executor:
        executor.submit(executing.repeat, 10_000).add_done_callback(lambda _: executing.sys_exit())
        assert executor.submit(executing.repeat, 10_000).result(DEADLINE)
    assert "a callback of a future raised" in caplog.text


async def test_it_serves_run_in_executor(executor: OrchestratorExecutor) -> None:
    loop = asyncio.get_running_loop()
    calls = [loop.run_in_executor(executor, executing.add, number) for number in range(100)]
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*calls) == list(range(1, 101))


def test_a_call_may_use_an_executor(executor: OrchestratorExecutor) -> None:
    assert executor.submit(executing.nested, 4).result(DEADLINE) == 5


def test_proxies_of_managers_travel(executor: OrchestratorExecutor) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        queue = manager.Queue()
        executor.submit(executing.put, queue, 5).result(DEADLINE)
        assert queue.get(timeout=DEADLINE) == 5


def test_what_calls_print_is_printed_here_before_they_are_done(
    executor: OrchestratorExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        executor.submit(executing.say, f"line {number}").result(DEADLINE)
        assert capsys.readouterr() == (f"line {number}\n", f"LINE {number}")


def test_the_streams_of_a_call_are_as_programs_expect(
    executor: OrchestratorExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    names = executor.submit(executing.use_streams).result(DEADLINE)
    assert names == ["<stdout>", "w", "utf-8", "backslashreplace", "<stderr>"]
    assert capsys.readouterr().out == "still there\n"


# map


def test_map_keeps_the_order_whatever_the_chunks(executor: OrchestratorExecutor) -> None:
    for size in (1, 3, 40, 50):
        assert list(executor.map(executing.add, range(40), range(40), chunksize=size)) == list(range(0, 80, 2))
    assert list(executor.map(executing.add, [])) == []


def test_map_refuses_numbers_that_make_no_sense(executor: OrchestratorExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(executing.add, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(executing.add, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize"):
        executor.map(executing.add, [1], buffersize="2")  # type: ignore[arg-type]


def test_map_takes_no_more_than_its_buffer(executor: OrchestratorExecutor) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = executor.map(executing.add, items(), buffersize=3)
    for number in range(1, 20):
        assert next(results) == number + 1
        assert taken == number + 3
    del results


@pytest.mark.parametrize("most", [None, 2])
def test_map_asks_nobody_again_who_said_that_there_is_no_more(executor: OrchestratorExecutor, most: int | None) -> None:
    longer = iter(range(100))
    shorter = iter([1, 2, 3])
    assert list(executor.map(executing.add, longer, shorter, buffersize=most)) == [1, 3, 5]
    assert next(longer) == 4  # zip has taken one more than the shorter has, and no more

    def ends_once() -> Iterator[int]:
        yield 1
        ended.append(1)

    ended: list[int] = []
    assert list(executor.map(executing.add, ends_once(), buffersize=most)) == [2]
    assert ended == [1]


def test_map_gives_up_at_its_timeout(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    results = executor.map(executing.hold, [str(tmp_path)], timeout=0.1)
    with pytest.raises(TimeoutError):
        next(results)
    (tmp_path / "go").touch()


def test_the_first_exception_ends_a_map_and_cancels_the_rest(executor: OrchestratorExecutor, tmp_path: Path) -> None:
    marks = [str(tmp_path / str(number)) for number in range(200)]
    results = executor.map(executing.note, [str(tmp_path / "none" / "here"), *marks])
    with pytest.raises(FileNotFoundError):
        next(results)
    assert list(results) == []


# Children


def test_children_are_kept_until_they_have_had_their_calls() -> None:
    with OrchestratorExecutor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(executing.pid).result(DEADLINE) for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_each_child_is_initialized_before_its_first_call() -> None:
    context = multiprocessing.get_context("spawn")
    with OrchestratorExecutor(2, context, executing.keep, ("ready",), max_tasks_per_child=2) as executor:
        assert list(executor.map(executing.kept, range(8), timeout=DEADLINE)) == [["ready"]] * 8


def test_a_failed_initializer_breaks_the_executor_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    called = tmp_path / "called"
    with OrchestratorExecutor(2, initializer=executing.refuse_to_start, initargs=(str(called),)) as executor:
        futures = []
        with pytest.raises(InitializerFailed, match="no such device"):
            futures += [executor.submit(executing.add, number) for number in range(20)]
            futures[0].result(DEADLINE)
        for future in futures:
            error = future.exception(DEADLINE)
            assert isinstance(error, concurrent.futures.process.BrokenProcessPool) and "refuse_to_start" in str(
                error.__cause__
            )
        with pytest.raises(concurrent.futures.BrokenExecutor, match="no such device"):
            executor.submit(executing.add, 1)
    assert "Exception in initializer" in caplog.text and "no such device" in caplog.text
    assert 1 <= len(called.read_text("ascii").split()) <= 2


def test_options_of_the_supervisor_may_be_given() -> None:
    with OrchestratorExecutor(1, env={"EXECUTING": "yes"}) as executor:
        assert executor.submit(os.getenv, "EXECUTING").result(DEADLINE) == "yes"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        ({"grace": -1}, ValueError, "grace"),
        ({"colour": "red"}, TypeError, "colour"),
        ({"journal": None}, TypeError, "journal"),
        ({"preload": "json", "initializer": print}, ValueError, "preload"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        OrchestratorExecutor(**arguments)
