"""The protocol's reference has every frame, with examples that either side understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator import _frames, _wire

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text("utf-8")
FROM_SUPERVISOR, _, FROM_CHILD = TEXT.partition("## From the supervisor")[2].partition("## From the child")
NAMES = [
    *((name, FROM_SUPERVISOR) for name in _wire.PARENT_TO_CHILD),
    *((name, FROM_CHILD) for name in _wire.CHILD_TO_PARENT),
]


def examples(part: str) -> list[dict[str, object]]:
    blocks = re.findall(r"```json\n(.*?)```", part, re.DOTALL)
    return [_wire.decode(line.encode()) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(("name", "part"), NAMES, ids=[name for name, _ in NAMES])
def test_each_frame_has_a_heading_and_an_example(name: str, part: str) -> None:
    headings = [word for line in re.findall(r"^### (.*)$", part, re.MULTILINE) for word in line.split(", ")]
    assert headings.count(name) == 1
    assert name in [example["type"] for example in examples(part)]


def test_there_is_no_example_of_what_does_not_exist() -> None:
    assert {example["type"] for example in examples(FROM_SUPERVISOR)} == set(_wire.PARENT_TO_CHILD)
    assert {example["type"] for example in examples(FROM_CHILD)} == set(_wire.CHILD_TO_PARENT)


def test_the_supervisor_understands_what_children_say() -> None:
    for example in examples(FROM_CHILD):
        frame = _frames.decode(_wire.encode(example))
        assert frame is not None
        for name, value in example.items():
            if name == "values":
                value = [_frames.CacheValue(**each) for each in value]  # type: ignore[attr-defined]
            if name not in ("type", "error") and hasattr(frame, name):
                assert getattr(frame, name) == value


def test_numbers_and_names_in_the_text_are_those_of_the_code() -> None:
    assert f"version described here is **{_wire.VERSION}**" in TEXT
    assert f"| {_wire.EXIT_PARENT_GONE} |" in TEXT and f"| {_wire.EXIT_PROTOCOL} |" in TEXT
    assert f"`{_wire.RUNNING_FILE}`" in TEXT and f"`{_wire.STACK_FILE}`" in TEXT
    assert _wire.MAX_MESSAGE_BYTES == 16 * 2**20 and "(16 MiB " in TEXT
    assert _wire.SPILL_BYTES == 2**20 and "more than 1 MiB" in TEXT
