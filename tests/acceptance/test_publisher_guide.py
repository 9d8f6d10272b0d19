"""The guide on publishing pins: its table, its profile and its programs do what stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pin_boards import PinBoard, picture
from pin_tables import ACCOUNT

pytestmark = pytest.mark.usefixtures("browser_path")

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "publish-pins.md").read_text("utf-8")
NAMED = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
SHOWN = re.findall(r"^```sh\n([^`]*)```\n\n```text\n([^`]*)```$", GUIDE, re.MULTILINE)
PORT = "http://127.0.0.1:8123"
DEADLINE = 240


@pytest.fixture
def board() -> Iterator[PinBoard]:
    with PinBoard() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, board: PinBoard) -> Path:
    for title, text in NAMED.findall(GUIDE):
        (tmp_path / title).write_text(text.replace(PORT, board.url), "utf-8")
    for number, name in enumerate(("shed", "bread", "beach")):
        (tmp_path / f"{name}.png").write_bytes(picture(number, 32, 40))
    return tmp_path


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, *words)
    environment = {**os.environ, **ACCOUNT, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=DEADLINE)


def orchestrator(text: str, board: PinBoard, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the last command of a block, with the address of this board."""
    words = text.strip().splitlines()[-1].split()
    assert words[0] == "orchestrator"
    return run("-m", *words, "--url", board.url, "--workers", "1", folder=folder)


def compare(command: str, shown: str, board: PinBoard, folder: Path) -> None:
    ended = orchestrator(command, board, folder)
    said = ended.stderr.replace(board.url, PORT).splitlines()
    expected = shown.splitlines()
    if expected[0] == "…":
        said, expected = said[-len(expected) + 1 :], expected[1:]
    assert sorted(said) == sorted(expected), ended.stderr  # pins come as they are done
    assert ended.returncode == 1


def test_the_dry_run_says_what_the_guide_shows(board: PinBoard, folder: Path) -> None:
    assert len(SHOWN) == 2
    compare(*SHOWN[0], board, folder)
    assert board.pins() == []


@pytest.mark.browser
def test_the_run_says_what_the_guide_shows(board: PinBoard, folder: Path) -> None:
    compare(*SHOWN[1], board, folder)
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    assert sorted(row["status"] for row in results) == ["invalid", "invalid", "published", "published"]
    assert [pin["title"] for pin in board.pins()] == ["A shed of one's own", "Bread without a machine"]


@pytest.mark.browser
def test_the_profile_publishes_and_finds(board: PinBoard, folder: Path) -> None:
    for status in ("published", "found"):
        ended = run("-m", "orchestrator", "publish", "pins.csv", "-p", "mine.toml", "-w", "1", folder=folder)
        rows = [json.loads(line) for line in ended.stdout.splitlines()]
        assert [row["status"] for row in rows].count(status) == 2, ended.stderr
    descriptions = [pin["description"] for pin in board.pins()]
    assert len(descriptions) == 2
    assert all(re.fullmatch(r".* \[[0-9a-f]{16}\]", text) for text in descriptions)


@pytest.mark.browser
def test_programs_publish_each_pin_once(board: PinBoard, folder: Path) -> None:
    (folder / "table.png").write_bytes(picture(9, 32, 40))
    jobs = run("publish.py", board.url, folder=folder)
    assert (jobs.stdout, jobs.stderr, jobs.returncode) == ("published\n" * 3, "", 0)
    plain = run("plain.py", board.url, folder=folder)
    shown = "1/2 A lamp\n2/2 A stool\n"
    assert (plain.stdout, plain.stderr) == (f"{shown}published published\n{shown}found found\n", "")
    assert len(board.pins()) == 5
    assert board.twice() == []
