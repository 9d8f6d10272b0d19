"""Answers that come late: for a child that is dead, and for somebody who has cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chores
import doors
import pytest
from gates import Gate

from orchestrator import Journal, Supervisor, _frames
from orchestrator._child_process import Child
from orchestrator._effects import Effects
from orchestrator._store_file import open_journal


async def test_a_frame_that_comes_while_a_child_is_spawned_does_not_spoil_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Child.start
    came = []

    async def start_and_hear(self: Child) -> None:
        def send() -> None:
            came.append(self.pid is None)
            self.send({"type": "effect_ack", "fence": 1, "key": "post", "request": 1, "done": False})

        asyncio.get_running_loop().call_soon(send)  # as soon as it waits for the new process
        await start(self)

    monkeypatch.setattr(Child, "start", start_and_hear)
    async with asyncio.timeout(30), Supervisor(workers=1) as supervisor:
        assert await supervisor.run(chores.same, 4) == 4
        assert supervisor.statistics().restarts == 0
        assert [worker.generation for worker in supervisor.statistics().workers] == [1]
    assert came == [True]


def test_an_effect_is_acknowledged_to_nobody_when_its_attempt_is_over() -> None:
    noted: list[Any] = []
    sent: list[Any] = []
    effects = Effects(lambda record: None, lambda *args: None, lambda effect, done: noted.append(done))
    record: Any = SimpleNamespace(id=1, effects=None)
    attempt: Any = SimpleNamespace(record=record, fence=7, worker=SimpleNamespace(send=sent.append))
    record.attempt = attempt
    effects.begun(attempt, _frames.EffectBegin(fence=7, key="post", request=1))
    record.attempt = None
    noted.pop()()
    assert sent == []
    record.attempt = attempt
    effects.begun(attempt, _frames.EffectBegin(fence=7, key="other", request=2))
    noted.pop()()
    assert [frame["key"] for frame in sent] == ["other"]


async def test_the_journal_has_a_result_that_crossed_with_a_cancel_as_a_success(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with (
        asyncio.timeout(30),
        Gate() as gate,
        Supervisor(workers=1, grace=20, journal=Journal(path)) as supervisor,
    ):
        handle = await supervisor.submit(doors.stand_deaf, gate.port)
        await gate.arrived()
        handle.cancel()
        gate.open()
        outcome = await handle.outcome()
        assert (outcome.status, outcome.value) == ("succeeded", "answered too late")
    database = open_journal(str(path), "power", create=False)
    attempts = database.connection.execute("SELECT state, outcome FROM attempts").fetchall()
    database.close()
    assert attempts == [("ended", "succeeded")]
