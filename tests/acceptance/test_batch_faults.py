"""A batch on a host that fails: full disks, folders that take nothing, damaged journals, no children to be had."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import batch_host
import pytest
from orchestrator_adapters.batch import Batch, BatchError

from orchestrator import _child_process
from orchestrator.exceptions import LaunchError

DEADLINE = 60

posix = pytest.mark.skipif(sys.platform == "win32", reason="bounds on the size of files")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def batch(target: Any, source: Any, sink: Any = "out.jsonl", **options: Any) -> Batch:
    params = {"multiprocessing": {"worker_count": 2, **options.pop("mp", {})}}
    return Batch(target, source, sink, **{"params": params, "progress": "none", **options})


def host(**given: Any) -> tuple[int, dict[str, Any], str]:
    """Run a batch in a process of its own; return its exit code, its report and what it said."""
    done = subprocess.run(
        [sys.executable, batch_host.__file__, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(Path(batch_host.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def records(count: int) -> list[Any]:
    return [{"id": number, "text": "x" * 200} for number in range(count)]


def write(path: str, values: list[Any]) -> str:
    Path(path).write_text("".join(f"{json.dumps(value)}\n" for value in values), "utf-8")
    return path


@posix
@pytest.mark.parametrize("fullness", [40_000, 150_000])
def test_full_disk_is_one_message_and_nothing_is_lost(fullness: int) -> None:
    source = write("in.jsonl", records(2000))
    write("out.jsonl", ["of an earlier run"])
    code, report, said = host(target="enriching:same", source=source, sink="out.jsonl", fullness=fullness)
    assert code == 75 and "disk" in report["reason"], said
    assert "Traceback" not in said
    assert Path("out.jsonl").read_text("utf-8") == '"of an earlier run"\n' and not list(Path().rglob("*.partial"))
    before = report["succeeded"]
    code, report, _ = host(target="enriching:same", source=source, sink="out.jsonl")
    assert code == 0 and report["resumed"] == before and report["succeeded"] == 2000
    assert [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()] == records(2000)


@posix
def test_disk_that_is_full_at_the_end() -> None:
    # Results are larger than records: the journal of many small pages fits, and the one large output does not.
    source = write("in.jsonl", records(2000))
    assert host(target="enriching:same", source=source, sink="out.jsonl")[0] == 0
    Path("out.jsonl").unlink()
    code, report, _ = host(target="enriching:same", source=source, sink="out.jsonl", fullness=100_000)
    assert code == 75 and not Path("out.jsonl").exists() and "out.jsonl" in report["reason"]
    assert host(target="enriching:same", source=source, sink="out.jsonl")[0] == 0


def test_folder_that_takes_no_file() -> None:
    Path("taken").write_text("a file", "utf-8")
    with pytest.raises(BatchError, match="taken") as caught:
        batch("enriching:same", [1], folder="taken").run_blocking()
    assert caught.value.exit_code == 2
    with pytest.raises(BatchError, match="no_such_folder"):
        batch("enriching:same", [1], "no_such_folder/out.jsonl").run_blocking()


def test_damaged_and_foreign_journals_are_left_as_they_are() -> None:
    report = batch("enriching:same", [1], name="one").run_blocking()
    journal = Path(report.folder, "journal.db")
    for content in (b"SQLite format 3\0" + b"\xff" * 4096, b"no database" * 1000):
        journal.write_bytes(content)
        with pytest.raises(BatchError, match="damaged") as caught:
            batch("enriching:same", [1], name="one").run_blocking()
        assert caught.value.exit_code == 2 and journal.read_bytes() == content
    journal.unlink()
    with sqlite3.connect(journal) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(BatchError, match="no journal of a batch"):
        batch("enriching:same", [1], name="one").run_blocking()


def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spawn(*_: object, **__: object) -> NoReturn:
        raise LaunchError("no processes here")

    monkeypatch.setattr(_child_process, "spawn", spawn)


def test_host_without_children_goes_on_in_this_process_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    no_children(monkeypatch)
    taken: list[int] = []
    report = batch("enriching:same", range(30), taken.append).run_blocking()
    assert report.exit_code == 0 and taken == list(range(30))
    assert report.in_process == 30 and report.in_children == 0
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning:")]
    assert len(said) == 1 and "in this process" in said[0] and "no processes here" in said[0]
    assert "30 in this process" in report.summary()


def test_host_without_children_and_without_fallback_ends_the_run_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        no_children(patch)
        report = batch("enriching:same", range(30), mp={"fallback": "none"}).run_blocking()
    assert report.exit_code == 75 and "no processes here" in (report.reason or "")
    assert not Path("out.jsonl").exists() and report.pending == 30
    assert batch("enriching:same", range(30)).run_blocking().exit_code == 0


@pytest.mark.soak
@pytest.mark.parametrize("fallback", ["in_process", "none"])
def test_pool_that_breaks(fallback: str, capfd: pytest.CaptureFixture[str]) -> None:
    # No child is ever ready in time.
    options = {"start_timeout": 0.001, "worker_count": 1, "fallback": fallback}
    for _ in range(5):
        report = batch("enriching:same", range(30), mp=options, fresh=True).run_blocking()
        if not report.in_children:
            break  # else one was quicker than the timer, as happens on a quiet machine
    reason = capfd.readouterr().err if fallback == "in_process" else report.reason or ""
    assert "not ready within 0.001 s" in reason
    assert (report.exit_code, report.in_process) == ((0, 30) if fallback == "in_process" else (75, 0))


@pytest.mark.soak
def test_children_that_only_die_end_the_run() -> None:
    doomed = [{"id": number, "log": str(Path("log").absolute()), "first": "die", "times": 9} for number in range(30)]
    report = batch("enriching:obey", doomed).run_blocking()
    assert report.exit_code == 75 and "children keep dying" in (report.reason or "") and "SIGKILL" in report.reason


def test_two_runs_in_one_folder_at_once_share_no_cache_and_both_end(capfd: pytest.CaptureFixture[str]) -> None:
    import threading

    go = Path("go").absolute()
    held = [{"id": number, "log": str(Path("log").absolute()), "until": str(go)} for number in range(3)]
    first = batch("enriching:hold", held, "first.jsonl", metrics="first.json", failed="first.failed.jsonl")
    thread = threading.Thread(target=first.run_blocking)
    thread.start()
    try:
        while not first.snapshot().running or not Path("log").exists():
            pass
        report = batch("enriching:same", [1], "second.jsonl").run_blocking()
        assert report.exit_code == 0 and "cache" in capfd.readouterr().err
    finally:
        go.touch()
        thread.join()
    assert Path("first.jsonl").read_text("utf-8") == "0\n1\n2\n"
