"""The functions that job code calls, sync and async."""

from __future__ import annotations

from typing import Any, overload

from orchestrator_adapters.llm._answers import TEXT, form_of
from orchestrator_adapters.llm._clients import client, loop_client, refusals, secret
from orchestrator_adapters.llm._embedding import Wanted
from orchestrator_adapters.llm._question import Question
from orchestrator_adapters.llm._tokens import estimate_tokens
from orchestrator_adapters.openai import _requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    T = TypeVar("T")

# The variable that the client itself reads.
KEY = "OPENAI_API_KEY"
# Long answers of thinking models take more than a minute.
TIMEOUT = 120.0
# An answer that is invalid three times will be so again.
TRIES = 3
# The API takes 2048, but small servers of models do not.
BATCH_SIZE = 100


class _Model:
    """One model as this child reaches it."""

    def __init__(self, model: str, limit: str | None, key: str, base_url: str | None, timeout: float) -> None:
        self.model = model
        self._limit = limit
        self._secret = (secret(key), key)
        self._place = (key, base_url, timeout)

    def client(self) -> Any:
        return client(("openai", *self._place), self._make)

    def loop_client(self) -> Any:
        return loop_client(("openai", *self._place), self._make_for_loop, _requests.close_client)

    def _make(self) -> Any:
        return _requests.make_client(self._secret[0], *self._place[1:])

    def _make_for_loop(self) -> Any:
        return _requests.make_loop_client(self._secret[0], *self._place[1:])

    def question(self, form: Any, tokens: float, tries: int) -> Question:
        return Question(
            form=form,
            limit=self._limit,
            tokens=tokens,
            tries=tries,
            refusals=refusals(("openai", self.model, *self._place)),
            secret=self._secret,
            explain=_requests.explain,
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
    limit: str | None = "openai",
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
        prompt: A text, or a list of messages as the API takes them.
        model: Name of the model.
        schema: Form of the answer: a JSON schema, a dataclass, a Struct, a pydantic model, or any type that msgspec
            reads from JSON. None for a text.
        limit: Name of the supervisor's limit, None for none.
        tokens: Estimate of the tokens that count, for a limit that counts them; by default from the prompt's length
            and the largest number of output tokens, if that is given.
        tries: How often to ask for an answer that is valid.
        system: The system message.
        key: Name of the environment variable that holds the API key: name it in `secrets` too.
        base_url: Where the API is; by default what OPENAI_BASE_URL says, or OpenAI.
        timeout: Seconds without a sign from the server after which a request failed.
        options: More of `chat.completions.create`: `temperature`, `max_tokens`, `reasoning_effort` …

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
    form = _requests.wrapped(form_of(schema))
    place = _Model(model, limit, key, base_url, timeout)
    completions = place.client().chat.completions
    body = _requests.body(prompt, system, form.schema, options)
    return place.question(form, _tokens(tokens, prompt, system, options), tries).ask(
        lambda: completions.create(model=model, **body), _requests.read_answer
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
    limit: str | None = "openai",
    tokens: float | None = None,
    tries: int = TRIES,
    system: str | None = None,
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> Any:
    """Return a model's answer to a prompt: see `generate`."""
    form = _requests.wrapped(form_of(schema))
    place = _Model(model, limit, key, base_url, timeout)
    completions = place.loop_client().chat.completions
    body = _requests.body(prompt, system, form.schema, options)
    return await place.question(form, _tokens(tokens, prompt, system, options), tries).ask_async(
        lambda: completions.create(model=model, **body), _requests.read_answer
    )


def embed(
    texts: Sequence[str],
    *,
    model: str,
    cache: str | None = "embeddings",
    batch_size: int = BATCH_SIZE,
    dimensions: int | None = None,
    limit: str | None = "openai",
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
) -> list[list[float]]:
    """Return a vector for each text, in their order, as 32-bit floats.

    Each text is sent once: those that come twice, that are in the cache, or that another child has just asked for
    are not sent again. A request carries at most `batch_size` of them, takes a permit and reports its use
    (`requests`, `embeddings`, and `prompt` where the provider tells).

    Args:
        texts: What to embed.
        model: Name of the model.
        cache: Name of the supervisor's cache, None for none.
        batch_size: Texts in one request; OpenAI takes 2048.
        dimensions: Length of the vectors, by default the model's.
        limit: Name of the supervisor's limit, None for none.
        key: Name of the environment variable that holds the API key.
        base_url: Where the API is; by default what OPENAI_BASE_URL says, or OpenAI.
        timeout: Seconds without a sign from the server after which a request failed.

    Raises:
        ModelError: As `generate` does. What earlier batches brought is in the cache.
    """
    place = _Model(model, limit, key, base_url, timeout)
    embeddings = place.client().embeddings

    def ask(batch: list[str]) -> Any:
        options = {} if dimensions is None else {"dimensions": dimensions}
        return place.question(TEXT, estimate_tokens(batch), 1).ask(
            lambda: embeddings.create(model=model, input=batch, **options),
            lambda response: _requests.read_vectors(response, batch),
        )

    return Wanted(texts, _about(model, dimensions), batch_size).fetch(cache, ask)


async def embed_async(
    texts: Sequence[str],
    *,
    model: str,
    cache: str | None = "embeddings",
    batch_size: int = BATCH_SIZE,
    dimensions: int | None = None,
    limit: str | None = "openai",
    key: str = KEY,
    base_url: str | None = None,
    timeout: float = TIMEOUT,
) -> list[list[float]]:
    """Return a vector for each text: see `embed`."""
    place = _Model(model, limit, key, base_url, timeout)
    embeddings = place.loop_client().embeddings

    async def ask(batch: list[str]) -> Any:
        options = {} if dimensions is None else {"dimensions": dimensions}
        return await place.question(TEXT, estimate_tokens(batch), 1).ask_async(
            lambda: embeddings.create(model=model, input=batch, **options),
            lambda response: _requests.read_vectors(response, batch),
        )

    return await Wanted(texts, _about(model, dimensions), batch_size).fetch_async(cache, ask)


def _tokens(tokens: float | None, prompt: Any, system: str | None, options: dict[str, Any]) -> float:
    if tokens is not None:
        return tokens
    # The API's token limits count what may come out too.
    output = options.get("max_completion_tokens") or options.get("max_tokens") or 0
    return estimate_tokens([prompt, system]) + output


def _about(model: str, dimensions: int | None) -> dict[str, Any]:
    return {"api": "openai", "model": model, "dimensions": dimensions}
