"""`orchestrator doctor` on this host, for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

NAMES = (
    *("python", "package", "dependencies", "command", "child", "loop", "open files", "temp folder"),
    *("playwright", "browser", "ffmpeg"),
)


def run_doctor(*arguments: str, **environment: str) -> tuple[int, str]:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "doctor", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    return done.returncode, done.stdout


def test_one_screen_says_that_children_can_run() -> None:
    code, out = run_doctor()
    assert code == 0, out
    lines = out.splitlines()
    assert len(lines) <= 24
    assert lines[-1] == "This host can run children."
    for name in NAMES:
        assert sum(line[6:].startswith(name) for line in lines) == 1
    assert sys.executable in out
    assert "ran a job in" in out


def test_json_says_the_same() -> None:
    code, out = run_doctor("--json", "--workers", "2")
    report = json.loads(out)
    assert (code, report["ok"]) == (0, True)
    checks = {check["name"]: check for check in report["checks"]}
    assert all(check["status"] in ("ok", "note") for check in checks.values())
    assert checks["child"]["status"] == "ok"
    assert "2 children need" in checks["open files"]["detail"]


def test_a_failing_check_names_the_remedy_and_exits_1(tmp_path: Path) -> None:
    gone = str(tmp_path / "no-browser")
    code, out = run_doctor(ORCHESTRATOR_BROWSER=gone)
    assert code == 1
    assert f"FAIL  browser       ORCHESTRATOR_BROWSER={gone!r} is no program on this machine\n" in out
    assert "remedy: correct or unset ORCHESTRATOR_BROWSER" in out
    assert out.splitlines()[-1] == "1 check failed: see the remedies."


def test_a_command_that_is_no_program_is_not_tried(tmp_path: Path) -> None:
    gone = str(tmp_path / "no-python")
    code, out = run_doctor(ORCHESTRATOR_CHILD_COMMAND=gone)
    assert code == 1
    assert f"FAIL  command       ORCHESTRATOR_CHILD_COMMAND: there is no '{gone}'\n" in out
    assert "remedy: correct or unset ORCHESTRATOR_CHILD_COMMAND\n" in out
    assert " child  " not in out


@pytest.mark.skipif(sys.platform == "win32", reason="a script of a POSIX shell")
def test_a_command_that_is_no_python_fails_at_once_and_says_what_it_said(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("#!/bin/sh\necho this is no Python >&2\nexit 3\n")
    wrong.chmod(0o755)
    code, out = run_doctor(ORCHESTRATOR_CHILD_COMMAND=str(wrong))
    assert code == 1
    (said,) = (line for line in out.splitlines() if line.startswith("FAIL  child"))
    assert "exited with code 3" in said
    assert said.endswith(("it said: this is no Python", ": this is no Python"))
    assert "remedy: let ORCHESTRATOR_CHILD_COMMAND name a Python 3.11 or newer, or unset it\n" in out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit of open files")
def test_few_open_files_name_the_limit_to_set() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -S -n 90; exec "$0" -m orchestrator doctor --json --workers 4', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    report = json.loads(done.stdout)
    files = next(check for check in report["checks"] if check["name"] == "open files")
    assert (done.returncode, report["ok"], files["status"]) == (1, False, "failed")
    assert hard < 96 or files["remedy"] == "ulimit -n 96"


def test_a_loop_that_cannot_start_processes_is_a_note_and_children_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import asyncio\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    _make_subprocess_transport = asyncio.BaseEventLoop._make_subprocess_transport\n"
        "class Policy(asyncio.DefaultEventLoopPolicy):\n"
        "    def new_event_loop(self):\n"
        "        return Loop()\n"
        "asyncio.set_event_loop_policy(Policy())\n"
    )
    code, out = run_doctor(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="ignore::DeprecationWarning")
    assert code == 0
    assert "note  loop          sitecustomize.Loop cannot start processes; a Supervisor moves its engine" in out
    assert "ran a job in" in out
