"""What the local model server answers: texts, values of a schema and vectors that depend on nothing but the prompt."""

from __future__ import annotations

import hashlib
import math
import random
import re
from typing import Any

WORD = re.compile(r"\w+")


def count_tokens(text: str) -> int:
    """Return a number of tokens: one for every four characters, as a rule of thumb has it."""
    return -(-len(text) // 4)


def answer(prompt: str, schema: dict[str, Any] | None, seed: int) -> Any:
    """Return an answer to a prompt: a text, or a value that satisfies the JSON schema."""
    chance = random.Random(f"{seed}:{prompt}")
    if schema is not None:
        return _value(schema, schema.get("$defs", {}), prompt, chance)
    return " ".join(chance.sample(words, min(len(words), 12))) if (words := WORD.findall(prompt)) else "Nothing."


def _value(schema: dict[str, Any], definitions: dict[str, Any], prompt: str, chance: random.Random) -> Any:
    if "$ref" in schema:
        return _value(definitions[schema["$ref"].rpartition("/")[2]], definitions, prompt, chance)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return chance.choice(schema["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _value(schema[choice][0], definitions, prompt, chance)
    kind = schema.get("type", "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()  # Gemini's own schemas say STRING
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _value(inner, definitions, prompt, chance) for name, inner in properties.items()}
    if kind == "array":
        length = chance.randint(max(1, schema.get("minItems", 1)), min(3, schema.get("maxItems", 3)))
        return [_value(schema.get("items", {}), definitions, prompt, chance) for _ in range(length)]
    if kind in ("integer", "number"):
        number = chance.randint(math.ceil(schema.get("minimum", 0)), math.floor(schema.get("maximum", 100)))
        return number if kind == "integer" else float(number)
    if kind in ("boolean", "null"):
        return chance.random() < 0.5 if kind == "boolean" else None
    text = " ".join(chance.sample(words, min(len(words), 4))) if (words := WORD.findall(prompt)) else "nothing"
    return text[: schema.get("maxLength", 200)]


def vector(text: str, dimensions: int) -> list[float]:
    """Return a vector of length 1: the sum of one for each word, so texts that share words are near each other."""
    found = [0.0] * dimensions
    for word in WORD.findall(text.lower()) or [""]:
        chance = random.Random(hashlib.sha256(word.encode()).digest())
        for index in range(dimensions):
            found[index] += chance.gauss(0, 1)
    length = math.sqrt(sum(value * value for value in found)) or 1.0
    return [round(value / length, 6) for value in found]
