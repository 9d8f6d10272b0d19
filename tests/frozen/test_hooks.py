"""A plain `pyinstaller app.py` of an app that knows nothing of freezing: its children, and what they import late."""

from __future__ import annotations

import pytest
from freezing import Builder, run

JOBS = """\
def double(number):
    return 2 * number
"""
APP = """\
import jobs
from orchestrator import BlockingSupervisor

if __name__ == "__main__":
    with BlockingSupervisor(workers=1) as supervisor:
        print("answer", supervisor.run(jobs.double, 21))
"""


@pytest.mark.parametrize("options", [(), ("--onefile",), ("--onedir", "--windowed")], ids=" ".join)
def test_a_job_runs_in_a_child_with_no_change_to_the_app(build: Builder, options: tuple[str, ...]) -> None:
    done = run(build({"app.py": APP, "jobs.py": JOBS}, *options))
    assert (done.returncode, done.stdout) == (0, "answer 42\n"), done.stderr
