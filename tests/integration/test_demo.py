"""`scripts/demo.py` in small: a child and a browser are killed midway, and every file and pin is there once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchestrator_adapters.publisher import Pin, read_pins
from pin_boards import PASSWORD, USERNAME, PinBoard

from orchestrator import Outcome
from orchestrator._models import Status

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
DEADLINE = 300
FILES = 120
PINS = 6


def run_demo(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "demo.py"), *arguments],
        env={**(os.environ if env is None else env), "ORCHESTRATOR_VENV": "none", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
        **options,
    )


def test_nothing_is_lost_when_a_child_is_killed(tmp_path: Path) -> None:
    done = run_demo("--files", str(FILES), "--pins", "0", cwd=tmp_path)
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


def test_pins_are_published_once_although_a_browser_is_killed(tmp_path: Path, browser_path: str) -> None:
    folder = tmp_path / "demo"
    # Without a home, as services run: nothing may be left where it happens to stand.
    homeless = {**os.environ, "HOME": "", "ORCHESTRATOR_BROWSER": browser_path}
    done = run_demo("--files", "20", "--pins", str(PINS), "--folder", str(folder), env=homeless, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"  ok    {PINS} pins in, {PINS} on the board, each exactly once\n" in done.stdout
    assert "  ok    every outcome names the pin that the board has\n" in done.stdout
    assert re.search(
        r"^  ok    browser \d+ of child \d+ \(w\d\) was killed, pins published by then: \d$", done.stdout, re.MULTILINE
    )
    assert "  ok    every child and every browser has ended\n" in done.stdout
    assert "FAIL" not in done.stdout
    assert f"Published: {PINS}/{PINS} - " in done.stderr
    assert "on purpose" in done.stderr
    assert list(tmp_path.iterdir()) == [folder]
    report = folder / "report.html"
    assert str(report) in done.stdout
    page = report.read_text("utf-8")
    assert page.count("data:image/") >= PINS
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a browser is also looked for where systems put it")
def test_without_a_browser_the_first_act_is_all_and_says_why(tmp_path: Path) -> None:
    # Nothing is there, and nothing can be installed.
    lone = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if name in ("SYSTEMROOT", "TEMP", "TMP", "TMPDIR")}
    folder = tmp_path / "demo"
    done = run_demo("--files", "20", "--folder", str(folder), env={**kept, **lone}, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 files in, 20 outcomes out, each exactly once" in done.stdout
    assert "There is no browser" in done.stdout
    assert "Left out: it needs a browser." in done.stdout
    assert not (folder / "report.html").exists()


def test_without_the_packages_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _demo_publish

    monkeypatch.setattr(_demo_publish, "PACKAGES", ("json", "no_such_package"))
    problem = _demo_publish.missing(lambda line: None)
    assert problem is not None and problem.startswith("this Python lacks some of: json no-such-package; install them")


@pytest.mark.parametrize(
    ("published", "said"),
    [
        ([0, 1], None),
        ([0], "1 missing ['Birch Lake at dawn']"),
        ([0, 1, 1], "1 more than once ['Birch Lake at dawn']"),
        ([0, 1, 2], "1 unknown"),
    ],
)
def test_pins_that_are_missing_or_doubled_are_found(
    published: list[int], said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from _demo_browser import BrowserKill
    from _demo_pin_report import PinReport
    from _demo_pins import make_pins

    made = [pin for pin in read_pins(make_pins(tmp_path, 3)) if isinstance(pin, Pin)]
    with PinBoard() as board, httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client:
        client.post("/login", data={"username": USERNAME, "password": PASSWORD})
        for index in published:
            pin = made[index]
            data = {"title": pin.title, "board": pin.board, "link": f"{pin.link}?mark={pin.mark}"}
            image = Path(pin.image_path).read_bytes()
            assert client.post("/new", data=data, files={"image": ("i.png", image)}).status_code == 303
        ids = {pin.title: board.pins(mark=pin.mark) for pin in made[:2]}
        outcomes = [
            Outcome(status=Status.SUCCEEDED, job_id=1, key=key, attempts=1, value={"id": str(found[0]["id"])})
            for key, found in ids.items()
            if found
        ]
        kill = BrowserKill(after=1, pid=7, child=6, worker="w1", at=1)
        checks = PinReport(made[:2], outcomes, kill, board.url).checks()
    wrong = [text for ok, text in checks if not ok]
    assert bool(wrong) == (said is not None)
    assert said is None or said in wrong[0]
