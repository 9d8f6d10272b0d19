"""A frozen app's first start is on trial, and nobody else of the app starts anything meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import _frozen, _handshake
from orchestrator.exceptions import SelfSpawnError

DEADLINE = 30.0


@pytest.fixture(autouse=True)
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "app"
    path.write_text("")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(_frozen, "_armed", True)
    monkeypatch.setattr(_frozen, "_child", False)
    monkeypatch.setattr(_handshake, "_proof", _handshake._Proof())
    return path


async def test_all_may_be_started_once_one_has_passed() -> None:
    trial = await _handshake.begin()
    assert trial is not None
    second = asyncio.ensure_future(_handshake.begin())
    await asyncio.sleep(0)
    assert not second.done()
    trial.passed()
    assert await second is None
    assert await _handshake.begin() is None
    trial.end()


async def test_one_that_was_given_up_lets_the_next_be_tried() -> None:
    trial = await _handshake.begin()
    assert trial is not None
    waiting = [asyncio.ensure_future(_handshake.begin()) for _ in range(3)]
    cancelled = waiting.pop(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    trial.end()
    done, rest = await asyncio.wait(waiting, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(rest)) == (1, 1)
    following = done.pop().result()
    assert following is not None
    following.end()
    last = await asyncio.wait_for(rest.pop(), DEADLINE)
    assert last is not None
    last.end()


async def test_after_a_failure_nothing_is_started_any_more() -> None:
    trial = await _handshake.begin()
    assert trial is not None
    waiting = asyncio.ensure_future(_handshake.begin())
    await asyncio.sleep(0)
    error = trial.failed("it printed a menu")
    assert "printed a menu" in str(error) and "freeze_support" in str(error)
    trial.end()
    for refused in (waiting, _handshake.begin()):
        with pytest.raises(SelfSpawnError, match="printed a menu"):
            await refused


async def test_supervisors_on_other_threads_wait_too() -> None:
    trial = await _handshake.begin()
    assert trial is not None
    found: list[object] = []
    began = threading.Event()

    async def begin() -> None:
        began.set()
        found.append(await _handshake.begin())

    thread = threading.Thread(target=asyncio.run, args=(begin(),))
    thread.start()
    await asyncio.to_thread(began.wait, DEADLINE)
    assert not found
    trial.passed()
    await asyncio.to_thread(thread.join, DEADLINE)
    assert found == [None]


async def test_a_child_needs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frozen, "_child", True)
    assert await _handshake.begin() is None


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "rb")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
PYTHON = sys.executable


@contextlib.contextmanager
def hold(app: Path) -> Iterator[Callable[[], None]]:
    """Have another process that holds the app's lock until it is released."""
    command = [PYTHON, "-c", HOLDER, str(app)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        yield holder.stdin.close


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
@pytest.mark.parametrize("is_armed", [True, False])
async def test_another_process_of_the_app_is_waited_for(
    app: Path, monkeypatch: pytest.MonkeyPatch, is_armed: bool
) -> None:
    with hold(app) as release:
        waiting = asyncio.ensure_future(_handshake.begin())
        await asyncio.sleep(2 * _handshake._ASK_AGAIN)
        assert not waiting.done()
        release()
        trial = await asyncio.wait_for(waiting, DEADLINE)
        assert trial is not None
        trial.end()
    with hold(app) as release:
        # For ever: only who is known to look for children goes on.
        monkeypatch.setattr(_frozen, "_armed", is_armed)
        monkeypatch.setattr(_handshake, "_LONGEST_WAIT", 0.1)
        if is_armed:
            trial = await _handshake.begin()
            assert trial is not None
            trial.end()
        else:
            with pytest.raises(SelfSpawnError, match="started by mistake"):
                await _handshake.begin()
            assert not _handshake._proof.on_trial
        release()


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
async def test_the_lock_goes_with_the_trial_although_a_fork_shares_it(app: Path) -> None:
    import fcntl
    import os

    trial = await _handshake.begin()
    assert trial is not None
    copy = os.dup(trial._file.fileno())
    try:
        trial.end()
        with open(app, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(copy)


@pytest.mark.parametrize("is_armed", [True, False])
async def test_without_a_lock_to_be_had(app: Path, monkeypatch: pytest.MonkeyPatch, is_armed: bool) -> None:
    app.unlink()
    monkeypatch.setattr(_frozen, "_armed", is_armed)
    if is_armed:
        trial = await _handshake.begin()
        assert trial is not None
        trial.end()
    else:
        with pytest.raises(SelfSpawnError, match="cannot be opened"):
            await _handshake.begin()


async def test_windows_locks_a_byte_beyond_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    taken = [True, False]

    def locking(fd: int, mode: int, count: int) -> None:
        calls.append((mode, count))
        if taken.pop(0):
            raise PermissionError("locked")

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=locking))
    monkeypatch.setattr(sys, "platform", "win32")
    trial = await _handshake.begin()
    assert trial is not None and trial._file.tell() == _handshake._BEYOND
    assert calls == [(2, 1), (2, 1)]
    trial.end()
    assert trial._file.closed


async def test_switched_off_it_locks_nothing_and_forgets(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frozen, "GUARDS", {"armed"})
    trial = await _handshake.begin()
    assert trial is not None and trial._file is None
    trial.failed("it was none")
    trial.end()
    again = await _handshake.begin()
    assert again is not None
    again.end()
