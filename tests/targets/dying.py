"""Jobs that end their child in every way there is, and some that only seem to."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
import threading

from standing import stand

from orchestrator import child


def _prelude(port: int) -> None:
    print("last words", file=sys.stderr)
    child.progress(7, 9, "nearly")
    stand(port, "dying")


def exit_at_once(port: int, code: int) -> None:
    _prelude(port)
    os._exit(code)


def segfault(port: int) -> None:
    _prelude(port)
    ctypes.string_at(0)


def kill_self(port: int, number: int) -> None:
    _prelude(port)
    os.kill(os.getpid(), number)
    threading.Event().wait()


def close_fds(port: int) -> None:
    _prelude(port)
    os.closerange(3, 256)


def close_fds_and_stay(port: int) -> None:
    _prelude(port)
    os.closerange(3, 256)
    threading.Event().wait()


def write_bad_frames(port: int) -> None:
    _prelude(port)
    for _ in range(5):
        os.write(protocol_fd(), b"this is no frame\n")
    threading.Event().wait()


def write_one_bad_frame() -> str:
    os.write(protocol_fd(), b'{"type":"result","fence":"nonsense"}\n')
    return "lives"


def protocol_fd() -> int:
    """The private copy of fd 1: the only pipe above 2 that can be written and not read."""
    import fcntl

    found = []
    for fd in range(3, 64):
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode) or stat.S_ISSOCK(os.fstat(fd).st_mode)
            mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            continue
        if is_pipe and mode in (os.O_WRONLY, os.O_RDWR) and not os.get_inheritable(fd):
            found.append(fd)
    return found[-1]


def sys_exit(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def interrupt() -> None:
    raise KeyboardInterrupt


def eat_memory() -> int:
    return len(bytearray(1 << 60))


def size_of(text: str) -> int:
    return len(text)


def make_text(size: int) -> str:
    return "x" * size


def pid() -> int:
    return os.getpid()


def die_unless(path: str, code: int = 5) -> int:
    """Die the first time; succeed when the file is there."""
    if os.path.exists(path):
        return os.getpid()
    with open(path, "x"):
        pass
    os._exit(code)


def die_counting(path: str, deaths: int) -> int:
    """Die so many times, noting each run."""
    with open(path, "ab") as file:
        file.write(b"x")
        runs = file.tell()
    if runs <= deaths:
        os._exit(9)
    return runs


def die_counting_at_gate(port: int, label: str, path: str, deaths: int) -> int:
    stand(port, label)
    return die_counting(path, deaths)


def note(path: str, label: str) -> str:
    """Note that it ran."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{label}\n".encode())
    os.close(fd)
    return label


def note_and_die(path: str, label: str) -> None:
    note(path, label)
    os.kill(os.getpid(), signal.SIGKILL)


async def note_and_die_async(path: str, label: str) -> None:
    note(path, label)
    os.kill(os.getpid(), signal.SIGKILL)
