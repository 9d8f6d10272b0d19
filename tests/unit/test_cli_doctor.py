"""Checks of the doctor: what each failing line says and which remedy it gives."""

import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.cli import _checks


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


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_missing_browser_is_only_a_note(tmp_path: Path) -> None:
    check = _checks.check_browser({}, [tmp_path], str(tmp_path))
    assert check.status == "note"
    assert check.remedy is not None


def test_named_browser_that_does_not_exist_fails(tmp_path: Path) -> None:
    check = _checks.check_browser({"ORCHESTRATOR_BROWSER": "/no/browser"}, [tmp_path], str(tmp_path))
    assert (check.status, check.remedy) == ("failed", "correct or unset ORCHESTRATOR_BROWSER")


def test_browsers_are_found_in_order(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin" / "chromium")
    environment: dict[str, str] = {}
    assert str(on_path) in _checks.check_browser(environment, [tmp_path], str(on_path.parent)).detail
    shell = program(tmp_path / "chromium_headless_shell-1200" / "chrome-linux" / "headless_shell")
    assert str(shell) in _checks.check_browser(environment, [tmp_path], str(on_path.parent)).detail
    own = program(tmp_path / "chromium-1200" / "chrome-linux" / "chrome")
    program(own.parent / "chrome_sandbox")
    assert f"{own} (" in _checks.check_browser(environment, [tmp_path], str(on_path.parent)).detail
    named = program(tmp_path / "mine")
    environment["ORCHESTRATOR_BROWSER"] = str(named)
    assert str(named) in _checks.check_browser(environment, [tmp_path], str(on_path.parent)).detail


def test_python_and_platform_are_named() -> None:
    assert "Python" in _checks.check_python().detail
