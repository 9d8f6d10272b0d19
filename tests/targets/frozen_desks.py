"""Starts the app `apps/desk.py`, frozen, and asks it and its service things from outside."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
from freezing import Running, start

APPS = Path(__file__).parents[1] / "frozen" / "apps"
FILES = {
    "app.py" if name == "desk" else f"{name}.py": (APPS / f"{name}.py").read_text("utf-8")
    for name in ("desk", "desk_jobs", "desk_pages")
}
# A busy machine takes its time; where a bound is promised, the test says so itself.
DEADLINE = 90.0
# Not through a proxy that somebody has in his environment.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout: float = DEADLINE) -> Any:
    """Return the JSON that is there."""
    try:
        with _OPENER.open(url, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as failed:
        with failed:
            raise AssertionError(f"{url}: {failed.read().decode('utf-8', 'replace')}") from failed


def until(what: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Return the first answer that is true; an error counts as one that is not."""
    deadline = time.monotonic() + seconds
    while True:
        problem: Exception | None = None
        try:
            if found := what():
                return found
        except (OSError, ValueError, psutil.NoSuchProcess) as error:
            problem = error
        assert time.monotonic() < deadline, f"not within {seconds} s: {problem}"
        time.sleep(0.05)


class Desk:
    """A running app; `url` is where its main process answers."""

    def __init__(self, app: Running, url: str) -> None:
        self.app = app
        self.url = url

    def state(self) -> dict[str, Any]:
        """Return what the main process says of itself and its service."""
        found: dict[str, Any] = get(self.url)
        return found

    def ready(self, instead_of: int | None = None) -> dict[str, Any]:
        """Wait until the service is ready, in another process than the one that was killed, and return the state."""

        def ready() -> dict[str, Any] | None:
            state = self.state()
            return state if state["state"] == "ready" and state["service"] not in (None, instead_of) else None

        found: dict[str, Any] = until(ready)
        return found

    def page(self) -> dict[str, Any]:
        """Return what the service says of itself."""
        found: dict[str, Any] = get(self.state()["url"], timeout=5)
        return found

    def job(self, name: str, **arguments: str) -> Any:
        """Return what a job in a child returns."""
        return get(f"{self.url}/job?{_query(name, arguments)}")

    def begin(self, name: str, **arguments: str) -> None:
        """Begin a job in a child."""
        get(f"{self.url}/begin?{_query(name, arguments)}")

    def main(self, name: str, **arguments: str) -> Any:
        """Return what a function returns that the main process calls."""
        return get(f"{self.url}/main?{_query(name, arguments)}")

    def quit(self) -> int:
        """Ask the app to end, and return its exit code."""
        get(f"{self.url}/quit")
        return self.app.process.wait(DEADLINE)


def _query(name: str, arguments: Mapping[str, str]) -> str:
    return urllib.parse.urlencode({"name": name, **arguments})


def at_home(folder: Path) -> dict[str, str | None]:
    """Return the variables that have an app write its log there, and not into that of the person who tests."""
    return {"HOME": str(folder), "LOCALAPPDATA": str(folder), "XDG_STATE_HOME": None}


@contextmanager
def open_desk(
    program: Path,
    folder: Path,
    *,
    allowed: int = 12,
    starting: Callable[..., AbstractContextManager[Running]] = start,
    **env: str,
) -> Iterator[Desk]:
    """Start the app and wait until its service is ready."""
    here = folder / "here"
    with (folder / "errors").open("wb") as errors:
        variables = {"TEST_ANNOUNCE": str(here), **at_home(folder), **env}
        with starting(program, allowed=allowed, env=variables, stderr=errors) as app:

            def announced() -> bool:
                code = app.process.poll()
                assert code is None, f"exit code {code}\n{(folder / 'errors').read_text('utf-8', 'replace')}"
                return here.exists()

            until(announced)
            yield Desk(app, here.read_text("utf-8"))


class Polled:
    """Asks the main process again and again while something happens, and keeps how long each answer took."""

    def __init__(self, url: str) -> None:
        self.took: list[float] = []
        self.problems: list[str] = []
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="desk-polling")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.05):
            began = time.monotonic()
            try:
                get(self._url, timeout=30)
            except OSError as error:
                self.problems.append(str(error))
            self.took.append(time.monotonic() - began)


def dead(pid: int) -> bool:
    """Return whether a process runs no more; a zombie does not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
