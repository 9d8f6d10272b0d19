"""A fault of the engine's own, wherever it strikes, ends the supervisor loudly: nobody waits for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import hosting
import pytest

from orchestrator import Job, Limit, RestartPolicy, RetryPolicy, Supervisor, _worker
from orchestrator._attempt import Attempt
from orchestrator._gate import Gate
from orchestrator._jobs import Jobs
from orchestrator._pool import Pool
from orchestrator._queue import Queue
from orchestrator._talk import Talk
from orchestrator._worker import Worker
from orchestrator.exceptions import SupervisorClosed
from tests.contract._fake_child import FakeChild, Frame

QUICK = RestartPolicy(backoff=0.01, max_backoff=0.02)


class Fault(Exception):
    """What nobody foresaw."""


def behave(child: FakeChild, frame: Frame) -> None:
    """Do what the name of a job says, and heed nothing else."""
    if frame["type"] == "init":
        child.hello()
    elif frame["type"] == "job":
        child.running = frame["fence"]
        name, args = frame["target"].partition(":")[2], frame["args"]
        if name == "double":
            child.say({"type": "result", "fence": frame["fence"], "ms": 0.1, "value": 2 * args[0]})
        elif name == "refuse":
            child.say({"type": "error", "fence": frame["fence"], "error": {"type": "ValueError", "message": ""}})
        elif name == "leave":
            child.end(args[0])
        elif name == "hold":
            child.say({"type": "progress", "fence": frame["fence"], "done": 1})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(script=behave, made=[])

    class Scripted(FakeChild):
        made = found.made

        def script(self, frame: Frame) -> None:
            found.script(self, frame)

    monkeypatch.setattr(_worker, "Child", Scripted)
    return found


async def nothing(supervisor: Supervisor, children: list[FakeChild]) -> None:
    """Do no more than wait for a job."""


async def cancel(supervisor: Supervisor, children: list[FakeChild]) -> None:
    """Cancel a job whose child does not heed it."""
    handle = await supervisor.submit(hosting.hold)
    async for event in handle.events():
        if event.kind == "progress":
            break
    handle.cancel()


HOLD = Job(hosting.hold)
AGAIN = Job(hosting.leave, args=(3,), retry=RetryPolicy(attempts=2, on="crash", backoff=5))
Before = Callable[[Supervisor, list[FakeChild]], Awaitable[None]]

# What breaks, what the caller waits for, and what is done before.
PLACES: dict[str, tuple[type, str, Job, Before]] = {
    "timeout": (Attempt, "_run_out", Job(hosting.hold, timeout=0.02), nothing),
    "silence": (Attempt, "_run_out", Job(hosting.hold, progress_timeout=0.02), nothing),
    "patience": (Attempt, "_lose_patience", HOLD, cancel),
    "kill": (Attempt, "_kill", Job(hosting.hold, timeout=0.02), nothing),
    "retry": (Jobs, "_due", Job(hosting.refuse, args=("",), retry=RetryPolicy(attempts=2, backoff=0.01)), nothing),
    "expire": (Jobs, "expire", Job(hosting.hold, total_timeout=0.05), nothing),
    "wait": (Jobs, "_waited_too_long", Job(hosting.double, args=(1,), queue_timeout=0.05), cancel),
    "conclude": (Jobs, "_conclude_after", Job(hosting.hold, timeout=0.02), nothing),
    "crash": (Jobs, "crashed", Job(hosting.leave, args=(3,)), nothing),
    "replace": (Pool, "_replace", AGAIN, nothing),
    "start": (Pool, "_start", AGAIN, nothing),
    "answer": (Queue, "has_room", HOLD, cancel),
    "pump": (Queue, "pump", HOLD, nothing),
    "put": (Queue, "put", HOLD, nothing),
    "lease": (Worker, "lease", HOLD, nothing),
    "grant": (Queue, "_granted", Job(hosting.double, args=(1,), limits={"few": 1}), nothing),
    "rate": (Gate, "_take", Job(hosting.double, args=(1,), limits={"rare": 1}), nothing),
    "read": (Talk, "read", HOLD, nothing),
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_fault_is_told_to_everybody_who_waits(
    place: str, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kind, name, job, before = PLACES[place]
    limits = [Limit("few", concurrency=1), Limit("rare", rate=100, per=1)]
    fault = Fault(f"in {place}")

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise fault

    async with asyncio.timeout(20):
        async with Supervisor(workers=1, grace=0.05, restart=QUICK, limits=limits, queue_size=4) as supervisor:
            assert await supervisor.run(hosting.double, 2) == 4  # it works
            monkeypatch.setattr(kind, name, fail)
            waiting = asyncio.create_task(supervisor.run(hosting.hold))
            try:
                await before(supervisor, fake.made)
                handle = await supervisor.submit(job)
                reading = handle.events()
                outcome = await handle.outcome()
                assert outcome.status == "failed"
                error: BaseException | None = outcome.error
            except SupervisorClosed as problem:  # it failed before it took the job
                error = problem
            else:
                assert [event.kind async for event in reading][-1] == "state", "who reads events is told too"
            for told in (error, *await asyncio.gather(waiting, return_exceptions=True)):
                assert isinstance(told, SupervisorClosed) and f"Fault: in {place}" in str(told), told
                assert told.__cause__ is fault
            with pytest.raises(SupervisorClosed, match=f"Fault: in {place}"):
                await supervisor.run(hosting.double, 1)
            await supervisor.drain()
    assert supervisor.statistics().state == "closed"
    failures = [record for record in caplog.records if "supervisor.failed" in record.getMessage()]
    assert len(failures) == 1 and failures[0].levelno == logging.CRITICAL
    assert failures[0].exc_info is not None and failures[0].exc_info[1] is fault
    assert all(child.gone.is_set() for child in fake.made)


async def test_a_fault_while_children_are_stopped_leaves_none(
    fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise Fault("in the ladder")

    monkeypatch.setattr(Worker, "_stop_harder", fail)
    monkeypatch.setattr(_worker, "_STOP_ASK", 0.05)
    async with asyncio.timeout(20):
        async with Supervisor(workers=1) as supervisor:
            assert await supervisor.run(hosting.double, 2) == 4
            monkeypatch.setattr(FakeChild, "_hear", lambda self, frame: None)  # deaf: it does not stop either
    assert "Fault: in the ladder" in caplog.text
    assert all(child.gone.is_set() for child in fake.made)
