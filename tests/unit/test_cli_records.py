"""Cutting inputs into records: lines, CSV rows, broken ones, and what arrives while the input is still open."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import _records
from orchestrator.cli._records import HeaderProblem, Record, RecordReader, count_records
from orchestrator.cli._rows import InvalidLine

Read = Callable[..., list[Record]]


def collect(records: list[Record]) -> Callable[[list[Record]], bool]:
    def push(batch: list[Record]) -> bool:
        records.extend(batch)
        return True

    return push


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_all(data: bytes, format: str = "jsonl", max_line: int = 1_000_000) -> list[Record]:
        path = tmp_path / "input"
        path.write_bytes(data)
        records: list[Record] = []
        names: list[str] = []

        descriptor = os.open(path, os.O_RDONLY)
        try:
            RecordReader(descriptor, format, collect(records), on_header=names.extend, max_line=max_line).read()
            os.lseek(descriptor, 0, os.SEEK_SET)
            assert count_records(descriptor, format) == len(records)
        finally:
            os.close(descriptor)
        return [*([(0, names)] if format == "csv" else []), *records]

    return read_all


def problem(content: object) -> str:
    assert isinstance(content, InvalidLine)
    return str(content)


def test_lines_keep_their_numbers_and_blank_ones_are_skipped(read: Read) -> None:
    assert read(b"1\n\n  \r\n[2]\r\n3") == [(1, b"1"), (4, b"[2]\r"), (5, b"3")]


def test_empty_input(read: Read) -> None:
    assert read(b"") == []
    assert read(b"", "csv") == [(0, [])]


def test_byte_order_mark_is_not_part_of_the_first_line(read: Read) -> None:
    assert read(b"\xef\xbb\xbf1\n2\n") == [(1, b"1"), (2, b"2")]
    assert read(b"\xef\xbb\xbfa,b\n1,2\n", "csv") == [(0, ["a", "b"]), (2, ["1", "2"])]


def test_utf_16_is_named(read: Read) -> None:
    with pytest.raises(HeaderProblem, match="UTF-16"):
        read("1\n".encode("utf-16"))


def test_too_long_line_is_reported_and_reading_goes_on(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_records, "CHUNK_BYTES", 7)
    records = read(b"1\n" + b"x" * 100 + b"\n2\n" + b"y" * 20 + b"\n" + b"z" * 99, max_line=20)
    assert [(line, type(content)) for line, content in records] == [
        (1, bytes), (2, InvalidLine), (3, bytes), (4, bytes), (5, InvalidLine),
    ]  # fmt: skip
    assert "longer than 20 bytes" in problem(records[1][1])


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=20), st.integers(1, 50))
def test_chunks_never_change_lines(lines: list[bytes], chunk: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x\n" + b"\n".join(lines))
    os.close(writing)
    records: list[Record] = []
    before, _records.CHUNK_BYTES = _records.CHUNK_BYTES, chunk + 1
    try:
        RecordReader(reading, "jsonl", collect(records)).read()
    finally:
        _records.CHUNK_BYTES = before
        os.close(reading)
    assert records == [(n, line) for n, line in enumerate([b"x", *lines], 1) if line.strip()]


def test_csv_quotes_newlines_and_line_numbers(read: Read) -> None:
    data = 'name,text\r\n"a ""b""","two\nlines"\r\n\r\né,"1,2"\r\n'.encode()
    assert read(data, "csv") == [(0, ["name", "text"]), (2, ['a "b"', "two\nlines"]), (5, ["é", "1,2"])]


def test_broken_csv_rows_are_reported_one_by_one(read: Read) -> None:
    records = read(b'a,b\n1,2\n"x"y,3\n\xff,4\n5,6\n"open,7\n', "csv")
    assert [line for line, _ in records] == [0, 2, 3, 4, 5, 6]
    assert records[1][1] == ["1", "2"]
    assert "not CSV" in problem(records[2][1])
    assert "not UTF-8" in problem(records[3][1])
    assert records[4][1] == ["5", "6"]
    assert "not CSV" in problem(records[5][1])


@pytest.mark.parametrize(
    ("header", "said"), [(b"a,,c\n", "column 2"), (b"a,b,a\n", "'a' twice"), (b"\xff\n", "not UTF-8")]
)
def test_header_must_name_arguments(read: Read, header: bytes, said: str) -> None:
    with pytest.raises(HeaderProblem, match=said):
        read(header + b"1,2,3\n", "csv")


@pytest.mark.parametrize(
    ("format", "start", "steps"),
    [
        ("jsonl", b"", [(b"1\n", [(1, b"1")]), (b"2\n3\n4", [(2, b"2"), (3, b"3")]), (b"5\n", [(4, b"45")])]),
        ("csv", b"a\n", [(b"1\n", [(2, ["1"])]), (b'"2\n3"\n4', [(3, ["2\n3"])]), (b"5\n", [(5, ["45"])])]),
    ],
)
def test_what_is_complete_flows_while_the_input_is_open(
    format: str, start: bytes, steps: list[tuple[bytes, list[Record]]]
) -> None:
    reading, writing = os.pipe()
    batches: SimpleQueue[list[Record]] = SimpleQueue()

    def push(batch: list[Record]) -> bool:
        batches.put(batch)
        return True

    reader = RecordReader(reading, format, push)
    thread = threading.Thread(target=reader.read)
    thread.start()
    try:
        os.write(writing, start)
        for data, expected in steps:
            os.write(writing, data)
            got: list[Record] = []
            while len(got) < len(expected):
                got += batches.get(timeout=10)
            assert got == expected
    finally:
        os.close(writing)
        thread.join(10)
        os.close(reading)
    assert not thread.is_alive()


def test_reading_ends_when_no_more_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"1\n" * 200_000)
    batches: list[list[Record]] = []

    def push(batch: list[Record]) -> bool:
        batches.append(batch)
        return False

    descriptor = os.open(path, os.O_RDONLY)
    RecordReader(descriptor, "jsonl", push).read()
    os.close(descriptor)
    assert len(batches) == 1
