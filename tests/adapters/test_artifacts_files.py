"""Folders of evidence, traces that were never finished, and the ffmpeg that the driver is shown."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from orchestrator_adapters.playwright import _ffmpeg, _folders, _traces
from orchestrator_adapters.playwright._errors import LaunchFailed

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")


def leave(folder: Path, name: str, *, days_old: float, size: int = 1000, run: object = (1, 2.0)) -> Path:
    """Leave evidence as an earlier run would have."""
    path = folder / f"{name}-1" / "attempt-1"
    path.mkdir(parents=True)
    (path / "trace.zip").write_bytes(b"x" * size)
    ended = time.time() - days_old * 86_400
    marker = {"format": _folders.FORMAT, "pid": [1, 2.0], "run": run, "started": ended, "ended": ended, "size": size}
    (path / _folders.MARKER).write_text(json.dumps(marker), "utf-8")
    return path


def test_attempts_of_a_job_lie_side_by_side(tmp_path: Path) -> None:
    first = _folders.make(str(tmp_path / "evidence"), "pin one/ü", 7, 1)
    _folders.mark(first, job=7)
    second = _folders.make(str(tmp_path / "evidence"), "pin one/ü", 7, 2)
    assert first == tmp_path / "evidence" / "pin-one-7" / "attempt-1"
    assert second == first.with_name("attempt-2")


def test_a_job_of_another_run_with_the_same_number_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    old = leave(tmp_path, "facts", days_old=1)
    path = _folders.make(str(tmp_path), "facts", 1, 1)
    assert path == tmp_path / "facts-1~2" / "attempt-1"
    assert (old / "trace.zip").exists()


@posix_only
def test_nobody_else_may_read_evidence(tmp_path: Path) -> None:
    path = _folders.make(str(tmp_path / "evidence"), "facts", 1, 1)
    for folder in (path, path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_old_evidence_goes_and_that_of_this_run_stays(tmp_path: Path) -> None:
    outdated = leave(tmp_path, "outdated", days_old=20)
    recent = leave(tmp_path, "recent", days_old=1)
    mine = leave(tmp_path, "mine", days_old=20, run=_folders.this_run())
    pruner = _folders.Pruner(str(tmp_path), most=1e6, max_age=14 * 86_400)
    pruner.prune()
    assert not outdated.parent.exists()
    assert recent.exists()
    assert mine.exists()


def test_what_runs_is_never_pruned(tmp_path: Path) -> None:
    path = leave(tmp_path, "running", days_old=20)
    marker = json.loads((path / _folders.MARKER).read_text("utf-8"))
    del marker["ended"]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        marker["pid"] = _folders._identity(process.pid)
        (path / _folders.MARKER).write_text(json.dumps(marker), "utf-8")
        pruner = _folders.Pruner(str(tmp_path), most=1e6, max_age=86_400)
        pruner.prune()
        assert path.exists()
        process.communicate(b"\n")
    pruner.prune(at_once=True)  # it was killed, or forgot to say how it ended
    assert not path.exists()


def test_what_is_too_much_goes_from_the_oldest(tmp_path: Path) -> None:
    paths = [leave(tmp_path, f"job{age}", days_old=age, size=1000) for age in (3, 2, 1)]
    pruner = _folders.Pruner(str(tmp_path), most=2500, max_age=14 * 86_400)
    pruner.prune()
    assert [path.exists() for path in paths] == [False, True, True]
    assert not pruner.full


def test_a_run_that_leaves_too_much_is_full_but_loses_nothing(tmp_path: Path) -> None:
    path = leave(tmp_path, "mine", days_old=0, size=3000, run=_folders.this_run())
    pruner = _folders.Pruner(str(tmp_path), most=2500, max_age=14 * 86_400)
    pruner.prune()
    assert path.exists()
    assert pruner.full


def test_folders_of_others_are_never_touched(tmp_path: Path) -> None:
    foreign = tmp_path / "photos" / "attempt-1"
    foreign.mkdir(parents=True)
    (foreign / "attempt.json").write_text('{"ended": 0}', "utf-8")
    other = tmp_path / "thesis-1" / "attempt-1"
    other.mkdir(parents=True)
    _folders.Pruner(str(tmp_path), most=1, max_age=1).prune()
    assert foreign.exists()
    assert other.exists()


def test_a_trace_that_was_cut_off_is_packed_without_the_broken_line(tmp_path: Path) -> None:
    raw = tmp_path / "trace"
    (raw / "resources").mkdir(parents=True)
    (raw / "1-1.trace").write_bytes(b'{"type":"context-options"}\n{"type":"before"}\n{"type":"af')
    (raw / "1-1.network").write_bytes(b"")
    (raw / "1-1-pwnetcopy-1.network").write_bytes(b"")
    (raw / "2-1.trace").write_bytes(b'{"type":"context-options"}\n')
    (raw / "resources" / "abc.css").write_bytes(b"h1{}")
    packed = _traces.pack_trace(raw)
    assert packed == tmp_path / "trace.zip"
    with zipfile.ZipFile(packed) as file:
        assert set(file.namelist()) == {"1-1.trace", "1-1.network", "2-1.trace", "resources/abc.css"}
        assert file.read("1-1.trace") == b'{"type":"context-options"}\n{"type":"before"}\n'
    one = _traces.pack_trace(raw, tmp_path / "one.zip", name="2-1")
    with zipfile.ZipFile(one) as file:
        assert set(file.namelist()) == {"2-1.trace", "resources/abc.css"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "trace", "trace.zip"]


def test_no_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recorded trace"):
        _traces.pack_trace(tmp_path)


@posix_only
def test_ffmpeg_of_the_system_is_shown_to_the_driver_beside_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", "utf-8")
    program.chmod(0o755)
    installed = tmp_path / "installed"
    (installed / "chromium-1").mkdir(parents=True)
    environment = {"PATH": str(program.parent), "PLAYWRIGHT_BROWSERS_PATH": str(installed)}
    assert _ffmpeg.prepare(environment)
    shown = Path(environment["PLAYWRIGHT_BROWSERS_PATH"])
    assert shown != installed
    names = _ffmpeg._folder_names()
    assert names and names[0].startswith("ffmpeg-")
    for name in names:
        assert os.path.realpath(shown / name / _ffmpeg.EXECUTABLE) == str(program)
    assert (shown / "chromium-1").is_dir()
    again = dict(environment)
    assert _ffmpeg.prepare(again)
    assert again == environment  # there is one now


@posix_only
def test_no_ffmpeg_is_one_clear_error(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert not _ffmpeg.prepare(environment)
    assert environment == {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(LaunchFailed, match="install ffmpeg") as caught:
        _ffmpeg.require(environment)
    assert caught.value.reason == "missing_libraries"
