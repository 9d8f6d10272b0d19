"""A supervisor that is forgotten, or used where it does not belong: nothing stays behind, and the error says why."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

import hosting
import psutil
import pytest

from orchestrator import Job, JobHandle, Supervisor
from orchestrator.exceptions import SupervisorClosed, WrongContext

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


async def cannot(*_: object, **__: object) -> None:
    raise NotImplementedError


def new_loop(where: str) -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    if where == "private-thread":
        loop._make_subprocess_transport = cannot  # type: ignore[attr-defined]
    return loop


both_places = pytest.mark.parametrize("where", ["own-loop", "private-thread"])


def use_all(supervisor: Supervisor) -> dict[str, Callable[[], Any]]:
    """Return a call of each method; those of coroutine functions give coroutines."""
    return {
        "run": lambda: supervisor.run(hosting.double, 1),
        "submit": lambda: supervisor.submit(hosting.double, 1),
        "map": lambda: supervisor.map(hosting.double, [1]),
        "stream": lambda: supervisor.stream(hosting.count, 1),
        "scale": lambda: supervisor.scale(2),
        "drain": supervisor.drain,
        "aclose": supervisor.aclose,
    }


def error_of(call: Callable[[], Any]) -> BaseException | None:
    """Return what a call raises, without any loop when it gives a coroutine."""
    try:
        given = call()
        if asyncio.iscoroutine(given):
            try:
                given.send(None)
            finally:
                given.close()
    except BaseException as error:
        return error
    return None


async def test_before_it_is_entered() -> None:
    supervisor = Supervisor(workers=1, name="early")
    calls = use_all(supervisor)
    del calls["aclose"]
    for name, call in {**calls, "statistics": supervisor.statistics}.items():
        error = error_of(call)
        assert isinstance(error, SupervisorClosed), name
        assert "'early'" in str(error) and "enter" in str(error), name
    await supervisor.aclose()
    with pytest.raises(SupervisorClosed):
        await supervisor.__aenter__()


async def test_after_it_was_left() -> None:
    async with Supervisor(workers=1, name="late") as supervisor:
        handle = await supervisor.submit(hosting.double, 1)
    calls = use_all(supervisor)
    for name in ("run", "submit", "map", "stream", "scale"):
        with pytest.raises(SupervisorClosed, match="'late' is closed"):
            found = calls[name]()
            await (found if asyncio.iscoroutine(found) else anext(found))
    await supervisor.drain()
    await supervisor.aclose()
    assert supervisor.statistics().state == "closed"
    assert await handle.result() == 2


async def test_entered_twice() -> None:
    supervisor = Supervisor(workers=1)
    async with supervisor:
        with pytest.raises(SupervisorClosed, match="was opened already"):
            await supervisor.__aenter__()
        assert await supervisor.run(hosting.double, 1) == 2
    with pytest.raises(SupervisorClosed, match="was opened already"):
        await supervisor.__aenter__()


async def test_used_on_another_thread() -> None:
    async with Supervisor(workers=1) as supervisor:
        found: dict[str, BaseException | None] = {}

        def elsewhere() -> None:
            for name, call in use_all(supervisor).items():
                found[f"{name} without a loop"] = error_of(call)

            async def on_a_loop() -> None:
                for name, call in use_all(supervisor).items():
                    found[f"{name} on a loop"] = error_of(call)

            asyncio.run(on_a_loop())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(found) == 14
        for name, error in found.items():
            assert isinstance(error, WrongContext), name
            assert "another event loop or thread" in str(error) and "BlockingSupervisor" in str(error)
        assert await supervisor.run(hosting.double, 1) == 2


def test_without_a_loop() -> None:
    error = error_of(Supervisor(workers=1).__aenter__)
    assert isinstance(error, WrongContext)
    assert "no event loop runs here; use BlockingSupervisor" in str(error)


def test_under_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", types.ModuleType("trio"))
    error = error_of(Supervisor(workers=1).__aenter__)
    assert isinstance(error, WrongContext)
    assert "trio runs here; use BlockingSupervisor" in str(error)


@posix
@both_places
def test_after_a_fork(where: str) -> None:
    async def scenario() -> dict[str, list[str]]:
        async with Supervisor(workers=1) as supervisor:
            handle = await hosting.is_running(supervisor, Job(hosting.hold))
            read, write = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
                pid = os.fork()
            if pid == 0:
                try:
                    calls = {**use_all(supervisor), "statistics": supervisor.statistics}
                    found = {name: error_of(call) for name, call in calls.items()}
                    told = {name: [type(error).__name__, str(error)] for name, error in found.items()}
                    os.write(write, json.dumps(told).encode())
                    del supervisor, handle
                    gc.collect()
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            os.close(write)
            with open(read, "rb") as file:
                told = json.loads(await asyncio.to_thread(file.read))
            await asyncio.to_thread(os.waitpid, pid, 0)
            # The copy has done no harm here.
            assert handle.state == "running"
            handle.cancel()
            assert await supervisor.run(hosting.double, 1) == 2
        return told

    with asyncio.Runner(loop_factory=lambda: new_loop(where)) as runner:
        told = runner.run(scenario())
    assert len(told) == 8
    for name, (kind, text) in told.items():
        assert (name, kind) == (name, "WrongContext")
        assert "forked copy" in text


async def leave_open(opened: list[Supervisor], handles: list[JobHandle]) -> None:
    supervisor = await Supervisor(workers=2, name="forgotten").__aenter__()
    opened.append(supervisor)
    handles.append(await hosting.is_running(supervisor, Job(hosting.hold)))


@both_places
def test_run_ends_with_an_open_supervisor(where: str) -> None:
    opened: list[Supervisor] = []
    handles: list[JobHandle] = []
    with asyncio.Runner(loop_factory=lambda: new_loop(where)) as runner:
        runner.run(leave_open(opened, handles))
        pids = [worker.pid for worker in opened[0].statistics().workers if worker.pid is not None]
        assert pids
    assert not [pid for pid in pids if psutil.pid_exists(pid)], "gone when the loop is, not only when it is collected"
    assert opened[0].statistics().state == "closed"
    assert handles[0].state in ("cancelled", "crashed")
    with pytest.warns(ResourceWarning, match="<Supervisor 'forgotten' .* was never closed"):
        opened.clear()
        handles.clear()
        gc.collect()


def test_loop_is_closed_under_an_engine_on_its_thread() -> None:
    opened: list[Supervisor] = []
    handles: list[JobHandle] = []
    loop = new_loop("private-thread")
    loop.run_until_complete(leave_open(opened, handles))
    # What asyncio.run would not do: the tasks are dropped as they are.
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert handles[0].state == "running"
    with pytest.warns(ResourceWarning, match="<Supervisor 'forgotten' .* was never closed"):
        opened.clear()
        handles.clear()
        gc.collect()
    # That everything is gone then is the fixture's to see.


async def test_dropped_without_being_closed() -> None:
    supervisor = await Supervisor(workers=1, name="dropped").__aenter__()
    engine = supervisor._link.engine  # type: ignore[union-attr]
    with pytest.warns(ResourceWarning, match="<Supervisor 'dropped' open workers=1> was never closed"):
        del supervisor
        gc.collect()
    await engine.close(cancel=True)
