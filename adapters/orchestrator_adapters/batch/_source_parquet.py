"""Records from a Parquet file, batch by batch, each value in the JSON form that means the same."""

from __future__ import annotations

import datetime as dt
import tempfile
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._parquet import load_pyarrow
from orchestrator_adapters.batch._source import MAX_ROW_BYTES, SHOWN, Row
from orchestrator_adapters.batch._source_bytes import Input, chunks
from orchestrator_adapters.batch._source_file import FileSource
from orchestrator_adapters.batch._values import Unfit, find_unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    Convert = Callable[[Any], Any]

# Rows of a batch: wide rows (embeddings, pages of text) are some kilobytes each, and two batches are held.
_BATCH_ROWS = 256
_PAGE_BYTES = 2**20
_EPOCH = dt.datetime(1970, 1, 1)
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class ParquetSource(FileSource):
    """A Parquet file.

    Times become ISO 8601 texts (instants in UTC, with `Z`), durations too; decimals and UUIDs become texts, maps with
    texts as keys objects, other maps lists of pairs. Binary columns are refused, and a row with NaN or an infinity is a
    bad row, for JSON has no form for them.
    """

    def _look(self, source: Input) -> None:
        load_pyarrow(self.name)
        if not self.format.gzip and self.path is not None:
            with open(self.path, "rb") as file:
                self._open(file)

    def _count(self, source: Input) -> int:
        with self._file(source) as file:
            return int(self._open(file)[0].metadata.num_rows)

    def _file(self, source: Input) -> IO[bytes]:
        if self.is_regular and not self.format.gzip and self.path is not None:
            return open(self.path, "rb")
        # What tells the columns stands at the end: a stream has to be there as a whole.
        file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
        try:
            for piece in chunks(source, gzip=self.format.gzip):
                file.write(piece)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _open(self, file: IO[bytes]) -> tuple[Any, list[str], list[Convert | None]]:
        pa = load_pyarrow(self.name)
        try:
            table = pa.parquet.ParquetFile(file, buffer_size=_PAGE_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise BatchError(f"{self.name} is no Parquet file, or is damaged: {_first_line(error)}") from None
        names = table.schema_arrow.names
        for name in names:
            if not name or names.count(name) > 1:
                raise BatchError(
                    f"{self.name}: {names.count(name)} columns are named {name!r}; each needs one of its own"
                )
        converts: list[Convert | None] = []
        for field in table.schema_arrow:
            try:
                converts.append(_converter(pa, field.type))
            except Unfit as problem:
                raise BatchError(f"{self.name}: column {field.name!r} {problem}") from None
        return table, names, converts

    def _read(self, source: Input, push: Callable[[list[Row]], None]) -> None:
        pa = load_pyarrow(self.name)
        with self._file(source) as file:
            if source.stopped:
                return
            table, names, converts = self._open(file)
            number = 0
            try:
                for batch in table.iter_batches(_BATCH_ROWS, use_threads=False):
                    rows = list(_rows(batch, names, converts, number))
                    number += len(rows)
                    push(rows)
            except (pa.ArrowException, OSError) as error:
                where = f"{self.name} cannot be read any further after row {number}"
                raise BatchError(f"{where}: {_first_line(error)}", RESUMABLE) from None


def _rows(batch: Any, names: list[str], converts: list[Convert | None], number: int) -> Iterator[Row]:
    may_be_large = batch.nbytes > MAX_ROW_BYTES // 8  # a text may grow sixfold when it is escaped
    columns = []
    for column, convert in zip(batch.columns, converts, strict=True):
        columns.append(column.to_pylist() if convert is None else [_attempt(convert, value) for value in column])
    for values in zip(*columns, strict=True):
        number += 1
        content = dict(zip(names, values, strict=True))
        problem = next((str(value) for value in values if isinstance(value, Unfit)), None) or find_unfit(content, "")
        if problem is None and may_be_large and len(msgspec.json.encode(content)) > MAX_ROW_BYTES:
            problem = f"the row is longer than {MAX_ROW_BYTES:,} bytes; pass large data by file name"
        place = f"row {number}"
        yield Row(number, place, content) if problem is None else Row(number, place, repr(content)[:SHOWN], problem)


def _attempt(convert: Convert, value: Any) -> Any:
    try:
        return convert(value)
    except Unfit as problem:
        return problem


def _converter(pa: Any, kind: Any) -> Convert | None:
    """Return what makes a JSON value of a scalar; None if its Python value is one.

    Raises:
        Unfit: If there is no such form.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _text if str(kind.extension_name) == "arrow.uuid" else _of_storage(_converter(pa, kind.storage_type))
    if types.is_dictionary(kind):
        return _of_value(_converter(pa, kind.value_type))
    if (
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
    ):
        return None
    if types.is_timestamp(kind):
        return _instant(kind.unit, "Z" if kind.tz else "")
    if types.is_time(kind):
        return _clock(kind.unit)
    if types.is_date(kind):
        return _iso
    if types.is_duration(kind):
        return _duration(kind.unit)
    if types.is_decimal(kind):
        return _text
    if types.is_struct(kind):
        return _struct([(field.name, _converter(pa, field.type)) for field in kind])
    if types.is_map(kind):
        return _map(_converter(pa, kind.key_type), _converter(pa, kind.item_type), _has_text_keys(types, kind))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _converter(pa, kind.value_type)
        return None if inner is None else _list(inner)
    what = "is binary" if "binary" in str(kind) else f"is of the type {kind}"
    raise Unfit(f"{what}, which JSON cannot carry; leave it out of the file, or write it as text")


def _value(convert: Convert | None, scalar: Any) -> Any:
    if convert is None or not scalar.is_valid:
        return scalar.as_py()
    return convert(scalar)


def _of_value(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda scalar: _value(convert, scalar.value) if scalar.is_valid else None


def _of_storage(convert: Convert | None) -> Convert:
    return lambda scalar: _value(convert, scalar.value) if scalar.is_valid else None


def _text(scalar: Any) -> str | None:
    return str(scalar.as_py()) if scalar.is_valid else None


def _iso(scalar: Any) -> str | None:
    return scalar.as_py().isoformat() if scalar.is_valid else None


def _fraction(count: int, unit: str) -> tuple[int, str]:
    """Return whole seconds, and the digits behind them without closing zeros."""
    whole, rest = divmod(count, _UNITS[unit])
    digits = f"{rest:0{len(str(_UNITS[unit])) - 1}d}".rstrip("0") if rest else ""
    return whole, f".{digits}" if digits else ""


def _instant(unit: str, zone: str) -> Convert:
    def convert(scalar: Any) -> str | None:
        if not scalar.is_valid:
            return None
        whole, digits = _fraction(scalar.value, unit)
        try:
            return f"{(_EPOCH + dt.timedelta(seconds=whole)).isoformat()}{digits}{zone}"
        except OverflowError:
            raise Unfit(f"a time is {scalar.value} {unit} away from 1970, outside of the years 1 to 9999") from None

    return convert


def _clock(unit: str) -> Convert:
    def convert(scalar: Any) -> str | None:
        if not scalar.is_valid:
            return None
        whole, digits = _fraction(scalar.value, unit)
        return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{digits}"

    return convert


def _duration(unit: str) -> Convert:
    def convert(scalar: Any) -> str | None:
        if not scalar.is_valid:
            return None
        whole, digits = _fraction(abs(scalar.value), unit)
        sign = "-" if scalar.value < 0 else ""
        return f"{sign}P{whole // 86400}DT{whole % 86400}{digits}S"

    return convert


def _struct(parts: list[tuple[str, Convert | None]]) -> Convert | None:
    if all(convert is None for _, convert in parts):
        return None

    def convert(scalar: Any) -> dict[str, Any] | None:
        if not scalar.is_valid:
            return None
        return {name: _value(part, scalar[index]) for index, (name, part) in enumerate(parts)}

    return convert


def _list(inner: Convert) -> Convert:
    return lambda scalar: [_value(inner, item) for item in scalar.values] if scalar.is_valid else None


def _has_text_keys(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind.key_type) or types.is_large_string(kind.key_type))


def _map(key: Convert | None, item: Convert | None, is_object: bool) -> Convert:
    def convert(scalar: Any) -> Any:
        if not scalar.is_valid:
            return None
        pairs = [[_value(key, entry["key"]), _value(item, entry["value"])] for entry in scalar.values]
        if not is_object:
            return pairs
        if len(dict(pairs)) < len(pairs):
            raise Unfit("a map has a key twice")
        return dict(pairs)

    return convert


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
