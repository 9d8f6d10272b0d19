"""Cut an input into records, JSON lines or CSV rows, as they arrive: in a thread of its own, never the whole input."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

from orchestrator.cli._rows import InvalidLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What one read takes: enough that the cost of a batch vanishes among its rows, little enough to keep memory flat.
CHUNK_BYTES = 64 * 1024
# The engine's bound on a message is the same; a longer line could not be sent to a child.
MAX_LINE_BYTES = 16 * 2**20

Content = bytes | list[str] | InvalidLine
Record = tuple[int, Content]


class HeaderProblem(Exception):
    """Raised when the header of a CSV input cannot name arguments."""


class RecordReader:
    """Reads an open file to its end and hands over what is complete before every read that may wait.

    Args:
        descriptor: An open file, pipe or terminal; stays open.
        format: `jsonl` or `csv`.
        push: Gets a batch of `(line number, content)`; content is the bytes of a JSON line, the cells of a row, or
            the problem with it. Returns False to end reading.
        on_header: Gets the names in the first row of a CSV input.
        max_line: Longest line in bytes.
    """

    def __init__(
        self,
        descriptor: int,
        format: str,
        push: Callable[[list[Record]], bool],
        *,
        on_header: Callable[[list[str]], None] = lambda _names: None,
        max_line: int = MAX_LINE_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._format = format
        self._push = push
        self._on_header = on_header
        self._max_line = max_line
        self._batch: list[Record] = []
        self._wanted = True
        self._line = 0
        self._damaged: set[int] = set()

    def read(self) -> None:
        """Read to the end, or until `push` says that no more is wanted.

        Raises:
            OSError: If the input cannot be read any further.
            HeaderProblem: If a CSV header cannot name arguments.
        """
        if self._format == "csv":
            self._read_csv()
        else:
            self._read_json_lines()
        self._flush()

    def _flush(self) -> None:
        if self._batch and self._wanted:
            batch, self._batch = self._batch, []
            self._wanted = self._push(batch)

    def _chunks(self) -> Iterator[bytes]:
        # A pipe may stay silent for hours: whatever is complete goes out before the read that waits for more.
        while True:
            self._flush()
            if not self._wanted:
                return
            chunk = os.read(self._descriptor, CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    def _lines(self) -> Iterator[bytes | None]:
        """Yield physical lines without their line feed; None for one that is too long."""
        parts: list[bytes] = []
        held = 0
        first = True
        for chunk in self._chunks():
            if first:
                first = False
                if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise HeaderProblem("the input is UTF-16; save it as UTF-8")
                chunk = chunk.removeprefix(b"\xef\xbb\xbf")
            *complete, rest = chunk.split(b"\n")
            for piece in complete:
                if held or parts:
                    held += len(piece)
                    parts.append(piece)
                    piece = b"".join(parts)
                yield piece if max(held, len(piece)) <= self._max_line else None
                parts, held = [], 0
            if rest:
                held += len(rest)
                # Of a line that is already too long only the length is kept.
                parts = [*parts, rest] if held <= self._max_line else []
        if held:
            yield b"".join(parts) if held <= self._max_line else None

    def _too_long(self) -> InvalidLine:
        return InvalidLine(f"the line is longer than {self._max_line} bytes; pass large data by file name")

    def _read_json_lines(self) -> None:
        add = self._take
        for line in self._lines():
            self._line += 1
            if line is None:
                add(self._line, self._too_long())
            elif line and not line.isspace():
                add(self._line, line)

    def _take(self, line: int, content: Content) -> None:
        self._batch.append((line, content))

    def _text_lines(self) -> Iterator[str]:
        for line in self._lines():
            self._line += 1
            if line is None:
                self._take(self._line, self._too_long())
                continue
            try:
                yield line.decode() + "\n"
            except UnicodeDecodeError:
                self._damaged.add(self._line)
                yield line.decode(errors="replace") + "\n"

    def _read_csv(self) -> None:
        # A quote that is never closed would otherwise collect the rest of the input into one cell.
        csv.field_size_limit(self._max_line)
        rows = csv.reader(self._text_lines(), strict=True)
        names: list[str] | None = None
        while True:
            start = self._line + 1
            content: Content
            try:
                content = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                content = InvalidLine(f"the row is not CSV: {error}")
            if content == [] or (isinstance(content, list) and len(content) == 1 and content[0].isspace()):
                continue
            if self._damaged:
                self._damaged.clear()
                content = InvalidLine("the row is not UTF-8; save the file as UTF-8")
            if names is None:
                names = _header(content)
                self._on_header(names)
            else:
                self._take(start, content)


def _header(content: Content) -> list[str]:
    if isinstance(content, InvalidLine):
        raise HeaderProblem(f"the header: {content}")
    assert isinstance(content, list)
    names = [cell.strip() for cell in content]
    for position, name in enumerate(names, 1):
        if not name:
            raise HeaderProblem(f"column {position} of the header has no name; the header names the target's arguments")
        if names.index(name) != position - 1:
            raise HeaderProblem(f"the header has {name!r} twice; each column needs a name of its own")
    return names


def count_records(descriptor: int, format: str) -> int | None:
    """Return how many records an open file holds, or None when it cannot be read to its end."""
    total = 0

    def add(batch: list[Record]) -> bool:
        nonlocal total
        total += len(batch)
        return True

    try:
        RecordReader(descriptor, format, add).read()
    except (OSError, HeaderProblem):
        return None
    return total
