"""A supervisor whose journal's disk is full: nothing is told that is not recorded, and in the end all of it is."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journalling import rows

from orchestrator import Job, Journal, Supervisor
from orchestrator.exceptions import SupervisorClosed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def until(supervisor: Supervisor, state: str) -> None:
    async with asyncio.timeout(60):
        while supervisor.statistics().state != state:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


async def test_dispatch_stops_within_a_second_and_goes_on_within_five(small_disk: Path) -> None:
    path = small_disk / "j.db"
    ballast = small_disk / "ballast"
    async with Supervisor(workers=2, journal=Journal(path)) as supervisor:
        assert await supervisor.run("operator:neg", 1) == -1
        ballast.write_bytes(bytes(1024 * 1024))
        told: list[int] = []
        number = 0

        async def one(number: int) -> None:
            handle = await supervisor.submit(Job("builtins:len", args=("x" * 5000,), key=f"{number}"))
            outcome = await handle.outcome()
            assert outcome.succeeded and outcome.value == 5000
            told.append(number)

        running: list[asyncio.Task[None]] = []
        async with asyncio.timeout(60):
            while supervisor.statistics().state != "stalled":
                for _ in range(10):
                    number += 1
                    running.append(asyncio.create_task(one(number)))
                await asyncio.sleep(0.005)
        # What runs ends within a second, for nothing is sent any more; its outcomes are not told.
        await asyncio.sleep(1)
        before = len(told), supervisor.statistics().running
        await asyncio.sleep(0.5)
        assert (len(told), supervisor.statistics().running) == before
        assert len(told) < number
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)  # noqa: ASYNC221
        began = time.monotonic()
        await until(supervisor, "open")
        assert time.monotonic() - began < 6
        await asyncio.gather(*running)
        assert sorted(told) == [*range(1, number + 1)]
    assert rows(path, "PRAGMA quick_check") == [("ok",)]
    assert rows(path, "SELECT count(*), count(status) FROM jobs") == [(number + 1, number + 1)]
    assert rows(path, "SELECT count(*) FROM runs WHERE clean") == [(1,)]


async def test_a_stalled_supervisor_closes_in_time_and_the_next_one_runs_the_rest(small_disk: Path) -> None:
    path = small_disk / "j.db"
    ballast = small_disk / "ballast"
    supervisor = Supervisor(workers=1, journal=Journal(path), on_exit="cancel")
    await supervisor.__aenter__()
    try:
        for number in range(5):
            await supervisor.submit(Job("time:sleep", args=(0.01 * number,), effects="idempotent"))
        ballast.write_bytes(bytes(2 * 1024 * 1024 - path.stat().st_size - Path(f"{path}-wal").stat().st_size))
    except OSError:
        pass  # the disk is full, one way or the other
    submits = [asyncio.create_task(supervisor.submit("builtins:len", "x" * 60_000)) for _ in range(40)]
    await until(supervisor, "stalled")
    began = time.monotonic()
    await supervisor.aclose()
    assert time.monotonic() - began < 15  # ten, and slack for a busy machine
    # Nobody waits for ever for what will not be recorded.
    async with asyncio.timeout(10):
        ends = await asyncio.gather(*submits, return_exceptions=True)
    assert {type(end) for end in ends} == {SupervisorClosed}
    ballast.unlink()
    async with Supervisor(workers=1, journal=Journal(path)):
        pass
    assert rows(path, "PRAGMA quick_check") == [("ok",)]
    assert rows(path, "SELECT count(*) FROM jobs WHERE status IS NULL") == [(0,)]
