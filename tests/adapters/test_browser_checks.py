"""What the doctor says of browser jobs, on machines that have all or nothing."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from orchestrator_adapters.playwright._checks import checks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake programs are scripts of a POSIX shell")


def statuses(environment: dict[str, str]) -> dict[str | None, tuple[str | None, str | None]]:
    return {found["name"]: (found["status"], found["detail"]) for found in checks(environment)}


def program(path: Path) -> str:
    path.write_text("#!/bin/sh\n", "utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path), "HOME": str(tmp_path / "home")}


def test_what_is_there_is_named(bare: dict[str, str], tmp_path: Path) -> None:
    browser, ffmpeg = program(tmp_path / "google-chrome"), program(tmp_path / "ffmpeg")
    assert statuses(bare) == {
        "playwright": ("ok", metadata.version("playwright")),
        "browser": ("ok", browser),
        "ffmpeg": ("ok", ffmpeg),
    }


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may have Chrome among its applications")
def test_what_is_missing_is_a_note_with_a_remedy(bare: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    found = {each["name"]: each for each in checks(bare)}
    assert {each["status"] for each in found.values()} == {"note"}
    assert "pip install 'subprocess-orchestrator[playwright]'" in str(found["playwright"]["remedy"])
    assert "playwright install chromium" in str(found["browser"]["remedy"])
    assert "ffmpeg" in str(found["ffmpeg"]["remedy"])


def test_a_named_browser_that_does_not_exist_fails(bare: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "chromium")
    (found,) = (each for each in checks(bare | {"ORCHESTRATOR_BROWSER": "/no/browser"}) if each["name"] == "browser")
    assert (found["status"], found["remedy"]) == ("failed", "correct or unset ORCHESTRATOR_BROWSER")
    assert found["detail"] == "ORCHESTRATOR_BROWSER='/no/browser' is no program on this machine"
