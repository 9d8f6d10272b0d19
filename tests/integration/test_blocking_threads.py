"""One supervisor and many threads: each gets what is its own, and none waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import chores
import doors
import hosting
import pytest

from orchestrator import BlockingSupervisor, callback
from orchestrator.exceptions import JobCancelled, SupervisorClosed

ISOLATIONS = ["process", "inline"]
# How long anything here may take on a busy machine before it counts as waiting for ever.
LONG = 30


@pytest.fixture
def door() -> Iterator[doors.Door]:
    with doors.Door() as door:
        yield door


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run it in so many threads at once; returns what they returned, or raised."""
    start = threading.Barrier(count)

    def body(number: int) -> Any:
        start.wait(LONG)
        try:
            return work(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result(LONG) for future in [pool.submit(body, number) for number in range(count)]]


def in_thread(work: Callable[[], Any]) -> Any:
    """Run it in a thread of its own, as a page's rerun does."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(LONG)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_many_threads_run_many_jobs(isolation: Any) -> None:
    with BlockingSupervisor(workers=2, isolation=isolation) as supervisor:

        def work(number: int) -> list[int]:
            if number % 4 == 3:
                with supervisor.map(chores.same, range(200), ordered=True) as outcomes:
                    return [outcome.value for outcome in outcomes]
            if number % 4 == 2:
                return [handle.result() for handle in [supervisor.submit(chores.same, each) for each in range(200)]]
            return [supervisor.run(chores.same, each) for each in range(200)]

        assert in_threads(8, work) == [list(range(200))] * 8
        statistics = supervisor.statistics()
        assert statistics.settled == {"succeeded": 1600}
        assert statistics.submitted == 1600


def test_queue_size_is_kept_by_all_threads_together(door: doors.Door) -> None:
    with BlockingSupervisor(workers=1, isolation="inline", queue_size=5) as supervisor:
        holder = supervisor.submit(doors.stand, door.port)
        door.wait()
        most = 0
        done = threading.Event()

        def look() -> None:
            nonlocal most
            while not done.is_set():
                most = max(most, supervisor.statistics().queued)

        looker = threading.Thread(target=look)
        looker.start()
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(supervisor.submit, chores.same, number) for number in range(60)]
            while supervisor.statistics().queued < 5:
                time.sleep(0.005)
            door.open()
            handles = [future.result(LONG) for future in futures]
        assert sorted(handle.result(LONG) for handle in handles) == list(range(60))
        done.set()
        looker.join()
        assert holder.result(LONG) == ""
        assert most == 5


def test_submitters_that_wait_for_room_are_told_of_the_end(door: doors.Door) -> None:
    supervisor = BlockingSupervisor(workers=1, isolation="inline", queue_size=1, on_exit="cancel", grace=0.2).open()
    supervisor.submit(doors.stand_until_stopped, door.port)
    door.wait()
    supervisor.submit(chores.same, 1)
    with ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(supervisor.run, chores.same, number) for number in range(12)]
        supervisor.close()
        ends = [future.exception(LONG) for future in futures]
    assert {type(end) for end in ends} <= {SupervisorClosed, JobCancelled}


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_used_by_one_short_lived_thread_after_the_other(isolation: Any) -> None:
    supervisor = in_thread(BlockingSupervisor(workers=1, isolation=isolation).open)
    seen: list[tuple[int, int]] = []

    def page(number: int) -> Any:
        here = threading.get_ident()

        def show(each: int, double: int) -> None:
            seen.append((threading.get_ident() - here, each))

        return supervisor.run(chores.call_back, callback(show), number)

    for number in range(1, 6):
        assert in_thread(lambda number=number: page(number)) == "called"
    assert seen == [(0, each) for number in range(1, 6) for each in range(number)]
    # A handle outlives the thread that made it.
    handle = in_thread(lambda: supervisor.submit(chores.same, 7))
    assert in_thread(handle.result) == 7
    assert [event.state for event in in_thread(lambda: list(handle.events())) if event.kind == "state"][
        -1
    ] == "succeeded"
    in_thread(supervisor.close)


def test_calls_are_made_once_and_in_order_however_many_wait() -> None:
    seen: list[int] = []
    with BlockingSupervisor(workers=1, isolation="inline") as supervisor:
        handle = supervisor.submit(doors.call_many, callback(seen.append), 2500)
        assert in_threads(4, lambda _: handle.result()) == ["called"] * 4
    assert seen == list(range(2500))


@pytest.mark.parametrize("on_exit", ["drain", "cancel"])
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_closed_by_a_thread_while_another_waits(door: doors.Door, isolation: Any, on_exit: Any) -> None:
    supervisor = BlockingSupervisor(workers=1, isolation=isolation, on_exit=on_exit, grace=0.3).open()
    with ThreadPoolExecutor(3) as pool:
        target = doors.stand if on_exit == "drain" else doors.stand_and_report
        waiting = pool.submit(supervisor.run, target, door.port)
        door.wait()
        closing = [pool.submit(supervisor.close) for _ in range(2)]
        if on_exit == "drain":
            while supervisor.statistics().state != "draining":
                time.sleep(0.005)
            door.open()
            assert waiting.result(LONG) == ""
        else:
            assert type(waiting.exception(LONG)) is JobCancelled
        for future in closing:
            future.result(LONG)
            # Whoever closes it returns when it is closed, not when somebody else is at it.
            assert supervisor.statistics().state == "closed"
    supervisor.close()


@pytest.mark.parametrize("round_", range(15))
def test_closed_at_any_moment_nobody_waits_for_ever(round_: int) -> None:
    supervisor = BlockingSupervisor(workers=2, isolation="inline", on_exit="cancel", queue_size=4, grace=0.2).open()
    begun = threading.Barrier(7)

    def work(number: int) -> int:
        count = 0
        begun.wait(LONG)
        try:
            while True:
                match number % 6:
                    case 0:
                        assert supervisor.run(chores.same, count) == count
                    case 1:
                        supervisor.submit(chores.same_async, count).outcome()
                    case 2:
                        supervisor.statistics()
                        supervisor.scale(1 + count % 3)
                    case 3:
                        with supervisor.map(chores.same, range(5)) as outcomes:
                            list(outcomes)
                    case 4:
                        list(supervisor.submit(chores.count_to, 20).events())
                    case 5:
                        with supervisor.stream(chores.count_to_async, 40) as items:
                            list(items)
                count += 1
        except (SupervisorClosed, JobCancelled):
            return count

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(work, number) for number in range(6)]
        begun.wait(LONG)
        time.sleep(0.01 * round_)  # not to wait for something: to close at another moment each time
        supervisor.close()
        for future in futures:
            future.result(LONG)
    statistics = supervisor.statistics()
    assert statistics.state == "closed"
    assert statistics.submitted == sum(statistics.settled.values())


def test_drained_while_others_submit(door: doors.Door) -> None:
    with BlockingSupervisor(workers=1, isolation="inline") as supervisor:
        handle = supervisor.submit(doors.stand, door.port)
        door.wait()
        with ThreadPoolExecutor(2) as pool:
            draining = [pool.submit(supervisor.drain) for _ in range(2)]
            while supervisor.statistics().state != "draining":
                time.sleep(0.005)
            with pytest.raises(SupervisorClosed, match="draining"):
                supervisor.run(chores.same, 1)
            with pytest.raises(SupervisorClosed, match="draining"):
                next(supervisor.map(chores.same, [1]))
            door.open()
            for future in draining:
                assert future.result(LONG) is None
        assert handle.state == "succeeded"


async def test_used_in_the_thread_of_a_running_loop() -> None:
    # A notebook's cells run so.
    seen: list[int] = []
    with BlockingSupervisor(workers=2, limits=hosting.LIMITS) as supervisor:
        assert supervisor.run(chores.same_async, 1) == 1
        assert supervisor.run(doors.call_many, callback(seen.append), 3) == "called"
        with supervisor.map(chores.same, range(10), ordered=True) as outcomes:
            assert [outcome.value for outcome in outcomes] == list(range(10))
    assert seen == [0, 1, 2]


def test_on_the_engines_own_thread_every_method_refuses_to_wait(door: doors.Door) -> None:
    with BlockingSupervisor(workers=2, isolation="inline") as supervisor:
        doors.OPEN.update(mine=supervisor, handle=supervisor.submit(doors.stand, door.port))
        door.wait()
        said = supervisor.run(doors.ask_from_the_loop, "mine")
        door.open()
        doors.OPEN.clear()
    assert said == ["WrongContext"] * len(said)
    assert len(said) == 8


def test_a_job_may_use_the_supervisor_from_its_own_thread() -> None:
    with BlockingSupervisor(workers=2, isolation="inline") as supervisor:
        doors.OPEN["mine"] = supervisor
        assert supervisor.run(doors.run_another, "mine", 3) == 3
        doors.OPEN.clear()


def test_a_later_thread_may_have_the_number_of_the_engines() -> None:
    supervisor = BlockingSupervisor(workers=1).open()
    supervisor.close()
    problems: list[BaseException] = []

    def close() -> None:
        try:
            supervisor.close()
        except BaseException as error:
            problems.append(error)

    for _ in range(20):  # systems give the number of a thread that has ended to one of the next
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
    assert problems == []
