"""Cut bytes into rows, JSON lines or CSV, as they arrive: a bad row says what is wrong with it, and where."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._source import MAX_ROW_BYTES, SHOWN, Row

Push = Callable[[list[Row]], None]

# Rows that are handed over at once at most: of tiny ones a block of bytes holds very many.
_BLOCK_ROWS = 1000

_UTF8 = b"\xef\xbb\xbf"
_MARKS = (_UTF8, b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"PAR1")


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

    def read(self, kind: str) -> None:
        """Read to the end, `jsonl` or `csv`.

        Raises:
            BatchError: If the text cannot be read any further; what was read before it is handed over.
        """
        try:
            if kind == "csv":
                self._read_csv()
            else:
                self._read_json_lines()
        except BatchError as error:
            self._flush()
            if error.exit_code == RESUMABLE and self._number:
                raise BatchError(f"{error} (rows 1 to {self._number:,} were read)", RESUMABLE) from error.__cause__
            raise
        self._flush()

    def count(self, kind: str) -> int:
        """Read to the end without looking into JSON; return how many rows there are.

        Raises:
            BatchError: If the text cannot be read to its end.
        """
        if kind == "csv":
            return max(0, sum(1 for _ in self._records()) - 1)  # the header
        return sum(1 for line in self._lines() if isinstance(line, LongLine) or (line and not line.isspace()))

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._push(rows)

    def _lines(self) -> Iterator[bytes | LongLine]:
        """Yield physical lines without their line feed, and hand rows over before the next bytes are waited for."""
        parts: list[bytes] = []
        held = 0
        for piece in self._from_mark():
            *complete, rest = piece.split(b"\n")
            for line in complete:
                if held:
                    held += len(line)
                    parts.append(line)
                    line = b"".join(parts)
                yield line if max(held, len(line)) <= self._largest else LongLine(line[:SHOWN])
                parts, held = [], 0
                if len(self._rows) >= _BLOCK_ROWS:
                    self._flush()
            if rest:
                held += len(rest)
                parts.append(rest)
                if held > self._largest:
                    parts = [b"".join(parts)[:SHOWN]]  # of the rest only the length matters
            self._flush()
        if held:
            line = b"".join(parts)
            yield line if held <= self._largest else LongLine(line[:SHOWN])

    def _from_mark(self) -> Iterator[bytes]:
        """Yield the bytes behind the mark of UTF-8, if there is one; raise BatchError for that of anything else."""
        pieces = iter(self._pieces)
        first = b""
        for piece in pieces:
            first += piece
            if not any(mark.startswith(first) and mark != first for mark in _MARKS):
                break  # a pipe may bring less than a mark at a time
        yield self._without_mark(first)
        yield from pieces

    def _without_mark(self, piece: bytes) -> bytes:
        if piece[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BatchError(f"{self._name} is UTF-16; save it as UTF-8")
        if piece[:2] == b"\x1f\x8b":
            raise BatchError(
                f"{self._name} is compressed with gzip: let its name end in .gz, or give a format with .gz"
            )
        if piece[:4] == b"PAR1":
            raise BatchError(f"{self._name} is a Parquet file: let its name end in .parquet, or give that format")
        return piece.removeprefix(_UTF8)

    def _add(self, line: int, content: Any, problem: str | None = None) -> None:
        self._number += 1
        self._rows.append(Row(self._number, f"line {line}", content, problem))

    def _add_bad(self, line: int, text: bytes, problem: str) -> None:
        self._add(line, text[:SHOWN].decode(errors="replace"), problem)

    def _add_long(self, line: int, text: bytes) -> None:
        self._add_bad(line, text, f"the row is longer than {self._largest:,} bytes; pass large data by file name")

    def _read_json_lines(self) -> None:
        decode = msgspec.json.decode
        for place, line in enumerate(self._lines(), 1):
            if isinstance(line, LongLine):
                self._add_long(place, line.beginning)
            elif line and not line.isspace():
                try:
                    content = decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    if not self._number and line.strip() in (b"[", b"{"):
                        what = "one JSON value over several lines; write a record a line (jq -c '.[]' does that)"
                        raise BatchError(f"{self._name} holds {what}") from None
                    self._add_bad(place, line, _json_problem(error, line))
                else:
                    self._number += 1
                    self._rows.append(Row(self._number, f"line {place}", content))

    def _read_csv(self) -> None:
        names: list[str] = []
        for line, cells, text in self._records():
            if isinstance(cells, str):
                if not names:
                    raise BatchError(f"{self._name}, line {line}: the header cannot be read: {cells}")
                self._add_bad(line, text, cells)
            elif not names:
                names = self._header(line, cells)
            elif len(cells) != len(names):
                counts = f"the row has {len(cells)} cells, the header has {len(names)}"
                self._add_bad(line, text, counts)
            else:
                self._number += 1
                self._rows.append(Row(self._number, f"line {line}", dict(zip(names, cells, strict=True))))

    def _records(self) -> Iterator[tuple[int, list[str] | str, bytes]]:
        """Yield the first line, the cells or what is wrong with them, and the text of each CSV row."""
        # A setting of the whole process: raised, because 128 KiB is little for a text; never lowered.
        csv.field_size_limit(max(csv.field_size_limit(), self._largest))
        lines = _CsvLines(self._lines(), self._largest)
        rows = csv.reader(lines, strict=True)
        while True:
            start = lines.begin_row()
            cells: list[str] | str
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                end = f", up to line {lines.line}; is a quote not closed?" if lines.line > start else ""
                cells = f"the row is not CSV: {error}{end}"
            except _LongRow:
                cells = f"the row is longer than {self._largest:,} bytes; is a quote not closed?"
            if lines.is_damaged:
                cells = "the row is not UTF-8; save the file as UTF-8"
            text = b"\n".join(lines.row)
            # Blank lines are no rows; a row of one empty cell is written as two quotes.
            if cells and not text.isspace():
                yield start, cells, text

    def _header(self, line: int, cells: list[str]) -> list[str]:
        where = f"{self._name}, line {line}: the header"
        names = [cell.strip() for cell in cells]
        for position, name in enumerate(names, 1):
            if not name:
                raise BatchError(f"{where} has no name for column {position}; each column needs one")
            if names.index(name) != position - 1:
                raise BatchError(f"{where} has {name!r} twice; each column needs a name of its own")
        if len(names) == 1:
            for mark, word in ((";", "semicolons"), ("\t", "tabs")):
                if mark in names[0]:
                    raise BatchError(f"{where} is {names[0]!r}: its cells are separated by {word}; save with commas")
        return names


class _LongRow(Exception):
    """Ends a CSV row that grew too long, most likely because a quote is not closed."""


class _CsvLines:
    """The lines of a CSV text, for `csv.reader`: an iterator that goes on after what it raised.

    Args:
        lines: Physical lines.
        largest: Most bytes of one row.

    Attributes:
        line: How many lines were read.
        row: The lines of the row that is being read.
        is_damaged: Whether one of them is not UTF-8.
    """

    def __init__(self, lines: Iterator[bytes | LongLine], largest: int) -> None:
        self._lines = lines
        self._largest = largest
        self._size = 0
        self.line = 0
        self.row: list[bytes] = []
        self.is_damaged = False

    def begin_row(self) -> int:
        """Forget the row before; return the line on which the next one begins."""
        self.row.clear()
        self._size = 0
        self.is_damaged = False
        return self.line + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.line += 1
        is_long = isinstance(line, LongLine)
        line = line.beginning if isinstance(line, LongLine) else line
        self.row.append(line)
        self._size += len(line) + 1
        if is_long or self._size > self._largest + 1:
            raise _LongRow
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError:
            self.is_damaged = True  # the row is read to its end all the same, for it may have further lines
            return line.decode(errors="replace") + "\n"


def _json_problem(error: Exception, line: bytes) -> str:
    if isinstance(error, RecursionError):
        return "the line is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "the line is not UTF-8; save the file as UTF-8"
    if rb"\ud" in line.lower() and _is_json(line):
        return "the line has text that is not Unicode (a lone surrogate)"
    return f"the line is not JSON: {str(error).removeprefix('JSON is malformed: ')}"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
