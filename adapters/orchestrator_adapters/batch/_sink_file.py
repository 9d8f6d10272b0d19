"""Results in a file, written beside its place and put there when all are written."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import anyio.to_thread

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError, reason
from orchestrator_adapters.batch._formats import Format, format_of
from orchestrator_adapters.batch._sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from orchestrator_adapters.batch._source import Source

# What is gathered before a thread writes it: a hop to a thread costs as much as a hundred rows.
_GATHERED = 256 * 1024


def open_file_sink(value: str, format: str | None, source: Source | None) -> Sink:
    """Return the sink of a path, or of stdout for `-`.

    Raises:
        BatchError: If it is not one that can be written.
    """
    if value == "-":
        return StdoutSink(format_of("stdout", format, default="jsonl"))
    return FileSink(value, format_of(value, format), source)


class FileSink(Sink):
    """JSON lines in a file.

    Args:
        path: The file.
        format: How it is written.
        source: Where the records come from.
    """

    is_live = False

    def __init__(self, path: str, format: Format, source: Source | None) -> None:
        self.name = path
        self.path = path
        folder, name = os.path.split(path)
        self._partial = os.path.join(folder, f".{name}.partial")
        self._file: BinaryIO | None = None
        self._parts: list[bytes] = []
        self._size = 0

    async def open(self) -> None:
        await self._thread(self._open)

    def _open(self) -> None:
        self._file = open(self._partial, "wb")  # noqa: SIM115  closed by commit or abort

    async def write(self, values: list[bytes]) -> None:
        for value in values:
            self._parts += (value, b"\n")
            self._size += len(value) + 1
        if self._size >= _GATHERED:
            await self._thread(self._flush)

    def _flush(self) -> None:
        assert self._file is not None
        self._file.write(b"".join(self._parts))
        self._parts.clear()
        self._size = 0

    async def commit(self) -> None:
        await self._thread(self._commit)

    def _commit(self) -> None:
        assert self._file is not None and self.path is not None
        self._flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self.path)
        self._file = None

    async def abort(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            os.unlink(self._partial)

    async def _thread(self, function: Callable[..., Any]) -> None:
        try:
            await anyio.to_thread.run_sync(function)
        except OSError as error:
            raise BatchError(f"{self.name} cannot be written: {reason(error)}", RESUMABLE) from error


class StdoutSink(Sink):
    """JSON lines on stdout, as they come.

    Args:
        format: How they are written.
    """

    name = "stdout"

    def __init__(self, format: Format) -> None:
        self._format = format

    async def open(self) -> None: ...

    async def write(self, values: list[bytes]) -> None:
        data = b"".join(value + b"\n" for value in values)
        try:
            await anyio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)
        except OSError as error:
            raise BatchError(f"stdout cannot be written: {reason(error)}", RESUMABLE) from error

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    async def commit(self) -> None:
        sys.stdout.flush()

    async def abort(self) -> None: ...
