"""Cut bytes into rows, JSON lines or CSV, as they arrive: bad ones say what is wrong with them, and where."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._source import MAX_ROW_BYTES, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Push = Callable[[list[Row]], None] if TYPE_CHECKING else Any

_SHOWN = 1000  # bytes of a row that is too long which are worth keeping


class LongLine(NamedTuple):
    """A line that is longer than a row may be: only its beginning is kept."""

    beginning: bytes


class RowReader:
    """Reads text to its end and hands over what is complete before every read that may wait.

    Args:
        pieces: The bytes.
        name: What people call the source.
        push: Gets rows in order; may wait while nobody wants more.
        largest: Most bytes of one row.
    """

    def __init__(self, pieces: Iterator[bytes], name: str, push: Push, *, largest: int = MAX_ROW_BYTES) -> None:
        self._pieces = pieces
        self._name = name
        self._push = push
        self._largest = largest
        self._rows: list[Row] = []
        self._number = 0
        self._line = 0

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._push(rows)

    def _lines(self) -> Iterator[bytes | LongLine]:
        """Yield physical lines without their line feed."""
        parts: list[bytes] = []
        held = 0
        first = True
        for piece in self._pieces:
            if first:
                piece, first = self._without_mark(piece), False
            *complete, rest = piece.split(b"\n")
            for line in complete:
                if held:
                    held += len(line)
                    parts.append(line)
                    line = b"".join(parts)
                size = max(held, len(line))
                yield line if size <= self._largest else LongLine(line[:_SHOWN])
                parts, held = [], 0
            if rest:
                held += len(rest)
                parts.append(rest)
                if held > self._largest and len(parts) > 1:
                    parts = [b"".join(parts)[:_SHOWN]]  # only the length of the rest matters
            self._flush()
        if held:
            line = b"".join(parts)
            yield line if held <= self._largest else LongLine(line[:_SHOWN])

    def _without_mark(self, piece: bytes) -> bytes:
        if piece[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BatchError(f"{self._name} is UTF-16; save it as UTF-8")
        if piece[:2] == b"\x1f\x8b":
            raise BatchError(f"{self._name} is compressed with gzip; its name should end in .gz, or give the format")
        return piece.removeprefix(b"\xef\xbb\xbf")

    def _add(self, line: int, content: Any, problem: str | None = None) -> None:
        self._number += 1
        self._rows.append(Row(self._number, f"line {line}", content, problem))

    def _add_long(self, line: int, beginning: bytes) -> None:
        problem = f"the row is longer than {self._largest} bytes; pass large data by file name"
        self._add(line, beginning.decode(errors="replace"), problem)

    def read_json_lines(self) -> None:
        """Read JSON lines.

        Raises:
            BatchError: If the text cannot be read any further.
        """
        try:
            for line in self._lines():
                self._line += 1
                if isinstance(line, LongLine):
                    self._add_long(self._line, line.beginning)
                elif line and not line.isspace():
                    try:
                        content = msgspec.json.decode(line)
                    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                        self._add(self._line, line.decode(errors="replace"), _json_problem(error))
                    else:
                        self._number += 1
                        self._rows.append(Row(self._number, f"line {self._line}", content))
        finally:
            self._flush()


def _json_problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the line is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "the line is not UTF-8; save the file as UTF-8"
    return f"the line is not JSON: {str(error).removeprefix('JSON is malformed: ')}"


_ = (csv, RESUMABLE)
