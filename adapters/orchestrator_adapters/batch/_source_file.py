"""Records from a file or stdin, in whichever format."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._errors import BatchError, reason
from orchestrator_adapters.batch._formats import Format, format_of
from orchestrator_adapters.batch._source import Row, Source
from orchestrator_adapters.batch._source_bytes import Input, chunks
from orchestrator_adapters.batch._source_rows import RowReader
from orchestrator_adapters.batch._source_thread import rows_from_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


def open_file_source(value: str, format: str | None) -> Source:
    """Return the source of a path, or of stdin for `-`.

    Raises:
        BatchError: If there is no such file, or it can be seen that it cannot be read.
    """
    if value == "-":
        return TextSource(None, "stdin", format_of("stdin", format, default="jsonl"))
    if not value:
        raise BatchError("the source is an empty path")
    try:
        if stat.S_ISDIR(os.stat(value).st_mode):
            raise BatchError(f"the source {value!r} is a folder; name a file in it")
    except OSError as error:
        raise BatchError(f"the source {value!r} cannot be opened: {reason(error)}") from error
    except ValueError as error:  # a NUL in the path
        raise BatchError(f"the source {value!r} cannot be opened: {error}") from None
    return TextSource(value, value, format_of(value, format))


class TextSource(Source):
    """JSON lines or CSV.

    Args:
        path: The file; None for stdin.
        name: What people call it.
        format: How it is written.
    """

    def __init__(self, path: str | None, name: str, format: Format) -> None:
        self.name = name
        self.path = path
        self._format = format
        self.description: dict[str, Any] = {"kind": "stdin" if path is None else "file", "format": str(format)}
        if path is not None:
            Input(path, name).close()
            status = os.stat(path)
            self.description |= {
                "path": os.path.abspath(path),
                "bytes": status.st_size,
                "modified": status.st_mtime_ns,
            }

    async def count(self) -> int | None:
        return None

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        source = Input(self.path, self.name)
        try:

            def read(push: Callable[[list[Row]], None]) -> None:
                RowReader(chunks(source, gzip=self._format.gzip), self.name, push).read_json_lines()

            rows = rows_from_thread(read, source.stop, is_interruptible=source.is_interruptible)
            try:
                async for row in rows:
                    yield row
            finally:
                await rows.aclose()
        finally:
            if source.is_interruptible:
                source.close()
