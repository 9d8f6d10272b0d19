"""Where the records of a batch come from: rows and bad rows with their places, and what is refused before a start."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import gzip
import os
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pydantic
import pytest
from orchestrator_adapters.batch import BatchError
from orchestrator_adapters.batch._source import MAX_ROW_BYTES, Row, open_source

from orchestrator.testing import nothing_left

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


async def rows(value: Any, **options: Any) -> list[Row]:
    async with aclosing(aiter(open_source(value, **options))) as found:
        return [row async for row in found]


async def rows_and_error(value: Any, **options: Any) -> tuple[list[Row], BatchError]:
    found: list[Row] = []
    with pytest.raises(BatchError) as ended:
        async for row in open_source(value, **options):
            found.append(row)  # noqa: PERF401  what came before the error counts
    assert "\n" not in str(ended.value)
    return found, ended.value


def refusal(value: Any, **options: Any) -> str:
    with pytest.raises(BatchError) as refused:
        open_source(value, **options)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)
    return str(refused.value)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


# JSON lines


async def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\n  \n[1.5, null]\n"x"')
    assert await rows(path) == [
        Row(1, "line 1", {"a": 1}),
        Row(2, "line 4", [1.5, None]),
        Row(3, "line 5", "x"),
    ]
    source = open_source(path)
    assert await source.count() == 3
    assert source.name == source.path == path


async def test_a_source_can_be_read_again(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "in.jsonl", b"1\n2\n"))
    assert [row.content async for row in source] == [row.content async for row in source] == [1, 2]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{'a': 1}", "the line is not JSON: "),
        (b'{"a": NaN}', "the line is not JSON: "),
        (b'{"a": 1e999}', "the line is not JSON: Number out of range"),
        (b"[1, 2", "the line is not JSON: Input data was truncated"),
        (b'"\xff"', "the line is not UTF-8; save the file as UTF-8"),
        (rb'{"a": "\uD83D"}', "the line has text that is not Unicode (a lone surrogate)"),
        (b"[" * 100_000, "the line is nested too deeply"),
    ],
)
async def test_a_bad_line_is_a_bad_row_among_good_ones(tmp_path: Path, line: bytes, problem: str) -> None:
    first, bad, last = await rows(write(tmp_path / "in.jsonl", b"1\n" + line + b"\n2\n"))
    assert (first.content, last.content, last.number) == (1, 2, 3)
    assert bad.place == "line 2"
    assert bad.problem is not None
    assert bad.problem.startswith(problem)
    assert bad.content == line.decode(errors="replace")[:1000]


async def test_of_a_key_that_stands_twice_the_last_counts(tmp_path: Path) -> None:
    (row,) = await rows(write(tmp_path / "in.jsonl", b'{"a": 1, "a": 2}'))
    assert row.content == {"a": 2}


async def test_a_row_that_is_too_large_is_a_bad_row(tmp_path: Path) -> None:
    fits = b'"' + b"x" * (MAX_ROW_BYTES - 2) + b'"'
    path = write(tmp_path / "in.jsonl", fits + b"\n" + fits + b" \n3\n")
    good, bad, last = await rows(path)
    assert good.problem is None
    assert bad.problem == "the row is longer than 16,777,216 bytes; pass large data by file name"
    assert len(bad.content) == 1000
    assert last == Row(3, "line 3", 3)
    assert await open_source(path).count() == 3


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("in.jsonl", b"\xff\xfe1\0", "is UTF-16; save it as UTF-8"),
        ("in.jsonl", gzip.compress(b"1\n", mtime=0), "is compressed with gzip: let its name end in .gz"),
        (
            "in.jsonl",
            b'[\n  {"a": 1},\n  {"a": 2}\n]\n',
            "holds one JSON value over several lines; write a record a line",
        ),
        ("in.csv", b"PAR1\0\0\0\0", "is a Parquet file: let its name end in .parquet"),
        ("in.jsonl.gz", b'{"a": 1}\n', "is not compressed with gzip, which its name or format says"),
        ("in.parquet", b"a,b\n1,2\n", "is no Parquet file, or is damaged"),
        ("in.txt", b"1\n", "does not tell its format: let it end in .jsonl, .csv or .parquet"),
        ("in.csv", b"a,b,a\n", ", line 1: the header has 'a' twice"),
        ("in.csv", b"\n\na,,c\n", ", line 3: the header has no name for column 2"),
        ("in.csv", b"a;b\n1;2\n", "its cells are separated by semicolons; save with commas"),
        ("in.csv", b"a\tb\n", "its cells are separated by tabs; save with commas"),
        ("in.csv", b'"a\n', ", line 1: the header cannot be read: the row is not CSV"),
    ],
)
def test_a_file_that_is_something_else_is_refused_before_a_start(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    path = write(tmp_path / name, data)
    message = refusal(path)
    assert path in message
    assert expected in message


def test_a_path_that_cannot_be_read_is_refused_before_a_start(tmp_path: Path) -> None:
    assert "cannot be opened: No such file or directory" in refusal(str(tmp_path / "absent.jsonl"))
    assert "is a folder; name a file in it" in refusal(tmp_path)
    assert "empty path" in refusal("")
    assert "no path has a NUL character" in refusal("a\0b.jsonl")
    assert "format 'xml' is none of jsonl, csv and parquet" in refusal(write(tmp_path / "in.xml", b""), format="xml")


async def test_the_format_goes_before_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "in.txt", gzip.compress(b"a\n1\n"))
    assert await rows(path, format="csv.gz") == [Row(1, "line 2", {"a": "1"})]
    assert await rows(write(tmp_path / "IN.NDJSON", b"1"), format=None) == [Row(1, "line 1", 1)]


async def test_a_reader_that_is_left_early_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b"1\n" * 1_000_000)
    async with aclosing(aiter(open_source(path))) as found:
        assert (await anext(found)).content == 1
    assert not [thread for thread in threading.enumerate() if "input" in thread.name]


async def test_counting_can_be_cancelled(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b"1\n" * 1_000_000)
    counting = asyncio.create_task(open_source(path).count())
    await asyncio.sleep(0)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting


# CSV


async def test_csv(tmp_path: Path) -> None:
    text = '\ufeffid, text ,n\r\n1,"a ""quoted"" cell, with a comma",\r\n\r\n2,"two\r\nlines",x\r\n'
    path = write(tmp_path / "in.csv", text.encode())
    assert await rows(path) == [
        Row(1, "line 2", {"id": "1", "text": 'a "quoted" cell, with a comma', "n": ""}),
        Row(2, "line 4", {"id": "2", "text": "two\r\nlines", "n": "x"}),
    ]
    assert await open_source(path).count() == 2


async def test_bad_rows_of_a_csv_file_say_where_they_are(tmp_path: Path) -> None:
    data = b'a,b\n1\n1,2,3\n\xff,"x\ny"\n"x"y,2\n4,"5\n6,7\n'
    path = write(tmp_path / "in.csv", data)
    assert await rows(path) == [
        Row(1, "line 2", "1", "the row has 1 cells, the header has 2"),
        Row(2, "line 3", "1,2,3", "the row has 3 cells, the header has 2"),
        Row(3, "line 4", '\ufffd,"x\ny"', "the row is not UTF-8; save the file as UTF-8"),
        Row(4, "line 6", '"x"y,2', "the row is not CSV: ',' expected after '\"'"),
        Row(
            5, "line 7", '4,"5\n6,7', "the row is not CSV: unexpected end of data, up to line 8; is a quote not closed?"
        ),
    ]
    assert await open_source(path).count() == 5


async def test_a_quote_that_is_never_closed_takes_no_more_than_a_row_may(tmp_path: Path) -> None:
    line = b"x" * 99 + b"\n"
    path = write(tmp_path / "in.csv", b'a\n"' + line * (MAX_ROW_BYTES // 100 + 10))
    bad, *others = await rows(path)
    assert bad.problem == "the row is longer than 16,777,216 bytes; is a quote not closed?"
    assert 1 <= len(others) <= 20


async def test_a_large_cell_is_read(tmp_path: Path) -> None:
    (row,) = await rows(write(tmp_path / "in.csv", b"a\n" + b"x" * 300_000 + b"\n"))
    assert len(row.content["a"]) == 300_000  # the csv module's own bound is 131,072


@pytest.mark.parametrize("data", [b"", b"\n", b"a,b\n"])
async def test_a_table_without_rows_has_none(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "in.csv", data)
    assert await rows(path) == []
    assert await open_source(path).count() == 0


# gzip


async def test_gzip_of_several_members(tmp_path: Path) -> None:
    data = gzip.compress(b"1\n") + gzip.compress(b"") + gzip.compress(b"2\n") + b"\0" * 100
    path = write(tmp_path / "in.jsonl.gz", data)
    assert [row.content for row in await rows(path)] == [1, 2]
    assert await open_source(path).count() == 2


@pytest.mark.parametrize("kept", [0.5, 0.99])
async def test_of_a_gzip_that_is_cut_off_what_came_before_is_kept(tmp_path: Path, kept: float) -> None:
    lines = b"".join(b'{"n": %d, "x": "%s"}\n' % (n, os.urandom(8).hex().encode()) for n in range(20_000))
    data = gzip.compress(lines)
    path = write(tmp_path / "in.jsonl.gz", data[: int(len(data) * kept)])
    found, error = await rows_and_error(path)
    assert [row.content["n"] for row in found] == list(range(len(found)))
    assert kept * 20_000 * 0.9 < len(found) < 20_000
    assert f"(rows 1 to {len(found):,} were read)" in str(error)
    assert "is cut off" in str(error)
    assert path in str(error)
    assert error.exit_code == 75
    assert await open_source(path).count() is None


async def test_of_a_gzip_that_is_damaged_what_came_before_is_kept(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(b"%d\n" % n for n in range(100_000))))
    data[-4] ^= 0xFF  # of the length in the trailer
    found, error = await rows_and_error(write(tmp_path / "in.jsonl.gz", bytes(data)))
    assert len(found) > 90_000
    assert "is damaged" in str(error)


async def test_a_small_file_that_expands_enormously_takes_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = write(tmp_path / "in.jsonl.gz", gzip.compress(b"0\n" * 10_000_000))
    tracemalloc.start()
    try:
        async with aclosing(aiter(open_source(path))) as found:
            async for row in found:
                if row.number == 10:
                    break
        assert (
            tracemalloc.get_traced_memory()[1] < 20 * 2**20
        )  # the text is as long, and its rows take a hundred times that
    finally:
        tracemalloc.stop()


# Pipes and stdin


@pytest.fixture
def pipe() -> Iterator[tuple[str, int]]:
    reader, writer = os.pipe()
    yield f"/dev/fd/{reader}", writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="this system has no names for descriptors")
async def test_rows_of_a_pipe_come_as_they_are_written(pipe: tuple[str, int]) -> None:
    path, writer = pipe
    async with aclosing(aiter(open_source(path, format="jsonl"))) as found:
        os.write(writer, b"1\n2\n3")
        assert [(await anext(found)).content for _ in range(2)] == [1, 2]
        os.write(writer, b"4\n")
        assert (await anext(found)).content == 34
        os.close(writer)
        assert [row async for row in found] == []


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="this system has no names for descriptors")
async def test_a_pipe_that_stays_open_can_be_left(pipe: tuple[str, int]) -> None:
    path, writer = pipe
    source = open_source(path, format="csv")
    assert await source.count() is None
    os.write(writer, b"a\n1\n")
    async with asyncio.timeout(10):
        async with aclosing(aiter(source)) as found:
            assert (await anext(found)).content == {"a": "1"}
            waiting = asyncio.ensure_future(anext(found))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
async def test_a_named_pipe_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    async with aclosing(aiter(open_source(path))) as found:
        first = asyncio.ensure_future(anext(found))
        with await asyncio.to_thread(open, path, "wb") as file:
            file.write(b"1\n")
        assert (await first).content == 1
        assert [row async for row in found] == []


async def test_stdin(tmp_path: Path) -> None:
    saved = os.dup(0)
    try:
        with open(write(tmp_path / "in", b"a,b\n1,2\n"), "rb") as file:
            os.dup2(file.fileno(), 0)
        source = open_source("-", format="csv")
        assert (source.name, source.path) == ("stdin", None)
        assert await source.count() is None
        assert [row async for row in source] == [Row(1, "line 2", {"a": "1", "b": "2"})]
    finally:
        os.dup2(saved, 0)
        os.close(saved)


# Parquet


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


async def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", n=[1, 2, None], t=["a", None, "ü"], v=[[0.5], [], None])
    assert await rows(path) == [
        Row(1, "row 1", {"n": 1, "t": "a", "v": [0.5]}),
        Row(2, "row 2", {"n": 2, "t": None, "v": []}),
        Row(3, "row 3", {"n": None, "t": "ü", "v": None}),
    ]
    assert await open_source(path).count() == 3
    compressed = write(tmp_path / "in.parquet.gz", gzip.compress(Path(path).read_bytes()))
    assert await rows(compressed) == await rows(path)
    assert await open_source(compressed).count() == 3


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([dt.datetime(2024, 2, 3, 4, 5, 6, 70), None]), ["2024-02-03T04:05:06.00007", None]),
        (pa.array([0], pa.timestamp("ns", "Europe/Berlin")), ["1970-01-01T00:00:00Z"]),
        (pa.array([-1], pa.timestamp("ns")), ["1969-12-31T23:59:59.999999999"]),
        (pa.array([dt.date(2024, 2, 3)]), ["2024-02-03"]),
        (pa.array([dt.time(1, 2, 3, 4)]), ["01:02:03.000004"]),
        (pa.array([dt.timedelta(days=-1, seconds=1), None]), ["-P0DT86399S", None]),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([True, False]), [True, False]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([{"at": dt.date(2024, 2, 3), "n": [1]}, None]), [{"at": "2024-02-03", "n": [1]}, None]),
        (pa.array([[dt.date(2024, 2, 3), None]]), [["2024-02-03", None]]),
        (pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int8())), [{"a": 1, "b": None}]),
        (pa.array([[(1, "x")]], pa.map_(pa.int8(), pa.string())), [[[1, "x"]]]),
    ],
)
async def test_what_json_has_no_form_for_takes_the_documented_one(
    tmp_path: Path, column: Any, expected: list[Any]
) -> None:
    assert [row.content["c"] for row in await rows(parquet(tmp_path / "in.parquet", c=column))] == expected


@pytest.mark.parametrize("column", [[b"x"], [[b"x"]], [{"deep": b"x"}]])
def test_binary_columns_are_refused_before_a_start(tmp_path: Path, column: list[Any]) -> None:
    message = refusal(parquet(tmp_path / "in.parquet", c=column))
    assert "column 'c' is binary, which JSON cannot carry; leave it out of the file, or write it as text" in message


async def test_numbers_that_json_has_no_form_for_are_bad_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", a=[1.5, float("nan"), None], b=[[1.0], [1.0], [float("-inf")]])
    good, nan, infinite = await rows(path)
    assert good.content == {"a": 1.5, "b": [1.0]}
    assert nan.problem == "a is nan, which JSON has no form for"
    assert infinite.problem == "b[0] is -inf, which JSON has no form for"
    assert infinite.place == "row 3"


async def test_a_time_out_of_range_is_a_bad_row(tmp_path: Path) -> None:
    (row,) = await rows(parquet(tmp_path / "in.parquet", a=pa.array([2**62], pa.timestamp("us"))))
    assert row.problem is not None
    assert "outside of the years 1 to 9999" in row.problem


async def test_a_row_of_a_parquet_file_that_is_too_large_is_a_bad_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", a=["x" * MAX_ROW_BYTES, "y", '"' * (MAX_ROW_BYTES // 2)])
    large, small, escaped = await rows(path)
    assert large.problem == "the row is longer than 16,777,216 bytes; pass large data by file name"
    assert small.content == {"a": "y"}
    assert escaped.problem == large.problem


def test_a_parquet_file_with_two_columns_of_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), path)
    assert "2 columns are named 'a'" in refusal(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "in.parquet", a=[1])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    assert "pip install 'subprocess-orchestrator[parquet]'" in refusal(path)


# Iterables


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date


class Model(pydantic.BaseModel):
    n: int
    at: dt.datetime


async def test_records_of_an_iterable() -> None:
    given = [{"a": (1, None)}, 5, "x", [True]]
    source = open_source(given)
    assert await source.count() == 4
    found = [row async for row in source]
    assert [row.content for row in found] == given
    assert [row.place for row in found] == ["item 1", "item 2", "item 3", "item 4"]


async def test_typed_records_take_the_form_that_annotations_rebuild() -> None:
    given = [
        Point(1, dt.date(2024, 2, 3)),
        {"u": uuid.UUID(int=1), "d": decimal.Decimal("1.50"), "c": Colour.RED, "p": Point(2, dt.date.min)},
        Model(n=1, at=dt.datetime(2024, 2, 3, tzinfo=dt.UTC)),
        {"s": {3, 1, 2}},
        collections.OrderedDict(a=1),
    ]
    assert [row.content for row in await rows(given)] == [
        {"x": 1, "when": "2024-02-03"},
        {
            "u": "00000000-0000-0000-0000-000000000001",
            "d": "1.50",
            "c": "red",
            "p": {"x": 2, "when": "0001-01-01"},
        },
        {"n": 1, "at": "2024-02-03T00:00:00Z"},
        {"s": [1, 2, 3]},
        {"a": 1},
    ]


async def test_values_that_are_no_records_are_bad_rows() -> None:
    endless: list[Any] = []
    endless.append(endless)
    given = [object(), float("nan"), {"a": [{"b": float("inf")}]}, {1: 2}, endless, "\ud800", "x" * MAX_ROW_BYTES, 1]
    found = await rows(given)
    assert [row.problem for row in found] == [
        "the record is not JSON: it holds a builtins.object",
        "the record is nan, which JSON has no form for",
        "a[0].b is inf, which JSON has no form for",
        "the record has the key 1, which is not a string",
        "the record is nested too deeply, or contains itself",
        "the record has text that is not Unicode (a lone surrogate)",
        "the record is larger than 16,777,216 bytes; pass large data by file name",
        None,
    ]
    assert all(len(row.content) <= 1000 for row in found[:-1])


async def test_an_iterable_that_cannot_tell_its_length_is_read_all_the_same() -> None:
    class Query(list[int]):
        def __len__(self) -> int:
            raise TypeError("ask first")

    source = open_source(Query([1, 2]))
    assert await source.count() is None
    assert [row.content async for row in source] == [1, 2]


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_iterable_is_pulled_one_at_a_time_and_closed(is_async: bool) -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        try:
            for number in range(100):
                pulled.append(number)
                yield number
        finally:
            pulled.append(-1)

    async def later() -> AsyncIterator[int]:
        given = numbers()
        try:
            for number in given:
                await asyncio.sleep(0)
                yield number
        finally:
            given.close()  # type: ignore[attr-defined]

    source = open_source(later() if is_async else numbers())
    assert await source.count() is None
    async with aclosing(aiter(source)) as found:
        for number in range(3):
            assert (await anext(found)).content == number
            assert pulled == list(range(number + 1))
    assert pulled == [0, 1, 2, -1]


@pytest.mark.parametrize("after", [0, 2])
async def test_what_an_iterable_raises_is_reported_with_its_position(after: int) -> None:
    async def broken() -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise LookupError("no cursor")

    found, error = await rows_and_error(broken())
    assert len(found) == after
    where = "after item 2" if after else "before its first item"
    assert str(error) == f"the async_generator of records raised {where}: LookupError: no cursor"
    assert isinstance(error.__cause__, LookupError)
    assert error.exit_code == 75


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    assert "give a path, '-' for stdin, or an iterable of records" in refusal(3)
    assert "the source is a single dict" in refusal({"a": 1})
    assert "the source is a single bytes" in refusal(b"in.jsonl")
    assert "a format (csv) is for files and stdin; the source is a list" in refusal([], format="csv")
    with open(write(tmp_path / "in.jsonl", b"1")) as file:
        assert "the source is an open file; give its path" in refusal(file)
