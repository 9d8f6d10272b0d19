"""A child's pipes: bytes come and go whole and in order, whatever the other side does, and everything is closed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from orchestrator._pipes import FdPipes, Pipes, StreamPipes, make_pipes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="moves descriptors about")

ECHO = "import os\nwhile data := os.read(0, 65536): os.write(1, data)"


class End:
    """One end that hears: what came on stdout and stderr, and whether stdout has ended."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.ended = 0
        self._changed = asyncio.Event()

    def take_out(self, data: bytes) -> None:
        self.out += data
        self._changed.set()

    def take_err(self, data: bytes) -> None:
        self.err += data
        self._changed.set()

    def end(self) -> None:
        self.ended += 1
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                self._changed.clear()
                await self._changed.wait()


class Spawned:
    """A process on pipes of one kind."""

    def __init__(self, pipes: Pipes) -> None:
        self.pipes = pipes
        self.end = End()
        self.process: anyio.abc.Process

    async def start(self, code: str) -> None:
        self.process = await anyio.open_process([sys.executable, "-S", "-c", code], **self.pipes.arguments)
        self.pipes.attach(self.process, self.end.take_out, self.end.end, self.end.take_err)


@pytest.fixture(params=[FdPipes, StreamPipes])
async def spawned(request: pytest.FixtureRequest) -> AsyncIterator[Spawned]:
    found = Spawned(request.param())
    yield found
    if found.process.returncode is None:
        found.process.kill()
    await found.process.wait()
    await found.pipes.drain()
    await found.pipes.aclose()
    await found.pipes.aclose()


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()


async def test_bytes_come_back_whole_and_in_order(spawned: Spawned) -> None:
    await spawned.start(ECHO)
    pieces = [b"%d" % number * (number % 7) + b"\n" for number in range(5_000)]
    for piece in pieces:
        spawned.pipes.write(piece)
    whole = b"".join(pieces)
    await spawned.end.until(lambda: len(spawned.end.out) >= len(whole))
    assert spawned.end.out == whole


async def test_megabytes_in_both_directions(spawned: Spawned) -> None:
    await spawned.start(ECHO)
    blob = os.urandom(8 * 2**20)
    spawned.pipes.write(blob)
    spawned.pipes.write(b"end")
    assert spawned.pipes.unsent > 0, "it does not wait"
    await spawned.end.until(lambda: len(spawned.end.out) >= len(blob) + 3)
    assert spawned.end.out == blob + b"end"
    assert spawned.pipes.unsent == 0


async def test_child_that_does_not_read_holds_nobody_up(spawned: Spawned) -> None:
    await spawned.start("import sys, time; sys.stderr.write('up'); sys.stderr.flush(); time.sleep(600)")
    spawned.pipes.write(b"x" * 2**22)
    await spawned.end.until(lambda: spawned.end.err == b"up")
    assert spawned.pipes.unsent >= 2**21
    spawned.process.kill()
    await spawned.process.wait()
    spawned.pipes.write(b"to a dead one")
    await spawned.pipes.drain()


async def test_last_words_are_heard(spawned: Spawned) -> None:
    await spawned.start("import os; os.write(1, b'o' * 60000); os.write(2, b'e' * 60000); os._exit(3)")
    assert await spawned.process.wait() == 3
    await spawned.pipes.drain()
    assert (len(spawned.end.out), len(spawned.end.err)) == (60_000, 60_000)


async def test_last_words_do_not_wait_for_a_process_that_holds_the_pipes(spawned: Spawned) -> None:
    # The fork lives as long as its stdin, which only it holds.
    code = (
        "import os\nr, w = os.pipe()\nif os.fork() == 0:\n os.close(w); os.read(0, 1); os._exit(0)\n"
        "os.write(1, b'bye'); os._exit(0)"
    )
    await spawned.start(code)
    await spawned.process.wait()
    async with asyncio.timeout(10):
        await spawned.pipes.drain()
    assert spawned.end.out == b"bye"
    assert spawned.end.ended == 0


async def test_end_of_stdout_is_told_once(spawned: Spawned) -> None:
    await spawned.start("import os; os.close(1); os.read(0, 1)")
    await spawned.end.until(lambda: spawned.end.ended > 0)
    assert spawned.process.returncode is None
    spawned.pipes.write(b"x")
    await spawned.process.wait()
    await spawned.pipes.drain()
    assert spawned.end.ended == 1


async def test_end_of_input_reaches_the_child(spawned: Spawned) -> None:
    await spawned.start(ECHO)
    spawned.pipes.write(b"hello")
    await spawned.end.until(lambda: spawned.end.out == b"hello")
    spawned.pipes.end_input()
    spawned.pipes.end_input()
    spawned.pipes.write(b"ignored")
    assert await spawned.process.wait() == 0
    assert spawned.pipes.unsent == 0
    await spawned.end.until(lambda: spawned.end.ended == 1)
    assert spawned.end.out == b"hello"


async def test_end_of_input_with_bytes_that_nobody_reads(spawned: Spawned) -> None:
    await spawned.start("import time; time.sleep(600)")
    spawned.pipes.write(b"x" * 2**22)
    await asyncio.sleep(0)
    spawned.pipes.end_input()
    assert spawned.pipes.unsent == 0
    spawned.process.kill()
    await spawned.process.wait()


@pytest.mark.parametrize("kind", [FdPipes, StreamPipes])
async def test_closed_before_they_are_attached(kind: Any) -> None:
    before = open_fds()
    pipes = kind()
    pipes.write(b"x")
    pipes.end_input()
    await pipes.aclose()
    await pipes.aclose()
    assert open_fds() == before


async def test_nothing_is_left_open(spawned: Spawned) -> None:
    await spawned.start(ECHO)
    spawned.pipes.write(b"x" * 2**20)
    spawned.process.kill()
    await spawned.process.wait()
    await spawned.pipes.drain()
    await spawned.pipes.aclose()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_this_host_uses_descriptors() -> None:
    pipes = make_pipes()
    assert isinstance(pipes, FdPipes)
    await pipes.aclose()
