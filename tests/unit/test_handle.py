"""What callers hold of a job, told by a scripted engine: events in bounded memory, calls in order, one end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import Job, callback
from orchestrator._codec import Payload
from orchestrator._events import Event, Item, Log, Progress, StateChange
from orchestrator._handle import JobHandle, Receipt
from orchestrator._models import Status
from orchestrator._record import SETTLED, Record
from orchestrator._ring import Ring
from orchestrator._targets import Target
from orchestrator.exceptions import JobCancelled, JobFailed, JobTimedOut, SupervisorClosed


class FakeLink:
    """An engine that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.closed = False
        note = self._note
        self.engine = SimpleNamespace(
            jobs=SimpleNamespace(cancel=note("cancel")),
            talk=SimpleNamespace(credit=note("credit"), read=note("read"), stop_reading=note("stop_reading")),
            logger=SimpleNamespace(log=note("log")),
        )

    def _note(self, name: str) -> Any:
        return lambda *args, **kwargs: self.asked.append((name, *args, *kwargs.items()))

    def names(self) -> list[str]:
        return [asked[0] for asked in self.asked]

    def call(self, function: Any, *args: Any) -> None:
        if self.closed:
            raise SupervisorClosed("closed")
        function(*args)


def record_of(listener: Any, *functions: callback) -> Record:
    return Record(7, Job("m:f", key="k"), Target("m:f", None), Payload(b"", b"", functions), listener)


def handle_of(link: FakeLink, *functions: callback) -> tuple[JobHandle, Record]:
    job = Job("m:f", key="k")
    handle = JobHandle(link, SimpleNamespace(job=job, public_job=lambda: job))  # type: ignore[arg-type]
    record = record_of(handle, *functions)
    handle._attach(record)
    return handle, record


def settle(record: Record, status: Status = Status.SUCCEEDED, value: Any = None, error: Any = None) -> None:
    """Do what the engine does."""
    record.state, record.status, record.value, record.error = SETTLED, status, value, error
    record.listener.event(record, StateChange(state=str(status), attempt=1))
    record.listener.settled(record)


async def test_outcome_and_result() -> None:
    handle, record = handle_of(FakeLink())
    assert (handle.id, handle.key, handle.job.target, handle.state) == (7, "k", "m:f", "queued")
    waiting = [asyncio.create_task(handle.result()) for _ in range(3)]
    await asyncio.sleep(0)
    record.state = "running"
    assert handle.state == "running"
    record.state = "cancelling"
    assert handle.state == "running", "no word of callers"
    settle(record, value=5)
    assert handle.state == "succeeded"
    assert await asyncio.gather(*waiting) == [5, 5, 5]
    assert (await handle.outcome()).value == 5


async def test_failure_is_raised_by_result_only() -> None:
    handle, record = handle_of(FakeLink())
    error = JobCancelled("it was")
    settle(record, Status.CANCELLED, error=error)
    assert (await handle.outcome()).error is error
    with pytest.raises(JobCancelled):
        await handle.result()


async def test_cancelling_a_wait_leaves_the_job_alone() -> None:
    link = FakeLink()
    handle, record = handle_of(link)
    waiting = asyncio.create_task(handle.outcome())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert link.asked == []
    settle(record)
    assert (await handle.outcome()).succeeded


async def test_cancelled_run_cancels_its_job_and_waits_for_its_end() -> None:
    link = FakeLink()
    receipt = Receipt(link)  # type: ignore[arg-type]
    record = record_of(receipt)
    run = asyncio.create_task(receipt.wait_or_cancel(record))
    for _ in range(4):  # again and again, as an impatient host does
        await asyncio.sleep(0)
        run.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not run.done()
    assert link.names() == ["cancel"]
    settle(record, Status.CANCELLED)
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_cancel_does_nothing_when_it_is_too_late() -> None:
    link = FakeLink()
    handle, record = handle_of(link)
    handle.cancel()
    settle(record)
    handle.cancel()
    assert link.names() == ["cancel"]


async def test_closed_supervisor_is_no_error_for_a_cancel() -> None:
    link = FakeLink()
    handle, _ = handle_of(link)
    link.closed = True
    handle.cancel()
    handle.events()


async def test_events_end_with_the_outcome() -> None:
    link = FakeLink()
    handle, record = handle_of(link)
    handle.event(record, StateChange(state="queued"))
    events = handle.events()
    assert link.names() == ["read"]
    first = asyncio.create_task(anext(events))
    assert (await first).state == "queued"  # type: ignore[union-attr]
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    handle.event(record, Log(text="x"))
    assert (await waiting).text == "x"  # type: ignore[union-attr]
    settle(record)
    assert [event.kind async for event in events] == ["state"]
    assert [event async for event in handle.events()] == []


async def test_items_are_credited_when_they_are_read() -> None:
    link = FakeLink()
    handle, record = handle_of(link)
    handle.event(record, Item(value=0))  # came before anybody read: needs no credit
    events = handle.events()
    handle.event(record, Item(value=1), owed=True)
    assert [(await anext(events)).value for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
    assert link.names().count("credit") == 1


async def test_a_job_is_told_when_its_last_reader_has_left() -> None:
    link = FakeLink()
    handle, record = handle_of(link)
    first, second = handle.events(), handle.events()
    for number in range(3):
        handle.event(record, Item(value=number), owed=True)
    await anext(first)
    del first
    await asyncio.sleep(0)
    assert link.names() == ["read", "credit"], "there is still one who reads"
    await second.aclose()
    await second.aclose()
    assert link.asked[2:] == [("stop_reading", record, 2)]
    assert [event async for event in second] == []
    handle.event(record, Item(value=3), owed=True)  # was on its way when the engine was told
    assert link.asked[3:] == [("credit", record, 1)]
    third = handle.events()
    handle.event(record, Item(value=4), owed=True)
    assert [(await anext(third)).value for _ in range(4)] == [1, 2, 3, 4]  # type: ignore[union-attr]
    assert link.names()[4:] == ["read", "credit"], "what was written off is credited once"
    settle(record)


async def test_events_may_be_dropped_on_another_thread_and_after_the_loop() -> None:
    link = FakeLink()
    handle, _ = handle_of(link)
    held = [handle.events()]
    await asyncio.to_thread(held.clear)
    await asyncio.sleep(0)
    assert link.names() == ["read", "stop_reading"]

    async def leave() -> Any:
        return handle_of(FakeLink())[0].events()

    del_later = [await asyncio.to_thread(asyncio.run, leave())]
    del_later.clear()


# Calls


async def test_calls_come_in_order_before_the_end_and_in_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    link, seen = FakeLink(), []
    variable.set("the caller's")
    handle, record = handle_of(
        link, callback(lambda *args, **kwargs: seen.append((args, kwargs, variable.get(), handle.done)))
    )
    handle.hold_context()
    variable.set("later")
    for number in range(250):
        handle.called(record, 0, [number], {"k": number})
    settle(record)
    assert not handle.done
    await handle.outcome()
    assert seen == [((number,), {"k": number}, "the caller's", False) for number in range(250)]
    assert link.names().count("credit") == 2


async def test_call_that_comes_from_another_thread_after_the_record_is_settled() -> None:
    seen: list[int] = []
    handle, record = handle_of(FakeLink(), callback(seen.append))
    handle.called(record, 0, [1], {})
    record.state, record.status = SETTLED, Status.SUCCEEDED  # seen early: that thread is ahead of this loop
    await asyncio.sleep(0.01)
    assert not handle.done
    handle.called(record, 0, [2], {})
    handle.settled(record)
    await handle.outcome()
    assert seen == [1, 2]


async def test_latest_calls_coalesce() -> None:
    seen: list[Any] = []
    handle, record = handle_of(FakeLink(), callback(seen.append, latest=True), callback(seen.append))
    for number in range(100):
        handle.called(record, 0, [number], {})
    handle.called(record, 1, ["kept"], {})
    handle.called(record, 0, ["last"], {})
    settle(record)
    await handle.outcome()
    assert seen == [99, "kept", "last"]


async def test_error_of_a_call_cancels_the_job_and_is_raised() -> None:
    link, seen = FakeLink(), []

    def show(number: int) -> None:
        seen.append(number)
        raise LookupError(number)

    handle, record = handle_of(link, callback(show))
    handle.called(record, 0, [1], {})
    handle.called(record, 0, [2], {})
    await asyncio.sleep(0.01)
    assert link.names() == ["cancel"]
    handle.called(record, 0, [3], {})
    settle(record, Status.CANCELLED, error=JobCancelled("…"))
    with pytest.raises(LookupError, match="1"):
        await handle.result()
    assert seen == [1]


@pytest.mark.parametrize("index", [1, 99, -1])
async def test_call_of_no_function_is_ignored(index: int) -> None:
    handle, record = handle_of(FakeLink(), callback(pytest.fail))
    handle.called(record, index, ["must not be called"], {})
    settle(record)
    await handle.outcome()


# Nobody looked


@pytest.mark.parametrize("look", [None, "outcome", "result", "events", "cancel"])
async def test_failure_that_nobody_looked_at_is_logged(look: str | None) -> None:
    link = FakeLink()
    handle, record = handle_of(link)
    if look == "cancel":
        handle.cancel()
    settle(record, Status.TIMED_OUT, error=JobTimedOut("…", timeout=1.0))
    if look == "outcome":
        await handle.outcome()
    elif look == "result":
        with pytest.raises(JobTimedOut):
            await handle.result()
    elif look == "events":
        async for _ in handle.events():
            pass
    del handle
    record.listener = None  # type: ignore[assignment]
    gc.collect()
    assert [asked[1] for asked in link.asked if asked[0] == "log"] == ([] if look else ["job.failed_unobserved"])


def test_errors_carry_their_data() -> None:
    assert issubclass(JobFailed, Exception)


# The ring of unread events

EVENTS = st.sampled_from(["state", "log", "long", "item", "progress"])


def event(kind: str, number: int) -> Event:
    match kind:
        case "state":
            return StateChange(state=f"s{number}")
        case "log":
            return Log(text=f"l{number}", dropped=number % 2)
        case "long":
            return Log(text="x" * 100_000)
        case "item":
            return Item(value=number)
        case _:
            return Progress(done=number)


@given(kinds=st.lists(EVENTS, max_size=60), times=st.integers(1, 60), read=st.booleans(), takes=st.integers(0, 20))
def test_ring_keeps_what_must_not_be_lost(kinds: list[str], times: int, read: bool, takes: int) -> None:
    ring, pushed, out, owed = Ring(), [], [], 0
    for number, kind in enumerate(kinds * times):
        if read and kind == "item" and number > 16:
            continue  # a job has no more than sixteen items ahead of a reader
        pushed.append(event(kind, number))
        ring.push(pushed[-1], owed=read)
        if takes and number % 20 < takes and len(ring):
            taken, owes = ring.pop()
            out.append(taken)
            owed += owes
    while len(ring):
        taken, owes = ring.pop()
        out.append(taken)
        owed += owes
    for kind in (StateChange, *([Item] if read else [])):
        assert [each for each in out if type(each) is kind] == [each for each in pushed if type(each) is kind]
    assert owed == (sum(type(each) is Item for each in pushed) if read else 0)
    logs_in = sum(1 + each.dropped for each in pushed if type(each) is Log)
    logs_out = sum(1 + each.dropped for each in out if type(each) is Log)
    assert logs_out <= logs_in
    if pushed and type(pushed[-1]) is Progress:
        assert out[-1] == pushed[-1], "the latest progress is never lost"


def test_ring_counts_every_line_it_drops() -> None:
    ring = Ring()
    for number in range(5_000):
        ring.push(Log(text=str(number)), owed=False)
    assert len(ring) == 1_000
    first = ring.pop()[0]
    assert isinstance(first, Log)
    assert (first.text, first.dropped) == ("4000", 4_000)
