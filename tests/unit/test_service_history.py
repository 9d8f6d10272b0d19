"""What readers of a service's events get: everything in order, or the last of it with a count of what is missing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator._events import Log
from orchestrator._service_history import History
from orchestrator._service_spec import ServiceState


def read_all(history: History, seen: int = 0) -> list[Log | ServiceState]:
    found: list[Log | ServiceState] = []
    while more := history.since(seen):
        for number, event in more:
            assert number > seen
            seen = number
            found.append(event)
    return found


@given(st.lists(st.sampled_from(["line", "state"]), max_size=500), st.integers(0, 600))
def test_events_come_in_order_from_any_point(kinds: list[str], seen: int) -> None:
    history = History()
    pushed: list[Log | ServiceState] = []
    for number, kind in enumerate(kinds):
        text = str(number)
        pushed.append(Log(text=text) if kind == "line" else ServiceState(previous="", state=text))
        history.push(pushed[-1])
    assert read_all(history, seen) == pushed[seen:]


def test_old_lines_give_way_and_states_do_not() -> None:
    history = History()
    history.push(ServiceState(previous="waiting", state="starting"))
    for number in range(5_000):
        history.push(Log(text=str(number), dropped=number == 7))
    first, *lines = read_all(history)
    assert isinstance(first, ServiceState)
    assert [line.text for line in lines if isinstance(line, Log)] == [str(number) for number in range(4_000, 5_000)]
    assert [line.dropped for line in lines if isinstance(line, Log)] == [4_001] + [0] * 999


def test_long_lines_take_no_more_memory_than_short_ones() -> None:
    history = History()
    for _ in range(200):
        history.push(Log(text="x" * 100_000))
    lines = read_all(history)
    assert len(lines) == 10
    assert isinstance(lines[0], Log) and lines[0].dropped == 190


@pytest.mark.asyncio
async def test_a_reader_waits_and_a_cancelled_one_loses_nothing() -> None:
    history = History()
    reader = asyncio.create_task(history.read(0))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    reader = asyncio.create_task(history.read(0))
    await asyncio.sleep(0)
    history.push(Log(text="a"))
    assert await reader == [(1, Log(text="a"))]
    assert await history.read(0) == [(1, Log(text="a"))]
    history.close()
    assert await history.read(1) == []
