"""Job code that asks models, sync and async, by either API."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator_adapters import gemini, openai

from orchestrator import child

APIS = {"gemini": gemini, "openai": openai}
ADDRESS = {"gemini": "", "openai": "/v1"}  # what the client wants behind the server's own
KEY = "THE_MODEL_KEY"


@dataclass
class About:
    kind: Literal["animal", "food", "other"]
    words: list[str]
    score: int


JSON_SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["animal", "food"]}, "score": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["kind", "score"],
}
SCHEMAS: dict[str, Any] = {"": None, "dataclass": About, "list": list[str], "json": JSON_SCHEMA}


def _options(api: str, options: dict[str, Any]) -> dict[str, Any]:
    options = {"model": "small", "key": KEY, "limit": None, **options}
    options["base_url"] += ADDRESS[api]
    if "schema" in options:
        options["schema"] = SCHEMAS[options["schema"]]
    return options


def ask(api: str, prompt: str, options: dict[str, Any]) -> Any:
    answer = APIS[api].generate(prompt, **_options(api, options))
    return asdict(answer) if isinstance(answer, About) else answer


async def ask_async(api: str, prompt: str, options: dict[str, Any]) -> Any:
    answer = await APIS[api].aio.generate(prompt, **_options(api, options))
    return asdict(answer) if isinstance(answer, About) else answer


def embed(api: str, texts: list[str], options: dict[str, Any]) -> list[list[float]]:
    return APIS[api].embed(texts, **_options(api, options))


async def embed_async(api: str, texts: list[str], options: dict[str, Any]) -> list[list[float]]:
    return await APIS[api].aio.embed(texts, **_options(api, options))


def enrich(record: dict[str, Any]) -> dict[str, Any]:
    """Answer a record of a batch: its `prompt`, to the API and at the address that the parameters name."""
    about = child.params()["llm"]
    options = {"base_url": about["url"], "schema": "dataclass", "limit": "model", "timeout": about.get("timeout", 20)}
    return {"n": record["n"], **ask(about["api"], record["prompt"], options)}


async def enrich_async(record: dict[str, Any]) -> dict[str, Any]:
    about = child.params()["llm"]
    options = {"base_url": about["url"], "schema": "dataclass", "limit": "model", "timeout": about.get("timeout", 20)}
    return {"n": record["n"], **await ask_async(about["api"], record["prompt"], options)}
