"""The example of a desktop app, from source: its page is killed, the app is started twice, ended, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from desktop_runs import SOURCE, DesktopRun, answers
from streamlit_visits import DEADLINE, is_alive, until

pytest.importorskip("streamlit")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends and kills with POSIX signals")


def start(run: DesktopRun, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SOURCE / "app.py"), "--window", "none", *arguments]
    environment = {**os.environ, **run.environment, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)


@contextmanager
def running(run: DesktopRun) -> Iterator[subprocess.Popen[bytes]]:
    with start(run) as app:
        try:
            yield app
        finally:
            app.kill()


def below(app: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(app.pid).children(recursive=True)


def wait_gone(processes: list[psutil.Process]) -> None:
    until(lambda: not any(map(is_alive, processes)), lambda: f"they end: {list(filter(is_alive, processes))}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_page_comes_back_the_second_start_shows_the_first_and_a_signal_ends_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    run = DesktopRun(tmp_path)
    with running(run) as app:
        pid, url = run.wait_ready()
        assert answers(url)
        run.wait_opened(url)
        until(lambda: len(below(app)) == 2, lambda: f"the page and the guardian are there: {below(app)}")
        os.kill(pid, signal.SIGKILL)
        again, same = run.wait_ready(2)
        assert (again != pid, same) == (True, url)
        assert answers(url)
        assert start(run).wait(DEADLINE) == 0
        run.wait_said("coming to the front")
        until(lambda: len(below(app)) == 2, lambda: f"the page and the guardian are there: {below(app)}")
        processes = below(app)
        app.send_signal(number)
        assert app.wait(DEADLINE) == 0
        wait_gone(processes)
        run.wait_said("the window is closed")


def test_a_killed_app_leaves_nothing_that_hinders_the_next_start(tmp_path: Path) -> None:
    run = DesktopRun(tmp_path)
    with running(run) as app:
        run.wait_ready()
        processes = below(app)
        app.kill()
        wait_gone(processes)
    with running(run) as app:
        run.wait_ready(2)
        app.terminate()
        assert app.wait(DEADLINE) == 0
