"""The same scenario on every kind of loop a host may run: capable, incapable, on another thread, with streams only."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import chores
import hosting
import pytest

from orchestrator import Supervisor, _child_process, _pipes, _spawn
from orchestrator.exceptions import LaunchError

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no selector loop that can spawn")
until_313 = pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers are gone in Python 3.14")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Scenario = Callable[[], Coroutine[Any, Any, None]]


async def cannot(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError


class NoTransport(asyncio.SelectorEventLoop):
    """As Windows' selector loop is, which tornado and so Streamlit and Jupyter ask for."""

    _make_subprocess_transport = cannot


class NoExec(asyncio.SelectorEventLoop):
    """As a loop that a host wrote without subprocesses."""

    subprocess_exec = cannot


class BadExec(asyncio.SelectorEventLoop):
    """As loops that say so in their own words."""

    error: type[Exception] = RuntimeError

    async def subprocess_exec(self, *_: Any, **__: Any) -> NoReturn:
        raise self.error("not on this loop")


class BadValue(BadExec):
    error = ValueError


try:
    import uvloop
except ImportError:
    uvloop = None
else:
    # The first loop of a process makes a pipe for signals that stays: made here, no test is blamed for it.
    uvloop.new_event_loop().close()


def uvloops() -> asyncio.AbstractEventLoop:
    if uvloop is None:
        pytest.skip("uvloop is not installed")
    return uvloop.new_event_loop()


@contextmanager
def policy_of(policy: Any) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        before = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(policy)
        try:
            yield
        finally:
            asyncio.set_event_loop_policy(before)


def run_on(factory: LoopFactory, scenario: Scenario) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


def was_moved(records: list[logging.LogRecord]) -> bool:
    moved = [record for record in records if "supervisor.moved_to_thread" in record.getMessage()]
    assert len(moved) < 2, "it is logged once"
    return bool(moved)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "orchestrator")
    return caplog


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloops], ids=["asyncio", "uvloop"])
def test_capable_loop_is_used_itself(factory: LoopFactory, logs: pytest.LogCaptureFixture) -> None:
    run_on(factory, hosting.use_one)
    assert not was_moved(logs.records)


def test_debug_mode_finds_nothing_slow_or_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner(debug=True) as runner:
        runner.run(hosting.use_one())
    assert [record for record in caplog.records if record.name == "asyncio" and record.levelno >= logging.ERROR] == []


@posix
@pytest.mark.parametrize("factory", [NoTransport, NoExec, BadExec, BadValue])
def test_loop_that_cannot_spawn_gets_a_private_thread(factory: LoopFactory, logs: pytest.LogCaptureFixture) -> None:
    run_on(factory, hosting.use_one)
    assert was_moved(logs.records)


@posix
def test_policy_whose_loops_cannot_spawn(logs: pytest.LogCaptureFixture) -> None:
    class Policy(asyncio.DefaultEventLoopPolicy):
        _loop_factory = NoTransport

    with policy_of(Policy()):
        asyncio.run(hosting.use_one())
    assert was_moved(logs.records)


@posix
@until_313
def test_policy_without_child_watchers(logs: pytest.LogCaptureFixture) -> None:
    class Policy(asyncio.DefaultEventLoopPolicy):
        def get_child_watcher(self) -> NoReturn:
            raise NotImplementedError

    with policy_of(Policy()):
        asyncio.run(hosting.use_one())
    assert was_moved(logs.records)


@posix
@until_313
@pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")
def test_plain_loop_under_the_policy_of_uvloop() -> None:
    # That policy has no child watchers, which only its own loops can do without.
    with policy_of(uvloop.EventLoopPolicy()):
        run_on(asyncio.SelectorEventLoop, hosting.use_one)


async def read_in_turns() -> None:
    """Leave jobs' events early, with items on their way between the two loops; every job goes on and ends."""
    async with asyncio.timeout(60), Supervisor(workers=2) as supervisor:
        for turns in range(12):
            handle = await supervisor.submit(chores.count_to, 300)
            seen = []
            for turn in range(turns):
                async for event in handle.events():
                    if event.kind == "item":
                        seen.append(event.value)
                        if len(seen) > 7 * turn:
                            break
            if turns % 2:
                assert (await handle.outcome()).succeeded
                seen += [event.value async for event in handle.events() if event.kind == "item"]
                assert seen == list(range(300))
        async with supervisor.stream(chores.count_to, 100) as items:
            assert [item async for item in items] == list(range(100))


@posix
def test_readers_may_leave_early_on_another_loop(logs: pytest.LogCaptureFixture) -> None:
    run_on(NoTransport, read_in_turns)
    assert was_moved(logs.records)


async def look_often() -> None:
    async with asyncio.timeout(60), Supervisor(workers=2) as supervisor:

        async def work() -> None:
            async with supervisor.map(chores.same, range(5_000)) as outcomes:
                async for _ in outcomes:
                    pass

        working, looks = asyncio.create_task(work()), 0
        while not working.done():
            for _ in range(20):
                seen = supervisor.statistics()
                assert seen.submitted == seen.queued + seen.running + seen.waiting + sum(seen.settled.values())
                looks += 1
            await asyncio.sleep(0)
        await working
        assert looks > 10
    assert supervisor.statistics().settled == {"succeeded": 5_000}, "also of one that is closed"


@posix
def test_statistics_of_another_thread_belong_together(logs: pytest.LogCaptureFixture) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads take turns in the midst of a look
    try:
        run_on(NoTransport, look_often)
    finally:
        sys.setswitchinterval(interval)
    assert was_moved(logs.records)


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloops, NoTransport], ids=["asyncio", "uvloop", "incapable"]
)
def test_loop_of_another_thread(factory: LoopFactory) -> None:
    ended: list[BaseException | None] = []

    def host() -> None:
        try:
            run_on(factory, hosting.use_one)
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=host)
    thread.start()
    thread.join()
    if ended != [None]:
        raise AssertionError from ended[0]


def test_host_where_nothing_can_spawn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("nowhere")

    monkeypatch.setattr(_spawn, "open_process", refuse)

    async def scenario() -> None:
        with pytest.raises(LaunchError, match="no event loop can start processes here: NotImplementedError: nowhere"):
            async with Supervisor(workers=2):
                raise AssertionError("unreachable")

    asyncio.run(scenario())


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloops], ids=["asyncio", "uvloop"])
def test_pipes_as_streams(factory: LoopFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # What Windows uses, whose loop cannot watch descriptors.
    made: list[_pipes.Pipes] = []

    def make() -> _pipes.Pipes:
        made.append(_pipes.StreamPipes())
        return made[-1]

    monkeypatch.setattr(_child_process, "make_pipes", make)
    run_on(factory, hosting.use_one)
    assert len(made) > 2
    assert [pipes.unsent for pipes in made] == [0] * len(made)
