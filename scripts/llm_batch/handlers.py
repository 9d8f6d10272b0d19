"""What the worked example does with one record: a model describes an emoji, and a small local one gives it a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator_adapters import gemini

from orchestrator import child

PROMPT = "Describe the emoji {emoji} ({name}): what kind of thing it shows, how it feels, and when people send it."
DIMENSIONS = 64


@dataclass
class About:
    """The form of the model's answer: sent along as a JSON schema, and checked when the answer comes."""

    kind: Literal["animal", "food", "place", "activity", "person", "symbol", "thing"]
    feeling: Literal["glad", "neutral", "sad"]
    uses: list[str]


async def enrich(record: dict[str, str]) -> dict[str, Any]:
    """Return the record with what the two models say of it."""
    model = child.params()["llm"]["model"]
    about = await gemini.aio.generate(PROMPT.format(**record), model=model, schema=About, limit="gemini", temperature=0)
    name = record["name"]

    async def compute() -> list[float]:
        return vector_of(name)

    # Emojis that differ in their skin tone only share a name, and so a vector: it is made once for all children.
    vector = await child.cache("vectors").get_or_compute(["wordllama", DIMENSIONS, name], compute)
    return {**record, "kind": about.kind, "feeling": about.feeling, "uses": about.uses, "vector": vector}


def vector_of(text: str) -> list[float]:
    """Return the vector of a text, of length 1."""
    (vector,) = child.resource("wordllama", load_model).embed([text], norm=True)
    return [round(float(value), 5) for value in vector]


def load_model() -> Any:
    """Return the model that the package carries, without asking the network."""
    from pathlib import Path

    import wordllama  # type: ignore[import-not-found]

    here = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=here, trunc_dim=DIMENSIONS, disable_download=True)
