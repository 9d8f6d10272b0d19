"""`orchestrator run --journal`: killed at any moment and started again, each line of the input has one outcome."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.testing import nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORK = """
import os, time
from orchestrator import child

def note(line):
    fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\\n".encode())
    os.close(fd)

def square(x):
    note(f"ran {x}")
    time.sleep(0.001)
    return x * x

def publish(x):
    note(f"entered {x}")
    if not child.effect_begin("post").done:
        note(f"published {x}")
        child.effect_done("post", x)
    return x * x

def deadly(x):
    if x == 2 and not os.path.exists("cured"):
        os.kill(os.getpid(), 9)
    return x * x
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    write_rows(tmp_path, range(1, 41))
    with nothing_left():
        yield tmp_path


def write_rows(folder: Path, numbers: Any) -> None:
    (folder / "in.jsonl").write_text("".join(f"{number}\n" for number in numbers))


def command(*options: str, target: str = "work:square", output: str | None = "out.jsonl") -> list[str]:
    fixed = ["in.jsonl", "--target", target, "--journal", "journal", "--progress", "none", "--workers", "2"]
    return [sys.executable, "-m", "orchestrator", "run", *fixed, *(["-o", output] if output else []), *options]


def run(*options: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*options, **how), capture_output=True, text=True, timeout=120, check=False)


def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def log(folder: Path) -> Counter[str]:
    return Counter((folder / "log").read_text().splitlines())


def test_the_same_command_again_runs_nothing_again(folder: Path) -> None:
    first = run()
    assert first.returncode == 0, first.stderr
    lines = (folder / "out.jsonl").read_text()
    second = run()
    assert second.returncode == 0, second.stderr
    assert "40 of them were done by an earlier run." in second.stderr
    assert (folder / "out.jsonl").read_text() == lines
    assert set(log(folder).values()) == {1}


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_was_killed_while_it_made_its_journal_goes_on(folder: Path, begun: bool) -> None:
    (folder / "journal").touch()
    if begun:
        connection = sqlite3.connect(folder / "journal")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        assert (folder / "journal").stat().st_size > 0
    done = run()
    assert done.returncode == 0, done.stderr
    assert len(outcomes(folder)) == 40


def test_outcomes_are_there_again_for_another_output(folder: Path) -> None:
    assert run("--ordered").returncode == 0
    before = (folder / "out.jsonl").read_text()
    (folder / "out.jsonl").unlink()
    assert run("--ordered").returncode == 0
    assert (folder / "out.jsonl").read_text() == before
    third = run("--ordered", output=None)
    assert third.stdout == before
    assert run("--overwrite", "--ordered").returncode == 0
    assert (folder / "out.jsonl").read_text() == before
    assert set(log(folder).values()) == {1}
    (folder / "other.jsonl").write_text("{}\n")
    refused = run(output="other.jsonl")
    assert refused.returncode == 2
    assert "replace it, with all outcomes so far, by --overwrite" in refused.stderr


@pytest.mark.parametrize(("target", "ordered"), [("work:square", False), ("work:publish", True)])
@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_killed_at_random_moments(folder: Path, target: str, ordered: bool, kills: int) -> None:
    rows = 100 * kills
    write_rows(folder, range(1, rows + 1))
    chance = random.Random(f"{kills} {target}")
    effects = [] if target == "work:square" else ["--jobs"]
    if effects:
        described = ({"target": target, "args": [number], "effects": "external"} for number in range(1, rows + 1))
        (folder / "in.jsonl").write_text("".join(f"{json.dumps(job)}\n" for job in described))
    arguments = command(*(["--ordered"] if ordered else []), target=target)
    if effects:
        at = arguments.index("--target")
        del arguments[at : at + 2]
    told: dict[int, str] = {}
    killed = 0
    while True:
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        try:
            errors = process.communicate(timeout=chance.uniform(0.1, 1.5) if killed < kills else 120)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        else:
            assert process.returncode in (0, 1), errors
            break
        if (folder / "out.jsonl").exists():
            for line in (folder / "out.jsonl").read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    assert told.setdefault(json.loads(line)["line"], line) == line
    found = outcomes(folder)
    assert sorted(outcome["line"] for outcome in found) == list(range(1, rows + 1))
    if ordered:
        assert [outcome["line"] for outcome in found] == list(range(1, rows + 1))
    lines = (folder / "out.jsonl").read_text().splitlines(keepends=True)
    kept = {outcome["line"]: line for outcome, line in zip(found, lines, strict=True)}
    assert all(kept[number] == line for number, line in told.items()), "an outcome that was told is another now"
    assert {outcome["status"] for outcome in found} <= {"succeeded", "indeterminate"}
    if effects:
        assert max(count for line, count in log(folder).items() if line.startswith("published")) == 1
        assert max(log(folder).values()) == 1, "an external job ran twice"
    else:
        assert all(outcome["value"] == outcome["line"] ** 2 for outcome in found)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("line", 'line 17 of its input was {"args":[17]}, now it is {"args":[170]}'),
        ("target", "its target was 'work:square', now it is 'work:publish'"),
        ("shorter", "bytes, now it has"),
        ("csv", "its format was 'jsonl', now it is 'csv'"),
    ],
)
def test_another_run_is_refused(folder: Path, change: str, problem: str) -> None:
    assert run().returncode == 0
    before = (folder / "out.jsonl").read_bytes(), (folder / "journal").read_bytes()
    options: list[str] = []
    if change == "line":
        write_rows(folder, [*range(1, 17), 170, *range(18, 41)])
    elif change == "shorter":
        write_rows(folder, range(1, 40))
    elif change == "csv":
        options = ["--format", "csv"]
    done = run(*options, target="work:publish" if change == "target" else "work:square")
    assert done.returncode == 2
    assert problem in done.stderr
    assert "name another journal" in done.stderr
    assert ((folder / "out.jsonl").read_bytes(), (folder / "journal").read_bytes()) == before


def test_another_input_on_a_pipe_ends_the_run(folder: Path) -> None:
    arguments = [argument for argument in command(output=None) if argument != "in.jsonl"]
    first = subprocess.run(arguments, input="1\n2\n3\n", capture_output=True, text=True, timeout=60, check=False)
    assert first.returncode == 0, first.stderr
    again = subprocess.run(arguments, input="1\n5\n3\n", capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 1
    assert "line 2 of the input is not what the journal has" in again.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--resume"], "--resume: there is no journal"),
        (["--append"], "--append: contradicts --journal"),
        (["--journal", "nowhere/journal"], "is in a folder that does not exist"),
        (["--journal", "in.jsonl"], "is the input"),
        (["--journal", "work.py"], "work.py"),
        (["--durability", "solid"], "--durability"),
    ],
)
def test_wrong_usage(folder: Path, options: list[str], problem: str) -> None:
    done = run(*options)
    assert done.returncode in (1, 2)
    assert problem in done.stderr
    assert not (folder / "out.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_a_second_process_is_refused(folder: Path) -> None:
    (folder / "hold").mkdir()
    os.mkfifo(folder / "gate")
    (folder / "work.py").write_text(WORK + "\ndef wait(x):\n    return open('gate').read()\n")
    write_rows(folder, [1])
    process = subprocess.Popen(command(target="work:wait"), stderr=subprocess.PIPE, text=True)
    try:
        with (folder / "gate").open("w") as gate:  # opens when the job reads: the first one has the journal
            second = run(target="work:wait")
            assert second.returncode == 75
            assert "another" in second.stderr
            gate.write("done")
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert outcomes(folder)[0]["value"] == "done"


def test_a_quarantined_line_that_is_released_runs_again(folder: Path) -> None:
    write_rows(folder, range(1, 5))
    assert run("--retries", "5", target="work:deadly").returncode == 1
    assert {outcome["line"]: outcome["status"] for outcome in outcomes(folder)}[2] == "quarantined"
    told = (folder / "out.jsonl").read_text()
    (folder / "out.jsonl").unlink()
    assert run("--retries", "5", target="work:deadly").returncode == 1
    assert sorted((folder / "out.jsonl").read_text().splitlines()) == sorted(told.splitlines()), "told otherwise"
    orchestrator = [sys.executable, "-m", "orchestrator", "quarantine"]
    shown = subprocess.run([*orchestrator, "list", "journal", "--json"], capture_output=True, text=True, check=True)
    number = str(json.loads(shown.stdout)["quarantined"][0]["id"])
    subprocess.run([*orchestrator, "release", "journal", number], capture_output=True, check=True)
    (folder / "cured").touch()
    done = run("--retries", "5", target="work:deadly")
    assert done.returncode == 0, done.stderr
    assert sorted((outcome["line"], outcome["value"]) for outcome in outcomes(folder)) == [
        (1, 1),
        (2, 4),
        (3, 9),
        (4, 16),
    ]


def test_a_half_written_outcome_is_cut_off(folder: Path) -> None:
    assert run("--ordered").returncode == 0
    whole = (folder / "out.jsonl").read_bytes()
    (folder / "out.jsonl").write_bytes(whole[:-20])
    assert run("--ordered").returncode == 0
    assert (folder / "out.jsonl").read_bytes() == whole


def test_foreign_lines_in_the_output_are_refused(folder: Path) -> None:
    assert run().returncode == 0
    with (folder / "out.jsonl").open("a") as file:
        file.write("a note\n")
    done = run()
    assert done.returncode == 2
    assert "line 41 of 'out.jsonl' is no outcome" in done.stderr


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupted_run_goes_on(folder: Path, interrupts: int) -> None:
    os.mkfifo(folder / "gate")
    (folder / "work.py").write_text(
        WORK + "\ndef wait(x):\n    note(f'ran {x}')\n    return open('gate').read() and x if x == 1 else x\n"
    )
    process = subprocess.Popen(command("--ordered", target="work:wait"), stderr=subprocess.PIPE, text=True)
    try:
        with (folder / "gate").open("w") as gate:  # opens when the first job reads
            assert process.stderr is not None
            said = ""
            for number in range(1, interrupts + 1):
                process.send_signal(signal.SIGINT)
                while said.count("SIGINT:") < number:
                    line = process.stderr.readline()
                    assert line, f"it ended, and said: {said}"
                    said += line
            if interrupts == 1:
                gate.write("go on")
        said += process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "The same command again goes on from here." in said or interrupts == 1
    assert "cancelled" not in {outcome["status"] for outcome in outcomes(folder)}
    (folder / "gate").unlink()
    (folder / "gate").write_text("go on")
    done = run("--ordered", target="work:wait")
    assert done.returncode == 0, done.stderr
    assert [outcome["line"] for outcome in outcomes(folder)] == list(range(1, 41))
    assert {outcome["status"] for outcome in outcomes(folder)} == {"succeeded"}
    again = {line for line, count in log(folder).items() if count > 1}
    assert again <= ({"ran 1"} if interrupts == 2 else set())


def test_with_ordered_no_outcome_overtakes_a_line_that_is_left_open(folder: Path) -> None:
    for name in ("gate", "reached"):
        os.mkfifo(folder / name)
    # Lines 2 and 3 are done, by the other child, when 1 and 4 still run.
    (folder / "work.py").write_text(
        WORK + "\ndef wait(x):\n    if x == 4:\n        open('reached', 'w').write('x')\n"
        "    return open('gate').read() and x if x in (1, 4) else x\n"
    )
    process = subprocess.Popen(command("--ordered", target="work:wait"), stderr=subprocess.PIPE, text=True)
    try:
        assert (folder / "reached").read_text() == "x"
        said = ""
        for number in (1, 2):
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while said.count("SIGINT:") < number:
                line = process.stderr.readline()
                assert line, f"it ended, and said: {said}"
                said += line
        said += process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert outcomes(folder) == []
    for name in ("gate", "reached"):
        (folder / name).unlink()
        (folder / name).write_text("go on")
    done = run("--ordered", target="work:wait")
    assert done.returncode == 0, done.stderr
    assert [outcome["line"] for outcome in outcomes(folder)] == list(range(1, 41))
