"""What sync callers meet before anything is started, and the parts that need no engine."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from orchestrator import BlockingSupervisor, Job, Supervisor, callback
from orchestrator._calls import LOT, Calls
from orchestrator._codec import Payload
from orchestrator._events import Item, Log
from orchestrator._record import Record
from orchestrator._ring import Ring
from orchestrator.exceptions import ConfigurationError, SupervisorClosed


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"workers": -1}, "workers"),
        ({"workers": True}, "workers"),
        ({"queue_size": 0}, "queue_size"),
        ({"isolation": "thread"}, "isolation"),
        ({"on_exit": "wait"}, "on_exit"),
        ({"grace": -1}, "grace"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        BlockingSupervisor(**options)


def test_unknown_options_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="'worker'"):
        BlockingSupervisor(worker=1)  # type: ignore[call-arg]


def test_it_has_the_methods_of_the_async_one() -> None:
    renamed = {"aclose": "close"}
    for name, method in inspect.getmembers(Supervisor, inspect.isfunction):
        if not name.startswith("_"):
            mirrored = getattr(BlockingSupervisor, renamed.get(name, name))
            assert inspect.signature(mirrored).parameters.keys() == inspect.signature(method).parameters.keys(), name


def test_one_that_is_not_open_says_so() -> None:
    supervisor = BlockingSupervisor(workers=1, name="mine")
    asked: list[Any] = [
        lambda: supervisor.run(len, []),
        lambda: supervisor.submit(len, []),
        lambda: supervisor.map(len, []),
        lambda: supervisor.stream(len, []),
        lambda: supervisor.scale(1),
        supervisor.drain,
        supervisor.statistics,
    ]
    for ask in asked:
        with pytest.raises(SupervisorClosed, match="'mine' is not open"):
            ask()
    assert repr(supervisor) == "<BlockingSupervisor 'mine' new workers=1>"
    supervisor.close()
    supervisor.close()
    with pytest.raises(SupervisorClosed, match="make a new one"):
        supervisor.open()


def record_with(*callbacks: Any) -> Record:
    payload = Payload(b"", b"", tuple(callbacks))
    return Record(1, Job(len), None, payload, None)  # type: ignore[arg-type]


def test_calls_keep_their_order_and_only_latest_ones_give_way() -> None:
    every, last = callback(print), callback(repr, latest=True)
    record, calls = record_with(every, last), Calls()
    for index, value in ((1, "a"), (1, "b"), (0, "c"), (1, "d"), (1, "e"), (0, "f"), (0, "g"), (7, "of no function")):
        calls.add(record, index, [value], {})
    assert [calls.take() for _ in range(len(calls))] == [
        (last, ["b"], {}), (every, ["c"], {}), (last, ["e"], {}), (every, ["f"], {}), (every, ["g"], {}),
    ]  # fmt: skip


def test_calls_are_credited_in_lots_unless_they_may_be_dropped() -> None:
    calls = Calls()
    assert [calls.made((callback(print), [], {})) for _ in range(2 * LOT)].count(True) == 2
    assert not any(calls.made((callback(print, latest=True), [], {})) for _ in range(2 * LOT))


def test_refused_calls_are_dropped() -> None:
    calls = Calls()
    calls.add(record_with(callback(print)), 0, [], {})
    calls.refuse()
    calls.add(record_with(callback(print)), 0, [], {})
    assert len(calls) == 0
    assert calls.refused


def test_ring_that_is_written_off_owes_for_unread_items_once() -> None:
    ring = Ring()
    ring.push(Item(value=0), owed=False)
    for number in range(1, 4):
        ring.push(Item(value=number), owed=True)
        ring.push(Log(text="between"), owed=True)
    assert ring.write_off() == 3
    assert ring.write_off() == 0
    ring.push(Item(value=4), owed=False)
    ring.push(Item(value=5), owed=True)
    popped = [ring.pop() for _ in range(len(ring))]
    owed = [(event.value, owes) for event, owes in popped if isinstance(event, Item)]
    assert owed == [(0, False), (1, False), (2, False), (3, False), (4, False), (5, True)]
