"""Files of browser jobs: programs that are found, logins that are kept, profiles that are held, downloads' names."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from orchestrator_adapters.playwright import LaunchFailed, StateMissing, _processes, _states, find_browser, save_state
from orchestrator_adapters.playwright._find import what_to_install
from orchestrator_adapters.playwright._plan import download_path
from orchestrator_adapters.playwright._profile import Lease

STATE = {"cookies": [], "origins": []}
posix = pytest.mark.skipif(sys.platform == "win32", reason="the fake programs are scripts of a POSIX shell")


class Context:
    """Stands for a context of the sync API."""

    def storage_state(self) -> Any:
        return STATE


class AsyncContext:
    async def storage_state(self) -> Any:
        return STATE


class Page:
    """Stands for a page, which has a context."""

    def __init__(self, context: Any) -> None:
        self.context = context


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", "utf-8")
    path.chmod(0o755)
    return str(path)


@posix
def test_browser_is_looked_for_in_order(tmp_path: Path) -> None:
    places = {"PATH": str(tmp_path / "bin"), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "own")}
    stable = program(tmp_path / "bin" / "google-chrome-stable")
    assert find_browser(environment=places) == stable
    chromium = program(tmp_path / "bin" / "chromium")
    assert find_browser(environment=places) == chromium
    program(tmp_path / "own" / "chromium-99" / "chrome-linux" / "chrome")
    newest = program(tmp_path / "own" / "chromium-1255" / "chrome-linux64" / "chrome")
    assert find_browser(environment=places) == newest
    shell = program(tmp_path / "own" / "chromium_headless_shell-1255" / "chrome-linux" / "headless_shell")
    assert find_browser(environment=places) == shell
    assert find_browser(environment=places, headless=False) == newest
    named = program(tmp_path / "elsewhere" / "mine")
    assert find_browser(environment=places | {"ORCHESTRATOR_BROWSER": named}) == named
    assert find_browser("chromium", environment=places | {"ORCHESTRATOR_BROWSER": named}) == chromium


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may have Chrome among its applications")
def test_missing_browser_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="playwright install chromium") as caught:
        find_browser(environment={"PATH": str(tmp_path)})
    assert caught.value.reason == "no_executable"
    for given, environment in (("nothing", {}), (None, {"ORCHESTRATOR_BROWSER": "nothing"})):
        with pytest.raises(LaunchFailed, match="'nothing' is no program"):
            find_browser(given, environment={"PATH": str(tmp_path), **environment})
    assert "playwright install firefox" in what_to_install("firefox")


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_state_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    path = save_state(Page(Context()), "ada", tmp_path / "kept")
    assert path == str(tmp_path / "kept" / "ada.json")
    if sys.platform != "win32":
        assert (mode(path), mode(os.path.dirname(path))) == (0o600, 0o700)
    assert _states.load("ada", str(tmp_path / "kept")) == STATE
    assert asyncio.run(save_state(AsyncContext(), str(tmp_path / "a.json"))) == str(tmp_path / "a.json")
    assert os.listdir(tmp_path / "kept") == ["ada.json"]


def test_state_is_replaced_when_the_job_succeeds(tmp_path: Path) -> None:
    (tmp_path / "ada.json").write_text('{"old": true}')
    keeper = _states.Keeper(str(tmp_path))
    token = _states.running.set(keeper)
    try:
        save_state(Context(), "ada")
    finally:
        _states.running.reset(token)
    assert _states.load("ada", str(tmp_path)) == {"old": True}
    keeper.drop()
    assert os.listdir(tmp_path) == ["ada.json"]
    keeper.add(str(tmp_path / "ada.json"), STATE)
    keeper.commit()
    keeper.drop()
    assert _states.load("ada", str(tmp_path)) == STATE and os.listdir(tmp_path) == ["ada.json"]


def test_state_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StateMissing, match="run a job that logs in"):
        _states.load("ada", str(tmp_path))
    for text in ("[]", "{", ""):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(StateMissing):
            _states.load("bad", str(tmp_path))


def test_profile_is_held_by_one(tmp_path: Path) -> None:
    lease = Lease(str(tmp_path / "profile"))
    with pytest.raises(LaunchFailed, match="another job has it open") as caught:
        Lease(str(tmp_path / "profile"))
    assert caught.value.reason == "profile_locked"
    lease.close()
    lease.close()
    Lease(str(tmp_path / "profile")).close()


@posix
def test_profile_of_a_running_browser_is_left_alone(tmp_path: Path) -> None:
    import socket

    folder = tmp_path / "profile"
    folder.mkdir()
    words = [sys.executable, "-c", "input()", f"--user-data-dir={folder}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as browser:
        (folder / "SingletonLock").symlink_to(f"{socket.gethostname()}-{browser.pid}")
        with pytest.raises(LaunchFailed, match=f"process {browser.pid} has it open"):
            Lease(str(folder))
        browser.communicate(b"\n")
    # Left behind by a browser that is gone.
    Lease(str(folder)).close()


def test_downloads_stay_in_their_folder(tmp_path: Path) -> None:
    taken: set[str] = set()
    paths = [
        download_path("f", name, taken) for name in ("a.tar.gz", "a.tar.gz", "../../etc/passwd", "..", "c:\\x\\y.txt")
    ]
    assert [os.path.relpath(path, os.path.join("f", "downloads")) for path in paths] == [
        "a.tar.gz",
        "a-2.tar.gz",
        "passwd",
        "download",
        "y.txt",
    ]
    assert len(os.path.basename(download_path("f", "ß" * 1000, taken)).encode()) < 255


@posix
def test_processes_are_killed_with_what_they_started() -> None:
    below_it = "p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0)"
    script = f"import subprocess, sys; {below_it}; print(p.pid, flush=True); p.wait()"
    known = _processes.Known()
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        below = psutil.Process(int(parent.stdout.readline()))
        (found,) = known.new()
        assert found.pid == parent.pid and _processes.is_alive(found) and _processes.is_alive(below)
        assert _processes.megabytes([found]) > 1
        _processes.kill([found])
        assert not _processes.is_alive(found)
        assert _processes.ends_within(below, 30.0)
    assert not _processes.is_alive(None) and _processes.ends_within(found, 0.0)
