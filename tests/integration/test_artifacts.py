"""The files a job names are told with its outcome, however its attempts end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import desks
import pytest

from orchestrator import BlockingSupervisor, Job, Journal, RetryPolicy, Supervisor

EXPECTED = {
    "report.txt": "report.txt",
    "live.jpg": "evidence/live.jpg",
    "proof/trace.zip": "evidence/trace.zip",
    "proof/shots/1.png": "evidence/shots/1.png",
    "proof/shots/2.png": "evidence/shots/2.png",
}
posix = pytest.mark.skipif(sys.platform == "win32", reason="kills itself by a signal")


@pytest.mark.parametrize(
    ("end", "status", "failure_class"),
    [
        ("return", "succeeded", None),
        ("fail", "failed", "desk_broken"),
        pytest.param("crash", "crashed", "crashed", marks=posix),
        ("wait", "timed_out", "timed_out"),
        ("hang", "cancelled", "cancelled"),
        ("cancel", "cancelled", "cancelled"),
    ],
)
async def test_however_the_attempt_ends(end: str, status: str, failure_class: str | None, tmp_path: Path) -> None:
    timeout = 3.0 if status == "timed_out" else None
    how = "wait" if end == "cancel" else end
    # Imported before, so that all of the timeout is for what the job does.
    async with Supervisor(workers=1, grace=0.3, preload=["desks"]) as supervisor:
        handle = await supervisor.submit(Job(desks.leave_files, args=(str(tmp_path), how), timeout=timeout))
        told: list[str] = []
        last = ""
        async with asyncio.timeout(60):
            async for event in handle.events():
                if event.kind == "artifact":
                    told.append(event.name)
                    assert event.attempt == 1
                elif event.kind == "progress" and status == "cancelled":
                    handle.cancel()
                last = event.kind
        outcome = await handle.outcome()
    assert (outcome.status, outcome.failure_class) == (status, failure_class)
    found = {artifact.name: Path(artifact.path).relative_to(tmp_path).as_posix() for artifact in outcome.artifacts}
    assert found == EXPECTED and len(outcome.artifacts) == len(EXPECTED)
    assert all(artifact.attempt == 1 for artifact in outcome.artifacts)
    assert set(told) == {*EXPECTED, "gone.txt"} and last == "state"


@posix
async def test_those_of_all_attempts_are_there(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts=2, on="crash", backoff=0)
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(Job(desks.leave_one, args=(str(tmp_path),), retry=retry))
        outcome = await handle.outcome()
    assert outcome.succeeded
    found = [(artifact.attempt, artifact.name, Path(artifact.path).read_text()) for artifact in outcome.artifacts]
    assert found == [(1, "note.txt", "1"), (2, "note.txt", "2")]


async def test_a_folder_named_by_mistake_is_bounded(tmp_path: Path) -> None:
    async with Supervisor(workers=1) as supervisor:
        handle = await supervisor.submit(desks.leave_many, str(tmp_path), 1_100)
        outcome = await handle.outcome()
    assert [artifact.name for artifact in outcome.artifacts] == [f"{number:04}" for number in range(1_000)]


async def test_a_journal_keeps_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    folder = tmp_path / "files"
    folder.mkdir()
    job = Job(desks.leave_files, args=(str(folder), "fail"), key="one")
    for _ in range(2):
        async with Supervisor(workers=1, journal=journal) as supervisor:
            outcome = await (await supervisor.submit(job)).outcome()
        assert {artifact.name for artifact in outcome.artifacts} == set(EXPECTED)
        assert outcome.failure_class == "desk_broken"


def test_jobs_in_this_process_have_them_too(tmp_path: Path) -> None:
    with BlockingSupervisor(workers=1, isolation="inline") as supervisor:
        outcome = supervisor.submit(desks.leave_files, str(tmp_path), "return").outcome()
    assert {artifact.name for artifact in outcome.artifacts} == set(EXPECTED)
    assert outcome.artifacts[0].name == "report.txt"
