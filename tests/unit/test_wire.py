"""Frames as lines: the codec agrees with the standard library's, lines may be cut anywhere, exact is exact."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import _wire

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ATOMS = st.none() | st.booleans() | st.integers() | FLOATS | st.text(st.characters(exclude_categories=()))
JSON = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5))
CODECS = [pytest.param(_wire._c_codec(), id="c"), pytest.param(_wire._portable_codec(), id="portable")]

Codec = Any


def is_exactly(left: Any, right: Any) -> bool:
    """Equality in which types count, and the sign of zero."""
    return repr(left) == repr(right)


@pytest.mark.parametrize("codec", CODECS)
@given(value=JSON)
def test_values_come_back_as_they_were(codec: Codec, value: Any) -> None:
    encode, decode = codec
    text = encode(value)
    assert text.isascii() and "\n" not in text
    assert text == json.dumps(value, separators=(",", ":"))
    assert is_exactly(decode(text), value)
    assert is_exactly(json.loads(text), value)


@pytest.mark.parametrize("codec", CODECS)
@given(value=JSON, indent=st.sampled_from([None, 1]))
def test_what_others_write_is_understood(codec: Codec, value: Any, indent: int | None) -> None:
    _, decode = codec
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    assert is_exactly(decode(f" \t\r\n{text} \r\n"), value)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "text", ["", " ", "{", "nul", "[1,]", '{"a" 1}', "1 2", '{"a":1}x', "NaN", "[Infinity]", "'a'"]
)
def test_what_is_not_json_is_refused(codec: Codec, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each codec has its own text
        codec[1](text)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}, b"bytes", [object()]])
def test_what_json_lacks_is_refused(codec: Codec, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        codec[0](value)


@pytest.mark.parametrize("codec", CODECS)
def test_a_value_that_contains_itself_is_refused(codec: Codec) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="ircular"):
        codec[0](endless)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.text(min_size=1))
def test_frames_come_back_as_they_were(members: dict[str, Any], kind: str) -> None:
    frame = {**members, "type": kind}
    line = _wire.encode(frame)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert is_exactly(_wire.decode(line), frame)
    assert is_exactly(_wire.decode(line[:-1]), frame)


@pytest.mark.parametrize("line", [b"[]", b'{"type":1}', b"{}", b"\xff", b'"type"', b"", b'{"type":"a"'])
def test_a_line_that_is_no_frame_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reason differs
        _wire.decode(line)


# Lines


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=12)


@settings(max_examples=400)
@given(lines=LINES, rest=st.binary(max_size=30), places=st.lists(st.integers(0, 10_000), max_size=20))
def test_lines_are_the_same_wherever_the_stream_is_cut(lines: list[bytes], rest: bytes, places: list[int]) -> None:
    limit, keep = 10, 4
    rest = rest.replace(b"\n", b"")
    reader = _wire.Lines(limit, keep)
    found: list[bytes] = []
    oversized: list[bytes] = []
    for chunk in cut(b"".join(line + b"\n" for line in lines) + rest, places):
        whole, heads = reader.feed(chunk)
        found += whole
        oversized += heads
        assert len(reader._held) <= limit, "memory is bounded"
    assert found == [line for line in lines if len(line) <= limit]
    assert oversized == [line[:keep] for line in lines if len(line) > limit]
    assert reader.rest() == (rest if len(rest) <= limit else rest[:keep])


def test_a_line_without_an_end_does_not_grow() -> None:
    reader = _wire.Lines(1000)
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == ([], [])
    assert len(reader.rest()) <= 1000
    assert reader.feed(b"\nnext\n") == ([b"next"], [b"x" * 200])


# Exactness


@given(JSON)
def test_json_values_are_exact(value: Any) -> None:
    assert _wire.find_inexact(value, "value") is None


class Text(str):
    pass


class Number(int):
    pass


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        (object(), "value", "builtins.object is not a JSON type"),
        (Text("a"), "value", "Text is not a JSON type"),
        ([1, [2, Number(3)]], "value[1][1]", "Number is not a JSON type"),
        ({"a": {"b": ({1},)}}, "value.a.b[0]", "builtins.set is not a JSON type"),
        ({"a": {1: "one"}}, "value.a", "has the key 1; JSON keys are strings"),
        ({"a": {Text("b"): 1}}, "value.a", "JSON keys are strings"),
        ({"when": [0.5, math.nan]}, "value.when[1]", "nan is not a JSON number"),
        (-math.inf, "value", "-inf is not a JSON number"),
        (b"raw", "value", "builtins.bytes is not a JSON type"),
    ],
)
def test_what_is_not_exact_is_found(value: Any, path: str, problem: str) -> None:
    found = _wire.find_inexact(value, "value")
    assert found is not None
    assert found[0] == path and problem in found[1]


def test_too_deep_values_are_found() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert _wire.find_inexact(deep, "value") is None
    assert _wire.decode_json(_wire.encode_json(deep)) == deep
    for _ in range(10):
        deep = [deep]
    found = _wire.find_inexact(deep, "value")
    assert found is not None and "nested deeper than 200 levels" in found[1]
    endless: dict[str, Any] = {}
    endless["self"] = endless
    assert _wire.find_inexact(endless, "value") is not None


def test_a_tuple_counts_as_a_list() -> None:
    assert _wire.find_inexact((1, ("a", None)), "value") is None
    assert _wire.decode_json(_wire.encode_json((1, ("a", None)))) == [1, ["a", None]]
