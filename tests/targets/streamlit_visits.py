"""A Streamlit server in a process of its own, and a real browser that visits it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil

HERE = Path(__file__).parent
ROOTS = (HERE, HERE.parents[1], HERE.parents[1] / "adapters")
# Another Python may serve the pages, one that has another Streamlit: set this to its path.
PYTHON = os.environ.get("ORCHESTRATOR_STREAMLIT_PYTHON", sys.executable)
# Whatever is waited for comes within two seconds on a quiet machine.
DEADLINE = 120.0


def until(holds: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Look until something holds, and return it; of other processes nothing else can be had."""
    deadline = time.monotonic() + DEADLINE
    while not (found := holds()):
        assert time.monotonic() < deadline, f"never so: {what() if callable(what) else what}"
        time.sleep(0.02)
    return found


class StreamlitServer:
    """Serves a page until it is left; then none of its processes and folders may be there any more.

    Attributes:
        folder: `PAGE_FOLDER` of the page: where it and its test leave each other files.
        temp: Its temp folder, and that of all its children.
    """

    def __init__(self, page: str | Path, *, selector_policy: bool = False, **environment: str) -> None:
        # Short, for the path of Chromium's socket in it may have no more than 107 characters.
        self._home = tempfile.TemporaryDirectory(prefix="p-", ignore_cleanup_errors=True)
        self.temp = Path(self._home.name)
        self.folder = self.temp / "folder"
        self.folder.mkdir()
        self._output = Path(self._home.name, "output")
        options = {
            "server.address": "127.0.0.1",
            "server.port": "0",
            "server.headless": "true",
            "server.fileWatcherType": "none",
            "browser.gatherUsageStats": "false",
            "global.developmentMode": "false",
        }
        self._command = [PYTHON, str(HERE / "streamlit_server.py")]
        self._command += ["--selector-policy"] * selector_policy + [str(HERE / page)]
        self._command += [word for name, value in options.items() for word in (f"--{name}", value)]
        self._environment = {
            **os.environ,
            "HOME": str(self.folder),  # of browsers too, which leave their settings there
            "PAGE_FOLDER": str(self.folder),
            "PYTHONPATH": os.pathsep.join(map(str, ROOTS)),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temp)),
            **environment,
        }
        self.seen: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        with open(self._output, "wb") as output:
            self._popen = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.process = psutil.Process(self._popen.pid)
        try:
            self.url = f"http://127.0.0.1:{until(self._port, 'it listens')}"
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"the server wrote:\n{self.output()}")
        self.close()

    def close(self) -> None:
        if self._popen.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.note()
            self._popen.kill()
        self._popen.wait()
        self._home.cleanup()

    def _port(self) -> int | None:
        assert self._popen.poll() is None, self.output()
        ports = [each.laddr.port for each in self.process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        return ports[0] if ports else None

    def output(self) -> str:
        return self._output.read_text("utf-8", "replace")

    def note(self) -> list[psutil.Process]:
        """Remember and return all processes below the server, as they are now."""
        found = self.process.children(recursive=True)
        self.seen.update(found)
        return found

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it with a signal, and wait until nothing of it is left."""
        self.note()
        self._popen.send_signal(number)
        until(lambda: self._popen.poll() is not None, f"the server ends after signal {number}\n{self.output()}")
        self.check_nothing_left()

    def check_nothing_left(self) -> None:
        until(
            lambda: not any(map(is_alive, self.seen)), lambda: f"its processes end: {list(filter(is_alive, self.seen))}"
        )
        until(lambda: not self.folders_left(), lambda: f"its temp folders go: {self.folders_left()}")

    def folders_left(self) -> list[str]:
        return sorted({each.name for each in self.temp.iterdir()} - {"folder", "output"})


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)  # a zombie waits for a parent that is not ours
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def visitor(browser_path: str) -> Iterator[Any]:
    """Open a browser; yields a function that returns a page of a new session at a URL."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:

            def visit(url: str) -> Any:
                context = browser.new_context(viewport={"width": 900, "height": 700})
                context.set_default_timeout(DEADLINE * 1000)
                page = context.new_page()
                page.goto(url)
                return page

            yield visit
        finally:
            browser.close()
