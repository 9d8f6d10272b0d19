"""The standard library's multiprocessing goes on working in a frozen app, in its main process and within a job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from freezing import Builder
from frozen_desks import FILES, open_desk

ONE_FILE = pytest.mark.skipif(sys.platform == "win32", reason="onedir is what Windows users are advised to build")


def check(found: dict[str, Any]) -> None:
    value, process = found["process"]
    assert (value, found["exitcode"]) == (36, 0)
    assert [number for number, _ in found["pool"]] == [0, 1, 4, 9]
    others = {process, *(pid for _, pid in found["pool"])}
    assert found["pid"] not in others


@pytest.mark.parametrize("whose", ["multiprocessing", "orchestrator"])
@pytest.mark.parametrize("option", ["--onedir", pytest.param("--onefile", marks=ONE_FILE)])
def test_main_and_a_job_each_run_a_process_and_a_pool(build: Builder, tmp_path: Path, option: str, whose: str) -> None:
    program = build(FILES, option, "--windowed")
    with open_desk(program, tmp_path, allowed=24, TEST_WORKERS="1", TEST_FREEZE_SUPPORT=whose) as desk:
        check(desk.main("multiprocess"))
        in_a_job = desk.job("multiprocess")
        check(in_a_job)
        assert in_a_job["pid"] == desk.state()["workers"][0]
        check(desk.main("multiprocess"))
        assert desk.quit() == 0
        assert not desk.app.wait_gone(10)


def test_an_app_that_never_looks_for_such_a_process_is_told_so_and_goes_on(build: Builder, tmp_path: Path) -> None:
    with open_desk(build(FILES, "--onedir", "--windowed"), tmp_path, TEST_WORKERS="1") as desk:
        with pytest.raises(AssertionError, match="exit code 1"):
            desk.main("multiprocess")
        # What a job starts needs none of the app's main, and is recognised by the hook.
        check(desk.job("multiprocess"))
        assert desk.quit() == 0
        assert not desk.app.wait_gone(10)
    assert "freeze_support()" in (tmp_path / "errors").read_text("utf-8", "replace")
