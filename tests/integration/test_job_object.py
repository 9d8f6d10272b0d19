"""A child that is held by a Job Object gets its init frame when all that runs user code is in it; a pretended one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator import Supervisor, _jobobject

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has real ones")

# What a venv's python.exe or the program of a frozen app is: another process, which waits for the child.
STUB = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1] / "targets")}


class PretendedWindows:
    """A job is a list of pids.

    Attributes:
        assigned: All that were put in, in order, each with whether the note was there.
    """

    def __init__(self, note: Path) -> None:
        self.note = note
        self.jobs: dict[int, list[int]] = {}
        self.assigned: list[tuple[int, bool]] = []
        self.closed = 0
        self.refuses = False

    def create(self) -> int:
        self.jobs[len(self.jobs) + 1] = []
        return len(self.jobs)

    def kill_on_close(self, job: int) -> None: ...

    def open(self, pid: int) -> int:
        return -pid

    def assign(self, job: int, process: int) -> None:
        if self.refuses and self.jobs[job]:
            raise PermissionError("Access is denied")
        self.jobs[job].append(-process)
        self.assigned.append((-process, self.note.exists()))

    def pids(self, job: int) -> list[int]:
        return [pid for pid in self.jobs[job] if psutil.pid_exists(pid)]

    def terminate(self, job: int, code: int) -> None:
        for pid in self.pids(job):
            os.kill(pid, signal.SIGKILL)

    def close(self, handle: int) -> None:
        self.closed += handle > 0


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PretendedWindows:
    pretended = PretendedWindows(tmp_path / "note")
    monkeypatch.setattr(_jobobject, "_API", pretended)
    monkeypatch.setenv("DEPARTING_NOTE", str(pretended.note))
    return pretended


async def test_child_behind_a_stub_is_held_before_it_runs_user_code(windows: PretendedWindows) -> None:
    async with Supervisor(
        workers=1, command=[sys.executable, "-c", STUB], env=ENVIRONMENT, preload=["departing:leave_note"]
    ) as supervisor:
        pid = await supervisor.run("departing:pid")
        (worker,) = supervisor.statistics().workers
    assert worker.pid != pid
    assert windows.assigned == [(worker.pid, False), (pid, False)]
    assert windows.note.exists()
    assert windows.closed == 1


async def test_child_without_a_stub_is_put_in_once(windows: PretendedWindows) -> None:
    async with Supervisor(workers=1, preload=["departing:leave_note"]) as supervisor:
        pid = await supervisor.run("departing:pid")
    assert windows.assigned == [(pid, False)]
    assert windows.closed == 1


async def test_refusal_is_told_and_the_child_serves(
    windows: PretendedWindows, caplog: pytest.LogCaptureFixture
) -> None:
    windows.refuses = True
    async with Supervisor(workers=1, command=[sys.executable, "-c", STUB], env=ENVIRONMENT) as supervisor:
        await supervisor.run("departing:pid")
    assert sum("child.not_in_job" in record.getMessage() for record in caplog.records) == 1
