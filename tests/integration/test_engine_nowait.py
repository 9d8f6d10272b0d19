"""Jobs that are handed over without waiting, and callbacks that are told of their end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from pathlib import Path
from typing import Any, Literal, NoReturn

import chores
import gates
import hanging
import hosting
import pytest

from orchestrator import BlockingSupervisor, Job, Journal, Outcome, Supervisor, callback
from orchestrator.exceptions import ConfigurationError, QueueFull, SupervisorClosed, TargetError

Isolation = Literal["process", "inline"]
who = contextvars.ContextVar("who", default="nobody")


@pytest.fixture(params=["process", "inline"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    found: Isolation = request.param
    return found


async def told(handle: Any) -> Outcome:
    """Return what the function of `when_done` is given."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    handle.when_done(future.set_result)
    return await future


async def test_a_job_is_accepted_at_once(isolation: Isolation) -> None:
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        handle = supervisor.submit_nowait(chores.same, 5)
        assert supervisor.statistics().submitted == 1 and handle.state in ("queued", "running")
        outcome = await told(handle)
        assert outcome.status == "succeeded" and outcome.value == 5 == await handle.result()
        assert outcome == await handle.outcome() == await told(handle)  # also who asks late


async def test_a_failure_is_told_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Supervisor(workers=1) as supervisor:
        outcome = await told(supervisor.submit_nowait(Job(hosting.refuse, args=("no",))))
    assert outcome.status == "failed" and "no" in str(outcome.error)
    assert "failed_unobserved" not in caplog.text


async def test_functions_are_called_after_the_calls_of_the_job_in_their_own_context(isolation: Isolation) -> None:
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        order: list[str] = []
        over = asyncio.Event()

        def seen(number: int, *, double: int) -> None:
            order.append(f"call {number} for {who.get()}")

        def ended(outcome: Outcome) -> None:
            order.append(f"{outcome.status} for {who.get()}")
            over.set()

        who.set("the caller")
        handle = supervisor.submit_nowait(chores.call_back, callback(seen), 2)
        who.set("who asked")
        handle.when_done(ended)
        who.set("nobody")
        assert order == []
        await over.wait()
        assert order == ["call 0 for the caller", "call 1 for the caller", "succeeded for who asked"]


async def test_a_function_that_raises_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    async with Supervisor(workers=1) as supervisor:

        def fail(_: Outcome) -> NoReturn:
            raise ValueError("not mine")

        handle = supervisor.submit_nowait(chores.same, 1)
        handle.when_done(fail)
        assert (await told(handle)).value == 1
        assert await supervisor.run(chores.same, 2) == 2
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["asyncio"]
    assert "not mine" in caplog.text


async def test_only_sync_functions_are_taken(isolation: Isolation) -> None:
    async def nobody_awaits(_: Outcome) -> None: ...

    asyncio.get_running_loop().set_debug(True)  # then the loop looks, too
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        handle = supervisor.submit_nowait(chores.same, 1)
        for wrong in (nobody_awaits, None, 5):
            with pytest.raises(TypeError, match="when_done takes a sync function"):
                handle.when_done(wrong)  # type: ignore[arg-type]
        assert (await told(handle)).value == 1


async def test_one_job_may_hand_over_the_next_in_its_callback(isolation: Isolation) -> None:
    async with Supervisor(workers=1, isolation=isolation) as supervisor:
        over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def go_on(outcome: Outcome) -> None:
            if outcome.value == 200:
                over.set_result(outcome.value)
            else:
                supervisor.submit_nowait(chores.same, outcome.value + 1).when_done(go_on)

        supervisor.submit_nowait(chores.same, 0).when_done(go_on)
        assert await over == 200
        assert supervisor.statistics().submitted == 201


async def test_a_full_queue_refuses_the_job_and_forgets_it() -> None:
    async with gates.Gate() as gate, Supervisor(workers=1, queue_size=2) as supervisor:
        first = supervisor.submit_nowait(gates.stand, gate.port)
        await gate.arrived()
        handles = [supervisor.submit_nowait(chores.same, number) for number in range(2)]
        for _ in range(3):
            with pytest.raises(QueueFull, match="2 jobs are waiting already.*queue_size"):
                supervisor.submit_nowait(chores.same, 3)
        gate.open()
        assert [await handle.result() for handle in handles] == [0, 1]
        await first.result()
        assert await supervisor.submit_nowait(chores.same, 4).result() == 4
        assert supervisor.statistics().submitted == 4


async def test_a_job_that_is_cancelled_is_told() -> None:
    async with Supervisor(workers=1, grace=0.1) as supervisor:
        handle = supervisor.submit_nowait(hanging.sleep_for_ever)
        handle.cancel()
        assert (await told(handle)).status == "cancelled"


async def test_what_cannot_run_is_refused_before_it_is_accepted(tmp_path: Path) -> None:
    supervisor = Supervisor(workers=1)
    with pytest.raises(SupervisorClosed):
        supervisor.submit_nowait(chores.same, 1)
    async with supervisor:
        with pytest.raises(TargetError):
            supervisor.submit_nowait(lambda: 1)
        assert supervisor.statistics().submitted == 0
    async with Supervisor(workers=1, journal=Journal(tmp_path / "journal")) as supervisor:
        with pytest.raises(ConfigurationError, match=r"journal: .*use submit"):
            supervisor.submit_nowait(chores.same, 1)
        assert await supervisor.run(chores.same, 1) == 1


def test_on_a_loop_that_cannot_spawn_it_is_the_same() -> None:
    class Unable(asyncio.SelectorEventLoop):
        async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    async def main() -> None:
        async with gates.Gate() as gate, Supervisor(workers=1, queue_size=2) as supervisor:
            first = supervisor.submit_nowait(gates.stand, gate.port)
            await gate.arrived()
            handles = [supervisor.submit_nowait(chores.same, number) for number in range(2)]
            with pytest.raises(QueueFull):
                supervisor.submit_nowait(chores.same, 3)
            gate.open()
            assert [(await told(handle)).value for handle in handles] == [0, 1]
            assert (await told(first)).status == "succeeded"

    with asyncio.Runner(loop_factory=Unable) as runner:
        runner.run(main())


def test_on_a_loop_that_cannot_spawn_the_queue_is_bounded_too() -> None:
    class Unable(asyncio.SelectorEventLoop):
        async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    most = 0

    async def main() -> None:
        async with Supervisor(workers=1, queue_size=3) as supervisor:

            async def submit(number: int) -> int:
                nonlocal most
                handle = await supervisor.submit(chores.same, number)
                most = max(most, supervisor.statistics().queued)
                found: int = await handle.result()
                return found

            assert await asyncio.gather(*map(submit, range(100))) == list(range(100))

    with asyncio.Runner(loop_factory=Unable) as runner:
        runner.run(main())
    assert 0 < most <= 3


def test_sync_code_may_hand_over_without_waiting_too(isolation: Isolation, tmp_path: Path) -> None:
    with BlockingSupervisor(workers=1, queue_size=2, isolation=isolation) as supervisor:
        assert supervisor.submit_nowait(chores.same, 5).result(60) == 5
    supervisor = BlockingSupervisor(workers=1, journal=Journal(tmp_path / "journal"))
    with supervisor, pytest.raises(ConfigurationError, match="use submit"):
        supervisor.submit_nowait(chores.same, 1)


def test_a_full_queue_refuses_sync_code_too() -> None:
    with BlockingSupervisor(workers=1, queue_size=2, grace=0.1) as supervisor:
        held = supervisor.submit(hanging.sleep_for_ever)
        for event in held.events():
            if event.kind == "state" and event.state == "running":
                break
        handles = [supervisor.submit_nowait(chores.same, number) for number in range(2)]
        with pytest.raises(QueueFull, match="queue_size"):
            supervisor.submit_nowait(chores.same, 3)
        held.cancel()
        assert [handle.result(60) for handle in handles] == [0, 1]
        assert supervisor.statistics().submitted == 3
