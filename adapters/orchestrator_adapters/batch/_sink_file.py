"""Results in a file or on stdout: JSON lines as they come, tables when all are there."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from orchestrator_adapters.batch._errors import RESUMABLE, USAGE, BatchError, from_os_error
from orchestrator_adapters.batch._formats import Format, format_of
from orchestrator_adapters.batch._parquet import load_pyarrow
from orchestrator_adapters.batch._sink import Sink
from orchestrator_adapters.batch._sink_place import FilePlace, Place, StdoutPlace, writer
from orchestrator_adapters.batch._sink_table import write_csv, write_parquet
from orchestrator_adapters.batch._sink_thread import WriterThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any, BinaryIO

    from orchestrator_adapters.batch._source import Source

# What is gathered before a thread writes it: a hop to a thread costs as much as a hundred rows.
_GATHERED = 256 * 1024
# A write to a disk that answers is over by then.
_PATIENCE = 10.0


def open_file_sink(value: str, format: str | None, source: Source | None) -> Sink:
    """Return the sink of a path, or of stdout for `-`.

    Raises:
        BatchError: If its format is unknown, or needs a package that is not installed.
    """
    if value == "-":
        return FileSink(StdoutPlace(), format_of("stdout", format, default="jsonl"), None)
    if not value:
        raise BatchError("the output is an empty path")
    return FileSink(FilePlace(value, source), format_of(value, format), value)


class FileSink(Sink):
    """A file or stdout.

    JSON lines are written as they come. CSV and Parquet need to know all results before the first line, their columns
    and types, so results are kept in an unnamed file beside the output until `commit`.

    Args:
        place: Where bytes end up.
        format: How they are written.
        path: The file, if it is one.
    """

    def __init__(self, place: Place, format: Format, path: str | None) -> None:
        self.name = place.name
        self.path = path
        self._place = place
        self._format = format
        self._is_table = format.kind != "jsonl"
        self._parts: list[bytes] = []
        self._size = 0
        self._spool: IO[bytes] | None = None
        self._thread: WriterThread | None = None
        self._write: Callable[[bytes], None] | None = None
        self._end: Callable[[], None] | None = None
        if format.kind == "parquet":
            load_pyarrow(self.name)

    async def open(self) -> None:
        await self.abort()
        try:
            await self._run(self._open, USAGE)
        except BaseException:
            await self.abort()
            raise
        self.is_live = self._place.is_live and not self._is_table

    def _open(self) -> None:
        self._place.check()
        if self._is_table:
            # Beside the output: the system's temporary folder may be small, or memory.
            self._spool = tempfile.TemporaryFile(dir=self._place.folder)  # noqa: SIM115  commit or abort closes it
            self._write, self._end = writer(self._spool, gzip=False)
        else:
            self._write, self._end = writer(self._place.open(), gzip=self._format.gzip)

    async def write(self, values: list[bytes]) -> None:
        for value in values:
            self._parts += (value, b"\n")
            self._size += len(value) + 1
        if self._size >= _GATHERED or (self.is_live and self._parts):
            await self._run(self._flush)

    def _flush(self) -> None:
        assert self._write is not None, "write() before open()"
        parts, self._parts = self._parts, []
        self._size = 0
        self._write(b"".join(parts))

    async def commit(self) -> None:
        await self._run(self._commit)
        await self.abort()  # of what is left there is nothing but the thread

    def _commit(self) -> None:
        assert self._end is not None, "commit() before open()"
        self._flush()
        self._end()
        if self._spool is not None:
            self._convert(self._spool)
        self._place.commit()
        self._close_spool()

    def _convert(self, spool: IO[bytes]) -> None:
        out = self._place.open()
        if self._format.kind == "csv":
            write, end = writer(out, gzip=self._format.gzip)
            write_csv(spool, write, self.name)
            end()
        elif self.path is None or self._format.gzip or self._place.is_live:
            with tempfile.TemporaryFile(dir=self._place.folder) as file:
                write_parquet(spool, file, self.name)
                _copy(file, out, gzip=self._format.gzip)
        else:
            write_parquet(spool, out, self.name)

    async def abort(self) -> None:
        self._parts.clear()
        self._size = 0
        self._write = self._end = None
        self._close_spool()  # who converts it, in a commit that was cancelled, ends by that
        thread, self._thread = self._thread, None
        if thread is not None:
            # A thread that writes to a pipe nobody reads is left to itself.
            await thread.close(0.0 if self._place.is_live else _PATIENCE)
        self._place.abort()

    def _close_spool(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            try:
                spool.close()
            except OSError:
                pass  # what it could not write is not wanted any more

    async def _run(self, function: Callable[[], Any], exit_code: int = RESUMABLE) -> None:
        try:
            if self._thread is None:
                self._thread = WriterThread()
            await self._thread.run(function)
        except OSError as error:
            raise from_os_error(f"{self.name} cannot be written", error, exit_code) from error


def _copy(file: IO[bytes], out: BinaryIO, *, gzip: bool) -> None:
    write, end = writer(out, gzip=gzip)
    file.seek(0)
    while data := file.read(_GATHERED):
        write(data)
    end()
