"""What google-genai is asked and what it answers, as neutral words; it is imported with the first client."""

from __future__ import annotations

from orchestrator_adapters.llm._clients import missing
from orchestrator_adapters.llm._embedding import checked
from orchestrator_adapters.llm._question import Failure, Reply, transport_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from google.genai import Client, types

# Why an answer ended, of those that would end the same way again.
_BLOCKED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"}


def make_client(key: str, base_url: str | None, timeout: float) -> Client:
    """Return a client that asks once: who tries again is the batch, or the job's retry policy."""
    try:
        from google.genai import Client, types
    except ImportError as error:
        raise missing("google-genai", "gemini", error) from error
    options = types.HttpOptions(
        base_url=base_url, timeout=max(1, round(timeout * 1000)), retry_options=types.HttpRetryOptions(attempts=1)
    )
    return Client(api_key=key, vertexai=False, http_options=options)


async def close_client(client: Client) -> None:
    """Close both sides of a client that served an event loop."""
    await client.aio.aclose()
    client.close()


def generation(schema: dict[str, Any] | None, options: dict[str, Any]) -> types.GenerateContentConfig:
    """Return the configuration of one request."""
    from google.genai import types

    config: dict[str, Any] = {
        # A function that the SDK called by itself would be a second request under one permit.
        "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True),
        **{name: value for name, value in options.items() if value is not None},
    }
    if schema is not None:
        config |= {"response_mime_type": "application/json", "response_json_schema": schema}
    return types.GenerateContentConfig(**config)


def contents(texts: Sequence[str]) -> list[types.Content]:
    """Return the texts to embed, each by itself: of plain strings newer models make a single vector."""
    from google.genai import types

    return [types.Content(parts=[types.Part(text=text)]) for text in texts]


def read_answer(response: types.GenerateContentResponse) -> Reply:
    """Return what an answer says."""
    usage = _usage(response.usage_metadata)
    counted = usage["prompt"] or None  # Gemini's token limits count what goes in
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        return Reply("", f"the prompt was blocked: {_name(feedback.block_reason)}", True, usage, counted)
    candidate = response.candidates[0] if response.candidates else None
    parts = (candidate.content.parts if candidate and candidate.content else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    ended = _name(candidate.finish_reason) if candidate and candidate.finish_reason else "STOP"
    if ended in _BLOCKED:
        return Reply(text, f"the answer was blocked: {ended}", True, usage, counted)
    problem = ""
    if ended == "MAX_TOKENS":
        problem = "it was cut off at the largest number of output tokens (MAX_TOKENS)"
    elif ended != "STOP":
        problem = f"it ended with {ended}"
    elif not text:
        problem = "it was empty"
    return Reply(text, problem, False, usage, counted)


def read_vectors(response: types.EmbedContentResponse, texts: list[str]) -> Reply:
    """Return what a reply with embeddings says."""
    vectors = [list(embedding.values or ()) for embedding in response.embeddings or ()]
    told = getattr(getattr(response, "usage_metadata", None), "prompt_token_count", None)
    usage = {"prompt": told or 0, "embeddings": len(vectors)}
    return Reply(vectors, checked(vectors, texts), False, usage, told)


def explain(error: Exception) -> Failure | None:
    """Return what an exception of the client says, None if it is none of the client's."""
    from google.genai.errors import APIError

    if isinstance(error, APIError):
        headers = dict(getattr(error.response, "headers", None) or {})
        status = f"{error.code} {error.status}" if error.status else str(error.code)
        return Failure(f"{status}: {error.message or 'no reason was given'}", error.code, error.details, headers)
    return transport_failure(error)


def _usage(told: types.GenerateContentResponseUsageMetadata | None) -> dict[str, float]:
    names = {
        "prompt": "prompt_token_count",
        "output": "candidates_token_count",
        "cached": "cached_content_token_count",
        "thoughts": "thoughts_token_count",
    }
    return {name: getattr(told, attribute, None) or 0 for name, attribute in names.items()}


def _name(reason: Any) -> str:
    return str(getattr(reason, "value", reason))
