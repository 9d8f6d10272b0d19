"""Calls for executors: they end, fail, crash and refuse to be pickled in every way."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

STATE: list[object] = []


def add(a: int, b: int = 1) -> int:
    return a + b


def pid(_: object = None) -> int:
    return os.getpid()


def keep(value: object) -> None:
    STATE.append(value)


def kept(_: object = None) -> list[object]:
    return STATE


def fail(text: str) -> None:
    raise ValueError(text)


def refuse_to_start(path: str) -> None:
    with open(path, "a", encoding="ascii") as file:
        file.write("called\n")
    raise OSError("no such device")


def die_at_start(path: str, times: int) -> None:
    """Note the start, and be killed by it so many times."""
    with open(path, "a", encoding="ascii") as file:
        file.write("x")
    print("starting")
    if os.path.getsize(path) <= times:
        print("no such device", file=sys.stderr, flush=True)
        os._exit(7)


def hold(folder: str, name: str = "running") -> str:
    """Say that it runs, and wait until it is let go."""
    place = Path(folder)
    (place / name).write_text(str(os.getpid()), "ascii")
    while not (place / "go").exists():
        time.sleep(0.01)
    return name


def say(text: str) -> None:
    print(text)
    print(text.upper(), end="", file=sys.stderr)


def note(path: str) -> None:
    with open(path, "a", encoding="ascii") as file:
        file.write("x")


def note_or(path: str, otherwise: str = "") -> str:
    """Be quick, unless it is to do something else, which nobody expects of it."""
    if otherwise == "die":
        os._exit(7)
    if otherwise == "hold":
        hold(path)
    else:
        note(path)
    return otherwise


def size(data: bytes) -> int:
    return len(data)


def repeat(count: int) -> bytes:
    return b"x" * count


def put(queue: Any, value: int) -> None:
    queue.put(value)


def nested(value: int) -> int:
    """Use an executor in a call of an executor."""
    from orchestrator_adapters.executor import OrchestratorExecutor

    with OrchestratorExecutor(1) as inner:
        return inner.submit(add, value).result(60)


# Ways to die


def exit_at_once() -> None:
    os._exit(7)


def segfault() -> None:
    import faulthandler

    faulthandler.disable()
    ctypes.string_at(0)


def libc_exit() -> None:
    ctypes.CDLL(None).exit(9)


def kill_itself() -> None:
    print("last words", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def note_and_exit(path: str) -> None:
    note(path)
    os._exit(7)


# Ways to fail


def sys_exit() -> None:
    sys.exit(11)


class Hostile(Exception):
    """Can be pickled, and not be rebuilt."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raise_hostile() -> None:
    raise Hostile("first", "second")


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


def raise_unpicklable() -> None:
    raise Unpicklable


WAYS = {
    "error": lambda: fail("at the edge"),
    "sys.exit": sys_exit,
    "segfault": segfault,
    "os._exit": exit_at_once,
    "libc exit": libc_exit,
}


def happen(way: str) -> None:
    WAYS[way]()


# … and where: when a value is pickled, when it is rebuilt, when it is collected


class AtPickle:
    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return happen(self.way)


class AtUnpickle:
    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return happen, (self.way,)


class AtCollection:
    def __init__(self, way: str) -> None:
        self.way = way

    def __del__(self) -> None:
        happen(self.way)


KINDS: dict[str, Any] = {"pickle": AtPickle, "unpickle": AtUnpickle, "collection": AtCollection}


def make(kind: str, way: str) -> object:
    """Return a value that does it to whoever pickles or rebuilds it."""
    return KINDS[kind](way)


def make_and_drop(way: str) -> None:
    """Have it done when a value is collected, within the call."""
    AtCollection(way)


def use_streams() -> list[str]:
    """Do with the standard streams what programs do with them at their start."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        stream.buffer.write(b"")
    sys.stdout.close()
    print("still there")
    return [sys.stdout.name, sys.stdout.mode, sys.stdout.encoding, sys.stdout.errors or "", sys.stderr.name]


class Frozen(Exception):
    """Lets nobody change it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


class Unprintable(Exception):
    """Ends whoever prints or pickles it."""

    def __str__(self) -> str:
        sys.exit("printed")

    def __reduce__(self) -> tuple[Any, ...]:
        sys.exit("pickled")


def maybe_raise(kind: str = "") -> str:
    """Be quick, and raise one of these."""
    if kind == "frozen":
        raise Frozen("no")
    if kind == "unprintable":
        raise Unprintable
    return kind


def say_and(number: int, end: str) -> None:
    """Print a line, then return or die."""
    print("line", number)
    if end == "die":
        os._exit(1)
