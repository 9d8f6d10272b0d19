"""Bytes of stderr become lines, at a bounded rate, in bounded memory, and the last ones are always known."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import _stderr
from orchestrator._stderr import StderrReader


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.dropped = 0
        self.reader = StderrReader(self.take)

    def take(self, lines: list[str], dropped: int) -> None:
        self.lines += lines
        self.dropped += dropped


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=30)),
    data=st.data(),
)
def test_lines_come_whole_however_the_bytes_are_cut(lines: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{each}\n" for each in lines).encode()
    heard = Heard()
    while stream:
        count = data.draw(st.integers(1, len(stream)))
        heard.reader.feed(stream[:count])
        stream = stream[count:]
    assert heard.lines == [each.rstrip("\r") for each in lines]
    assert heard.dropped == 0
    assert heard.reader.tail() == tuple(heard.lines[-64:])


def test_unfinished_last_line() -> None:
    heard = Heard()
    heard.reader.feed(b"one\ntwo")
    assert heard.lines == ["one"]
    assert heard.reader.tail() == ("one", "two")
    heard.reader.flush()
    heard.reader.flush()
    assert heard.lines == ["one", "two"]
    assert heard.reader.tail() == ("one", "two")


def test_bytes_that_are_no_text_are_shown() -> None:
    heard = Heard()
    heard.reader.feed(b"\xff\xfeok\r\n")
    assert heard.lines == ["\\xff\\xfeok"]


def test_line_without_end_is_cut_once() -> None:
    heard = Heard()
    for _ in range(100):
        heard.reader.feed(b"x" * 10_000)
    heard.reader.feed(b"end\nnext\n")
    assert [len(each) for each in heard.lines] == [16 * 1024, 4]
    assert heard.lines[-1] == "next"
    assert len(heard.reader._held) < 32 * 1024


def test_notes_are_part_of_the_tail() -> None:
    heard = Heard()
    heard.reader.feed(b"one\n")
    heard.reader.note("by another way \ud800")
    assert heard.reader.tail() == ("one", "by another way \\ud800")
    assert heard.lines == ["one"]


def test_flood_is_dropped_counted_and_its_end_known(clock: list[float]) -> None:
    heard = Heard()
    for number in range(100_000):
        heard.reader.feed(b"%099d\n" % number)
    passed = len(heard.lines)
    assert passed * 100 == pytest.approx(_stderr._BURST, abs=200)
    assert heard.reader.tail() == tuple(f"{number:099d}" for number in range(100_000 - 64, 100_000))
    heard.reader.flush()
    assert passed + heard.dropped == 100_000
    clock[0] += 1.0  # a second later there is room for a megabyte again
    heard.reader.feed(b"again\n")
    assert heard.lines[-1] == "again"


def test_flood_in_large_pieces(clock: list[float]) -> None:
    heard = Heard()
    whole = b"".join(b"%099d\n" % number for number in range(100_000))
    for start in range(0, len(whole), 65_536):
        heard.reader.feed(whole[start : start + 65_536])
    heard.reader.flush()
    assert abs(len(heard.lines) + heard.dropped - 100_000) <= 1
    assert heard.reader.tail()[-1] == f"{99_999:099d}"
    assert all(len(each) == 99 for each in heard.lines)


@given(
    pieces=st.lists(
        st.sampled_from([b"\n", b"a", b"b" * 9_000, b"c" * 20_000, b"\r\n", b"d" * 700_000, b"e\n" * 5_000])
    )
)
def test_memory_and_lengths_are_bounded(pieces: list[bytes]) -> None:
    heard = Heard()
    for piece in pieces:
        heard.reader.feed(piece)
        assert len(heard.reader._held) <= 2 * 16 * 1024
    heard.reader.flush()
    assert all(len(each) <= 16 * 1024 for each in (*heard.lines, *heard.reader.tail()))
    assert len(heard.reader.tail()) <= 64
    assert sum(map(len, heard.lines)) <= _stderr._BURST + 60 * _stderr._RATE
    assert len(heard.lines) + heard.dropped <= sum(piece.count(b"\n") for piece in pieces) + len(pieces) + 1
