"""Targets for children under test; imports nothing at the top that a child has not loaded already."""

from __future__ import annotations

import os
import sys
import time

from orchestrator import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Any

FOREVER = 600.0
calls = 0


def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


def add(left: int, right: int) -> int:
    return left + right


def add_path(path: str) -> None:
    sys.path.append(path)


def modules() -> list[str]:
    return sorted(sys.modules)


def pid() -> int:
    return os.getpid()


class Greeter:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def greet(self, name: str) -> str:
        return f"{self.greeting} {name}"

    @staticmethod
    def shout(name: str) -> str:
        return name.upper()


# Errors


class OurError(Exception):
    code = 7


def fail_richly() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        problem = OurError("rich")
        problem.add_note("first note")
        raise problem from error


def fail_in_a_group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])


def fail_hugely() -> None:
    raise ValueError("x" * 10_000_000)


def fail_recursively() -> None:
    class Recursive(Exception):
        def __repr__(self) -> str:
            return repr(self)

        def __str__(self) -> str:
            return str(self)

    raise Recursive


def fail_in_its_own_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit("no text for you")

        @property
        def code(self) -> int:
            raise RuntimeError

    raise Mute


def fail_with_a_chain() -> None:
    error: Exception = ValueError("innermost")
    for number in range(2_000):
        outer = ValueError(f"around {number}")
        outer.__cause__ = error
        error = outer
    raise error


def fail_with_a_cycle() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    raise one


def fail_with_base() -> None:
    class Base(BaseException):
        pass

    raise Base("base")


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


def leave(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def interrupt() -> None:
    raise KeyboardInterrupt


def want_memory() -> None:
    bytearray(1 << 60)


# Values that cannot travel


def return_object() -> object:
    return {"deep": [object()]}


def return_endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def return_text(size: int) -> str:
    return "x" * size


def size_of(text: str) -> int:
    return len(text)


# Items, events and what else a job says


def count(number: int) -> Iterator[int]:
    yield from range(number)


def count_and_return(number: int) -> Iterator[int]:
    yield from range(number)
    return "returned"


def yield_objects() -> Iterator[object]:
    yield object()


async def count_async(number: int) -> AsyncIterator[int]:
    for item in range(number):
        yield item


def hold_generator() -> Iterator[int]:
    try:
        yield from range(1_000_000)
    finally:
        child.log("generator closed")


def emit(values: list[Any]) -> None:
    for value in values:
        child.emit(value)


def emit_from_thread() -> None:
    import threading

    def work() -> None:
        for item in range(100):
            child.emit(item)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        child.log("thread started")
        time.sleep(FOREVER)
    finally:
        thread.join()  # ends only when `emit` does not wait any more


def hurry(number: int) -> None:
    for done in range(1, number + 1):
        child.progress(done, number, "hurrying")


def progress_of(done: Any) -> None:
    child.progress(done)


def say(text: str, level: str) -> None:
    child.log(text, level, answer=42, thing={1, 2})


def use(counts: dict[str, Any], code: int | None = None) -> dict[str, Any]:
    """Say what was used, and read what all jobs are told; with a code, leave at once."""
    child.usage(**counts)
    if code is not None:
        os._exit(code)
    return child.params()


def tell_key(name: str) -> None:
    """Tell a secret in every kind of frame that people read."""
    import json

    key = os.environ[name]
    child.progress(1, text=f"progress {key}")
    child.log(f"log {key}", field=[key])
    print("print", json.dumps(key))
    sys.stdout.write("half a line " + key)
    os.write(2, f"raw {key}\n".encode())
    raise ValueError(f"error {key}") from KeyError(key)


def make_artifact(path: str) -> None:
    with open(path, "w") as file:
        file.write("made")
    child.artifact(path)


def call(progress: Any, number: int) -> None:
    for item in range(number):
        progress(item, half=item / 2)


def call_with_object(progress: Any) -> None:
    progress(object())


# Permits


def with_permit(name: str) -> str:
    with child.permit(name, 2):
        child.log("inside")
    return "left"


def throttled() -> None:
    with child.permit("api") as permit:
        permit.throttled(1.5)


async def with_permit_async(name: str) -> str:
    async with child.permit(name):
        child.log("inside")
    return "left"


def with_cache(key: str) -> Any:
    return child.cache("test").get_or_compute(key, lambda: {"of": key})


async def with_cache_async(key: str) -> Any:
    async def compute() -> Any:
        return {"of": key}

    return await child.cache("test").get_or_compute(key, compute)


# Resources


class Connection:
    def __init__(self) -> None:
        self.uses = 0

    def close(self) -> None:
        print("connection closed")


class AsyncConnection:
    async def aclose(self) -> None:
        print("async connection closed")


class BadConnection:
    def close(self) -> None:
        raise OSError("will not close")


def use_resource() -> int:
    connection = child.resource("connection", Connection)
    connection.uses += 1
    child.resource("bad", BadConnection)
    return connection.uses


def failing_resource() -> None:
    def factory() -> None:
        raise OSError("no connection")

    child.resource("failing", factory)


async def connect() -> AsyncConnection:
    global calls
    calls += 1
    import asyncio

    child.log("connecting")
    await asyncio.sleep(0)
    while calls == 1 and not os.path.exists(os.environ["RELEASE"]):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    return AsyncConnection()


async def use_async_resource() -> int:
    await child.resource("async", connect)
    return calls


def warm() -> None:
    child.resource("connection", Connection)


def spawn(own_session: bool) -> int:
    import subprocess

    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=own_session).pid


def hold_resource_and_hang() -> None:
    """Make a resource with a process of its own, start another process, hang."""
    kept = child.resource("process", lambda: spawn(own_session=True))
    child.emit([kept, spawn(own_session=True)])
    time.sleep(FOREVER)


# Hanging


def sleep_and_say() -> None:
    child.log("here")
    time.sleep(FOREVER)


def spin() -> None:
    child.log("here")
    while True:
        pass


def tidy_up() -> None:
    try:
        child.log("here")
        time.sleep(FOREVER)
    finally:
        child.log("tidied up")


def swallow() -> str:
    try:
        child.log("here")
        time.sleep(FOREVER)
    except child.JobCancelled:
        return "swallowed"
    return "never"


def convert_cancel() -> None:
    try:
        child.log("here")
        time.sleep(FOREVER)
    except child.JobCancelled:
        raise ValueError("something else") from None


def hold_gil() -> None:
    """Never let another thread run, nor a Python signal handler."""
    import re

    child.log("here")
    re.match(r"(a+)+$", "a" * 64 + "b")


def ignore_cancel() -> None:
    while True:
        try:
            child.log("here")
            time.sleep(FOREVER)
        except child.JobCancelled:
            child.log("ignored")
            time.sleep(FOREVER)


def wait_for_stop() -> str:
    child.log("here")
    while not child.stop_requested():
        time.sleep(0.001)
    return "stopped"


def nap(seconds: float) -> None:
    time.sleep(seconds)


async def nap_async(seconds: float) -> str:
    import asyncio

    child.log("here")
    await asyncio.sleep(seconds)
    return "woke"


async def inner(seconds: float) -> None:
    import asyncio

    asyncio.get_running_loop().call_soon(child.log, "here")  # when this waits
    await asyncio.sleep(seconds)  # line of the hang


async def hang_in_a_task() -> None:
    import asyncio

    async with asyncio.TaskGroup():
        await asyncio.create_task(inner(FOREVER))


async def hang_in_a_generator() -> AsyncIterator[int]:
    yield 1
    await inner(FOREVER)


async def block_the_loop() -> None:
    _ = child.log("here"), time.sleep(FOREVER)  # type: ignore[func-returns-value]  # line of the block


arrived = 0


async def meet(number: int) -> int:
    """Return when so many are here at once."""
    global arrived
    import asyncio

    arrived += 1
    print("printed by", number)
    while arrived < number:  # noqa: ASYNC110 - what is tested needs no event
        await asyncio.sleep(0)
    return arrived


# Output


def print_lines(number: int, end: str = "\n") -> None:
    for index in range(number):
        print("line", index, end=end)


def print_to_error(text: str) -> None:
    print(text, file=sys.stderr)


def print_bytes() -> None:
    out = sys.stdout.buffer
    out.write("h\u00e9".encode()[:2])
    out.write("h\u00e9".encode()[2:] + b"\n\xff\n")


def write_raw(fd: int, text: str) -> None:
    os.write(fd, text.encode())


def puts(text: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None)
    libc.puts(text.encode())


def let_grandchild_print(text: str) -> int:
    import subprocess

    return subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True, stdout=sys.stdout).returncode


def flood(megabytes: int) -> int:
    chunk = b"f" * 1023 + b"\n"
    for _ in range(megabytes * 1024):
        os.write(2, chunk)
    return megabytes


def read_stdin() -> str:
    return sys.stdin.read()


def print_in_finaliser(number: int) -> int:
    import gc

    class Noisy:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            print("finalised")

    gc.set_threshold(1)
    try:
        for _ in range(number):
            Noisy()
            print("made")
    finally:
        gc.set_threshold(700)
    return number


# Forks


def fork(how: str) -> int:
    """Fork; the copy does something it should not. Return the copy's exit code."""
    pid = os.fork()
    if pid == 0:
        print("print of the copy")
        print("held by the copy", end="")
        child.log("log of the copy")
        child.progress(1)
        child.emit(1)
        if how == "return":
            return -1
        if how == "exit":
            sys.exit(3)
        if how == "raise":
            raise ValueError("of the copy")
        os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def close_all_fds() -> None:
    os.closerange(3, 256)


def die_by(signal: int) -> None:
    os.kill(os.getpid(), signal)
    time.sleep(FOREVER)


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def arguments() -> list[str]:
    return sys.argv


# Records


def log_records(how: str) -> None:
    import logging

    if how == "basic":
        logging.basicConfig(format="formatted %(message)s", level=logging.DEBUG)
    elif how == "force":
        logging.basicConfig(force=True)
    logger = logging.getLogger("our.logger")
    logger.debug("debug %s", "text")
    logger.info("info %s", "text")
    logger.warning("not %d enough", "good")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("went wrong")
    print("printed after")


def warn() -> None:
    import warnings

    warnings.warn("look out", UserWarning, stacklevel=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("caught", UserWarning, stacklevel=1)
    assert len(caught) == 1


def finders() -> list[str]:
    import logging
    import warnings

    assert type(logging.__loader__).__name__ == type(logging.__spec__.loader).__name__ != "_Loader"
    assert warnings.__spec__ is not None
    return [type(finder).__name__ for finder in sys.meta_path]


def register_exit() -> None:
    import atexit

    atexit.register(print, "at exit")
