"""The form that an answer has to have: a text, or a value of a schema, a dataclass, a Struct or a pydantic model."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from orchestrator_adapters.llm._clients import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Models that were not trained on schemas wrap what they were asked for.
_FENCE = re.compile(r"^\s*```\w*\n(.*?)\n?```\s*$", re.DOTALL)


class Form(NamedTuple):
    """What to ask for and how to read it.

    Attributes:
        schema: A JSON schema, None for a text.
        read: Returns the value of a text; raises ValueError, saying what is wrong with it.
    """

    schema: dict[str, Any] | None
    read: Callable[[str], Any]


TEXT = Form(None, lambda text: text)


def form_of(schema: Any) -> Form:
    """Return the form of answers to a question with this `schema`: None, a JSON schema or a type.

    Raises:
        TypeError: If it is neither.
    """
    if schema is None:
        return TEXT
    if isinstance(schema, dict):
        return _form_of_json_schema(json.dumps(schema, sort_keys=True))
    try:
        return _form_of_type(schema)
    except TypeError as error:
        raise TypeError(f"schema={schema!r} is neither a JSON schema nor a type: {error}") from error


@lru_cache(maxsize=64)
def _form_of_json_schema(text: str) -> Form:
    try:
        from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("jsonschema", "gemini", error) from error
    schema = json.loads(text)
    kind = validator_for(schema)
    kind.check_schema(schema)
    validator = kind(schema)

    def read(text: str) -> Any:
        value = json.loads(_unfenced(text))
        for error in validator.iter_errors(value):
            raise ValueError(f"{error.message} (at {error.json_path})")
        return value

    return Form(schema, read)


@lru_cache(maxsize=64)
def _form_of_type(kind: Any) -> Form:
    if hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json"):
        # pydantic's ValidationError is a ValueError.
        return Form(inlined(kind.model_json_schema()), lambda text: kind.model_validate_json(_unfenced(text)))
    import msgspec

    decoder = msgspec.json.Decoder(kind)

    def read(text: str) -> Any:
        try:
            return decoder.decode(_unfenced(text))
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error

    return Form(inlined(msgspec.json.schema(kind)), read)


def _unfenced(text: str) -> str:
    found = _FENCE.match(text)
    return found.group(1) if found else text


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without references, which not every provider follows; those of a type to itself stay."""
    definitions = schema.get("$defs", {})
    kept: set[str] = set()

    def resolve(node: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [resolve(inner, inside) for inner in node]
        if not isinstance(node, dict):
            return node
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if "$ref" not in node:
            return {key: resolve(inner, inside) for key, inner in node.items() if key != "$defs"}
        if name in inside or name not in definitions:
            kept.add(name)
            return node
        rest = {key: inner for key, inner in node.items() if key not in ("$ref", "$defs")}
        return {**resolve(definitions[name], (*inside, name)), **rest}

    found: dict[str, Any] = resolve(schema, ())
    if kept:
        found["$defs"] = definitions
    return found
