"""Records from a file or stdin, JSON lines or CSV."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from typing import TYPE_CHECKING

import anyio.to_thread

from orchestrator_adapters.batch._errors import BatchError, reason
from orchestrator_adapters.batch._formats import Format, format_of
from orchestrator_adapters.batch._source import Row, Source
from orchestrator_adapters.batch._source_bytes import Input, chunks
from orchestrator_adapters.batch._source_rows import RowReader
from orchestrator_adapters.batch._source_thread import ReaderThread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


def open_file_source(value: str, format: str | None) -> Source:
    """Return the source of a path, or of stdin for `-`.

    Raises:
        BatchError: If there is no such file, or it can be seen that it cannot be read.
    """
    if value == "-":
        path, name, how = None, "stdin", format_of("stdin", format, default="jsonl")
    else:
        if not value:
            raise BatchError("the source is an empty path")
        try:
            if stat.S_ISDIR(os.stat(value).st_mode):
                raise BatchError(f"the source {value!r} is a folder; name a file in it")
        except OSError as error:
            raise BatchError(f"the source {value!r} cannot be opened: {reason(error)}") from error
        except ValueError:
            raise BatchError(f"the source {value!r} cannot be opened: no path has a NUL character") from None
        path, name, how = value, value, format_of(value, format)
    if how.kind == "parquet":
        from orchestrator_adapters.batch._source_parquet import ParquetSource

        return ParquetSource(path, name, how)
    return TextSource(path, name, how)


class FileSource(Source):
    """What all files have in common.

    Args:
        path: The file; None for stdin.
        name: What people call it.
        format: How it is written.
    """

    def __init__(self, path: str | None, name: str, format: Format) -> None:
        self.name = name
        self.path = path
        self.format = format
        self.is_regular = path is not None and stat.S_ISREG(os.stat(path).st_mode)
        if self.is_regular:  # to open a pipe and leave it again would end its writer
            source = Input(path, name)
            try:
                self._look(source)
            finally:
                source.close()

    def _look(self, source: Input) -> None:
        """Raise BatchError if it can be seen that the file cannot be read."""

    async def count(self) -> int | None:
        if not self.is_regular:
            return None
        opened: list[Input] = []
        wanted = True

        def run() -> int | None:
            try:
                source = Input(self.path, self.name)
            except BatchError:
                return None  # whoever reads the records hears of it
            opened.append(source)
            try:
                total = self._count(source) if wanted else 0
                return None if source.stopped else total
            except BatchError:
                return None
            finally:
                source.close()

        try:
            return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
        finally:
            # The thread of one that was cancelled ends with the block it reads.
            wanted = False
            for source in opened:
                source.stopped = True

    @abstractmethod
    def _count(self, source: Input) -> int:
        """Return how many records an open file holds."""

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        source = Input(self.path, self.name)
        thread = ReaderThread(
            lambda push: self._read(source, push), source.stop, source.close, can_be_stopped=source.can_be_stopped
        )
        rows = thread.rows()
        try:
            async for row in rows:
                yield row
        finally:
            await rows.aclose()

    @abstractmethod
    def _read(self, source: Input, push: Callable[[list[Row]], None]) -> None:
        """Push the rows of an open file or stdin, block by block."""


class TextSource(FileSource):
    """JSON lines or CSV."""

    def _look(self, source: Input) -> None:
        def push(rows: list[Row]) -> None:
            raise _Seen

        # The first block is enough for a header; reading fails here as it would fail later.
        try:
            RowReader(chunks(source, gzip=self.format.gzip), self.name, push).read(self.format.kind)
        except _Seen:
            pass

    def _count(self, source: Input) -> int:
        pieces = chunks(source, gzip=self.format.gzip)
        return RowReader(pieces, self.name, lambda rows: None).count(self.format.kind)

    def _read(self, source: Input, push: Callable[[list[Row]], None]) -> None:
        RowReader(chunks(source, gzip=self.format.gzip), self.name, push).read(self.format.kind)


class _Seen(Exception):
    """Ends a look at the beginning of a file."""
