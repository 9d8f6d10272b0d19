"""The functions that job code calls, sync and async."""

from __future__ import annotations

from typing import Any, overload

from orchestrator_adapters.gemini import _requests
from orchestrator_adapters.llm._answers import TEXT, form_of
from orchestrator_adapters.llm._clients import client, loop_client, refusals, secret
from orchestrator_adapters.llm._embedding import Wanted
from orchestrator_adapters.llm._question import Question
from orchestrator_adapters.llm._tokens import estimate_tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    T = TypeVar("T")

# The variable that Google's own documentation uses.
KEY = "GEMINI_API_KEY"
# Long answers of thinking models take more than a minute.
TIMEOUT = 120.0
# An answer that is invalid three times will be so again.
TRIES = 3
# As many as the API takes in one request.
BATCH_SIZE = 100


class _Model:
    """One model as this child reaches it."""

    def __init__(self, model: str, limit: str | None, key: str, base_url: str | None, timeout: float) -> None:
        self.model = model
        self._limit = limit
        self._secret = (secret(key), key)
        self._place = (key, base_url, timeout)

    def client(self) -> Any:
        return client(("gemini", *self._place), self._make)

    def loop_client(self) -> Any:
        return loop_client(("gemini", *self._place), self._make, _requests.close_client)

    def _make(self) -> Any:
        _, base_url, timeout = self._place
        return _requests.make_client(self._secret[0], base_url, timeout)

    def question(self, form: Any, tokens: float, tries: int, weight: int = 1) -> Question:
        return Question(
            form=form,
            limit=self._limit,
            tokens=tokens,
            tries=tries,
            refusals=refusals(("gemini", self.model, *self._place)),
            secret=self._secret,
            explain=_requests.explain,
            weight=weight,
        )


@overload
def generate(prompt: Any, *, model: str, schema: type[T], **options: Any) -> T: ...
@overload
def generate(prompt: Any, *, model: str, schema: dict[str, Any], **options: Any) -> Any: ...
@overload
def generate(prompt: Any, *, model: str, schema: None = None, **options: Any) -> str: ...
def generate(
    prompt: Any,
    *,
    model: str,
    schema: Any = None,
    limit: str | None = "gemini",
    tokens: float | None = None,
    tries: int = TRIES,
    system: str | None = None,
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> Any:
    """Return a model's answer to a prompt.

    Each request takes a permit of `limit` with an estimate of its tokens, and reports what it used to the limit and
    to the job's usage: `requests`, `prompt`, `output`, `cached` and `thoughts`. An answer that is cut off, empty or
    violates the schema is asked for again, at most `tries` times in all. Nothing else is tried again here: that is
    for the batch or the job's retry policy, to which the exceptions say what happened.

    Args:
        prompt: A text, or whatever `generate_content` of google-genai takes as contents.
        model: Name of the model.
        schema: Form of the answer: a JSON schema, a dataclass, a Struct, a pydantic model, or any type that msgspec
            reads from JSON. None for a text.
        limit: Name of the supervisor's limit, None for none.
        tokens: Estimate of the prompt's tokens, for a limit that counts them; by default from its length.
        tries: How often to ask for an answer that is valid.
        system: The system instruction.
        key: Name of the environment variable that holds the API key: name it in `secrets` too.
        base_url: Where the API is, if not at Google.
        timeout: Seconds without a sign from the server after which a request failed.
        options: More of `GenerateContentConfig`: `temperature`, `max_output_tokens`, `thinking_config` …

    Returns:
        A text, or the value that the schema describes.

    Raises:
        Throttled: The provider refused for now (429).
        QuotaExhausted: The quota of the day or the money is used up.
        Unavailable: It failed (5xx), did not answer in time, or could not be reached.
        Refused: It does not take the request (another 4xx), or there is no key.
        Blocked: Its safety rules stopped the prompt or the answer.
        InvalidAnswer: No answer was valid.
        TypeError: `schema` is neither a JSON schema nor a type.
    """
    form = form_of(schema)
    place = _Model(model, limit, key, base_url, timeout)
    models = place.client().models
    config = _requests.generation(form.schema, {"system_instruction": system, **options})
    return place.question(form, _tokens(tokens, prompt, system), tries).ask(
        lambda: models.generate_content(model=model, contents=prompt, config=config), _requests.read_answer
    )


@overload
async def generate_async(prompt: Any, *, model: str, schema: type[T], **options: Any) -> T: ...
@overload
async def generate_async(prompt: Any, *, model: str, schema: dict[str, Any], **options: Any) -> Any: ...
@overload
async def generate_async(prompt: Any, *, model: str, schema: None = None, **options: Any) -> str: ...
async def generate_async(
    prompt: Any,
    *,
    model: str,
    schema: Any = None,
    limit: str | None = "gemini",
    tokens: float | None = None,
    tries: int = TRIES,
    system: str | None = None,
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> Any:
    """Return a model's answer to a prompt: see `generate`."""
    form = form_of(schema)
    place = _Model(model, limit, key, base_url, timeout)
    models = place.loop_client().aio.models
    config = _requests.generation(form.schema, {"system_instruction": system, **options})
    return await place.question(form, _tokens(tokens, prompt, system), tries).ask_async(
        lambda: models.generate_content(model=model, contents=prompt, config=config), _requests.read_answer
    )


def embed(
    texts: Sequence[str],
    *,
    model: str,
    cache: str | None = "embeddings",
    batch_size: int = BATCH_SIZE,
    dimensions: int | None = None,
    task: str | None = None,
    limit: str | None = "gemini",
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
) -> list[list[float]]:
    """Return a vector for each text, in their order, as 32-bit floats.

    Each text is sent once: those that come twice, that are in the cache, or that another child has just asked for
    are not sent again. A request carries at most `batch_size` of them and reports its use (`requests`, `embeddings`,
    and `prompt` where the provider tells). Its permit weighs as much as it carries: to Google's quotas each text is a
    request.

    Args:
        texts: What to embed.
        model: Name of the model.
        cache: Name of the supervisor's cache, None for none.
        batch_size: Texts in one request; the API takes 100, and a limit never grants more than its rate at once.
        dimensions: Length of the vectors, by default the model's.
        task: What they are for: `SEMANTIC_SIMILARITY`, `RETRIEVAL_DOCUMENT` …
        limit: Name of the supervisor's limit, None for none.
        key: Name of the environment variable that holds the API key.
        base_url: Where the API is, if not at Google.
        timeout: Seconds without a sign from the server after which a request failed.

    Raises:
        ModelError: As `generate` does. What earlier batches brought is in the cache.
    """
    place = _Model(model, limit, key, base_url, timeout)
    models = place.client().models

    def ask(batch: list[str]) -> Any:
        config = _vectors(dimensions, task)
        return place.question(TEXT, estimate_tokens(batch), 1, len(batch)).ask(
            lambda: models.embed_content(model=model, contents=_requests.contents(batch), config=config),
            lambda response: _requests.read_vectors(response, batch),
        )

    return Wanted(texts, _about(model, dimensions, task), batch_size).fetch(cache, ask)


async def embed_async(
    texts: Sequence[str],
    *,
    model: str,
    cache: str | None = "embeddings",
    batch_size: int = BATCH_SIZE,
    dimensions: int | None = None,
    task: str | None = None,
    limit: str | None = "gemini",
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
) -> list[list[float]]:
    """Return a vector for each text: see `embed`."""
    place = _Model(model, limit, key, base_url, timeout)
    models = place.loop_client().aio.models

    async def ask(batch: list[str]) -> Any:
        config = _vectors(dimensions, task)
        return await place.question(TEXT, estimate_tokens(batch), 1, len(batch)).ask_async(
            lambda: models.embed_content(model=model, contents=_requests.contents(batch), config=config),
            lambda response: _requests.read_vectors(response, batch),
        )

    return await Wanted(texts, _about(model, dimensions, task), batch_size).fetch_async(cache, ask)


def _tokens(tokens: float | None, prompt: Any, system: str | None) -> float:
    return tokens if tokens is not None else estimate_tokens([prompt, system])


def _vectors(dimensions: int | None, task: str | None) -> dict[str, Any]:
    return {
        name: value for name, value in (("output_dimensionality", dimensions), ("task_type", task)) if value is not None
    }


def _about(model: str, dimensions: int | None, task: str | None) -> dict[str, Any]:
    return {"api": "gemini", "model": model, "dimensions": dimensions, "task": task}
