"""Cells of CSV are strings; annotations say what they mean."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from orchestrator.child import _typed


@pytest.mark.parametrize(
    ("cell", "hint", "value"),
    [
        (".5", float, 0.5),
        ("1.", float, 1.0),
        ("7", float, 7.0),
        ("1e3", float, 1000.0),
        ("007", int, 7),
        ("+7", int, 7),
        (" 7 ", int, 7),
        ("9" * 30, int, int("9" * 30)),
        ("TRUE", bool, True),
        ("0", bool, False),
        ("", int | None, None),
        ("", datetime.date | None, None),
        (" 2024-02-29 ", datetime.date, datetime.date(2024, 2, 29)),
        (".5", float | None, 0.5),
        ("[1, 2]", list[int], [1, 2]),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("", str, ""),
        ("", str | None, ""),
        (" 007 ", str, " 007 "),
        ("[1]", str, "[1]"),
    ],
)
def test_a_cell_means_what_the_annotation_says(cell: str, hint: Any, value: Any) -> None:
    found = _typed.from_form(cell, hint, strict=False)
    assert (type(found), found) == (type(value), value)


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(_typed.from_form("nan", float, strict=False))


@pytest.mark.parametrize(
    ("cell", "hint"),
    [("", int), ("x", int), ("7.5", int), ("1_000", int), ("yes", bool), ("[1", list[int]), ('["a"]', list[int])],
)
def test_a_cell_that_does_not_fit_is_said_as_it_was_written(cell: str, hint: Any) -> None:
    with pytest.raises(TypeError, match="does not fit the annotation") as caught:
        _typed.from_form(cell, hint, strict=False)
    assert repr(cell) in str(caught.value)


def test_json_values_are_not_respelled() -> None:
    with pytest.raises(TypeError):
        _typed.from_form(".5", float, strict=True)
