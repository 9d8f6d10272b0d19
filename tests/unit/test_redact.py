"""Secret values are replaced by their names, whole or cut, in whatever form they are written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator._stderr import StderrReader
from orchestrator.child._redact import SHORTEST, Redactor

KEY = 'sk-"quoted"\\ünï/code+ 漢字\'s'


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        json.dumps({"k": [KEY]}),
        json.dumps({"k": [KEY]}, ensure_ascii=False),
        json.dumps(json.dumps({"k": KEY})),
        json.dumps(json.dumps({"k": KEY}, ensure_ascii=False), ensure_ascii=False),
        repr(KEY),
        repr({"k": KEY}),
        ascii(KEY),
        repr(KEY.encode()),
        repr(json.dumps(KEY)),
    ],
)
def test_forms(text: str) -> None:
    found = Redactor({"KEY": KEY}).text(f"before {text} after")
    assert "quoted" not in found and "code" not in found
    assert found.startswith("before ") and found.endswith(" after") and "[secret KEY]" in found


def test_names_and_nesting() -> None:
    redactor = Redactor({"A": "first-value", "B": "first-value-longer", "SHORT": "12345"})
    assert redactor.text("first-value-longer, first-value, 12345") == "[secret B], [secret A], 12345"
    told = {"first-value": ["x first-value", {"n": 1, "f": 1.5, "none": None}], "t": True}
    assert redactor.value(told) == {"[secret A]": ["x [secret A]", {"n": 1, "f": 1.5, "none": None}], "t": True}


def test_lines_of_a_value_with_several() -> None:
    value = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n  indented-line\nend\n-----END KEY-----\n"
    redactor = Redactor({"PEM": value})
    assert redactor.text(f"x {value}y") == "x [secret PEM]y"
    assert redactor.text("| MIIEvQIBADANBg |") == "| [secret PEM] |"
    assert redactor.text(json.dumps(value)) == '"[secret PEM]"'
    assert redactor.text("end") == "end"


def test_pieces() -> None:
    redactor = Redactor({"KEY": "abcdefghijklmnop"})
    assert redactor.text("cut: abcdefghij") == "cut: [secret KEY]"
    assert redactor.text("cut: abcdefghij… (12 characters more)") == "cut: [secret KEY]… (12 characters more)"
    assert redactor.text("first abcdefghij\nsecond") == "first [secret KEY]\nsecond"
    assert redactor.text("ghijklmnop goes on") == "[secret KEY] goes on"
    assert redactor.text("abcdefgh is no piece, nor is klmnop here") == "abcdefgh is no piece, nor is klmnop here"
    assert redactor.text("abcde") == "abcde"


@given(st.text(min_size=SHORTEST, max_size=40), st.text(max_size=60), st.text(max_size=60))
def test_no_value_is_left(value: str, before: str, after: str) -> None:
    found = Redactor({"": value}).text(f"{before}{value}{after}")
    if value not in "[secret ]" * 3 and value.strip() not in f"{before}[secret ]{after}":
        assert value not in found


@given(st.data())
def test_chunks_of_stderr(data: st.DataObject) -> None:
    key = "secret-in-pieces-0123456789"
    parts = data.draw(st.lists(st.sampled_from([key, "\n", "plain ", "x" * 9_000, key[:10]]), max_size=12))
    stream = "".join(parts).encode()
    lines: list[str] = []
    reader = StderrReader(lambda found, dropped: lines.extend(found))
    reader.redact = Redactor({"KEY": key}).text
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, 5_000))
        reader.feed(stream[at : at + size])
        at += size
        assert not any(key[:SHORTEST] in line and key in line for line in reader.tail())
    reader.flush()
    assert not any(key in line for line in [*lines, *reader.tail()])
