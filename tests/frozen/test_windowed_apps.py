"""Windowed apps that somebody started from a desktop: no standard streams at all, and texts go to a file."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
from freezing import Builder, Running, start
from frozen_desks import FILES, at_home, get, open_desk, until
from naive_apps import NAIVE, NAIVE_OPTIONS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")


def without_streams(program: Path, *arguments: str, **options: object) -> AbstractContextManager[Running]:
    """Start a program as a desktop does on some systems: descriptors 0, 1 and 2 are closed."""
    script = 'exec "$0" "$@" 0<&- 1>&- 2>&-'
    return start(Path("/bin/sh"), "-c", script, str(program), *arguments, **options)  # type: ignore[arg-type]


def test_an_app_without_streams_keeps_its_service_and_runs_jobs(build: Builder, tmp_path: Path) -> None:
    program = build(FILES, "--onedir", "--windowed")
    with open_desk(program, tmp_path, starting=without_streams, TEST_WORKERS="1") as desk:
        before = desk.state()
        assert desk.main("streams") == [None, None, None]
        assert None not in desk.job("streams"), "in a child print works"
        assert desk.job("who")["frozen"]
        psutil.Process(before["service"]).kill()
        until(lambda: get(before["url"], 5)["pid"] != before["service"])
        assert desk.quit() == 0
        assert not desk.app.wait_gone(15)


def test_a_naive_app_without_streams_writes_what_to_do_into_the_log_folder(build: Builder, tmp_path: Path) -> None:
    program = build(NAIVE, *NAIVE_OPTIONS, hooks=False)
    home = tmp_path / "home"
    home.mkdir()
    starts = tmp_path / "starts"
    starts.mkdir()
    env = at_home(home) | {"TEST_STARTS": str(starts)}
    with without_streams(program, allowed=10, env=env) as app:
        assert app.process.wait(60) != 0
        assert not app.wait_gone(15)
    assert len([*starts.iterdir()]) == 1
    logs = {path: path.read_text("utf-8", "replace") for path in home.rglob("*.log")}
    assert [path for path, text in logs.items() if "freeze_support()" in text], logs
