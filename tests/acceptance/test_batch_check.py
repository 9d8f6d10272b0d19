"""`orchestrator batch check`: each thing that a run needs is looked at, and what is missing named with its remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 60
HANDLERS = """
from orchestrator import child


def enrich(record):
    raise AssertionError("a check calls nothing")


async def enrich_async(record, more=None): ...


def two(first, second): ...


def several(record):
    yield record


nothing = 3


def kind(error):
    return None
"""


class Folder:
    """A project with a handler and an input."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "handlers.py").write_text(HANDLERS)
        (path / "in.jsonl").write_text('{"id": 1}\n{"id": 2}\n')

    def check(self, *options: str, **environment: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """Return the exit code and the checks by name."""
        done = self.run("--json", *options, **environment)
        assert done.stderr == ""
        found = json.loads(done.stdout)
        assert found["ok"] == (done.returncode == 0)
        by_name: dict[str, list[dict[str, Any]]] = {}
        for each in found["checks"]:
            by_name.setdefault(each.pop("name"), []).append(each)
        return done.returncode, by_name

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        defaults = [] if "--target" in options else ["--target", "handlers:enrich"]
        defaults += [] if "--input" in options else ["--input", "in.jsonl"]
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", "batch", "check", *defaults, *options],
            cwd=self.path,
            env={**os.environ, **environment},
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE,
            check=False,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_all_is_well(folder: Folder) -> None:
    (folder.path / "params.yaml").write_text(
        "multiprocessing: {worker_count: 2, secrets: [TOKEN]}\nlimits: {api: {rate: 50}, slots: {concurrency: 1}}\n"
    )
    options = ["--params", "params.yaml", "--output", "out.jsonl", "--secret", "OTHER", "--classify", "handlers:kind"]
    done = folder.run(*options, TOKEN="very", OTHER="secret")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "ok    params    params.yaml: 2 children, at most 6 requests at once",
        "ok    secret    TOKEN is set",
        "ok    secret    OTHER is set",
        "ok    target    handlers:enrich, sync, imported in a child",
        "ok    limit     api grants permits",
        "ok    limit     slots grants permits",
        "ok    classify  handlers:kind",
        "ok    folder    .orchestrator can be written",
        "ok    output    out.jsonl can be written",
        "ok    input     in.jsonl: 2 records",
        "The batch can run.",
    ]
    # Nothing was written, not even a folder.
    assert sorted(path.name for path in folder.path.iterdir() if path.name != "__pycache__") == [
        "handlers.py",
        "in.jsonl",
        "params.yaml",
    ]


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("handlers", "'handlers' is not a target"),
        ("nowhere:enrich", "nowhere:enrich: ModuleNotFoundError: No module named 'nowhere'"),
        ("handlers:missing", "handlers:missing: AttributeError: module 'handlers' has no attribute 'missing'"),
        ("handlers:nothing", "handlers:nothing: it cannot be called"),
        ("handlers:two", "handlers:two: it cannot be called with one record: missing a required argument: 'second'"),
        ("handlers:several", "handlers:several: it is a generator; a record has one result, so it must return it"),
        ("failing:enrich", "failing:enrich: ZeroDivisionError: division by zero ({path}/failing.py, line 2)"),
    ],
)
def test_a_wrong_target_is_named(target: str, detail: str, folder: Folder) -> None:
    (folder.path / "failing.py").write_text("x = 0\n1 / x\n")
    code, found = folder.check("--target", target)
    assert code == 1
    (check,) = found["target"]
    assert check["status"] == "failed" and check["remedy"]
    assert check["detail"] == detail.format(path=folder.path)
    assert found["input"][0]["status"] == "ok"  # the others are looked at all the same


def test_a_target_whose_import_kills_its_child_is_told_from_children_that_do_not_start(folder: Folder) -> None:
    (folder.path / "dying_at_import.py").write_text("import os\nos._exit(3)\n")
    code, found = folder.check("--target", "dying_at_import:enrich")
    assert code == 1
    assert "its child died" in found["target"][0]["detail"] and "code 3" in found["target"][0]["detail"]
    assert "child" not in found


def test_an_async_target_and_no_children(folder: Folder) -> None:
    code, found = folder.check("--target", "handlers:enrich_async", "--no-multiprocessing")
    assert code == 0
    assert found["target"][0]["detail"] == "handlers:enrich_async, async, imported in this process"


def test_secrets_must_be_set_and_are_never_shown(folder: Folder) -> None:
    options = ["--secret", "MISSING_TOKEN", "--secret", "EMPTY_TOKEN", "--secret", "TOKEN"]
    done = folder.run(*options, EMPTY_TOKEN=" ", TOKEN="hunter2")
    assert done.returncode == 1
    assert "FAIL  secret    MISSING_TOKEN is not set\n" in done.stdout
    assert "remedy: export MISSING_TOKEN=…" in done.stdout
    assert "FAIL  secret    EMPTY_TOKEN is set and empty\n" in done.stdout
    assert "ok    secret    TOKEN is set\n" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_params_say_file_line_and_key(folder: Folder) -> None:
    (folder.path / "params.yaml").write_text("multiprocessing:\n  worker_cuont: 2\n")
    code, found = folder.check("--params", "params.yaml")
    assert code == 1
    (check,) = found["params"]
    assert "params.yaml, line 2: multiprocessing.worker_cuont" in check["detail"]
    assert "'worker_count'" in check["detail"]


def test_the_first_bad_row_is_named(folder: Folder) -> None:
    (folder.path / "in.jsonl").write_text('{"id": 1}\n\n{"id": \nnonsense\n')
    code, found = folder.check()
    assert code == 1
    assert found["input"][0]["detail"].startswith("2 of 3 records are bad, the first at in.jsonl, line 3: ")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that root cannot write either: /proc")
def test_a_folder_that_cannot_be_written_is_named(folder: Folder) -> None:
    code, found = folder.check("--folder", "/proc/runs", "--output", "/proc/out.jsonl")
    assert code == 1
    assert {found["folder"][0]["status"], found["output"][0]["status"]} == {"failed"}
    assert found["output"][0]["detail"].startswith("/proc: ")


def test_missing_input_and_strange_output_are_named(folder: Folder) -> None:
    code, found = folder.check("--input", "nowhere.jsonl", "--output", "out.doc")
    assert code == 1
    assert "'nowhere.jsonl'" in found["input"][0]["detail"]
    assert "'out.doc' does not tell its format" in found["output"][0]["detail"]


def test_standard_input_is_left_alone(folder: Folder) -> None:
    code, found = folder.check("--input", "-")
    assert code == 0
    assert found["input"] == [{"status": "note", "detail": "standard input is not read by a check"}]
