"""Write bytes to a file descriptor from a thread, so that a slow reader never stops the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A reader that falls this far behind makes those wait who can: outcomes are never dropped.
HIGH_WATER = 2**20
# Log lines come from children that cannot wait; with this much unread they are dropped, and counted.
DROP_WATER = 4 * HIGH_WATER


class Sink:
    """A bounded buffer in front of a descriptor, emptied by a thread that a stuck reader may hold up alone.

    Args:
        descriptor: Where bytes go; not closed.
        on_error: Called on the loop, once, with the error that ended writing.

    Attributes:
        error: Why writing ended early, if it did.
    """

    def __init__(self, descriptor: int, on_error: Callable[[OSError], None] | None = None) -> None:
        self._write = _raw_writer(descriptor)
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._buffer: list[bytes] = []
        self._size = 0
        self._closing = False
        self._drained = asyncio.Event()
        self._finished = asyncio.Event()
        self.error: OSError | None = None
        threading.Thread(target=self._write_all, name=f"orchestrator: output {descriptor}", daemon=True).start()

    @property
    def is_full(self) -> bool:
        """Whether the reader is so far behind that no more should be written."""
        return self._size >= HIGH_WATER and self.error is None

    @property
    def is_overfull(self) -> bool:
        """Whether even what cannot wait should not be written."""
        return self._size >= DROP_WATER and self.error is None

    def write(self, data: bytes) -> None:
        """Queue bytes; they are written in order."""
        if self.error is None:
            with self._lock:
                self._buffer.append(data)
                self._size += len(data)
                first = len(self._buffer) == 1
            # The thread takes the whole buffer each time it wakes: who finds it empty wakes it, the others need not.
            if first:
                self._wake.set()

    async def ready(self) -> None:
        """Wait while the buffer is full."""
        while self.is_full:
            self._drained.clear()
            await self._drained.wait()

    async def aclose(self) -> None:
        """Wait until everything is written; the thread has ended then."""
        self._closing = True
        self._wake.set()
        await self._finished.wait()

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            with self._lock:
                data = b"".join(self._buffer)
                self._buffer.clear()
            view = memoryview(data)
            try:
                while view:
                    view = view[self._write(view) :]
            except OSError as error:
                self._call(self._fail, error)
                break
            with self._lock:
                self._size -= len(data)
            self._call(self._drained.set)
            # `closing` was read before the buffer was taken: nothing is written after `aclose`, so all of it is out.
            if closing:
                break
        self._call(self._finished.set)

    def _fail(self, error: OSError) -> None:
        self.error = error
        self._drained.set()
        if self._on_error is not None:
            self._on_error(error)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(function, *args)


def _raw_writer(descriptor: int) -> Callable[[memoryview], int]:
    stream = {1: sys.__stdout__, 2: sys.__stderr__}.get(descriptor)
    if sys.platform == "win32" and stream is not None and stream.isatty():
        # A Windows console takes bytes in its code page; Python's own raw stream turns our UTF-8 into what it shows.
        raw = getattr(stream.buffer, "raw", None)
        if raw is not None:
            return lambda view: raw.write(view)
    return lambda view: os.write(descriptor, view)


class SinkStream:
    """The text stream that a terminal display writes to; what does not fit into the sink is dropped and counted.

    Args:
        sink: Where text goes, as UTF-8.
        descriptor: Asked whether it is a terminal.
    """

    encoding = "utf-8"

    def __init__(self, sink: Sink, descriptor: int) -> None:
        self._sink = sink
        self._descriptor = descriptor
        self._dropped = 0

    def write(self, text: str) -> int:
        """Queue text."""
        if self._sink.is_overfull:
            self._dropped += text.count("\n")
        else:
            if self._dropped:
                self._sink.write(b"... %d lines dropped: the terminal is too slow\n" % self._dropped)
                self._dropped = 0
            self._sink.write(text.encode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the sink's thread writes at once."""

    def isatty(self) -> bool:
        """Return whether a person reads this."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor, for the size of the terminal."""
        return self._descriptor
