"""What OpenAI's client is asked and what it answers, as neutral words; it is imported with the first client."""

from __future__ import annotations

from orchestrator_adapters.llm._answers import Form
from orchestrator_adapters.llm._clients import missing
from orchestrator_adapters.llm._embedding import checked
from orchestrator_adapters.llm._question import Failure, Reply, transport_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from openai import AsyncOpenAI, OpenAI
    from openai.types import CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion

# What a value that is no object is wrapped in: the API asks for an object.
_WRAPPER = "answer"


def make_client(key: str, base_url: str | None, timeout: float) -> OpenAI:
    """Return a client that asks once: who tries again is the batch, or the job's retry policy."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise missing("openai", "openai", error) from error
    return OpenAI(api_key=key, base_url=base_url, timeout=timeout, max_retries=0)


def make_loop_client(key: str, base_url: str | None, timeout: float) -> AsyncOpenAI:
    """Return the same for an event loop."""
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise missing("openai", "openai", error) from error
    return AsyncOpenAI(api_key=key, base_url=base_url, timeout=timeout, max_retries=0)


async def close_client(client: AsyncOpenAI) -> None:
    """Close a client that served an event loop."""
    await client.close()


def wrapped(form: Form) -> Form:
    """Return a form whose schema is an object, as the API wants it."""
    schema = form.schema
    if schema is None or schema.get("type") == "object":
        return form
    inner = {name: value for name, value in schema.items() if name != "$defs"}
    outer: dict[str, Any] = {"type": "object", "properties": {_WRAPPER: inner}, "required": [_WRAPPER]}
    if "$defs" in schema:
        outer["$defs"] = schema["$defs"]

    def read(text: str) -> Any:
        import msgspec

        try:
            whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            return form.read(bytes(whole[_WRAPPER]).decode())
        except (msgspec.MsgspecError, KeyError) as error:
            raise ValueError(f"it is no object with {_WRAPPER!r}: {error}") from error

    return Form(outer, read)


def body(prompt: Any, system: str | None, schema: dict[str, Any] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of one request but the model."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    found: dict[str, Any] = {"messages": messages, **options}
    if schema is not None:
        strict = _strict(schema)
        about = {"name": "answer", "schema": strict or schema, "strict": strict is not None}
        found["response_format"] = {"type": "json_schema", "json_schema": about}
    return found


def read_answer(response: ChatCompletion) -> Reply:
    """Return what an answer says."""
    usage, counted = _usage(response.usage)
    choice = response.choices[0] if response.choices else None
    text = (choice.message.content if choice else None) or ""
    refusal = getattr(choice.message, "refusal", None) if choice else None
    if refusal:
        return Reply(text, f"the model refused: {refusal}", True, usage, counted)
    ended = choice.finish_reason if choice else "stop"
    if ended == "content_filter":
        return Reply(text, "the answer was blocked: content_filter", True, usage, counted)
    problem = ""
    if ended == "length":
        problem = "it was cut off at the largest number of output tokens (length)"
    elif not text:
        problem = "it was empty"
    return Reply(text, problem, False, usage, counted)


def read_vectors(response: CreateEmbeddingResponse, texts: list[str]) -> Reply:
    """Return what a reply with embeddings says."""
    vectors = [list(found.embedding) for found in sorted(response.data or (), key=lambda found: found.index)]
    told = getattr(response.usage, "prompt_tokens", None)  # not every service says
    return Reply(vectors, checked(vectors, texts), False, {"prompt": told or 0, "embeddings": len(vectors)}, told)


def explain(error: Exception) -> Failure | None:
    """Return what an exception of the client says, None if it is none of the client's."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return Failure(error.message, error.status_code, _error_body(error), dict(error.response.headers))
    if isinstance(error, openai.APITimeoutError):
        return Failure(f"no answer in time ({error})")
    if isinstance(error, openai.APIConnectionError):
        return Failure(f"the connection failed ({error.__cause__ or error})")
    if isinstance(error, openai.APIResponseValidationError):
        return Failure(f"the reply is not what the API promises ({error})")
    return transport_failure(error)


def _error_body(error: Any) -> Any:
    """Return the whole body: of a known shape the client keeps only a part."""
    try:
        return error.response.json()
    except ValueError:
        return error.body


def _usage(told: Any) -> tuple[dict[str, float], float | None]:
    if told is None:  # not every service says
        return {}, None
    prompt, output = told.prompt_tokens or 0, told.completion_tokens or 0
    thoughts = getattr(told.completion_tokens_details, "reasoning_tokens", None) or 0
    cached = getattr(told.prompt_tokens_details, "cached_tokens", None) or 0
    usage = {"prompt": prompt, "output": output - thoughts, "cached": cached, "thoughts": thoughts}
    return usage, prompt + output


def _strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema with which the API promises to comply, None if it has what that mode does not take."""

    def closed(node: Any) -> Any:
        if isinstance(node, list):
            return [closed(inner) for inner in node]
        if not isinstance(node, dict):
            return node
        if node.get("type") == "object":
            properties = node.get("properties")
            if not properties or set(node.get("required", ())) != set(properties) or node.get("additionalProperties"):
                raise ValueError("open")
            node = {**node, "additionalProperties": False}
        if "default" in node:
            raise ValueError("default")
        return {name: closed(inner) for name, inner in node.items()}

    try:
        found: dict[str, Any] = closed(schema)
    except ValueError:
        return None
    return found
