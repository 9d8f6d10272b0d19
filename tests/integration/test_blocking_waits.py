"""What sync callers wait for: outcomes, events, maps and streams, with callbacks on the thread that waits."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import chores
import doors
import hosting
import pytest

from orchestrator import BlockingSupervisor, Job, callback
from orchestrator.exceptions import (
    ConfigurationError,
    JobCancelled,
    JobFailed,
    LaunchError,
    PayloadError,
    SupervisorClosed,
    WrongContext,
)

LONG = 30


class Rerun(BaseException):
    """As Streamlit raises it in the midst of a page that is to be run anew."""


@pytest.fixture(scope="module", params=["process", "inline"])
def isolation(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def supervisor(isolation: Any) -> Iterator[BlockingSupervisor]:
    with BlockingSupervisor(workers=2, isolation=isolation, grace=0.3, limits=hosting.LIMITS) as supervisor:
        yield supervisor
    statistics = supervisor.statistics()
    assert statistics.state == "closed"
    assert statistics.submitted == sum(statistics.settled.values())
    assert (statistics.queued, statistics.running, statistics.waiting) == (0, 0, 0)


@pytest.fixture
def door() -> Iterator[doors.Door]:
    with doors.Door() as door:
        yield door


# Outcomes


def test_timeouts_only_end_the_wait(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    handle = supervisor.submit(doors.stand, door.port, "done")
    door.wait()
    for timeout in (0, 0.05, timedelta(milliseconds=20)):
        with pytest.raises(TimeoutError, match="it goes on"):
            handle.result(timeout)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            handle.outcome(timeout=timeout)  # type: ignore[arg-type]
    for wrong in (-1, float("nan"), "1"):
        with pytest.raises(ConfigurationError, match="timeout"):
            handle.result(wrong)  # type: ignore[arg-type]
    assert handle.state == "running"
    door.open()
    assert handle.result(timeout=1e12) == "done"
    assert handle.outcome(timeout=0).value == "done"
    assert handle.state == "succeeded"


def test_outcome_of_a_failed_job_raises_nothing(supervisor: BlockingSupervisor) -> None:
    handle = supervisor.submit(Job(hosting.refuse, args=("no",), key="mine"))
    outcome = handle.outcome()
    assert (outcome.status, outcome.key, outcome.job_id) == ("failed", "mine", handle.id)
    with pytest.raises(JobFailed):
        handle.result()
    assert handle.key == "mine"
    assert "mine failed" in repr(handle)


def test_cancel_reaches_a_job_wherever_it_is(supervisor: BlockingSupervisor) -> None:
    with doors.Door() as door:
        handles = [supervisor.submit(doors.stand_and_report, door.port) for _ in range(4)]
        door.wait(2)
        for handle in reversed(handles):
            handle.cancel()
            handle.cancel()
        assert [handle.outcome().status for handle in handles] == ["cancelled"] * 4
    handle.cancel()
    with pytest.raises(JobCancelled):
        handle.result()


def test_failure_that_nobody_looked_at_is_logged(
    supervisor: BlockingSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    for look in (False, True):
        handle = supervisor.submit(hosting.refuse, "no")
        if look:
            handle.outcome()
        while handle.state != "failed":
            time.sleep(0.002)
        caplog.clear()
        number = handle.id
        del handle
        gc.collect()
        supervisor.statistics()  # the engine has let go of it by now
        gc.collect()
        assert (f"job.failed_unobserved supervisor='supervisor' job={number}" in caplog.text) is not look


def test_handle_that_is_dropped_leaves_its_job_alone(supervisor: BlockingSupervisor, tmp_path: Path) -> None:
    supervisor.submit(chores.stamp, str(tmp_path / "ran"))
    gc.collect()
    supervisor.drain()
    assert (tmp_path / "ran").exists()


# Callbacks


def test_callbacks_come_to_the_thread_that_waits(supervisor: BlockingSupervisor) -> None:
    places: list[tuple[str, int]] = []

    def show(number: int) -> None:
        places.append((threading.current_thread().name, number))

    here = threading.current_thread().name
    assert supervisor.run(doors.call_many, callback(show), 3) == "called"
    for wait in ("result", "outcome", "events"):
        handle = supervisor.submit(doors.call_many, callback(show), 3)
        list(handle.events()) if wait == "events" else getattr(handle, wait)()
    assert places == [(here, number) for number in range(3)] * 4
    places.clear()
    with supervisor.map([Job(doors.call_many, args=(callback(show), 2)) for _ in range(3)]) as outcomes:
        assert [outcome.value for outcome in outcomes] == ["called"] * 3
    assert sorted(places) == sorted([(here, number) for number in range(2)] * 3)


def test_calls_of_a_latest_function_coalesce(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    seen: list[int] = []
    handle = supervisor.submit(doors.call_many, callback(seen.append, latest=True), 500, door.port)
    door.wait()  # all calls were made while nobody waited for them
    door.open()
    assert handle.result() == "called"
    assert seen[-1] == 499
    assert len(seen) < 500


@pytest.mark.parametrize("wait", ["run", "result", "map", "events"])
def test_error_in_a_callback_cancels_the_job_and_is_raised(supervisor: BlockingSupervisor, wait: str) -> None:
    calls: list[int] = []

    def show(number: int) -> None:
        calls.append(number)
        raise LookupError(number)

    job = Job(doors.call_many, args=(callback(show), 1_000_000))
    with pytest.raises(LookupError, match="0"):
        if wait == "run":
            supervisor.run(job)
        elif wait == "result":
            supervisor.submit(job).result()
        elif wait == "events":
            list(supervisor.submit(job).events())
        else:
            with supervisor.map([job]) as outcomes:
                next(outcomes)
    supervisor.drain()
    assert calls == [0]
    assert supervisor.statistics().settled == {"cancelled": 1}


def test_error_in_a_callback_is_no_failure_of_the_job(supervisor: BlockingSupervisor) -> None:
    def show(number: int) -> None:
        raise LookupError(number)

    handle = supervisor.submit(doors.call_many, callback(show), 1_000_000)
    assert handle.outcome().status == "cancelled"
    with pytest.raises(LookupError):
        handle.result()


@pytest.mark.parametrize("wait", ["run", "result", "outcome", "events", "map", "stream"])
def test_rerun_of_the_page_passes_through(supervisor: BlockingSupervisor, wait: str) -> None:
    calls: list[int] = []

    def show(number: int) -> None:
        calls.append(number)
        raise Rerun

    job = Job(doors.call_many, args=(callback(show), 1_000_000))
    with pytest.raises(Rerun):
        match wait:
            case "run":
                supervisor.run(job)
            case "map":
                for _ in supervisor.map([job] * 3):
                    raise AssertionError
            case "stream":
                with supervisor.stream(job) as items:
                    next(items)
            case "events":
                list(supervisor.submit(job).events())
            case _:
                getattr(supervisor.submit(job), wait)()
    if wait == "run":  # promised: the job has ended by then
        assert supervisor.statistics().running == 0
    supervisor.drain()
    assert calls == [0]
    assert set(supervisor.statistics().settled) == {"cancelled"}


def test_rerun_in_one_thread_is_a_cancel_for_the_others(supervisor: BlockingSupervisor) -> None:
    mine = threading.get_ident()
    called = threading.Event()

    def show(number: int) -> None:
        called.set()
        if threading.get_ident() == mine:
            raise Rerun
        raise AssertionError("this thread began to wait when the call was made")

    handle = supervisor.submit(doors.call_many, callback(show), 1_000_000)
    with pytest.raises(Rerun):
        handle.result()
    with ThreadPoolExecutor(1) as pool:
        assert type(pool.submit(handle.result).exception(LONG)) is JobCancelled


def test_callback_may_use_the_supervisor_but_not_wait_for_its_own_job(supervisor: BlockingSupervisor) -> None:
    problems: list[str] = []

    def show(number: int) -> None:
        assert supervisor.run(chores.same, number) == number
        supervisor.statistics()
        for wait in (handle.result, handle.outcome, lambda: next(handle.events())):
            try:
                wait()
            except WrongContext as error:
                problems.append(str(error))

    handle = supervisor.submit(doors.call_many, callback(show), 2)
    assert handle.result() == "called"
    assert len(problems) == 6


@pytest.mark.parametrize("end", ["close", "drain"])
def test_calls_that_nobody_waits_for_do_not_hold_up_the_end(isolation: Any, end: str) -> None:
    seen: list[int] = []
    with BlockingSupervisor(workers=1, isolation=isolation) as supervisor:
        # More than may be ahead; the last is still in line when the end begins.
        handles = [supervisor.submit(doors.call_many, callback(seen.append), 1500) for _ in range(3)]
        if end == "drain":
            supervisor.drain()
    assert seen == []
    assert [handle.result() for handle in handles] == ["called"] * 3
    assert seen == list(range(1500)) * 3


# Events


def test_events_end_with_the_job(supervisor: BlockingSupervisor) -> None:
    handle = supervisor.submit(hosting.tell, __file__)
    kinds = [event.kind for event in handle.events() if event.kind != "log"]
    assert kinds == ["state", "state", "progress", "item", "artifact", "state"]
    assert list(handle.events()) == []
    assert handle.result() == "told"


@pytest.mark.parametrize("target", [chores.count_to, chores.count_to_async, doors.emit_many])
def test_leaving_events_early_leaves_the_job_alone(supervisor: BlockingSupervisor, target: Any) -> None:
    handle = supervisor.submit(target, 3000)
    for event in handle.events():
        if event.kind == "item":
            break
    # Nobody reads its items any more, so it does not wait for that.
    assert handle.outcome(timeout=LONG).status == "succeeded"
    # And who comes back finds the last thousand.
    values = [event.value for event in handle.events() if event.kind == "item"]
    assert values == list(range(3000 - len(values), 3000))
    assert 900 < len(values) <= 1000


def test_reader_that_comes_back_misses_nothing_of_what_is_to_come(supervisor: BlockingSupervisor) -> None:
    handle = supervisor.submit(chores.count_to, 200)
    seen = []
    while len(seen) < 200:
        for event in handle.events():
            if event.kind == "item":
                seen.append(event.value)
                break
    assert seen == list(range(200))
    assert handle.outcome(timeout=LONG).status == "succeeded"


# Maps


def test_map_is_whole_and_in_order(supervisor: BlockingSupervisor) -> None:
    with supervisor.map(chores.odd_fails, range(300), ordered=True) as outcomes:
        found = [(outcome.index, outcome.item, outcome.succeeded) for outcome in outcomes]
    assert found == [(number, number, number % 2 == 0) for number in range(300)]
    assert list(outcomes) == []
    assert list(supervisor.map(chores.same, [])) == []
    jobs = [Job(chores.same, args=(number,), key=str(number)) for number in range(10)]
    with supervisor.map(jobs) as outcomes:
        assert {(outcome.key, outcome.value) for outcome in outcomes} == {(str(number), number) for number in range(10)}


def test_map_of_an_endless_iterable_takes_a_bounded_part(supervisor: BlockingSupervisor) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        try:
            while True:
                taken += 1
                yield taken
        finally:
            taken = -taken

    with supervisor.map(chores.same, endless(), ordered=True) as outcomes:
        for number in range(1, 1000):
            assert next(outcomes).value == number
            assert taken <= number + 2 * 128
    assert taken < 0  # the iterable was closed too
    assert supervisor.statistics().running == 0


def test_map_hands_out_what_is_done_before_it_takes_everything(supervisor: BlockingSupervisor) -> None:
    taken = 0

    def slow() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number
            while sum(supervisor.statistics().settled.values()) <= number:
                time.sleep(0.001)

    with supervisor.map(chores.same, slow()) as outcomes:
        assert next(outcomes).value == 0
        assert taken <= 3


def test_error_of_the_iterable_comes_after_the_outcomes(supervisor: BlockingSupervisor) -> None:
    def broken() -> Iterator[Any]:
        yield from range(5)
        raise OSError("the file ends here")

    def wrong() -> Iterator[Any]:
        yield from range(5)
        yield object()
        yield 6

    for items, error in ((broken(), OSError), (wrong(), PayloadError)):
        values = []
        with supervisor.map(chores.same, items) as outcomes:
            with pytest.raises(error):
                for outcome in outcomes:
                    values.append(outcome.value)  # noqa: PERF401 - what came before the error counts
            assert list(outcomes) == []
        assert sorted(values) == list(range(5))


def test_map_with_a_full_queue_and_calls_to_make(isolation: Any) -> None:
    seen: list[int] = []
    with BlockingSupervisor(workers=1, isolation=isolation, queue_size=1) as supervisor:
        jobs = [Job(doors.call_many, args=(callback(seen.append), 1200)) for _ in range(4)]
        with supervisor.map(jobs) as outcomes:
            assert [outcome.value for outcome in outcomes] == ["called"] * 4
    assert seen == list(range(1200)) * 4


def test_error_in_a_callback_of_a_map_spares_the_others(supervisor: BlockingSupervisor) -> None:
    def show(number: int) -> None:
        raise LookupError

    jobs = [Job(doors.call_many, args=(callback(show), 100_000)), *(Job(chores.same, args=(n,)) for n in range(5))]
    values, errors = [], 0
    with supervisor.map(jobs) as outcomes:
        while True:
            try:
                values.append(next(outcomes).value)
            except LookupError:
                errors += 1
            except StopIteration:
                break
    assert (sorted(values), errors) == (list(range(5)), 1)


def test_map_closed_by_another_thread(supervisor: BlockingSupervisor, door: doors.Door) -> None:
    outcomes = supervisor.map(doors.stand_and_report, [door.port] * 2)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, outcomes)
        door.wait(2)
        outcomes.close()
        assert {outcome.status for outcome in reading.result(LONG)} <= {"cancelled"}
    assert supervisor.statistics().settled == {"cancelled": 2}


def test_map_that_is_dropped_warns(supervisor: BlockingSupervisor) -> None:
    outcomes = supervisor.map(chores.same, range(3))
    next(outcomes)
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        del outcomes
        supervisor.drain()
        gc.collect()


def test_map_refuses_what_it_cannot_map(supervisor: BlockingSupervisor) -> None:
    for arguments, problem in (
        ((chores.same,), "items: are missing"),
        ((chores.same, 5), "must be an iterable"),
        ((5,), "must be an iterable"),
        (([Job(chores.same)], [1]), "must be a function"),
        ((Job(chores.same, args=(1,)), [1]), "must be empty"),
    ):
        with pytest.raises(ConfigurationError, match=problem), warnings.catch_warnings(action="error"):
            supervisor.map(*arguments)
    with pytest.raises(ConfigurationError, match=r"items\[1\]"):
        list(supervisor.map([Job(chores.same, args=(1,)), 5]))  # type: ignore[list-item]


# Streams


@pytest.mark.parametrize("target", [chores.count_to, chores.count_to_async])
def test_stream_is_whole(supervisor: BlockingSupervisor, target: Any) -> None:
    with supervisor.stream(target, 100) as items:
        assert list(items) == list(range(100))
    with supervisor.stream(target, 10**9) as items:
        assert [next(items) for _ in range(40)] == list(range(40))
    assert list(items) == []
    assert supervisor.statistics().settled == {"succeeded": 1, "cancelled": 1}


def test_stream_waits_for_its_reader(supervisor: BlockingSupervisor, tmp_path: Path) -> None:
    path = tmp_path / "progress"
    with supervisor.stream(doors.yield_noting, str(path)) as items:
        for number in range(50):
            assert next(items) == number
        assert int(path.read_text() or 0) <= 50 + 16 + 1


def test_stream_raises_after_its_items(supervisor: BlockingSupervisor) -> None:
    values = []
    with supervisor.stream(chores.count_then_fail, 40) as items, pytest.raises(JobFailed, match="after the items"):
        values.extend(items)
    assert values == [] or values == list(range(40))
    with supervisor.stream(chores.count_then_fail, 3) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(JobFailed):
            next(items)
        with pytest.raises(StopIteration):
            next(items)


def test_stream_that_is_dropped_warns_and_ends(supervisor: BlockingSupervisor) -> None:
    items = supervisor.stream(chores.count_to, 10**9)
    next(items)
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        del items
        gc.collect()
    supervisor.drain()
    assert supervisor.statistics().settled == {"cancelled": 1}


# The supervisor itself


def test_life_of_a_supervisor(isolation: Any) -> None:
    supervisor = BlockingSupervisor(workers=1, isolation=isolation)
    for ask in (supervisor.statistics, supervisor.drain, lambda: supervisor.run(chores.same, 1)):
        with pytest.raises(SupervisorClosed, match="not open"):
            ask()
    assert "new" in repr(supervisor)
    with supervisor:
        assert "open" in repr(supervisor)
        with pytest.raises(SupervisorClosed, match="opened already"):
            supervisor.open()
        supervisor.scale(3)
        assert len(supervisor.statistics().workers) == 3
        handle = supervisor.submit(chores.same, 1)
    assert "closed" in repr(supervisor)
    supervisor.close()
    assert handle.result() == 1
    assert [event.kind for event in handle.events()] == ["state"] * 3
    handle.cancel()
    assert supervisor.statistics().settled == {"succeeded": 1}
    for ask in (
        supervisor.open,
        supervisor.drain,
        lambda: supervisor.scale(1),
        lambda: supervisor.submit(chores.same, 1),
    ):
        with pytest.raises(SupervisorClosed):
            ask()
    never = BlockingSupervisor(workers=1)
    never.close()
    with pytest.raises(SupervisorClosed):
        never.open()


def test_error_in_the_body_cancels(isolation: Any, door: doors.Door) -> None:
    with (
        pytest.raises(LookupError),
        BlockingSupervisor(workers=1, isolation=isolation, grace=0.3) as supervisor,
    ):
        handle = supervisor.submit(doors.stand_and_report, door.port)
        door.wait()
        raise LookupError
    assert handle.outcome().status == "cancelled"


def test_opening_that_fails_leaves_nothing() -> None:
    supervisor = BlockingSupervisor(workers=1, command=["/no/such/interpreter"])
    with pytest.raises(LaunchError, match="no/such/interpreter"):
        supervisor.open()
    supervisor.close()
