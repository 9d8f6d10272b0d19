"""`scripts/chaos.py`: a host is killed, stopped and lied to, and nothing is lost; and what would be lost is found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator._store_file import open_journal

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes through /proc")


def run_chaos(folder: Path, deadline: float, *arguments: str) -> dict[str, Any]:
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "chaos.py"), "--report", str(report), *arguments],
        env={**os.environ, "ORCHESTRATOR_VENV": "none", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("python scripts/chaos.py ")
    assert "Everything held." in done.stdout
    # What held need not be studied.
    assert [path.name for path in folder.iterdir()] == ["report.json"]
    figures: dict[str, Any] = json.loads(report.read_text())
    assert all(check["holds"] for check in figures["checks"])
    return figures


def test_nothing_is_lost_in_a_short_run(tmp_path: Path) -> None:
    figures = run_chaos(tmp_path, 150, "--quick", "--seed", "6")
    assert figures["lives"] >= 3
    for name in ("child killed", "child terminated", "guardian killed", "host killed", "job hung, with a stray"):
        assert figures["faults"][name]["count"] >= 1, name


@pytest.mark.soak
@pytest.mark.parametrize("seed", [101, 102, 103])
def test_nothing_is_lost_in_a_long_run(tmp_path: Path, seed: int) -> None:
    figures = run_chaos(tmp_path, 900, "--seed", str(seed))
    assert figures["lives"] >= 4
    assert figures["faults"]["child killed"]["count"] >= 30


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The books of a host that nobody disturbed."""
    folder = tmp_path_factory.mktemp("books")
    (folder / "told").touch()
    numbers = "--seed 1 --life 1 --jobs 150 --workers 2"
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "_chaos_host.py"), str(folder), *numbers.split()],
        env={**os.environ, "ORCHESTRATOR_CHAOS_FOLDER": str(folder), "ORCHESTRATOR_CHAOS_LIFE": "test/1/"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr)
    return folder


def copy_of(folder: Path, place: Path) -> Path:
    for path in folder.iterdir():
        if path.is_file():
            (place / path.name).write_bytes(path.read_bytes())
        else:
            (place / path.name).symlink_to(path)
    return place


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from _chaos_check import Books, check
    from _chaos_faults import Strikes

    return [each.text for each in check(Books(folder, 1, 1), Strikes()) if not each.holds]


def change(folder: Path, statement: str) -> None:
    database = open_journal(str(folder / "journal"), "power", create=False)
    assert database.connection.execute(statement).rowcount == 1
    database.close()


def drop_told_job(folder: Path) -> None:
    change(folder, "DELETE FROM jobs WHERE id = (SELECT max(id) FROM jobs WHERE status = 'succeeded')")


def open_again(folder: Path) -> None:
    change(folder, "UPDATE jobs SET status = NULL WHERE id = (SELECT max(id) FROM jobs WHERE status = 'succeeded')")


def change_value(folder: Path) -> None:
    change(folder, "UPDATE jobs SET value = '[0,0]' WHERE id = (SELECT min(id) FROM jobs WHERE key LIKE 'wait-%')")


def lease_again(folder: Path) -> None:
    last = "(SELECT max(id) FROM jobs WHERE key LIKE 'pure-%' AND status = 'succeeded')"
    change(folder, f"INSERT INTO attempts SELECT {last}, 10000, 2, 'w1', 1, 'started', NULL, NULL, 0")


def forget_a_burial(folder: Path) -> None:
    change(folder, "UPDATE births SET ended = NULL WHERE marker = (SELECT max(marker) FROM births)")


def note_again(kind: str) -> Callable[[Path], None]:
    def note(folder: Path) -> None:
        lines = (folder / "notes").read_text().splitlines()
        line = next(line for line in lines if line.startswith(kind))
        (folder / "notes").write_text("\n".join([*lines, line]) + "\n")

    return note


def tell_of_a_bug(folder: Path) -> None:
    with (folder / "events").open("a") as file:
        file.write('{"event": "supervisor.failed", "life": 1}\n')


def die_of_nothing(folder: Path) -> None:
    event = {"event": "worker.child_died", "life": 1, "pid": 1, "reason": "exit", "exit_code": 1, "worker": "w1"}
    with (folder / "events").open("a") as file:
        file.write(json.dumps(event) + "\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop_told_job, "submits were lost"),
        (drop_told_job, "outcomes were changed or lost"),
        (open_again, "+ 1 open"),
        (change_value, "outcomes were changed or lost"),
        (change_value, "with the value [0, 0]"),
        (lease_again, "values are of a lease that had ended"),
        (forget_a_burial, "1 of them without an end"),
        (note_again("published"), "effects were made twice"),
        (note_again("ran once"), "at_most_once jobs ran twice"),
        (note_again("ran pure"), "ran twice with one lease"),
        (tell_of_a_bug, "supervisor.failed"),
        (die_of_nothing, "children died of nothing known: child 1 exit 1"),
    ],
)
def test_what_does_not_hold_is_found(
    undisturbed: Path,
    spoil: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = copy_of(undisturbed, tmp_path)
    assert problems(books, monkeypatch) == []
    spoil(books)
    assert any(said in problem for problem in problems(books, monkeypatch))


def test_the_page_of_faults_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "explanation" / "faults.md").read_text("utf-8")
    named = set(re.findall(r"(test_\w+\.py)::(\w+)", page))
    assert len(named) > 30
    for file, name in named:
        [path] = (ROOT / "tests").rglob(file)
        assert re.search(rf"^(async def |def |class )?{name}\b", path.read_text("utf-8"), re.MULTILINE), (
            f"{file}::{name}"
        )


def test_faults_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from _chaos_faults import RATES, point_of, schedule
    from _chaos_jobs import KINDS, plan

    assert schedule(5, 15, 4) == schedule(5, 15, 4) != schedule(6, 15, 4)
    assert {fault.name for fault in schedule(5, 15, 4)} == set(RATES)
    assert [point_of(5, life) for life in range(1, 40)] == [point_of(5, life) for life in range(1, 40)]
    assert {plan(5, number)[0] for number in range(5_000)} == set(KINDS)
