"""A program that uses multiprocessing keeps it: in its main, and in its jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import forking_jobs
import pytest

from orchestrator import Supervisor

DEADLINE = 120.0
METHODS = ["spawn"] if sys.platform == "win32" else ["spawn", "forkserver"]


@pytest.mark.parametrize("method", METHODS)
async def test_a_job_runs_processes_and_executors(method: str) -> None:
    async with Supervisor(1) as supervisor:
        assert await supervisor.run(forking_jobs.run_process, method) == [5, 0, True]
        assert await supervisor.run(forking_jobs.run_executor, method) == [3, 6, 9]


SCRIPT = """
import sys
import forking_jobs
from orchestrator import BlockingSupervisor, freeze_support

def here(number):
    return 2 * number

def in_job():
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return list(executor.map(here, [1, 2]))

def main():
    import multiprocessing
    print(forking_jobs.run_process(), forking_jobs.run_executor())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(here, [1, 2]))
    with BlockingSupervisor(1) as supervisor:
        print(supervisor.run(forking_jobs.run_process), supervisor.run(forking_jobs.run_executor))
        print(supervisor.run(in_job))

if __name__ == "__main__":
    freeze_support()
    main()
"""


def run(command: list[str], folder: Path) -> str:
    targets = os.path.dirname(forking_jobs.__file__)
    library = str(Path(__file__).parents[2])
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**inherited, "PYTHONPATH": os.pathsep.join([targets, library])},
        cwd=folder,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_script_and_its_jobs(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    both = "[5, 0, True] [3, 6, 9]"
    assert run([sys.executable, "script.py"], tmp_path).splitlines() == [both, "[2, 4]", both, "[2, 4]"]
