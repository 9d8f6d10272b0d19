"""A supervisor with a journal that is killed at any point: nothing lost, nothing told twice, no effect made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import durable
import pytest

from orchestrator import Job, Journal, Limit, Supervisor

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 12
# Windows has no signals: the process ends itself with the number that stands for the hardest one it has.
KILLED = 15 if sys.platform == "win32" else -9
POINTS = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C12", "C14"]


@dataclass
class Program:
    """The program of `durable`, with its files."""

    folder: Path
    kind: str
    durability: str = "process"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self) -> list[str]:
        files = [str(self.folder / "journal"), str(self.log), str(self.out)]
        return [sys.executable, durable.__file__, *files, str(COUNT), self.kind, self.durability]

    def run(self, fault: str = "") -> int:
        """Run it to its end, or to the fault."""
        env = {**os.environ, "ORCHESTRATOR_FAULT": fault}
        if not fault:
            del env["ORCHESTRATOR_FAULT"]
        done = subprocess.run(self.command(), env=env, timeout=60, capture_output=True, text=True, check=False)
        assert done.returncode in ((0,) if not fault else (0, KILLED)), done.stderr
        return done.returncode

    def lines(self, kind: str) -> Counter[str]:
        """Return how often jobs noted that they did something."""
        if not self.log.exists():
            return Counter()
        return Counter(line for line in self.log.read_text().splitlines() if line.startswith(kind))

    def outcomes(self) -> dict[str, list[list[Any]]]:
        """Return what callers were told, by key."""
        told: dict[str, list[list[Any]]] = {}
        for line in self.out.read_text().splitlines():
            if line.startswith("["):
                outcome = json.loads(line)
                told.setdefault(outcome[0], []).append(outcome)
        return told


# The others are of the long lane.
QUICK = {
    "double": POINTS,
    "publish": ["C3", "C5", "C6", "C7"],
    "reconciled": ["C6", "C7"],
    "once": ["C3", "C9"],
}
ALL = [
    pytest.param(kind, point, marks=() if point in QUICK[kind] else pytest.mark.soak, id=f"{kind}-{point}")
    for kind in QUICK
    for point in POINTS
]


@pytest.mark.parametrize(("kind", "point"), ALL)
def test_killed_at_a_point_and_started_again(tmp_path: Path, kind: str, point: str) -> None:
    program = Program(tmp_path, kind)
    died = program.run(f"{point}:kill:3") == KILLED
    before = program.lines("ran"), program.out.read_text() if program.out.exists() else ""
    assert program.run() == 0

    told = program.outcomes()
    assert set(told) == {f"job-{number}" for number in range(COUNT)}
    for key, outcomes in told.items():
        # Told again, an outcome is the same: the same status, value and number.
        assert len({json.dumps(outcome) for outcome in outcomes}) == 1, key
    statuses = Counter(outcomes[0][1] for outcomes in told.values())
    if kind in ("double", "reconciled"):
        assert statuses == {"succeeded": COUNT}
    else:
        assert statuses["succeeded"] >= COUNT - 4
        assert set(statuses) <= {"succeeded", "indeterminate"}
    if kind == "once":
        assert max(program.lines("once").values(), default=0) <= 1
    assert max(program.lines("published").values(), default=0) <= 1
    if kind == "double" and died:
        # What was told as done before is not done again.
        finished = {line.split('"')[1] for line in before[1].splitlines() if line.startswith("[")}
        for key in finished:
            assert (
                program.lines("ran")[f"ran {key.removeprefix('job-')}"] == before[0][f"ran {key.removeprefix('job-')}"]
            )


def test_the_points_are_reached(tmp_path: Path) -> None:
    reached = set()
    for point in POINTS:
        folder = tmp_path / point
        folder.mkdir()
        if Program(folder, "publish").run(f"{point}:kill") == KILLED:
            reached.add(point)
    assert reached == set(POINTS)


@pytest.mark.parametrize("durability", ["power", "process", "none"])
def test_a_run_that_nobody_disturbs(tmp_path: Path, durability: str) -> None:
    program = Program(tmp_path, "double", durability)
    assert program.run() == 0
    assert program.run() == 0
    assert set(program.lines("ran").values()) == {1}
    assert all(len(outcomes) == 2 and outcomes[0] == outcomes[1] for outcomes in program.outcomes().values())


def test_killed_while_jobs_run_and_what_they_started_is_swept(tmp_path: Path) -> None:
    program = Program(tmp_path, "slow")
    process = subprocess.Popen(program.command())
    try:
        while sum(program.lines("slow").values()) < 2:
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert program.run() == 0
    assert set(program.lines("slow").values()) <= {1, 2}
    assert {outcomes[0][1] for outcomes in program.outcomes().values()} == {"succeeded"}


async def test_a_job_that_cannot_be_run_now_stays_open(tmp_path: Path) -> None:
    path, log = tmp_path / "journal", str(tmp_path / "log")
    limit = Limit("api", concurrency=1)
    first = Job("time:sleep", args=(60,), key="first", limits={"api": 1})
    job = Job(durable.double, args=(log, 1), key="a", limits={"api": 1})
    with pytest.raises(KeyboardInterrupt):
        async with Supervisor(workers=1, journal=Journal(path), limits=[limit]) as supervisor:
            await supervisor.submit(first)
            await supervisor.submit(job)
            raise KeyboardInterrupt
    async with Supervisor(workers=1, journal=Journal(path)) as supervisor:
        assert supervisor.statistics().submitted == 0
    async with Supervisor(workers=1, journal=Journal(path), limits=[limit]) as supervisor:
        assert supervisor.statistics().submitted == 2
        (await supervisor.submit(first)).cancel()
        handle = await supervisor.submit(job)
        assert (handle.id, await handle.result()) == (2, 2)
