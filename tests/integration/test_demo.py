"""`scripts/demo.py` on a part of the library: a child is killed midway, and every file has one outcome all the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
DEADLINE = 60
FILES = 120


def run_demo(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "demo.py"), *arguments],
        env={**os.environ, "ORCHESTRATOR_VENV": "none", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        **options,
    )


def test_nothing_is_lost_when_a_child_is_killed(tmp_path: Path) -> None:
    done = run_demo("--files", str(FILES), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worker.child_died" in done.stderr
    assert "signal=SIGKILL" in done.stderr or sys.platform == "win32"
    assert f"Progress: {FILES}/{FILES} (100.0%) - {FILES} successful, 0 failed (rate: " in done.stderr
    assert "Largest files" in done.stdout
    assert "Longest functions" in done.stdout
    assert re.search(rf"^  {FILES} files · [\d,]+ lines · [\d.]+ MB · [\d,]+ functions", done.stdout, re.MULTILINE)
    assert f"  ok    {FILES} files in, {FILES} outcomes out, each exactly once\n" in done.stdout
    assert re.search(
        r"^  ok    child \d+ of worker w\d was killed when \d+ files were done$", done.stdout, re.MULTILINE
    )
    assert "FAIL" not in done.stdout
    tables = done.stdout[done.stdout.index("Largest files") : done.stdout.index("Nothing was lost")]
    assert max(map(len, tables.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_too_few_files_are_an_error_in_one_sentence() -> None:
    done = run_demo("--files", "2")
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .* 2 files to parse, and 4 children need one each\.\n", done.stderr)


def outcome(line: int, path: str, attempts: int = 1) -> dict[str, Any]:
    value = {"path": path, "bytes": 10, "lines": 2, "functions": 1, "longest": ["f", 1, 2], "problem": None}
    return {"line": line, "key": None, "status": "succeeded", "value": value, "attempts": attempts, "seconds": 0.1}


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([outcome(1, "/a.py"), outcome(2, "/b.py", attempts=2)], None),
        ([outcome(1, "/a.py")], "2 files in, 1 outcomes out, 1 missing, 0 more than once"),
        (
            [outcome(1, "/a.py"), outcome(2, "/b.py"), outcome(2, "/b.py")],
            "2 files in, 3 outcomes out, 0 missing, 1 more than once",
        ),
        ([outcome(1, "/b.py"), outcome(2, "/a.py")], "2 files in, 2 outcomes out, 2 of another file"),
    ],
)
def test_what_was_lost_or_doubled_is_found(
    outcomes: list[dict[str, Any]], said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from _demo_kill import Kill
    from _demo_report import Report

    output = tmp_path / "outcomes.jsonl"
    output.write_text("".join(f"{json.dumps(each)}\n" for each in outcomes))
    kill = Kill(after=1, pid=7, worker="w1", done=1, successor=8, seconds=0.03)
    checks = Report(["/a.py", "/b.py"], Path("/"), output, kill).checks()
    assert [text for ok, text in checks if not ok] == ([] if said is None else [said])
    repeated = "b.py was being parsed: attempted again, succeeded at attempt 2"
    assert (repeated in [text for _, text in checks]) == (said is None)


def test_a_run_without_a_kill_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from _demo_kill import Kill
    from _demo_report import Report

    output = tmp_path / "outcomes.jsonl"
    output.write_text(json.dumps(outcome(1, "/a.py")))
    checks = Report(["/a.py"], Path("/"), output, Kill(after=1)).checks()
    assert [text for ok, text in checks if not ok] == ["no child was killed: the run was over too soon; try more files"]
