"""Where a desktop app's log is on each system, and what is written there when there is no terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from orchestrator import _remedies, desktop


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", (".local", "state", "board", "log")),
        ("darwin", ("Library", "Logs", "board")),
        ("win32", ("AppData", "Local", "board", "Logs")),
    ],
)
def test_the_systems_folder(
    monkeypatch: pytest.MonkeyPatch, home: Path, platform: str, folder: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert desktop.log_folder("board") == home.joinpath(*folder)
    assert desktop.log_file("board") == home.joinpath(*folder, "orchestrator.log")
    assert not desktop.log_folder("board").exists()


def test_folders_that_variables_name(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    assert desktop.log_folder("board") == home / "state" / "board" / "log"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert desktop.log_folder("board") == home / ".local" / "state" / "board" / "log"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(home / "local"))
    assert desktop.log_folder("board") == home / "local" / "board" / "Logs"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    import tempfile

    monkeypatch.setattr(sys, "platform", "linux")
    for nonsense in ("", "/"):
        monkeypatch.setenv("HOME", nonsense)
        assert desktop.log_folder("board").is_relative_to(tempfile.gettempdir())


def test_name_of_the_app(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(home / "scrape.py"), raising=False)
    assert desktop.log_folder().parent.name == "scrape"
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    for argv in (["-c"], [""], []):
        monkeypatch.setattr(sys, "argv", argv)
        assert desktop.log_folder().parent.name == "orchestrator"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(home / "Pin Board.exe"))
    assert desktop.log_folder().parent.name == "Pin Board"


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(home / "board"))
    return desktop.log_file()


def test_a_program_that_is_not_frozen_writes_nothing(home: Path) -> None:
    _remedies.note("do this")
    assert list(home.iterdir()) == []


def test_a_frozen_app_writes_lines(frozen: Path) -> None:
    _remedies.note("do this")
    _remedies.note("do \udcff that")
    first, second = frozen.read_text("utf-8").splitlines()
    assert first.endswith(f"[{os.getpid()}] do this") and second.endswith("do \\udcff that")
    assert len(first.split()[0]) == len("2026-01-31")


def test_the_file_stays_small(frozen: Path) -> None:
    frozen.parent.mkdir(parents=True)
    frozen.write_bytes(b"x" * 1_000_001)
    _remedies.note("new")
    assert frozen.stat().st_size < 100
    assert frozen.with_suffix(".log.1").stat().st_size == 1_000_001


def test_no_place_to_write_is_no_error(frozen: Path) -> None:
    frozen.parent.parent.mkdir(parents=True)
    frozen.parent.write_text("a file where the folder should be")
    _remedies.note("lost")


def test_an_error_is_noted_on_its_way(frozen: Path) -> None:
    with pytest.raises(ValueError, match="so"), _remedies.noting(ValueError):
        raise ValueError("so and so")
    assert "so and so" in frozen.read_text()
    with pytest.raises(KeyError), _remedies.noting(ValueError):
        raise KeyError("other")
    assert "other" not in frozen.read_text()


def test_warnings_of_a_frozen_app_are_noted(frozen: Path) -> None:
    from orchestrator._logs import Logger

    logger = Logger("mine")
    logger.log("worker.child_started", pid=5)
    assert not frozen.exists()
    logger.log("worker.child_died", "warning", reason="signal", detail=None)
    assert frozen.read_text().rstrip().endswith("worker.child_died reason='signal' supervisor='mine'")
