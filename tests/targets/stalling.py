"""Jobs that fall silent, grow, or say what no child should say; each tells first that it runs."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from typing import Any

from dying import protocol_fd
from standing import stand

from orchestrator import _wire, child

MB = 2**20
_KEPT: list[bytearray] = []


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def hold_the_interpreter(seconds: float) -> str:
    """Wait in C code that does not let go of the interpreter, and that no signal interrupts."""
    libc = ctypes.PyDLL(None)
    condition, mutex = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
    until = time.time() + seconds
    timespec = _Timespec(int(until), int(until % 1 * 1e9))
    libc.pthread_mutex_lock(mutex)
    libc.pthread_cond_timedwait(condition, mutex, ctypes.byref(timespec))
    libc.pthread_mutex_unlock(mutex)
    return "went on"


def hold_after_telling(port: int, seconds: float) -> str:
    child.progress(1)
    stand(port, "holding")
    return hold_the_interpreter(seconds)


def hold_as_preload() -> None:
    hold_the_interpreter(float(os.environ["HOLD"]))


def hold_once(path: str, port: int, seconds: float) -> str:
    """Hold the interpreter the first time; be quick when the file is there."""
    if os.path.exists(path):
        return "second time"
    with open(path, "x"):
        pass
    return hold_after_telling(port, seconds)


def report_for(seconds: float, every: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        child.progress(until - time.monotonic())
        time.sleep(every)
    return "reported"


def talk_at_length(port: int, lines: int) -> str:
    """Say more than a pipe holds, and answer."""
    stand(port, "talking")
    for _ in range(lines):
        print("x" * 2_000)
    return "said"


def sleep_for(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def age() -> tuple[int, str]:
    return os.getpid(), "here"


# Memory


def grow(most: int, step: int = 16 * MB, pause: float = 0.05) -> int:
    """Take memory, and tell how much, until there is enough of it."""
    taken = 0
    while taken < most:
        block = bytearray(step)
        block[::4096] = b"x" * len(block[::4096])
        _KEPT.append(block)
        taken += step
        child.progress(taken)
        time.sleep(pause)
    return os.getpid()


_GROW = (
    "import sys, time; held = []\n"
    "for n in range(int(sys.argv[1]) >> 24):\n"
    "    held.append(bytearray(1 << 24)); held[-1][::4096] = b'x' * len(held[-1][::4096])\n"
    "    print(len(held) << 24, flush=True); time.sleep(0.05)\n"
)


def grow_in_a_grandchild(most: int) -> int:
    """Have a process of a process take the memory."""
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_GROW!r}, sys.argv[1]])"
    with subprocess.Popen([sys.executable, "-c", nested, str(most)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            child.progress(int(line))
    return os.getpid()


def grow_and_die(size: int, port: int) -> None:
    grow(size, pause=0)
    stand(port, "grown")
    os._exit(3)


# What no child says


def _frame(**members: Any) -> bytes:
    return _wire.encode(members)


def half_a_frame() -> None:
    os.write(protocol_fd(), b'{"type":"result","fen')
    os._exit(4)


def large_frame(size: int) -> str:
    """Write one frame of so many bytes."""
    _write(_frame(type="log", text="x" * size, stream="log", level="info"))
    return "wrote it"


def no_utf8() -> str:
    os.write(protocol_fd(), b'{"type":"log","text":"\xff\xfe"}\n')
    return "lives"


def no_line_end(size: int) -> None:
    """Write so many bytes that no line feed ends, then die."""
    piece = b"x" * 65_536
    for _ in range(size // len(piece)):
        _write(piece)
    os._exit(5)


def _write(data: bytes) -> None:
    fd, view = protocol_fd(), memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def forge(fences: list[int], count: int) -> str:
    """Answer for jobs of others, in every way there is, so many times."""
    error = {"type": "ValueError", "message": "forged", "traceback": ""}
    lines = b"".join(
        _frame(type="result", fence=fence, value="forged")
        + _frame(type="error", fence=fence, error=error)
        + _frame(type="progress", fence=fence, done=99)
        + _frame(type="item", fence=fence, value="forged")
        + _frame(type="returned", asked=[fence], fences=[fence])
        + _frame(type="release", fence=fence, request=1)
        + _frame(type="started", fence=fence, kind="async")
        for fence in fences
    )
    for _ in range(count):
        _write(lines)
    return "real"


def name_a_file(member: str, path: str) -> None:
    """Say that the result of this very job is in a file."""
    from orchestrator.child import _scope

    scope = _scope.current()
    assert scope is not None
    _write(_frame(type="result", fence=scope.fence, ms=1.0, **{member: path}))
    time.sleep(1)


def name_a_link(member: str, path: str) -> None:
    """The same through a link in the child's own folder."""
    link = os.path.join(os.environ["TMPDIR"], "result-link")
    os.symlink(path, link)
    name_a_file(member, link)


def replace_the_stack_file() -> None:
    """Put a pipe in the place of the file that the supervisor reads when this hangs; then hang."""
    path = os.path.join(os.environ["TMPDIR"], _wire.STACK_FILE)
    os.unlink(path)
    os.mkfifo(path)
    hold_the_interpreter(60)


def block_results(path: str) -> str:
    """Put links where the supervisor writes the arguments of the next jobs."""
    for fence in range(200):
        os.symlink(path, os.path.join(os.environ["TMPDIR"], f"job-{fence}"))
    return "blocked"


def length(text: str) -> int:
    return len(text)


def grow_then_stand(size: int, port: int) -> int:
    grow(size, pause=0)
    stand(port, "grown")
    return os.getpid()


def pid_after(port: int) -> int:
    stand(port, "busy")
    return os.getpid()


def oom_score() -> int:
    with open("/proc/self/oom_score_adj") as file:
        return int(file.read())


def kill_self() -> None:
    os.kill(os.getpid(), 9)
    time.sleep(60)


def exit_by_itself() -> None:
    os._exit(7)


# Spares


def temp_folder() -> str:
    return os.environ["TMPDIR"]


def loaded(module: str) -> tuple[int, bool]:
    return os.getpid(), module in sys.modules


def name_a_file_when_cancelled(path: str) -> None:
    """Answer the cancel with a file that is somebody else's."""
    try:
        time.sleep(60)
    except child.JobCancelled:
        name_a_file("value_file", path)
