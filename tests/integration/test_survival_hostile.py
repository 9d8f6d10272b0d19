"""A child that says what no child should say harms nobody but itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import stalling
from gates import Gate, stand
from stalling import MB

from orchestrator import Job, Supervisor
from orchestrator.exceptions import JobCrashed, JobTimedOut, PayloadError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="finds its pipe as POSIX shows it")


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Supervisor]:
    async with asyncio.timeout(90), Supervisor(**{"workers": 1, **options}) as supervisor:
        yield supervisor


async def test_half_a_frame_and_the_end_is_a_crash() -> None:
    async with opened() as supervisor:
        with pytest.raises(JobCrashed) as caught:
            await supervisor.run(stalling.half_a_frame)
        assert (caught.value.certificate.reason, caught.value.certificate.exit_code) == ("exit", 4)
        assert await supervisor.run(stalling.length, "abc") == 3


async def test_a_frame_of_five_megabytes_is_read() -> None:
    async with opened() as supervisor:
        assert await supervisor.run(stalling.large_frame, 5 * MB) == "wrote it"
        assert supervisor.statistics().restarts == 0


async def test_what_is_no_utf8_is_forgiven_once() -> None:
    async with opened() as supervisor:
        assert await supervisor.run(stalling.no_utf8) == "lives"
        assert await supervisor.run(stalling.length, "abc") == 3
        assert supervisor.statistics().restarts == 0


async def test_a_line_without_end_takes_a_bounded_piece_of_memory() -> None:
    own = psutil.Process()
    async with opened() as supervisor:
        await supervisor.run(stalling.length, "abc")
        before, most = own.memory_info().rss, 0
        job = asyncio.create_task(supervisor.run(stalling.no_line_end, 200 * MB))
        while not job.done():
            most = max(most, own.memory_info().rss - before)
            await asyncio.sleep(0.005)
        with pytest.raises(JobCrashed) as caught:
            await job
        assert caught.value.certificate.exit_code == 5
        # What one message may have is held, as it may still end; growing it may copy it once.
        assert most < 2 * 32 * MB + 16 * MB
        assert await supervisor.run(stalling.length, "abc") == 3


async def test_answers_for_others_are_dropped() -> None:
    async with opened(workers=2) as supervisor, Gate() as gate:
        neighbour = await supervisor.submit(stand, gate.port, "neighbour")
        await gate.arrived()

        async def read() -> list[Any]:
            return [event async for event in neighbour.events()]

        reading = asyncio.create_task(read())
        assert await supervisor.run(stalling.forge, [-1, 0, *range(1, 40)], 3) in ("real", "forged")
        assert neighbour.state != "settled"
        gate.open()
        assert await neighbour.result() == "neighbour"
        assert not [event for event in await reading if event.kind in ("progress", "item")]
        counted = supervisor.statistics()
        assert counted.settled == {"succeeded": 2} and counted.running == counted.queued == 0
        assert await supervisor.run(stalling.length, "abc") == 3


async def test_ten_thousand_forged_frames_slow_nobody_down() -> None:
    async with opened(workers=2) as supervisor, Gate() as gate:
        flood = asyncio.create_task(supervisor.run(stalling.forge, [10**9], 10_000))  # seven frames each
        for _ in range(50):
            async with asyncio.timeout(10):
                assert await supervisor.run(stalling.length, "abc") == 3
        gate.open()
        assert await flood == "real"


@pytest.mark.parametrize("member", ["value_file", "typed_file"])
@pytest.mark.parametrize("how", ["outside", "up", "relative"])
async def test_a_file_outside_its_folder_is_neither_read_nor_removed(tmp_path: Path, member: str, how: str) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('"secret"')
    async with opened() as supervisor:
        folder = await supervisor.run(stalling.temp_folder)
        up = os.path.relpath(secret, folder)
        path = {"outside": str(secret), "up": os.path.join(folder, up), "relative": up}[how]
        with pytest.raises(JobCrashed, match="outside its folder") as caught:
            await supervisor.run(stalling.name_a_file, member, path)
        assert caught.value.certificate.reason == "protocol"
        assert secret.read_text() == '"secret"'
        assert await supervisor.run(stalling.length, "abc") == 3


@pytest.mark.parametrize("member", ["value_file", "typed_file"])
async def test_a_link_in_its_folder_is_not_followed(tmp_path: Path, member: str) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('"secret"')
    async with opened() as supervisor:
        with pytest.raises(PayloadError, match="cannot be rebuilt"):
            await supervisor.run(stalling.name_a_link, member, str(secret))
        assert secret.read_text() == '"secret"'


async def test_a_late_answer_with_a_file_outside_removes_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('"secret"')
    async with opened(grace=1.0) as supervisor:
        with pytest.raises((JobTimedOut, JobCrashed)):
            await supervisor.run(Job(stalling.name_a_file_when_cancelled, args=(str(secret),), timeout=0.3))
        assert secret.read_text() == '"secret"'


async def test_arguments_are_written_through_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    async with opened() as supervisor:
        assert await supervisor.run(stalling.block_results, str(precious)) == "blocked"
        with pytest.raises(PayloadError, match="cannot be written"):
            await supervisor.run(stalling.length, "x" * (2 * MB))
        assert precious.read_text() == "precious"
