"""Checks of the doctor: what each failing line says and which remedy it gives."""

import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.cli import _checks, _doctor


def test_open_files() -> None:
    assert _checks.judge_files(4, 1024, 4096).status == "ok"
    assert _checks.judge_files(4, -1, -1).detail == "no limit; 4 children need about 96"
    few = _checks.judge_files(100, 256, 1_000_000)
    assert (few.status, few.remedy) == ("failed", "ulimit -n 864")
    hard = _checks.judge_files(100, 256, 256)
    assert (hard.status, hard.remedy) == ("failed", "ask for at most 24 workers, or raise the hard limit of 256")
    assert _checks.judge_files(2, 60, 60).remedy == "ask for at most 1 worker, or raise the hard limit of 60"


def test_another_owner_of_the_package() -> None:
    assert _checks.check_package({"orchestrator": ["subprocess-orchestrator"]}).status == "ok"
    assert _checks.check_package({}).status == "ok"
    check = _checks.check_package({"orchestrator": ["subprocess-orchestrator", "orchestrator-core"]})
    assert check.status == "failed"
    assert check.remedy is not None
    assert "pip uninstall orchestrator-core" in check.remedy


def test_dependencies() -> None:
    check = _checks.check_dependencies()
    assert check.status == "ok"
    assert "anyio" in check.detail
    missing = _checks.check_dependencies("no-such-distribution")
    assert missing.status == "failed"
    assert missing.remedy is not None


def test_old_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ["anyio>=99.1", "no-such-thing", 'x>=1; extra == "y"'])
    check = _checks.check_dependencies()
    assert check.status == "failed"
    assert "is older than 99.1" in check.detail
    assert "no-such-thing is missing" in check.detail
    assert check.remedy is not None


def test_temp_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _checks.check_temp().status == "ok"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    check = _checks.check_temp()
    assert check.status == "failed"
    assert check.remedy is not None
    assert "TMPDIR" in check.remedy


def test_loop_of_this_host_can_start_processes() -> None:
    assert _checks.check_loop().status == "ok"


class Point:
    """An entry point of another distribution."""

    value = "theirs:checks"

    def __init__(self, name: str, checks: Callable[[], Iterable[dict[str, str]]]) -> None:
        self.name = name
        self.load = lambda: checks


def test_other_distributions_add_checks_and_one_that_is_broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterable[dict[str, str]]:
        yield {"name": "never", "status": "ok", "detail": "shown"}
        raise OSError("no such thing")

    points = [Point("broken", broken), Point("a", lambda: [{"name": "theirs", "status": "note", "detail": "found"}])]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "orchestrator.checks" else [])
    theirs, failed = _checks.installed_checks()
    assert (theirs.name, theirs.status, theirs.detail) == ("theirs", "note", "found")
    assert (failed.name, failed.status) == ("broken", "failed")
    assert failed.detail == "theirs:checks cannot be asked: OSError: no such thing"
    assert failed.remedy is not None


def test_python_and_platform_are_named() -> None:
    assert "Python" in _checks.check_python().detail


def test_every_other_python_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORCHESTRATOR_CHILD_COMMAND", raising=False)
    (check,) = _doctor.check_candidates()
    assert sys.executable not in check.detail.replace(f"{sys.executable}3", "").split(" (")[0]
    monkeypatch.setattr(sys, "executable", str(tmp_path / "uwsgi"))
    (check,) = _doctor.check_candidates()
    assert f"{tmp_path / 'uwsgi'} (sys.executable): is not Python" in check.detail
    monkeypatch.setenv("ORCHESTRATOR_CHILD_COMMAND", "python")
    assert _doctor.check_candidates() == []


def test_log_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert _checks.check_log_folder().detail.endswith(str(tmp_path / "NAME" / "log" / "orchestrator.log"))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "board.exe"))
    assert _checks.check_log_folder().detail == str(tmp_path / "board" / "log" / "orchestrator.log")
