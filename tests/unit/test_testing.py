"""What is left behind is reported with its name, and what is not is not."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.testing import nothing_left

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="processes have parents for life on POSIX only")


@contextmanager
def reported(*words: str, timeout: float = 0.2) -> Iterator[None]:
    with pytest.raises(AssertionError) as caught, nothing_left(timeout):
        yield
    for word in words:
        assert word in str(caught.value)


@pytest.fixture
def process() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_clean_code_passes_without_waiting() -> None:
    with nothing_left(timeout=0):
        subprocess.run([sys.executable, "-c", ""], check=True)
        with tempfile.TemporaryDirectory(prefix="orchestrator-"), tempfile.TemporaryFile():
            pass
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


def test_what_was_there_before_is_not_reported(process: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process.append(subprocess.Popen(SLEEP))
    with (tmp_path / "file").open("w"), nothing_left(timeout=0):
        (tmp_path / "file").unlink()


def test_a_process_is_reported_with_its_command(process: list[subprocess.Popen[bytes]]) -> None:
    with reported("process", "time.sleep(60)"):
        process.append(subprocess.Popen(SLEEP))


@posix
def test_a_zombie_is_reported(process: list[subprocess.Popen[bytes]]) -> None:
    with reported("zombie"):
        process.append(subprocess.Popen([sys.executable, "-c", ""]))
        os.waitid(os.P_PID, process[0].pid, os.WEXITED | os.WNOWAIT)


@posix
def test_a_process_whose_parent_ended_is_reported() -> None:
    # The orphan must not hold the pipe on which run() waits for the end.
    code = f"import subprocess as s; print(s.Popen({SLEEP!r}, stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    pid = 0
    try:
        with reported("time.sleep(60)"):
            pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    finally:
        if pid:
            orphan = psutil.Process(pid)
            orphan.kill()
            orphan.wait(10)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="elsewhere only the count is known")
def test_a_descriptor_is_reported_with_its_target(tmp_path: Path) -> None:
    file = None
    with reported("file descriptor", str(tmp_path / "forgotten")):
        file = (tmp_path / "forgotten").open("w")
    file.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="elsewhere only the count is known")
def test_a_descriptor_whose_number_was_used_before_is_reported(tmp_path: Path) -> None:
    first = os.open(tmp_path / "first", os.O_CREAT)
    with reported("second"):
        second = os.open(tmp_path / "second", os.O_CREAT)
        os.dup2(second, first)
        os.close(second)
    os.close(first)


def test_a_thread_is_reported_with_its_name() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten", daemon=True)
    with reported("thread 'forgotten' (daemon)"):
        thread.start()
    stop.set()
    thread.join()


def test_a_folder_is_reported_with_its_path() -> None:
    path = ""
    with reported("folder", "orchestrator-forgotten-"):
        path = tempfile.mkdtemp(prefix="orchestrator-forgotten-")
    shutil.rmtree(path)


async def test_a_task_is_reported_with_its_coroutine() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match=r"task 'lost': .*forgotten"):
        async with nothing_left(0.1):
            task = asyncio.create_task(forgotten(), name="lost")
    task.cancel()
    await asyncio.wait([task])


async def test_tasks_that_are_ending_are_waited_for() -> None:
    event = asyncio.Event()

    async def end() -> None:
        await event.wait()
        await asyncio.sleep(0)

    async with nothing_left():
        task = asyncio.create_task(end())
        asyncio.get_running_loop().call_later(0.1, event.set)
    await task


def test_what_is_going_away_is_waited_for() -> None:
    with nothing_left():
        thread = threading.Timer(0.1, int)
        thread.start()
    thread.join()


def test_the_bodys_own_exception_comes_out_with_a_note() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")

    def body() -> None:
        thread.start()
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own") as caught, nothing_left(0.1):
        body()
    assert "thread 'forgotten'" in caught.value.__notes__[0]
    stop.set()
    thread.join()


def test_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    with nothing_left(), nothing_left():
        pass
    assert dict(os.environ) == before


@posix
def test_a_killed_process_that_somebody_reaps_is_waited_for(process: list[subprocess.Popen[bytes]]) -> None:
    with nothing_left():
        process.append(subprocess.Popen(SLEEP))
        os.kill(process[0].pid, signal.SIGKILL)
        reaper = threading.Timer(0.1, process[0].wait)
        reaper.start()
    reaper.join()
