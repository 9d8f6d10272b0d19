"""The example of a desktop app, frozen with nothing but `pyinstaller --onedir --windowed app.py`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desktop_runs import SOURCE, DesktopRun, answers
from freezing import Builder, Running, start
from small_site import Site
from streamlit_visits import DEADLINE, until, visitor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends and kills with POSIX signals")


@pytest.fixture(scope="session")
def program(build: Builder) -> Path:
    return build(SOURCE, "--onedir", "--windowed")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the app unpacks what is large, once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, cache: Path) -> DesktopRun:
    return DesktopRun(tmp_path, cache)


@pytest.fixture
def visit(browser_path: str) -> Iterator[Any]:
    with visitor(browser_path) as function:
        yield function


@pytest.fixture
def display() -> Iterator[str]:
    """A screen that nobody sees."""
    path = shutil.which("Xvfb")
    if path is None:
        pytest.skip("there is no Xvfb here")
    reader, writer = os.pipe()
    command = [path, "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with open(reader, "rb") as numbers:
        screen = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
        os.close(writer)
        try:
            yield f":{int(numbers.readline())}"
        finally:
            screen.terminate()
            screen.wait()


def count(app: Running, expected: int) -> None:
    until(lambda: len(app.processes()) == expected, lambda: f"{expected} processes: {app.processes()}")


def test_the_app_its_page_and_the_guardian_and_nothing_left(program: Path, desk: DesktopRun) -> None:
    with start(program, "--window", "none", allowed=6, env=desk.environment) as app:
        pid, url = desk.wait_ready()
        assert answers(url)
        desk.wait_opened(url)
        count(app, 3)
        os.kill(pid, signal.SIGKILL)
        again, same = desk.wait_ready(2)
        assert (again != pid, same) == (True, url)
        assert answers(url)
        with start(program, allowed=3, env=desk.environment) as second:
            assert second.process.wait(DEADLINE) == 0
        desk.wait_said("coming to the front")
        count(app, 3)
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(DEADLINE) == 0
        assert not app.wait_gone(DEADLINE)


def test_a_killed_app_leaves_nothing(program: Path, desk: DesktopRun) -> None:
    with start(program, "--window", "none", allowed=6, env=desk.environment) as app:
        desk.wait_ready()
        app.process.kill()
        assert not app.wait_gone(3.0), "what outlives the supervisor has three seconds"


def test_the_page_takes_a_picture_with_a_browser_job(program: Path, desk: DesktopRun, visit: Any) -> None:
    with Site() as site, start(program, "--window", "none", allowed=40, env=desk.environment) as app:
        _, url = desk.wait_ready()
        page = visit(url)
        page.get_by_label("Address").fill(f"{site.url}/hello")
        page.get_by_label("Address").press("Enter")
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        page.get_by_role("button", name="Take a picture", exact=True).click()
        page.get_by_text("Taking a picture: done in").wait_for()
        page.get_by_role("heading", name="/hello").wait_for()
        page.get_by_test_id("stImage").wait_for()
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(DEADLINE) == 0
        assert not app.wait_gone(DEADLINE)


def test_the_window_lives_on_when_its_page_is_killed(program: Path, desk: DesktopRun, display: str) -> None:
    environment = {**desk.environment, "DISPLAY": display}
    with start(program, "--window", "tk", allowed=8, env=environment) as app:
        pid, url = desk.wait_ready()
        os.kill(pid, signal.SIGKILL)
        desk.wait_ready(2)
        # The window itself says so, in its own loop.
        with start(program, allowed=3, env=environment) as second:
            assert second.process.wait(DEADLINE) == 0
        desk.wait_said("coming to the front")
        assert answers(url)
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(DEADLINE) == 0
        assert not app.wait_gone(DEADLINE)
