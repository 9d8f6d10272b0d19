"""Write text to standard error from a thread, so that a slow or stuck reader never stops the run that it watches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading

# With so much unread text, further text is dropped and counted: a run never waits for whoever watches it.
MOST_UNREAD = 4 * 2**20
# What is left to write at the end gets this long; a reader that is stuck must not keep us from ending.
CLOSE_DEADLINE = 2.0


class Stderr:
    """The standard error of this moment as a text stream that never blocks between `start` and `aclose`."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._wake = threading.Condition()
        self._pending: list[str] = []
        self._unread = 0
        self._dropped = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    def isatty(self) -> bool:
        """Return whether a person reads this."""
        with contextlib.suppress(AttributeError, ValueError, OSError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Return the descriptor; rich asks for the size of the terminal there."""
        return 2 if self._stream is None else self._stream.fileno()

    def flush(self) -> None:
        """Do nothing: the thread writes at once."""

    def start(self) -> None:
        """Start the thread."""
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="orchestrator batch: stderr", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue text; before `start` and after `aclose` it is written here and now."""
        if self._thread is None:
            self._write(text)
            return len(text)
        with self._wake:
            if self._unread >= MOST_UNREAD:
                self._dropped += text.count("\n")
            else:
                if self._dropped:
                    self._pending.append(f"... {self._dropped} lines dropped: they are not read fast enough\n")
                    self._dropped = 0
                self._pending.append(text)
                self._unread += len(text)
                self._wake.notify()
        return len(text)

    async def aclose(self) -> None:
        """Wait until all is written and the thread has ended, for two seconds at most."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(thread.join, CLOSE_DEADLINE)

    def _write_all(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._pending or self._closing)
                text = "".join(self._pending)
                self._pending.clear()
                closing = self._closing
            self._write(text)
            with self._wake:
                self._unread -= len(text)
                # What was written meanwhile is taken in another turn.
                if closing and not self._pending:
                    return

    def _write(self, text: str) -> None:
        stream = self._stream
        if stream is None or not text:
            return
        # Nobody reads any more, or the host closed it: no reason to end a run.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            # A console of Windows takes bytes in its code page only.
            if self._is_descriptor_2() and not (sys.platform == "win32" and stream.isatty()):
                # Past the stream's own lock: Python aborts at exit when a thread that hangs in a write holds it.
                _write_descriptor(2, text.encode("utf-8", "replace"))
            else:
                stream.write(text)
                stream.flush()

    def _is_descriptor_2(self) -> bool:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return self._stream is not None and self._stream.fileno() == 2
        return False


def _write_descriptor(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Node makes pipes non-blocking for whoever shares them, and this one is full.
            select.select([], [descriptor], [])
