"""A frozen app with a service: how many processes it has, and what is left when one of them is killed or it quits."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from freezing import Builder
from frozen_desks import FILES, Desk, Polled, dead, get, open_desk, until

# The main process and the service; where there is one, the guardian.
MOST = 3 if sys.platform != "win32" else 2
# What the promises allow for what outlives the supervisor. How long it took is printed.
GONE = 3.0
WATCHED = 30.0

posix = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


@pytest.fixture(scope="session")
def desk_app(build: Builder) -> Path:
    """Built with no more than this: no spec file, no hook of the app's own, no line changed."""
    return build(FILES, "--onedir", "--windowed")


@pytest.fixture(scope="session")
def desk_onefile(build: Builder) -> Path:
    return build(FILES, "--onefile", "--windowed")


def kill(pid: int) -> None:
    psutil.Process(pid).kill()


def gone(desk: Desk) -> None:
    began = time.monotonic()
    left = [process.pid for process in desk.app.wait_gone(GONE)]
    assert not left, f"after {GONE} s there still are {left}"
    print(f"all gone after {time.monotonic() - began:.2f} s")


def test_main_service_and_guardian_are_all_it_starts_in_half_a_minute(desk_app: Path, tmp_path: Path) -> None:
    with open_desk(desk_app, tmp_path) as desk:
        before = desk.state()
        ends = time.monotonic() + WATCHED
        while time.monotonic() < ends:
            assert desk.page()["pid"] == before["service"]
            time.sleep(0.2)
        assert desk.app.most <= MOST, f"{desk.app.most} processes at once"
        assert desk.state()["service"] == before["service"]
        assert desk.state()["restarts"] == 0
        assert desk.quit() == 0
        gone(desk)


@posix
def test_a_killed_service_is_back_on_the_same_url_while_main_answers(desk_app: Path, tmp_path: Path) -> None:
    with open_desk(desk_app, tmp_path) as desk:
        before = desk.state()
        with Polled(desk.url) as polled:
            for turn in range(1, 4):
                killed = desk.state()["service"]
                kill(killed)
                now = desk.ready(instead_of=killed)
                assert (now["url"], now["restarts"]) == (before["url"], turn)
                assert get(before["url"])["pid"] == now["service"]
        assert not polled.problems
        assert len(polled.took) > 3 and max(polled.took) < 15, f"main took {max(polled.took):.1f} s to answer"
        assert desk.app.most <= MOST + 1, "between two services both may be seen for a moment"
        assert desk.state()["pid"] == before["pid"]
        assert desk.quit() == 0
        gone(desk)


@posix
def test_a_killed_app_leaves_nothing(desk_app: Path, tmp_path: Path) -> None:
    with open_desk(desk_app, tmp_path, TEST_WORKERS="2") as desk:
        desk.begin("import_late", notes=str(tmp_path / "notes"))
        until((tmp_path / "notes").exists)
        kill(desk.state()["pid"])
        gone(desk)


@posix
@pytest.mark.parametrize("ask", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_ends_the_app_leaves_nothing(desk_app: Path, tmp_path: Path, ask: signal.Signals) -> None:
    with open_desk(desk_app, tmp_path, TEST_WORKERS="1") as desk:
        os.kill(desk.state()["pid"], ask)
        desk.app.process.wait(30)
        gone(desk)


def test_quitting_leaves_nothing(desk_app: Path, tmp_path: Path) -> None:
    with open_desk(desk_app, tmp_path, TEST_WORKERS="1") as desk:
        about = desk.job("who")
        assert about["frozen"] and about["pid"] != desk.state()["pid"]
        assert desk.quit() == 0
        gone(desk)


# In one file


@posix
def test_in_one_file_there_is_the_loader_too_and_no_more(desk_onefile: Path, tmp_path: Path) -> None:
    with open_desk(desk_onefile, tmp_path) as desk:
        before = desk.state()
        ends = time.monotonic() + WATCHED
        while time.monotonic() < ends:
            assert desk.page()["pid"] == before["service"]
            time.sleep(0.2)
        assert desk.app.most <= MOST + 1
        assert before["parent"] == desk.app.process.pid
        assert desk.quit() == 0
        gone(desk)
        assert not Path(before["bundle"]).exists(), "the loader removes what it unpacked"


@posix
def test_children_in_one_file_share_what_is_unpacked_and_are_who_we_think(desk_onefile: Path, tmp_path: Path) -> None:
    with open_desk(desk_onefile, tmp_path, TEST_WORKERS="1") as desk:
        state, page, job = desk.state(), desk.page(), desk.job("who")
        assert page["pid"] == state["service"]
        assert [job["pid"]] == desk.state()["workers"]
        for child in (page, job):
            # No loader between: the pid is that of Python itself, and to kill it is to kill the child.
            assert child["parent"] == state["pid"]
            assert child["bundle"] == state["bundle"]
            assert not [name for name in child["environment"] if name.startswith(("_PYI_", "_MEI", "PYINSTALLER_"))]
            assert "LD_LIBRARY_PATH" not in child["environment"] or "LD_LIBRARY_PATH" in os.environ
        for pid in (state["service"], job["pid"]):
            if sys.platform == "linux":
                # What it was started with, before it took anything out.
                assert b"PYINSTALLER_RESET_ENVIRONMENT" not in Path(f"/proc/{pid}/environ").read_bytes()
            kill(pid)
            until(partial(dead, pid), GONE)
        desk.ready(instead_of=state["service"])
        assert desk.job("who")["pid"] != job["pid"]
        assert desk.quit() == 0
        gone(desk)


@posix
def test_in_one_file_the_end_of_the_inner_process_ends_everything(desk_onefile: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with open_desk(desk_onefile, tmp_path, TEST_WORKERS="2") as desk:
        desk.begin("import_late", notes=str(notes))
        until(notes.exists)
        state = desk.state()
        assert state["pid"] != desk.app.process.pid
        kill(state["pid"])
        gone(desk)
        assert not Path(state["bundle"]).exists(), "the loader removes what it unpacked"
        size = notes.stat().st_size
        failed = [line for line in notes.read_text("utf-8").splitlines() if not line.endswith(" ok")]
        assert len(failed) < GONE / 0.02
        time.sleep(1)
        assert notes.stat().st_size == size, "nobody is left to fail for ever"


@posix
def test_in_one_file_a_killed_loader_takes_everything_along(desk_onefile: Path, tmp_path: Path) -> None:
    with open_desk(desk_onefile, tmp_path, TEST_WORKERS="1") as desk:
        desk.job("who")
        bundle = Path(desk.state()["bundle"])
        began = time.monotonic()
        desk.app.process.kill()
        desk.app.process.wait()
        gone(desk)
        stays = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
        print(
            f"{time.monotonic() - began:.1f} s after the loader was killed: no process, {stays / 1e6:.0f} MB unpacked"
        )
        # What the loader cannot remove any more, the guardian does.
        assert not bundle.exists()
