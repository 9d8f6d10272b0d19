"""Jobs that do not end, or not when they are asked to, and what they start meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time

from standing import stand

from orchestrator import child


def wait_for_ever(port: int) -> None:
    stand(port, "waiting")  # HERE it hangs: the gate never opens


def sleep_for_ever() -> None:
    child.progress(1)
    time.sleep(600)  # THE SYNC LINE


def wait_for_a_greenlet() -> None:
    import greenlet  # type: ignore[import-untyped]

    loop = greenlet.greenlet(time.sleep)  # as the sync API of Playwright has its event loop in one
    loop.switch(600)  # THE GREENLET LINE


async def sleep_for_ever_async() -> None:
    child.progress(1)
    await _deeper()


async def _deeper() -> None:
    await asyncio.sleep(600)  # THE ASYNC LINE


async def block_the_loop() -> None:
    child.progress(1)
    time.sleep(600)  # THE BLOCKING LINE


def wait_for_lock() -> None:
    child.progress(1)
    threading.Lock().acquire() and threading.Event().wait()  # THE LOCK LINE


def swallow_everything(port: int) -> None:
    while True:
        try:
            stand(port, "swallowing")
            threading.Event().wait()
        except BaseException:
            continue


async def swallow_everything_async() -> None:
    child.progress(1)
    while True:
        try:
            await asyncio.sleep(600)
        except BaseException:
            continue


def clean_up(path: str) -> None:
    try:
        child.progress(1)
        threading.Event().wait()
    finally:
        with open(path, "w") as file:
            file.write("cleaned")


async def clean_up_async(path: str) -> None:
    try:
        child.progress(1)
        await asyncio.Event().wait()
    finally:
        with open(path, "w") as file:
            file.write("cleaned")


def hold_the_gil() -> None:
    while True:
        try:
            child.progress(1)
            re.match(r"(a*)*b", "a" * 60)  # THE GIL LINE
        except BaseException:  # the cancel came before the GIL was held
            continue


def poll_for_stop() -> str:
    child.progress(1)
    try:
        while not child.stop_requested():
            time.sleep(0.005)
    except BaseException:
        return "interrupted"
    return "saw it"


def answer_the_cancel() -> str:
    child.progress(1)
    try:
        threading.Event().wait()
    except BaseException:
        return "finished all the same"
    return "never"


def report_slowly(times: int, pause: float) -> str:
    for number in range(times):
        child.progress(number)
        time.sleep(pause)
    return "done"


def fall_silent() -> None:
    child.progress(1)
    child.progress(2)
    time.sleep(600)  # THE SILENT LINE


def import_slowly() -> int:
    import imported_slowly

    return imported_slowly.VALUE


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fail() -> None:
    raise ValueError("again")


_SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
_WITH_CHILD = (
    "import subprocess, sys, time; "
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); time.sleep(600)"
)


def start_descendants(port: int, path: str) -> None:
    """Start a process, one in a session of its own, and a grandchild; note their pids; hang."""
    plain = subprocess.Popen(_SLEEPER)
    session = subprocess.Popen(_SLEEPER, start_new_session=True)
    parent = subprocess.Popen([sys.executable, "-c", _WITH_CHILD], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    grandchild = int(parent.stdout.readline())
    with open(path, "w") as file:
        file.write(" ".join(map(str, (plain.pid, session.pid, parent.pid, grandchild))))
    stand(port, "started")


def leave_orphans(port: int, path: str, *, reap: bool, hang: bool = True) -> None:
    """Start processes whose own parents end at once, one in a session of its own; note their pids; hang."""
    pids = []
    for session in (False, True):
        command = ["/bin/sh", "-c", "sleep 600 >/dev/null & echo $!"]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=session)
        assert parent.stdout is not None
        pids.append(int(parent.stdout.read()))  # it ends with its parent
        if reap:
            parent.wait()
        else:
            _ZOMBIES.append(parent)
    with open(path, "w") as file:
        file.write(" ".join(map(str, pids)))
    if hang:
        stand(port, "started")


_ZOMBIES: list[subprocess.Popen[bytes]] = []


async def start_descendants_async(port: int, path: str) -> None:
    from standing import stand_async

    process = await asyncio.create_subprocess_exec(*_SLEEPER, start_new_session=True)
    with open(path, "w") as file:
        file.write(str(process.pid))
    await stand_async(port, "started")


class Helper:
    """A process that a resource keeps."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(_SLEEPER, start_new_session=True)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def use_helper() -> tuple[int, int]:
    return os.getpid(), child.resource("helper", Helper).process.pid


def use_helper_and_hang(port: int, path: str) -> None:
    child.resource("helper", Helper)
    start_descendants(port, path)
