"""Turn JSON lines into a table, CSV or Parquet: once over all of them for the columns, once more to write."""

from __future__ import annotations

import csv
import io
import itertools
from typing import IO, TYPE_CHECKING, Any

import msgspec

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._parquet import load_pyarrow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The column of results that are no objects.
VALUE = "value"
# What to do about results that no table holds, after all was paid for.
_KEPT = "they are kept, and `orchestrator batch export` writes them as JSON lines"
_ROWS = 1000  # at once: many enough for Arrow to be quick, few enough to keep memory flat
# What is written as one row group: readers want large ones, memory small ones.
_GROUP_BYTES = 32 * 2**20
_GROUP_BATCHES = 100


def write_csv(lines: IO[bytes], write: Callable[[bytes], None], name: str) -> None:
    """Write results as CSV.

    Columns are the keys of all results in the order of their first appearance. A result without one of them has an
    empty cell, as null has. Texts stand as they are, everything else as JSON; results that are no objects make a
    column `value`.

    Args:
        lines: JSON lines, read from the beginning.
        write: Gets the bytes of the table.
        name: What people call it.

    Raises:
        BatchError: If a result holds what CSV cannot.
    """
    columns: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for rows in _chunks(lines, name):
        for row in rows:
            columns.update(dict.fromkeys(row))
    if not rows:
        return
    names = list(columns) or [VALUE]
    write(_csv_lines([names]))
    for rows in _chunks(lines, name):
        write(_csv_lines([[_cell(row.get(name)) for name in names] for row in rows]))


def _csv_lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if _needs_quotes(row) else plain).writerow(row)
    return text.getvalue().encode()


def _needs_quotes(row: list[str]) -> bool:
    # Python 3.11 and 3.12 quote no line ends but those they write: a lone carriage return would end a row. And a row of
    # nothing but space would pass for a blank line.
    return any("\r" in cell for cell in row) or (len(row) == 1 and row[0].isspace())


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def write_parquet(lines: IO[bytes], file: IO[bytes], name: str) -> None:
    """Write results as Parquet: a column for each key, of the type that holds all its values.

    Whole numbers beside fractions become fractions, if that loses nothing; missing keys are null. Results that are no
    objects make a column `value`.

    Args:
        lines: JSON lines, read from the beginning.
        file: Gets the table.
        name: What people call it.

    Raises:
        BatchError: If no type holds all values of a column; names it and the result.
    """
    pa = load_pyarrow(name)
    schema = pa.schema([])
    number = 0
    for rows in _chunks(lines, name):
        try:
            schema = _widened(pa, schema, rows)
        except (pa.ArrowException, OverflowError):
            raise _misfit(pa, schema, rows, number, name) from None
        number += len(rows)
    for field in schema:
        if _holds_empty_struct(pa, field.type):
            problem = "holds objects without any key, which Parquet cannot"
            raise BatchError(f"{name}: column {field.name!r} {problem}; {_KEPT}", RESUMABLE)
    if number and not schema.names:
        schema = pa.schema([(VALUE, pa.null())])
    kind = pa.struct(list(schema))
    batches: list[Any] = []
    try:
        with pa.parquet.ParquetWriter(file, schema) as table:
            for rows in _chunks(lines, name):
                batches.append(pa.RecordBatch.from_struct_array(pa.array(rows, type=kind)))
                if sum(batch.nbytes for batch in batches) > _GROUP_BYTES or len(batches) == _GROUP_BATCHES:
                    table.write_table(pa.Table.from_batches(batches, schema))
                    batches.clear()
            if batches:
                table.write_table(pa.Table.from_batches(batches, schema))
    except (pa.ArrowException, OverflowError) as error:
        raise BatchError(f"{name}: the results do not fit into one table: {error}; {_KEPT}", RESUMABLE) from None


def _widened(pa: Any, schema: Any, rows: list[dict[str, Any]]) -> Any:
    found = pa.array(rows)
    if not pa.types.is_struct(found.type):  # rows without any key
        return schema
    return pa.unify_schemas([schema, pa.schema(list(found.type))], promote_options="permissive")


def _misfit(pa: Any, schema: Any, rows: list[dict[str, Any]], number: int, name: str) -> BatchError:
    for row in rows:
        number += 1
        for key, value in row.items():
            known = schema.field(key).type if key in schema.names else None
            try:
                part = _widened(pa, schema, [{key: value}])
            except (pa.ArrowException, OverflowError) as error:
                shown = msgspec.json.encode(value).decode()[:60]
                so_far = f" and {known} before" if known is not None else ""
                why = f"{shown} here{so_far} ({str(error).partition(chr(10))[0]})"
                message = f"{name}: result {number}: column {key!r} has no type for all its values: {why}"
                return BatchError(f"{message}; {_KEPT}", RESUMABLE)
            schema = part
    return BatchError(f"{name}: the results up to {number} do not fit into one table; {_KEPT}", RESUMABLE)


def _holds_empty_struct(pa: Any, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_holds_empty_struct(pa, field.type) for field in kind)
    return bool(pa.types.is_list(kind)) and _holds_empty_struct(pa, kind.value_type)


def _chunks(lines: IO[bytes], name: str) -> Iterator[list[dict[str, Any]]]:
    lines.seek(0)
    decode = msgspec.json.decode
    number = 0
    while chunk := list(itertools.islice(lines, _ROWS)):
        rows = []
        for number, line in enumerate(chunk, number + 1):  # noqa: B020  it goes on counting
            try:
                value = decode(line)
            except msgspec.DecodeError:
                problem = "has text that is not Unicode (a lone surrogate), which only JSON lines can hold"
                raise BatchError(f"{name}: result {number} {problem}; {_KEPT}", RESUMABLE) from None
            rows.append(value if isinstance(value, dict) else {VALUE: value})
        yield rows
