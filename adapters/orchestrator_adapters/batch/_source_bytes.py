"""The bytes of a file, a pipe or stdin, decompressed if need be: read in a thread that can be told to stop."""

from __future__ import annotations

import os
import stat
import sys
import zlib
from typing import TYPE_CHECKING

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

# What one read takes: enough that its cost vanishes among its rows, little enough to keep memory flat.
CHUNK_BYTES = 64 * 1024
_GZIP = 31  # zlib's word for "a gzip header, and the largest window"


class Input:
    """An open file or stdin whose reader, waiting in a thread of its own, can be told to stop.

    Args:
        path: The file; None for stdin.
        name: What people call it.

    Raises:
        BatchError: If it cannot be opened.
    """

    def __init__(self, path: str | None, name: str) -> None:
        self.name = name
        self.stopped = False
        self._owned = path is not None
        self._waker: tuple[int, int] | None = None
        if path is None:
            self.descriptor = 0
            _use_binary_mode(0)
        else:
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            try:
                # Non-blocking, for to open a pipe whose writer has not come yet would wait for it here.
                self.descriptor = os.open(path, flags)
            except OSError as error:
                raise BatchError(f"{name} cannot be opened: {reason(error)}") from error
        try:
            mode = os.fstat(self.descriptor).st_mode
        except OSError as error:  # a stdin that was closed before this process began
            raise BatchError(f"{name} cannot be read: {reason(error)}") from error
        self.is_regular = stat.S_ISREG(mode)
        # A read of a pipe or a terminal may wait for hours, and Windows cannot wait for either of it and a wake-up.
        self.can_be_stopped = self.is_regular or sys.platform != "win32"
        if not self.is_regular and self.can_be_stopped:
            self._waker = os.pipe()

    def read(self) -> bytes:
        """Return the next bytes; none at the end, or after `stop`.

        Raises:
            BatchError: If the file cannot be read any further.
        """
        try:
            while not self.stopped:
                if self._waker is not None:
                    self._wait(self._waker[0])
                    if self.stopped:
                        break
                try:
                    return os.read(self.descriptor, CHUNK_BYTES)
                except BlockingIOError:
                    pass  # non-blocking, and somebody else was faster: wait again
            return b""
        except OSError as error:
            raise BatchError(f"{self.name} cannot be read any further: {reason(error)}", RESUMABLE) from error

    def _wait(self, waker: int) -> None:
        if sys.platform == "win32":
            return
        import select

        # Not select(): a descriptor may have a number that it cannot take.
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        poll.register(waker, select.POLLIN)
        poll.poll()

    def stop(self) -> None:
        """End the read that waits, and all later ones; from another thread than the reader's."""
        self.stopped = True
        if self._waker is not None:
            os.write(self._waker[1], b"\0")

    def close(self) -> None:
        """Close what was opened; nobody may read or stop it then."""
        if self._owned:
            os.close(self.descriptor)
        for descriptor in self._waker or ():
            os.close(descriptor)
        self._waker = None


def _use_binary_mode(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # In text mode the C runtime would end the input at a Ctrl-Z.
        msvcrt.setmode(descriptor, os.O_BINARY)


def chunks(source: Input, *, gzip: bool) -> Iterator[bytes]:
    """Yield the bytes of an input, decompressed, as they arrive.

    Raises:
        BatchError: If it cannot be read any further, or is no gzip, or one that was cut off.
    """
    return _unzipped(source) if gzip else iter(source.read, b"")


def _unzipped(source: Input) -> Iterator[bytes]:
    taken = 0
    unzip = None
    for data in iter(source.read, b""):
        while data:
            if unzip is None:
                # Between two members, and after the last, some writers pad with zeros.
                data = data.lstrip(b"\0") if taken else data
                if not data:
                    break
                unzip = zlib.decompressobj(_GZIP)
            try:
                # Bounded, for a megabyte of gzip may hold a gigabyte of text.
                piece = unzip.decompress(data, 4 * CHUNK_BYTES)
            except zlib.error as error:
                if not taken and data[:2] != b"\x1f\x8b":
                    raise BatchError(
                        f"{source.name} is not compressed with gzip, which its name or format says"
                    ) from None
                raise BatchError(
                    f"{source.name} is damaged after {taken:,} bytes of text: {error}", RESUMABLE
                ) from None
            taken += len(piece)
            if piece:
                yield piece
            if unzip.eof:
                data = unzip.unused_data
                unzip = None
            else:
                data = unzip.unconsumed_tail
    if unzip is not None and not source.stopped:
        raise BatchError(
            f"{source.name} is cut off: the gzip ends in the middle, after {taken:,} bytes of text", RESUMABLE
        )
