"""Jobs that print in every way, fork, and start processes that print."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import subprocess
import sys
import threading
import warnings

from orchestrator import child


def print_things() -> str:
    print("one", "two")
    print("no newline", end="")
    print("to stderr", file=sys.stderr)
    return "printed"


def write_fd(fd: int, text: str) -> str:
    os.write(fd, text.encode())
    return "written"


def put_by_c(text: str) -> str:
    libc = ctypes.CDLL(None)
    libc.puts(text.encode())
    libc.fflush(None)
    return "put"


def fake_frames() -> str:
    fake = json.dumps({"type": "result", "fence": 1, "ms": 1, "value": "faked"})
    for fence in range(1, 5):
        line = fake.replace('"fence": 1', f'"fence": {fence}')
        print(line)
        print(line, file=sys.stderr)
        os.write(1, line.encode() + b"\n")
        os.write(2, line.encode() + b"\n")
        os.system(f"echo '{line}'")
    return "true"


def have_grandchild_print(words: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", f"import os, sys; print({words!r}); os.write(2, b'err {words}\\n')"], check=False
    ).returncode


def leave_grandchild_printing(port: int) -> int:
    """Return while a process that holds our fds lives on and prints."""
    code = "import time\nwhile True: print('x' * 200, flush=True); time.sleep(0.001)"
    return subprocess.Popen([sys.executable, "-c", code]).pid


def flood_stderr(size: int) -> int:
    block = (b"e" * 99 + b"\n") * 1000
    for _ in range(size // len(block)):
        os.write(2, block)
    return size


def flood_prints(lines: int) -> int:
    for number in range(lines):
        print("line", number)
    return lines


def flood_without_newline(size: int) -> int:
    for _ in range(size // 65536):
        os.write(2, b"y" * 65536)
        print("z" * 65536, end="")
    return size


def use_logging() -> str:
    logger = logging.getLogger("app.part")
    logger.setLevel("DEBUG")
    logger.warning("look %s", "out")
    logger.info("all well")
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("it broke")
    warnings.warn("old way", DeprecationWarning, stacklevel=1)
    warnings.warn("mind this", UserWarning, stacklevel=1)
    return "logged"


def say(text: str) -> str:
    child.log(text, level="warning", page=3)
    return text


async def print_async(label: str, times: int) -> str:
    for number in range(times):
        print(f"{label} {number}")
        logging.getLogger("async").warning("%s logs %d", label, number)
        await asyncio.sleep(0)
    return label


def print_from_thread(text: str) -> str:
    thread = threading.Thread(target=print, args=(text,))
    thread.start()
    thread.join()
    return text


def fork_in_job() -> int:
    """Fork; the copy prints, writes, reports progress, and leaves without exec."""
    pid = os.fork()
    if pid == 0:
        print("from the copy")
        child.progress(99)
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return status


def fork_and_return() -> str:
    """Both the child and its copy return from the job."""
    pid = os.fork()
    if pid == 0:
        return "the copy's result"
    os.waitpid(pid, 0)
    return "the child's result"


def fork_and_raise() -> str:
    pid = os.fork()
    if pid == 0:
        raise RuntimeError("in the copy")
    os.waitpid(pid, 0)
    return "the child's result"


def read_stdin() -> str:
    return sys.stdin.read()


def replace_streams() -> str:
    import io

    sys.stdout = io.StringIO()
    print("into my own")
    text = sys.stdout.getvalue()
    sys.stdout = sys.__stdout__
    return text


def close_streams() -> str:
    sys.stdout.close()
    sys.stderr.close()
    return "closed"


def print_bytes() -> str:
    sys.stdout.buffer.write(b"raw \xff bytes\n")
    sys.stdout.flush()
    print("lone \ud800 surrogate", "null \0")
    print("10 %\r20 %\r100 %")
    return "ok"


def is_a_tty() -> list[object]:
    return [sys.stdout.isatty(), sys.stdout.encoding.lower(), sys.stdout.fileno()]
