"""What a child says, whatever it is: a typed frame, a type of a later version, or a bad frame; never another error."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import _frames, _wire
from orchestrator._frames import BadFrame, Frame, decode

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
MEMBERS = sorted({name for kind in Frame.__subclasses__() for name in kind.__struct_fields__})


def line(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_every_type_that_children_send_is_known() -> None:
    tags = {kind.__struct_config__.tag for kind in Frame.__subclasses__()}
    assert tags == set(_wire.CHILD_TO_PARENT)


def test_result() -> None:
    frame = decode(line(type="result", fence=7, ms=1.5, value={"a": [1, None]}))
    assert frame == _frames.Result(fence=7, ms=1.5, value={"a": [1, None]})


def test_values_are_exact() -> None:
    for value in (
        2**53 + 1,
        -(2**63),
        2**64 - 1,
        2**70,
        -(10**400),
        1e308,
        5e-324,
        -0.0,
        "\ud800",
        "\0",
        "é",
        "\u2028",
    ):
        frame = decode(line(type="result", fence=1, value=value))
        assert isinstance(frame, _frames.Result)
        assert repr(frame.value) == repr(value)


def test_deep_values() -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    frame = decode(line(type="item", fence=1, value=value))
    assert isinstance(frame, _frames.Emitted) and frame.value == value


def test_unknown_types_are_none_and_unknown_members_ignored() -> None:
    assert decode(line(type="from_the_future", fence="whatever")) is None
    assert decode(line(type="init", version=1)) is None, "not for us to hear"
    assert decode(line(type="ready", colour="green")) == _frames.Ready()


def test_error_with_its_causes() -> None:
    cause = {
        "type": "KeyError",
        "message": "'a'",
        "traceback": "…",
        "notes": ["n"],
        "bases": ["KeyError"],
        "data": {"code": 1},
    }
    frame = decode(line(type="error", fence=1, error={"type": "ValueError", "cause": cause}))
    assert isinstance(frame, _frames.Error)
    record = frame.error.record()
    assert (record.type, record.message, record.notes) == ("ValueError", "", ())
    assert record.cause is not None
    assert (record.cause.type, record.cause.notes, record.cause.data) == ("KeyError", ("n",), {"code": 1})


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b" ",
        b"hello",
        b"null",
        b"[]",
        b"7",
        b'"ready"',
        b"{}",
        b'{"type":null}',
        b'{"type":["ready"]}',
        b'{"type":"ready"',
        b'{"type":"ready"} {"type":"ready"}',
        b'{"type":"result"}',
        b'{"type":"result","fence":"1"}',
        b'{"type":"result","fence":1.5}',
        b'{"type":"result","fence":1,"value":NaN}',
        b'{"type":"result","fence":1,"value":Infinity}',
        b'{"type":"hello","version":"1","nonce":"x","pid":1}',
        b'{"type":"returned","asked":1,"fences":[]}',
        b'{"type":"returned","asked":[],"fences":["a"]}',
        b'{"type":"error","fence":1,"error":"ValueError"}',
        b'{"type":"log","text":1}',
        b"\xff\xfe",
        b'{"type":"ready\xff"}',
        b"\xef\xbb\xbf" + b'{"type":"ready"}',
        b'{"type":"result","fence":1,"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 1_000_000,
    ],
    ids=lambda bad: repr(bad[:40]),
)
def test_bad_frames(bad: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(bad)


@given(st.binary(max_size=200))
def test_bytes_never_raise_anything_else(data: bytes) -> None:
    try:
        found = decode(data)
    except BadFrame:
        return
    assert found is None or isinstance(found, Frame)


@given(
    kind=st.sampled_from(_wire.CHILD_TO_PARENT) | TEXT,
    members=st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=6),
)
def test_any_members_make_a_frame_or_a_bad_one(kind: str, members: dict[str, Any]) -> None:
    try:
        frame = decode(line(**{**members, "type": kind}))
    except BadFrame:
        assert kind in _wire.CHILD_TO_PARENT, "a type of a later version may have any members"
        return
    if kind not in _wire.CHILD_TO_PARENT:
        assert frame is None
        return
    assert frame is not None
    # What is in the frame has the types that the engine counts on.
    types = msgspec.inspect.type_info(type(frame))
    for field in types.fields:  # type: ignore[union-attr]
        value = getattr(frame, field.name)
        if isinstance(value, float):
            assert math.isfinite(value), (kind, field.name)
        if field.name in ("fence", "request", "index", "pid", "version"):
            assert value is None or (isinstance(value, int) and not isinstance(value, bool))


@given(number=st.integers(0, 8), data=st.data())
def test_a_cut_line_is_a_bad_frame(number: int, data: st.DataObject) -> None:
    whole = line(type="log", text="é" * number, fence=number, fields={"a": [1, 2.5, "x"]})
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadFrame):
        decode(whole[:cut])
