"""The three pipes of a child as its parent holds them: frames out without waiting, bytes in as they come."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator import _lifelines

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream, Process

# What a pipe holds at most; a larger buffer would be mapped and unmapped by the allocator on every read.
_CHUNK = 65_536

Sink = Callable[[bytes], None]


class Pipes(Protocol):
    """Both ways to hold a child's pipes.

    Attributes:
        unsent: Bytes that the child has not taken yet.
        arguments: What `open_process` gets for stdin, stdout and stderr.
    """

    unsent: int
    arguments: dict[str, Any]

    def attach(self, process: Process, out: Sink, out_ended: Callable[[], None], err: Sink) -> None:
        """Begin to read; called once, right after the spawn."""

    def write(self, data: bytes) -> None:
        """Send bytes, in order, sooner or later; never waits and never raises: a dead child is noticed elsewhere."""

    def end_input(self) -> None:
        """Close the child's stdin."""

    async def drain(self) -> None:
        """After the child's exit: hand over what it wrote before it died."""

    async def aclose(self) -> None:
        """Close what is open; safe to call twice, and before `attach`."""


class FdPipes:
    """Pipes on file descriptors that the loop watches: a write is one system call at once, a read one callback.

    The bytes that a dead child left are read without waiting for the end of the stream, which a forked process may
    hold open for ever.
    """

    def __init__(self) -> None:
        self.unsent = 0
        self._waiting: list[bytes] = []
        self._theirs: list[int] = []
        self._ours: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._reading: dict[int, tuple[Sink, Callable[[], None] | None]] = {}
        try:
            for ours_reads in (False, True, True):
                read, write = os.pipe()
                ours, theirs = (read, write) if ours_reads else (write, read)
                self._ours.append(ours)
                self._theirs.append(theirs)
                _lifelines.hold((ours, theirs))
                if sys.platform != "win32":
                    os.set_blocking(ours, False)
        except BaseException:
            self._close_all()
            raise
        self._in, self._out, self._err = self._ours
        self.arguments: dict[str, Any] = dict(zip(("stdin", "stdout", "stderr"), self._theirs, strict=True))

    def attach(self, process: Process, out: Sink, out_ended: Callable[[], None], err: Sink) -> None:
        self._close(self._theirs)
        self._reading = {self._out: (out, out_ended), self._err: (err, None)}
        for fd in self._reading:
            self._loop.add_reader(fd, self._readable, fd)

    def _readable(self, fd: int) -> None:
        if not self._read_once(fd):
            self._loop.remove_reader(fd)

    def _read_once(self, fd: int) -> bool:
        """Read what is there; False when there is nothing more to come."""
        sink, ended = self._reading[fd]
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if data:
            sink(data)
            return True
        del self._reading[fd]
        if ended is not None:
            ended()
        return False

    async def drain(self) -> None:
        for fd in list(self._reading):
            self._loop.remove_reader(fd)
            # One pipe's worth at most: the writer is dead, and a process it forked may write on for ever.
            left = 16 * _CHUNK
            while fd in self._reading and left > 0:
                try:
                    data = os.read(fd, _CHUNK)
                except OSError:
                    break  # nothing there, or nothing any more
                if not data:
                    break
                left -= len(data)
                self._reading[fd][0](data)

    def write(self, data: bytes) -> None:
        if self._in < 0:
            return
        if self._waiting:
            self._waiting.append(data)
            self.unsent += len(data)
            return
        try:
            sent = os.write(self._in, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is dying; its exit tells the rest
        if sent < len(data):
            self._waiting.append(data[sent:])
            self.unsent = len(data) - sent
            self._loop.add_writer(self._in, self._writable)

    def _writable(self) -> None:
        data = b"".join(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        try:
            sent = os.write(self._in, memoryview(data)[: 16 * _CHUNK])
        except BlockingIOError:
            return
        except OSError:
            sent = len(data)
        rest = data[sent:]
        self._waiting = [rest] if rest else []
        self.unsent = len(rest)
        if not rest:
            self._loop.remove_writer(self._in)

    def end_input(self) -> None:
        if self._in >= 0:
            if self._waiting:
                self._loop.remove_writer(self._in)
            self._waiting.clear()
            self.unsent = 0
            self._ours.remove(self._in)
            self._close([self._in])
            self._in = -1

    async def aclose(self) -> None:
        self.end_input()
        for fd in self._reading:
            self._loop.remove_reader(fd)
        self._reading.clear()
        self._close_all()

    def _close_all(self) -> None:
        self._close(self._ours)
        self._close(self._theirs)

    @staticmethod
    def _close(fds: list[int]) -> None:
        _lifelines.release(fds)
        while fds:
            os.close(fds.pop())


class StreamPipes:
    """Pipes as anyio's streams, for loops that cannot watch file descriptors (Windows)."""

    # A dead child's bytes are in the pipe already; only a process that it forked can keep the end from coming.
    _LAST_WORDS = 0.5

    def __init__(self) -> None:
        self.unsent = 0
        self.arguments: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process: Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._buffer: list[bytes] = []
        self._more = asyncio.Event()
        self._ended = False

    def attach(self, process: Process, out: Sink, out_ended: Callable[[], None], err: Sink) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        writers = [] if process.stdin is None else [asyncio.create_task(self._write())]
        self._process = process
        self._readers = [
            asyncio.create_task(self._read(process.stdout, out, out_ended)),
            asyncio.create_task(self._read(process.stderr, err, None)),
        ]
        self._tasks = [*self._readers, *writers]

    async def _read(self, stream: ByteReceiveStream, sink: Sink, ended: Callable[[], None] | None) -> None:
        import anyio

        try:
            while True:
                sink(await stream.receive(_CHUNK))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            if ended is not None:
                ended()

    def write(self, data: bytes) -> None:
        if not self._ended:
            self._buffer.append(data)
            self.unsent += len(data)
            self._more.set()

    def end_input(self) -> None:
        self._ended = True
        self._buffer.clear()
        self.unsent = 0
        self._more.set()
        # The writer may wait for a child that does not read, and would close nothing.
        transport = getattr(self._process, "_transport", None)
        pipe = None if transport is None else transport.get_pipe_transport(0)
        if pipe is not None:
            pipe.abort()

    async def _write(self) -> None:
        import anyio

        assert self._process is not None
        assert self._process.stdin is not None
        stdin = self._process.stdin
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                data = b"".join(self._buffer)
                self._buffer.clear()
                if data:
                    await stdin.send(data)
                    self.unsent = sum(map(len, self._buffer))
                if self._ended:
                    break
            await stdin.aclose()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self.unsent = 0  # it is dying; its exit tells the rest

    async def drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._readers, timeout=self._LAST_WORDS)

    async def aclose(self) -> None:
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            # The streams do not close what they read from, and a process that the child forked may hold the other end.
            transport.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    await stream.aclose()


def make_pipes() -> Pipes:
    """Return the kind of pipes that the running loop can use."""
    return StreamPipes() if sys.platform == "win32" else FdPipes()
