"""What a sink writes a source reads back, whatever the values; and how bytes are cut into blocks never shows."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from orchestrator_adapters.batch._sink import open_sink
from orchestrator_adapters.batch._source import Row, open_source
from orchestrator_adapters.batch._source_rows import RowReader

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(TEXT, parts, max_size=3),
    max_leaves=10,
)
# The first column may not begin with what marks a file as UTF-8, nor look as if cells were separated otherwise.
COLUMN = TEXT.map(str.strip).filter(lambda name: name and name[0] != "\ufeff" and not set(name) & {";", "\t"})
TABLES = st.lists(COLUMN, min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, TEXT)), min_size=1, max_size=8)
)


async def write_and_read(name: str, values: list[Any]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        sink = open_sink(path)
        await sink.open()
        await sink.write([msgspec.json.encode(value) for value in values])
        await sink.commit()
        source = open_source(path)
        found = [row async for row in source]
        assert await source.count() == len(found)
        return found


def contents(rows: list[Row]) -> list[Any]:
    assert [row.problem for row in rows] == [None] * len(rows)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    return [row.content for row in rows]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
@settings(max_examples=60, deadline=None)
@given(values=st.lists(JSON, max_size=8))
@example(values=[2**70, -0.0, 5e-324, "\u2028\r\n\0", {"": {"": []}}])
def test_json_lines(name: str, values: list[Any]) -> None:
    found = contents(asyncio.run(write_and_read(name, values)))
    assert msgspec.json.encode(found) == msgspec.json.encode(values)  # 1 is not 1.0, and 0.0 not -0.0


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
@settings(max_examples=100, deadline=None)
@given(table=TABLES)
@example(table=[{"a": ""}, {"a": " "}, {"a": "\r"}, {"a": "\n"}, {"a": '"'}, {"a": "\r\n,"}])
@example(table=[{"a,b": "1", 'c"\nd': "\0"}, {"a,b": "\t", 'c"\nd': "\r"}])
def test_csv_of_texts(name: str, table: list[dict[str, str]]) -> None:
    assert contents(asyncio.run(write_and_read(name, table))) == table


@settings(max_examples=60, deadline=None)
@given(
    table=st.lists(
        st.fixed_dictionaries(
            {
                "n": st.none() | st.integers(-(2**63), 2**63 - 1),
                "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "t": st.none() | TEXT,
                "b": st.none() | st.booleans(),
                "l": st.none() | st.lists(TEXT, max_size=2),
                "o": st.none() | st.fixed_dictionaries({"x": st.none() | TEXT}),
            }
        ),
        max_size=6,
    )
)
def test_parquet(table: list[dict[str, Any]]) -> None:
    pytest.importorskip("pyarrow")
    assert contents(asyncio.run(write_and_read("x.parquet", table))) == table


def read(kind: str, pieces: list[bytes], largest: int) -> list[Row]:
    found: list[Row] = []
    RowReader(iter(pieces), "x", found.extend, largest=largest).read(kind)
    return found


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["jsonl", "csv"]),
    lines=st.lists(
        st.sampled_from(
            [b"1", b"", b"\r", b'"a', b'b"', b"[1", b"\xff", b"x" * 40, b'"%s"' % (b"y" * 40), b"1,2", b" "]
        )
    ),
    ends=st.sampled_from([b"\n", b"\r\n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    cuts=st.lists(st.integers(0, 300), max_size=10),
)
def test_how_bytes_arrive_does_not_show(
    kind: str, lines: list[bytes], ends: bytes, mark: bytes, cuts: list[int]
) -> None:
    data = mark + (b"h\n" if kind == "csv" else b"") + ends.join(lines)
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places) if start < end]
    whole = read(kind, [data], 30)
    assert read(kind, pieces, 30) == whole
    assert RowReader(iter(pieces), "x", lambda rows: None, largest=30).count(kind) == len(whole)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200), kept=st.integers(0, 300))
def test_any_bytes_after_a_gzip_header_end_in_rows_or_one_error(data: bytes, kept: int) -> None:
    from orchestrator_adapters.batch import BatchError

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl.gz")
        path.write_bytes(gzip.compress(b"1\n" + data)[:kept] + data)

        async def run() -> None:
            try:
                async for row in open_source(path):
                    assert row.number >= 1
            except BatchError as error:
                assert str(path) in str(error)  # noqa: PT017  there may be none

        asyncio.run(run())
