"""The forms of answers: what is asked for and how it is read; estimates of tokens; vectors as bytes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_adapters.llm._answers import form_of, inlined
from orchestrator_adapters.llm._embedding import Wanted, pack, unpack
from orchestrator_adapters.llm._tokens import estimate_tokens
from orchestrator_adapters.openai._requests import body, wrapped


@dataclass
class Place:
    name: str
    kind: Literal["town", "river"]


@dataclass
class Found:
    places: list[Place]
    best: Place


class Struct(msgspec.Struct):
    name: str


class Model(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)


class Tree(msgspec.Struct):
    children: list[Tree]


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (None, "any text", "any text"),
        (Place, '{"name": "Ulm", "kind": "town"}', Place("Ulm", "town")),
        (Struct, '{"name": "x", "more": 1}', Struct("x")),
        (Model, '{"name": "x", "age": 3}', Model(name="x", age=3)),
        (list[int], "[1, 2]", [1, 2]),
        (SCHEMA, '{"n": 3}', {"n": 3}),
        (Place, '```json\n{"name": "Ulm", "kind": "town"}\n```', Place("Ulm", "town")),
        (SCHEMA, ' ```\n{"n": 3}\n``` \n', {"n": 3}),
    ],
)
def test_valid_answers_are_read(schema: Any, text: str, value: Any) -> None:
    assert form_of(schema).read(text) == value


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        (Place, '{"name": "Ulm", "kind": "sea"}', r"'sea' - at `\$.kind`"),
        (Place, '{"name": "Ulm"', "truncated"),
        (Model, '{"name": "x", "age": -1}', "greater than or equal to 0"),
        (SCHEMA, '{"n": 0}', r"0 is less than the minimum of 1 \(at \$.n\)"),
        (SCHEMA, '{"n": 1, "more": 2}', "Additional properties"),
        (SCHEMA, "Sure! Here it is:", "Expecting value"),
    ],
)
def test_others_are_refused_and_the_problem_is_said(schema: Any, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        form_of(schema).read(text)


def test_what_is_no_schema_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="neither a JSON schema nor a type"):
        form_of(lambda: 1)


def test_schemas_come_without_references_but_to_themselves() -> None:
    schema = form_of(Found).schema
    assert schema is not None and "$ref" not in str(schema) and "$defs" not in schema
    assert schema["properties"]["best"]["properties"]["kind"] == {"enum": ["river", "town"]}
    tree = form_of(Tree).schema
    assert tree is not None and tree["type"] == "object" and "Tree" in tree["$defs"]
    assert inlined({"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}, "title": "t"}) == {
        "type": "string",
        "title": "t",
    }


def test_openai_is_asked_for_an_object_and_the_value_taken_out_of_it() -> None:
    form = wrapped(form_of(list[int]))
    assert form.schema is not None and form.schema["type"] == "object"
    assert form.read('{"answer": [1, 2]}') == [1, 2]
    for text in ("[1, 2]", '{"other": 1}', '{"answer": ["x"]}'):
        with pytest.raises(ValueError, match=r"\w"):
            form.read(text)
    assert wrapped(form_of(Place)).schema == form_of(Place).schema


def test_openai_is_asked_to_be_strict_where_it_can() -> None:
    def strict(schema: Any) -> bool:
        found: bool = body("x", None, form_of(schema).schema, {})["response_format"]["json_schema"]["strict"]
        return found

    assert strict(Found) and strict(SCHEMA)
    assert not strict({"type": "object", "properties": {"a": {"type": "string"}}})
    assert not strict({"type": "object", "additionalProperties": {"type": "string"}})
    messages = body([{"role": "user", "content": "a"}], "be brief", None, {})["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]


def test_estimates_grow_with_the_text_and_see_into_messages() -> None:
    assert estimate_tokens("") == 1
    assert 90 <= estimate_tokens("word " * 80) <= 110
    assert estimate_tokens("漢字" * 100) > estimate_tokens("ab" * 100)
    assert estimate_tokens([{"role": "user", "content": "word " * 80}]) >= 90
    from google.genai import types

    assert estimate_tokens([types.Content(parts=[types.Part(text="word " * 80)]), None]) >= 90


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_vectors_survive_as_bytes(vector: list[float]) -> None:
    assert unpack(pack(vector)) == vector
    assert len(pack(vector)) == 4 * len(vector) == len(array("f", vector).tobytes())


def test_texts_are_asked_for_once_and_in_batches() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [[float(len(text))] for text in texts]

    texts = ["a", "bb", "a", "ccc", "bb"]
    assert Wanted(texts, {}, 2).fetch(None, embed) == [[1], [2], [1], [3], [2]]
    assert asked == [["a", "bb"], ["ccc"]]
    assert Wanted([], {}, 2).fetch(None, embed) == []
    with pytest.raises(TypeError, match="a list of texts"):
        Wanted("text", {}, 2)
    with pytest.raises(ValueError, match="batch_size"):
        Wanted(["a"], {}, 0)
