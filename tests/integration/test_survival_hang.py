"""A child that falls silent is suspect, and killed only if that was asked for; a stall of our own is nobody's fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
import stalling
from gates import Gate, stand

from orchestrator import Job, RetryPolicy, Supervisor, _liveness, _options, _pings
from orchestrator._liveness import Pace
from orchestrator.exceptions import ConfigurationError, JobCrashed, JobTimedOut

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and pthreads by ctypes")

# Ten times faster than in life; a busy machine must still let a healthy child answer in time.
PACE = Pace(ping=0.25, suspect=1.0, confirm=0.1, lag=1.0)


class Told(logging.Handler):
    """What the supervisor logged."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "orchestrator"):
            self.events.append((record.getMessage().partition(" ")[0], record.orchestrator))
            self._changed.set()

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    async def heard(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait until an event was logged so often; returns the members of the last."""
        async with asyncio.timeout(30):
            while self.names().count(name) < count:
                self._changed.clear()
                await self._changed.wait()
        return [fields for event, fields in self.events if event == name][count - 1]


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    logger = logging.getLogger("orchestrator")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module", autouse=True)
def what_uvloop_keeps() -> None:
    # It opens a pipe for all its loops, once in a process.
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pings, "PACE", PACE)
    monkeypatch.setattr(_options, "_LEAST_HANG_TIMEOUT", 0.0)
    monkeypatch.setattr(_liveness, "_LAG", PACE.lag)


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[Supervisor, Gate]]:
    async with asyncio.timeout(60), Gate() as gate, Supervisor(**{"workers": 1, **options}) as supervisor:
        yield supervisor, gate
        gate.open()


def test_hang_timeout_has_a_least_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="hang_timeout: must be at least 1 s, not 0.5"):
        Supervisor(hang_timeout=0.5)


@posix
async def test_a_short_hang_timeout_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with opened(hang_timeout=1.5) as (supervisor, gate):
        job = asyncio.create_task(supervisor.run(stand, gate.port, "stopped"))
        os.kill((await gate.arrived())[0].pid, signal.SIGSTOP)
        with pytest.raises(JobCrashed) as caught:
            await asyncio.wait_for(job, 15)
        assert caught.value.certificate.reason == "hang"


@posix
async def test_a_stopped_child_gets_no_jobs_until_it_goes_on(told: Told) -> None:
    async with opened(workers=2) as (supervisor, gate):
        job = asyncio.create_task(supervisor.run(stand, gate.port, "stopped"))
        pid = (await gate.arrived())[0].pid
        os.kill(pid, signal.SIGSTOP)
        fields = await told.heard("worker.suspected")
        assert fields["pid"] == pid and fields["silence"] >= 0.9 and fields["last_heard"]
        [suspect] = [worker for worker in supervisor.statistics().workers if worker.state == "suspect"]
        assert suspect.pid == pid
        pids = {await supervisor.run(os.getpid) for _ in range(20)}
        assert pid not in pids
        os.kill(pid, signal.SIGCONT)
        assert (await told.heard("worker.cleared"))["worker"] == suspect.name
        gate.open()
        assert await job == "stopped"
        assert {worker.restarts for worker in supervisor.statistics().workers} == {0}
        found = {await supervisor.run(os.getpid) for _ in range(20)}
        assert pid in found  # it takes jobs again


@posix
async def test_jobs_sent_ahead_of_a_stopped_child_run_when_it_goes_on(told: Told) -> None:
    async with opened() as (supervisor, _):
        pid = await supervisor.run(os.getpid)
        for _ in range(50):
            await supervisor.run(stalling.age)  # now it is known to be quick
        os.kill(pid, signal.SIGSTOP)
        jobs = [asyncio.create_task(supervisor.run(stalling.age)) for _ in range(20)]
        await told.heard("worker.suspected")
        os.kill(pid, signal.SIGCONT)
        assert [found[0] for found in await asyncio.gather(*jobs)] == [pid] * 20


@posix
async def test_a_stopped_child_is_killed_after_hang_timeout(told: Told) -> None:
    async with opened(hang_timeout=2) as (supervisor, gate):
        job = asyncio.create_task(supervisor.run(stand, gate.port, "stopped"))
        pid = (await gate.arrived())[0].pid
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(JobCrashed) as caught:
            await job
        assert time.monotonic() - began < 2 + PACE.confirm + 3
        certificate = caught.value.certificate
        assert (certificate.reason, certificate.phase, certificate.pid) == ("hang", "running", pid)
        assert "said nothing for " in certificate.detail and "frame" in certificate.detail
        assert told.names().index("worker.suspected") < told.names().index("worker.child_died")
        assert await supervisor.run(os.getpid) != pid


@posix
async def test_one_that_goes_on_before_hang_timeout_lives(told: Told) -> None:
    async with opened(hang_timeout=8) as (supervisor, gate):
        job = asyncio.create_task(supervisor.run(stand, gate.port))
        pid = (await gate.arrived())[0].pid
        os.kill(pid, signal.SIGSTOP)
        await told.heard("worker.suspected")
        os.kill(pid, signal.SIGCONT)
        await told.heard("worker.cleared")
        gate.open()
        await job
        assert await supervisor.run(os.getpid) == pid


@posix
async def test_an_idle_child_that_hangs_is_replaced(told: Told) -> None:
    async with opened(hang_timeout=2) as (supervisor, _):
        pid = await supervisor.run(os.getpid)
        os.kill(pid, signal.SIGSTOP)
        assert (await told.heard("worker.child_died"))["reason"] == "hang"
        assert await supervisor.run(os.getpid) != pid
        death = supervisor.statistics().workers[0].last_death
        assert death is not None and (death.reason, death.phase) == ("hang", "idle")


@linux
async def test_an_interpreter_that_is_held_is_named_and_not_killed(told: Told) -> None:
    async with opened() as (supervisor, gate):
        job = asyncio.create_task(supervisor.run(stalling.hold_after_telling, gate.port, 2.5))
        await gate.arrived()
        gate.open()
        stack = (await told.heard("worker.stack_dumped"))["stack"]
        assert "hold_the_interpreter" in stack and "pthread_cond_timedwait" in stack
        assert await job == "went on"
        await told.heard("worker.cleared")
        assert supervisor.statistics().restarts == 0


@linux
async def test_a_hang_is_retried_as_a_crash_and_its_stack_is_kept(told: Told, tmp_path: Any) -> None:
    async with opened(hang_timeout=2) as (supervisor, gate):
        gate.open()
        job = Job(
            stalling.hold_once,
            args=(str(tmp_path / "been"), gate.port, 60.0),
            retry=RetryPolicy(attempts=2, on="crash", backoff=0.01),
        )
        assert await supervisor.run(job) == "second time"
        death = supervisor.statistics().workers[0].last_death
        assert death is not None and death.reason == "hang"
        assert "hold_the_interpreter" in death.stack


@linux
async def test_an_import_that_holds_the_interpreter_is_not_judged(told: Told) -> None:
    options = {"preload": ["stalling:hold_as_preload"], "env": {"HOLD": "2"}, "hang_timeout": 1.2}
    async with opened(**options) as (supervisor, _):
        assert await supervisor.run(stalling.length, "abc") == 3
        assert supervisor.statistics().restarts == 0
        assert not {"worker.suspected", "worker.child_died"} & set(told.names())


async def test_a_host_that_stands_still_kills_and_suspects_nobody(told: Told) -> None:
    async with opened(workers=2, hang_timeout=2) as (supervisor, gate):
        jobs = [asyncio.create_task(supervisor.run(stand, gate.port)) for _ in range(2)]
        await gate.arrived(2)
        time.sleep(2.5)
        fields = await told.heard("supervisor.amnesty")
        assert "stood still" in fields["reason"]
        await asyncio.sleep(2 * PACE.ping)
        gate.open()
        await asyncio.gather(*jobs)
        assert not {"worker.suspected", "worker.child_died"} & set(told.names())


def on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_silence_during_a_stall_is_not_held_against_a_job(run: Any) -> None:
    async def main() -> None:
        async with opened() as (supervisor, _):
            await supervisor.run(os.getpid)
            job = Job(stalling.report_for, args=(3.0, 0.05), progress_timeout=1.0)
            handle = await supervisor.submit(job)
            async for event in handle.events():
                if event.kind == "progress":
                    break
            time.sleep(2.2)
            assert await handle.result() == "reported"

    run(main)


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_its_silence_counts_anew_after_the_stall(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pings, "PACE", Pace())  # no look at the children comes first

    async def main() -> None:
        async with opened() as (supervisor, gate):
            handle = await supervisor.submit(Job(stand, args=(gate.port,), progress_timeout=1.0))
            await gate.arrived()
            time.sleep(2.2)
            began = time.monotonic()
            with pytest.raises(JobTimedOut, match="reported no progress"):
                await handle.result()
            assert time.monotonic() - began >= 0.9

    run(main)


@pytest.mark.parametrize(
    ("run", "stall"),
    [
        (on_asyncio, 5.3),
        (on_uvloop, 6.5),
        pytest.param(on_asyncio, 6.5, marks=pytest.mark.soak),
        pytest.param(on_uvloop, 5.3, marks=pytest.mark.soak),
    ],
)
def test_an_answer_that_lies_in_the_pipe_counts_before_its_timeout(run: Any, stall: float) -> None:
    async def main() -> None:
        async with opened() as (supervisor, gate):
            await supervisor.run(os.getpid)
            # The stall outlasts the timeout, and the child has all of it: a busy machine is slow.
            held = Job(stalling.hold_after_telling, args=(gate.port, 0.2), timeout=5)
            job = asyncio.create_task(supervisor.run(held))
            await gate.arrived()
            gate.open()
            await asyncio.sleep(0.1)  # the gate's answer is on its way
            time.sleep(stall)
            assert await job == "went on"

    run(main)


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_a_job_that_our_stall_kept_from_answering_is_heard(run: Any) -> None:
    async def main() -> None:
        async with opened() as (supervisor, gate):
            job = Job(stalling.talk_at_length, args=(gate.port, 400), timeout=1)
            answer = asyncio.create_task(supervisor.run(job))
            await gate.arrived()
            gate.open()
            await asyncio.sleep(0)
            time.sleep(1.5)  # its pipe is full
            assert await answer == "said"

    run(main)


@posix
@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_a_timeout_counts_on_during_a_stall(run: Any) -> None:
    async def main() -> None:
        async with opened(grace=0.2) as (supervisor, gate):
            job = asyncio.create_task(supervisor.run(Job(stand, args=(gate.port,), timeout=1)))
            await gate.arrived()
            time.sleep(2.2)
            began = time.monotonic()
            with pytest.raises(JobTimedOut, match="ran longer than timeout=1 s"):
                await job
            assert time.monotonic() - began < 5

    run(main)


@pytest.mark.parametrize("jump", [365 * 86_400.0, -365 * 86_400.0, 3_600.0])
async def test_the_wall_clock_decides_nothing(told: Told, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    async with opened(workers=2, hang_timeout=4) as (supervisor, gate):
        job = Job(stand, args=(gate.port,), timeout=50, progress_timeout=50, queue_timeout=50, total_timeout=50)
        handle = await supervisor.submit(job)
        await gate.arrived()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        await asyncio.sleep(3 * PACE.ping)
        assert await supervisor.run(stalling.length, "abc") == 3
        gate.open()
        outcome = await handle.outcome()
        assert outcome.succeeded and 0.5 < outcome.run_seconds < 40
        assert not {"supervisor.amnesty", "worker.suspected", "worker.child_died"} & set(told.names())


_TRACE = """
import ctypes, os, sys
threads = [int(name) for name in os.listdir(f"/proc/{sys.argv[1]}/task")]
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for thread in threads:
    if ptrace(16, thread, None, None):
        print("refused", flush=True)
        sys.exit()
    os.waitpid(thread, 0x40000000)
print("traced", flush=True)
sys.stdin.read()
for thread in threads:
    ptrace(17, thread, None, None)
"""


@linux
async def test_a_child_in_a_debugger_is_spared(told: Told) -> None:
    async with opened(hang_timeout=2) as (supervisor, gate):
        job = asyncio.create_task(supervisor.run(stand, gate.port))
        pid = (await gate.arrived())[0].pid
        command = [sys.executable, "-c", _TRACE, str(pid)]
        debugger = subprocess.Popen(  # noqa: ASYNC220  it starts in a moment
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert debugger.stdin is not None and debugger.stdout is not None
        said = debugger.stdout.readline().strip()
        if said == "traced":
            await asyncio.sleep(3)
        with debugger:
            debugger.stdin.close()
        gate.open()
        await job
        if said != "traced":
            pytest.skip("this system lets nobody trace")
        assert not {"worker.suspected", "worker.child_died"} & set(told.names())


async def test_pings_are_answered_by_busy_and_idle_children(told: Told) -> None:
    async with opened(workers=3, hang_timeout=2) as (supervisor, gate):
        busy = asyncio.create_task(supervisor.run(stand, gate.port))
        busy_async = asyncio.create_task(supervisor.run("gates:stand_async", gate.port))
        await gate.arrived(2)
        assert await supervisor.run(stalling.sleep_for, 0.1) == "slept"
        await asyncio.sleep(2.5)
        gate.open()
        await asyncio.gather(busy, busy_async)
        assert not {"worker.suspected", "worker.child_died"} & set(told.names())


@linux
async def test_a_pipe_in_the_place_of_the_stack_keeps_nobody_waiting(told: Told) -> None:
    async with opened(hang_timeout=2) as (supervisor, _):
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(stalling.replace_the_stack_file)
        assert caught.value.certificate.reason == "hang" and not caught.value.certificate.stack
