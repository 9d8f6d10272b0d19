"""Pins are rows of a table: a bad one is told by its line, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.publisher import Pin, PinProblem, PinsError, Profile, PublishError, load_profile, read_pins
from orchestrator_adapters.publisher._pins import marked, row_of

LOCAL = load_profile("local")
HEAD = "title,description,board,link,image"


def read(tmp_path: Path, text: str | bytes, name: str = "pins.csv", profile: Profile | None = None) -> list[Any]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_pins(path, profile))


def test_rows_become_pins_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    text = (
        f'\ufeff{HEAD}\r\nA shed, green ,Gardens,https://a.example/,a.png\r\n\r\nTwo,"two\nlines",,,\r\nThree,,,,\r\n'
    )
    one, two, three = read(tmp_path, text)
    assert (one.title, one.description, one.board, one.line) == ("A shed", "green", "Gardens", 2)
    assert one.image == "a.png"
    assert one.image_path == str(tmp_path / "a.png")
    assert (two.description, two.line) == ("two\nlines", 4)
    assert three.line == 6, "a cell of two lines moves what follows"


def test_a_bad_row_is_told_and_left_out(tmp_path: Path) -> None:
    rows = [
        ",no title,,,",
        "short,x",
        "A,,,ftp://a.example,",
        "A,,,https://a.example,missing.png",
        "A,,,https://a.example,.",
        "A,,,,",
        "A,,,https://a.example,",
        "A,,,https://a.example,",
    ]
    found = read(tmp_path, "\n".join([HEAD, *rows]), profile=LOCAL)
    assert [(type(row), row.line) for row in found] == [
        *((PinProblem, line) for line in range(2, 8)),
        (Pin, 8),
        (PinProblem, 9),
    ]
    problems = [row.problem for row in found if isinstance(row, PinProblem)]
    assert problems == [
        "has no title",
        "has 2 cells, and the header 5",
        "has a link that does not start with http:// or https://: 'ftp://a.example'",
        "its image 'missing.png' is not there",
        "its image '.' is no file",
        "has no link, into which local puts the mark by which a pin is found again",
        "is the pin of line 8: everything in it is the same",
    ]
    assert [row.failure_class for row in found if isinstance(row, PinProblem)] == [
        "row", "row", "row", "image", "image", "row", "row",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the first line must name the columns"),
        ("name,board\nx,y\n", "title among them"),
        ("title,colour\nx,y\n", "has a column 'colour'; known are title, description, board, link, image, id"),
        ("title,title\nx,y\n", "has two columns 'title'"),
        (b"title\n\xff\n", "is not UTF-8"),
        ('title,board\n"x"y,z\n', "is not CSV"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(PinsError, match=problem):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PinsError, match=r"none\.csv: cannot be read: No such file"):
        list(read_pins(tmp_path / "none.csv"))


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        '{"title": "A", "id": "7", "board": null}',
        "[1]",
        "{",
        '{"title": 1}',
        '{"titel": "x"}',
        "",
        '{"id": "8"}',
    ]
    found = read(tmp_path, "\n".join(lines), "pins.jsonl")
    assert isinstance(found[0], Pin)
    assert found[0].key == "7"
    assert [(row.line, row.problem.partition(":")[0]) for row in found[1:]] == [
        (2, "is no JSON object"),
        (3, "is not JSON"),
        (4, "has a title that is no string"),
        (5, "has 'titel'; known are title, description, board, link, image, id"),
        (7, "has no title"),
    ]


def test_an_id_is_the_key_and_the_row_is_without_one(tmp_path: Path) -> None:
    named, other = read(tmp_path, "title,id\nA,7\nB,7\n")
    assert named.key == "7"
    assert other.problem == "is the pin of line 2: it has its id"
    assert Pin("A", id="7").mark == Pin("B", id="7").mark, "an id stays the same pin when a typo is mended"
    assert Pin("A").key == Pin("A").mark != Pin("B").mark
    assert Pin("A", line=3, folder="elsewhere").mark == Pin("A").mark
    assert Pin("ab", "c").mark != Pin("a", "bc").mark
    assert len(Pin("A").mark) == 16


def test_two_titles_are_a_problem_where_titles_find_pins(tmp_path: Path) -> None:
    data = {name: LOCAL.data[name] for name in ("site", "form", "verify")}
    profile = Profile({**data, "lookup": {"api": "/api/pins?title={title}", "items": "pins", "id": "id"}})
    one, two = read(tmp_path, "title,description\nA,x\nA,y\n", profile=profile)
    assert isinstance(one, Pin)
    assert "has the title of line 2, and this profile finds pins by their title" in two.problem


def test_a_column_for_which_the_form_has_no_field(tmp_path: Path) -> None:
    form = {key: value for key, value in LOCAL.data["form"].items() if key != "description"}
    profile = Profile({**LOCAL.data, "form": form}, "mine.toml")
    (row,) = read(tmp_path, f"{HEAD}\nA,x,,https://a.example,\n", profile=profile)
    assert row.problem == "has a description, and the form of mine.toml has no field for it"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://a.example", "https://a.example?mark={mark}"),
        ("https://a.example/x?y=1%20&z#top", "https://a.example/x?y=1%20&z&mark={mark}#top"),
    ],
)
def test_the_mark_goes_into_the_link_and_nothing_else_of_it_changes(link: str, expected: str) -> None:
    pin = Pin("A", link=link)
    assert marked(pin.as_json(), LOCAL)["link"] == expected.format(mark=pin.mark)


def test_the_mark_goes_into_the_description() -> None:
    profile = Profile({**LOCAL.data, "mark": {"field": "description"}})
    pin = Pin("A", "green", link="https://a.example")
    values = marked(pin.as_json(), profile)
    assert values["description"] == f"green [{pin.mark}]"
    assert values["link"] == "https://a.example"


def test_a_pin_may_be_given_as_a_mapping() -> None:
    assert row_of({"title": "A", "board": "B"}) == Pin("A", board="B").as_json()
    assert row_of(Pin("A").as_json()) == Pin("A").as_json()
    assert json.loads(json.dumps(row_of(Pin("A")))) == row_of(Pin("A"))
    for wrong in ({"board": "B"}, {"title": 1}, {"title": "A", "colour": "red"}):
        with pytest.raises(PublishError, match="a pin has"):
            row_of(wrong)
