"""The example of a desktop app while it runs, from source or frozen: what its log says, and its page."""

from __future__ import annotations

import os
import re
import shlex
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from streamlit_visits import DEADLINE, until

SOURCE = Path(__file__).parents[2] / "scripts" / "desktop_app"
_READY = re.compile(r"service\.ready .* pid=(\d+) port=(\d+)")


class DesktopRun:
    """One user's app: its folder, and what it logged there.

    Attributes:
        environment: To start it with: a home of its own, and no browser that would open.
    """

    def __init__(self, home: Path, cache: Path | None = None) -> None:
        self._state = home / "state"
        self._opened = home / "opened"
        programs = home / "programs"
        programs.mkdir()
        # On Linux the app asks for this one to open a browser.
        opener = programs / "xdg-open"
        opener.write_text(f'#!/bin/sh\necho "$1" >> {shlex.quote(str(self._opened))}\n')
        opener.chmod(0o755)
        self.environment: Mapping[str, str] = {
            "HOME": str(home),
            "XDG_STATE_HOME": str(self._state),
            "XDG_CACHE_HOME": str(cache or home / "cache"),
            "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)]),
            "BROWSER": "true",
            "LC_ALL": "C.UTF-8",
        }

    def log(self) -> str:
        path = self._state / "app" / "log" / "page-pictures.log"
        return path.read_text("utf-8") if path.exists() else ""

    def wait_said(self, text: str, times: int = 1) -> None:
        until(lambda: self.log().count(text) >= times, lambda: f"{times} times {text!r} in the log:\n{self.log()}")

    def wait_ready(self, times: int = 1) -> tuple[int, str]:
        """Wait until the page was ready so many times; returns its last pid and its address."""
        until(lambda: len(_READY.findall(self.log())) >= times, lambda: f"ready {times} times:\n{self.log()}")
        pid, port = _READY.findall(self.log())[-1]
        return int(pid), f"http://127.0.0.1:{port}"

    def wait_opened(self, url: str) -> None:
        """Wait until the page's address was given to a browser, where that can be seen."""
        if sys.platform == "linux":
            until(self._opened.exists, lambda: f"a browser was asked for:\n{self.log()}")
            until(lambda: self._opened.read_text().split() == [url], f"a browser was asked for {url}")


def answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/_stcore/health", timeout=DEADLINE) as answer:
        return bool(answer.status == 200)
