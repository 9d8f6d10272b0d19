"""A crash is its job's alone: neighbours do not notice, and the certificate tells what happened."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import chores
import dying
import gates
import pytest

from orchestrator import Job, Outcome, Supervisor
from orchestrator._models import DeathCertificate
from orchestrator.exceptions import JobCrashed, JobFailed, PayloadTooLarge

posix = pytest.mark.skipif(sys.platform == "win32", reason="about POSIX signals and descriptors")


async def one_of_eight(workers: int, target: Any, *args: Any) -> DeathCertificate:
    """Run a deadly job among seven that stand at the same gate, and return its child's certificate."""
    async with gates.Gate() as gate, Supervisor(workers=workers) as supervisor:
        neighbours = [await supervisor.submit(gates.stand, gate.port, f"n{i}") for i in range(7)]
        dying_job = await supervisor.submit(target, gate.port, *args)
        # With four workers the deadly one's turn comes when the first four are through.
        while not any(arrival.label == "dying" for arrival in gate.arrivals):
            for arrival in await gate.arrived(len(gate.arrivals) + 1):
                if workers < 8 and arrival.label != "dying":
                    gate.let(arrival.label)
        gate.let("dying")
        outcome = await dying_job.outcome()
        assert outcome.status == "crashed"
        gate.open()
        ends = [await neighbour.outcome() for neighbour in neighbours]
        assert [end.value for end in ends] == [f"n{i}" for i in range(7)]
        assert [end.attempts for end in ends] == [1] * 7
        assert supervisor.statistics().settled == {"succeeded": 7, "crashed": 1}
        pid = next(arrival.pid for arrival in gate.arrivals if arrival.label == "dying")
    assert isinstance(outcome.error, JobCrashed)
    certificate = outcome.error.certificate
    assert certificate.pid == pid
    assert certificate.phase == "running"
    assert "last words" in certificate.stderr
    assert certificate.last_progress is not None
    assert (certificate.last_progress.done, certificate.last_progress.total) == (7, 9)
    assert certificate.last_progress.text == "nearly"
    with pytest.raises(JobCrashed, match=str(pid)):
        outcome.result()
    return certificate


@pytest.mark.parametrize("workers", [4, 8])
async def test_exit_code_is_told(workers: int) -> None:
    certificate = await one_of_eight(workers, dying.exit_at_once, 3)
    assert (certificate.exit_code, certificate.signal, certificate.reason) == (3, None, "exit")


async def test_exit_with_code_zero_is_a_crash() -> None:
    certificate = await one_of_eight(4, dying.exit_at_once, 0)
    assert (certificate.exit_code, certificate.reason) == (0, "exit")


@posix
@pytest.mark.parametrize("workers", [4, 8])
async def test_segfault_is_told_by_name(workers: int) -> None:
    certificate = await one_of_eight(workers, dying.segfault)
    assert (certificate.exit_code, certificate.signal, certificate.reason) == (None, "SIGSEGV", "signal")
    # faulthandler says where.
    assert any("segfault" in line for line in certificate.stderr)


@posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGABRT"])
async def test_signal_is_told_by_name(name: str) -> None:
    certificate = await one_of_eight(4, dying.kill_self, int(signal.Signals[name]))
    assert (certificate.exit_code, certificate.signal) == (None, name)


@posix
@pytest.mark.parametrize("target", [dying.close_fds, dying.close_fds_and_stay])
async def test_closed_protocol_is_told(target: Any) -> None:
    certificate = await one_of_eight(4, target)
    assert certificate.reason == "protocol"
    assert certificate.detail


@posix
async def test_repeated_bad_frames_end_the_child() -> None:
    certificate = await one_of_eight(4, dying.write_bad_frames)
    assert certificate.reason == "protocol"
    assert "this is no frame" in certificate.detail


@posix
async def test_one_bad_frame_is_forgiven() -> None:
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(dying.write_one_bad_frame) == "lives"
        assert await supervisor.run(dying.size_of, "abc") == 3
        assert supervisor.statistics().restarts == 0


@pytest.mark.parametrize(
    ("target", "args", "name"),
    [
        (dying.sys_exit, (3,), "SystemExit"),
        (dying.sys_exit, ("words",), "SystemExit"),
        (dying.interrupt, (), "KeyboardInterrupt"),
        (dying.eat_memory, (), "MemoryError"),
    ],
)
async def test_raised_is_a_failure_and_the_child_lives(target: Any, args: tuple[Any, ...], name: str) -> None:
    async with Supervisor(workers=1) as supervisor:
        before = await supervisor.run(dying.pid)
        with pytest.raises(JobFailed) as caught:
            await supervisor.run(target, *args)
        assert caught.value.error.type == name
        assert await supervisor.run(dying.pid) == before


async def test_ten_megabytes_each_way() -> None:
    size = 10 * 2**20
    async with Supervisor(workers=1) as supervisor:
        assert await supervisor.run(dying.size_of, "x" * size) == size
        assert await supervisor.run(dying.make_text, size) == "x" * size


async def test_too_large_is_refused_each_way_and_the_child_lives() -> None:
    async with Supervisor(workers=1, max_message_bytes=1024 * 1024) as supervisor:
        pid = await supervisor.run(dying.pid)
        with pytest.raises(PayloadTooLarge, match="max_message_bytes"):
            await supervisor.run(dying.size_of, "x" * 2**20)
        assert supervisor.statistics().submitted == 1
        with pytest.raises(PayloadTooLarge, match="max_message_bytes") as caught:
            await supervisor.run(dying.make_text, 2**20)
        assert caught.value.path == "result"
        assert await supervisor.run(dying.make_text, 2**19) == "x" * 2**19
        assert await supervisor.run(dying.pid) == pid


async def test_large_values_leave_no_files(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        folder = Path((await supervisor.run(chores.where))[1]).parent
        before = set(os.listdir(folder))
        for _ in range(3):
            assert await supervisor.run(dying.size_of, await supervisor.run(dying.make_text, 2**21)) == 2**21
        handle = await supervisor.submit(dying.size_of, "x" * 2**22)
        handle.cancel()  # while its arguments are being written
        assert (await handle.outcome()).status == "cancelled"
        assert (await handle.outcome()).attempts == 0
        assert await supervisor.run(dying.size_of, "abc") == 3
        assert set(os.listdir(folder)) == before


async def test_crash_of_an_idle_child_harms_no_job() -> None:
    async with Supervisor(workers=1) as supervisor:
        pid = await supervisor.run(dying.pid)
        os.kill(pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await supervisor.run(dying.pid) != pid


async def test_everybody_may_crash() -> None:
    async with gates.Gate() as gate, Supervisor(workers=2) as supervisor:
        gate.open()
        ok: Outcome = await (await supervisor.submit(Job(dying.size_of, args=("abc",)))).outcome()
        assert ok.succeeded
        for _ in range(2):  # fewer than would make it the environment's fault
            outcome = await (await supervisor.submit(dying.exit_at_once, gate.port, 1)).outcome()
            assert outcome.status == "crashed"
        assert await supervisor.run(dying.size_of, "abcd") == 4
