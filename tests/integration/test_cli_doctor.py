"""`orchestrator doctor` on this host, for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

NAMES = ("python", "package", "dependencies", "command", "child", "loop", "open files", "temp folder", "browser")


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
    assert f"FAIL  browser       ORCHESTRATOR_BROWSER={gone} is no program" in out
    assert "remedy: correct or unset ORCHESTRATOR_BROWSER" in out
    assert out.splitlines()[-1] == "1 check failed: see the remedies."
