"""A journal in one program after the other: keys find their jobs, whichever run did them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import chores
import durable
import pytest

from orchestrator import BlockingSupervisor, Job, Journal, Supervisor, callback
from orchestrator._models import Status
from orchestrator.exceptions import JobFailed, KeyConflict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def double(tmp_path: Path, number: int = 1, key: str | None = "a") -> Job:
    return Job(durable.double, args=(str(tmp_path / "log"), number), key=key)


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "log").read_text().splitlines())


async def test_a_key_is_one_job(tmp_path: Path, journal: Journal) -> None:
    async with Supervisor(workers=2, journal=journal) as supervisor:
        first, second = await asyncio.gather(*(supervisor.submit(double(tmp_path)) for _ in range(2)))
        assert first.id == second.id
        assert await first.result() == await second.result() == 2
    async with Supervisor(workers=1, journal=journal) as supervisor:
        third = await supervisor.submit(double(tmp_path))
        assert (third.id, await third.result()) == (first.id, 2)
        assert await supervisor.run(double(tmp_path, key=None)) == 2
    assert runs(tmp_path) == 2


async def test_another_job_under_a_key_is_refused(tmp_path: Path, journal: Journal) -> None:
    async with Supervisor(workers=1, journal=journal) as supervisor:
        assert await supervisor.run(double(tmp_path)) == 2
        with pytest.raises(KeyConflict, match="'a'"):
            await supervisor.run(double(tmp_path, 2))
    assert runs(tmp_path) == 1


async def test_errors_come_back_as_they_were(journal: Journal) -> None:
    job = Job("math:sqrt", args=(-1,), key="a")
    found = []
    for _ in range(2):
        async with Supervisor(workers=1, journal=journal) as supervisor:
            with pytest.raises(JobFailed) as caught:
                await supervisor.run(job)
            found.append((str(caught.value), caught.value.error, caught.value.job_id))
    assert found[0] == found[1]


async def test_a_cancelled_job_is_not_done(tmp_path: Path, journal: Journal) -> None:
    async with Supervisor(workers=1, journal=journal) as supervisor:
        handle = await supervisor.submit(Job("time:sleep", args=(60,), key="a"))
        handle.cancel()
        assert (await handle.outcome()).status is Status.CANCELLED
        assert await supervisor.run(double(tmp_path)) == 2


async def test_a_map_finds_its_items_again(tmp_path: Path, journal: Journal) -> None:
    template = Job(chores.note, kwargs={"path": str(tmp_path / "log")}, key="item")
    for _ in range(2):
        async with (
            Supervisor(workers=2, journal=journal) as supervisor,
            supervisor.map(template, range(20), ordered=True) as outcomes,
        ):
            assert [outcome.value async for outcome in outcomes] == list(range(20))
    assert runs(tmp_path) == 20


def test_blocking_supervisors_keep_jobs_too(tmp_path: Path, journal: Journal) -> None:
    for _ in range(2):
        with BlockingSupervisor(workers=1, journal=journal) as supervisor:
            assert supervisor.run(double(tmp_path)) == 2
            assert supervisor.submit(double(tmp_path)).id == 1
    assert runs(tmp_path) == 1


async def test_large_values_come_back(journal: Journal) -> None:
    job = Job("operator:mul", args=("x" * 100, 20_000), key="a")
    for _ in range(2):
        async with Supervisor(workers=1, journal=journal) as supervisor:
            assert await supervisor.run(job) == "x" * 2_000_000


async def test_a_stream_is_not_kept(journal: Journal) -> None:
    for _ in range(2):
        async with (
            Supervisor(workers=1, journal=journal) as supervisor,
            supervisor.stream(Job(chores.count_to, args=(3,), key="a")) as items,
        ):
            assert [item async for item in items] == [0, 1, 2]


async def test_who_joins_a_job_that_was_taken_up_gets_its_calls(tmp_path: Path, journal: Journal) -> None:
    gate = tmp_path / "gate"
    job = Job(chores.call_when_open, args=(str(gate), callback(print)), key="a")
    with pytest.raises(KeyboardInterrupt):
        async with Supervisor(workers=1, journal=journal) as supervisor:
            await supervisor.submit(job)
            raise KeyboardInterrupt
    heard: list[int] = []
    async with Supervisor(workers=1, journal=journal) as supervisor:
        handle = await supervisor.submit(Job(chores.call_when_open, args=(str(gate), callback(heard.append)), key="a"))
        gate.touch()
        await handle.result()
    assert heard == [0, 1, 2]


PROGRAM = """
import asyncio, sys
from orchestrator import Job, Journal, Supervisor

def work(number):
    return number

async def main():
    async with Supervisor(workers=1, journal=Journal(sys.argv[1]), on_exit="cancel") as supervisor:
        print(supervisor.statistics().submitted)
        if sys.argv[2:]:
            await supervisor.submit(Job("time:sleep", args=(60,)))
            await supervisor.submit(Job(work, args=(1,), key="a"))

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_jobs_of_another_main_script_stay_open(tmp_path: Path) -> None:
    found = []
    for name, fill in (("first", True), ("second", False), ("first", False)):
        script = tmp_path / f"{name}.py"
        script.write_text(PROGRAM)
        command = [sys.executable, str(script), str(tmp_path / "journal"), *(["fill"] if fill else [])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
        found.append((done.stdout, done.stderr))
    # The job of the library goes on in any program, that of the script only in its own.
    assert [[line for line in out.splitlines() if line.isdigit()] for out, _ in found] == [["0"], ["1"], ["2"]]
    assert "journal.job_left" in "".join(found[1])
