"""What is wrong with the options of `orchestrator publish` is one sentence, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pin_tables import ACCOUNT, make_table

from orchestrator.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    make_table(tmp_path, 1)


def problem(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["publish", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--profile", "elsewhere"), "elsewhere: there is no such profile; name a file, or local."),
        (("--workers", "0"), "--workers: must be from 1 to 64, not 0."),
        (
            ("--user-data-dir", "x"),
            "--user-data-dir: a profile can be opened by one browser at a time; add --workers 1.",
        ),
        (("--user-data-dir", "x", "--attach", "http://127.0.0.1:1"), "--user-data-dir: contradicts --attach"),
        (("--dry-run", "--journal", "j.db"), "--journal: has no meaning for --dry-run"),
        (("--output", "no/where.jsonl"), "--output: 'no/where.jsonl' is in a folder that does not exist"),
        (("--report", "."), "--report: '.' is a folder"),
        (("--journal", "pins.csv"), "--journal: 'pins.csv' is the table of pins; name another file."),
        (("--url", "pins.example"), "local: [site] url must start with http:// or https://"),
        (("--timeout", "0"), "--timeout: must be greater than 0, not 0."),
        (("--retries", "-1"), "--retries: must be at least 0, not -1."),
        (("--attach", "127.0.0.1:9222"), "--attach: must be an http:// or ws:// address, not '127.0.0.1:9222'"),
        (("--proxy", "nonsense://x y"), "--proxy: "),
    ],
)
def test_a_wrong_option(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: str) -> None:
    assert problem(capsys, "pins.csv", *options).startswith(f"Error: {told}")


def test_a_table_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert problem(capsys, "none.csv").startswith("Error: none.csv: cannot be read: ")


def test_what_the_environment_lacks_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIN_BOARD_PASSWORD", "")
    told = "Error: PIN_BOARD_PASSWORD: not set in the environment, and local logs in with what it has.\n"
    assert problem(capsys, "pins.csv") == told


def test_a_table_without_a_single_pin_needs_no_browser(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_BROWSER", "no-such-browser")
    (tmp_path / "pins.csv").write_text("title,link\n,https://pins.example\n", "utf-8")
    assert main(["publish", "pins.csv"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "line": 2, "key": None, "title": "", "status": "invalid", "error": "has no title", "failure_class": "row",
    }  # fmt: skip
    assert err == "1/1  bad row       line 2: (no title): has no title\n1 row: 1 bad row\n"
