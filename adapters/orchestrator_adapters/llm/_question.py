"""One question to a model: its permits, its tries, what each try cost, and what its failure means."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from orchestrator import child
from orchestrator_adapters.llm._clients import without
from orchestrator_adapters.llm._errors import (
    Blocked,
    InvalidAnswer,
    ModelError,
    QuotaExhausted,
    Refused,
    Throttled,
    Unavailable,
)
from orchestrator_adapters.llm._permits import ModelPermit
from orchestrator_adapters.llm._quiet import quiet
from orchestrator_adapters.llm._throttle import Throttle, read_throttle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from orchestrator_adapters.llm._answers import Form
    from orchestrator_adapters.llm._throttle import Refusals

# Of an answer that was paid for but cannot be used, so much goes into the error.
_LONGEST_REPLY = 2000
# 4xx that are about the moment, not about the request: timeout, conflict, too early.
_PASSING = (408, 409, 425)


class Reply(NamedTuple):
    """What a provider answered.

    Attributes:
        value: The text, or what was asked for instead.
        problem: Why it cannot be used although it came, "" if it can.
        blocked: It was stopped by rules, and would be again.
        usage: Tokens by kind: prompt, output, cached, thoughts.
        counted: Tokens that count against the provider's quota; None if it did not say.
    """

    value: Any
    problem: str
    blocked: bool
    usage: Mapping[str, float]
    counted: float | None


class Failure(NamedTuple):
    """What a client's exception says, in neutral words."""

    message: str
    code: int | None = None  # None: there was no reply, or none that could be read
    body: Any = None
    headers: Mapping[str, str] = {}


class Question:
    """A question that may take several tries.

    Args:
        form: Of the answer.
        limit: Name of the limit whose permit each try takes, None for none.
        tokens: How many of the limit's tokens a try will probably cost.
        tries: How often to ask when the answer is invalid.
        refusals: What is known of the model's refusals.
        secret: The key, and the name of its variable: neither errors nor logs may repeat the key.
        explain: Says what a client's exception means; None if it is none of the client's.
        weight: How many requests it is to the provider's quota.
    """

    def __init__(
        self,
        *,
        form: Form,
        limit: str | None,
        tokens: float,
        tries: int,
        refusals: Refusals,
        secret: tuple[str, str],
        explain: Callable[[Exception], Failure | None],
        weight: float = 1,
    ) -> None:
        if tries < 1:
            raise ValueError(f"tries must be at least 1, not {tries}")
        self._form = form
        self._limit = limit
        self._tokens = tokens
        self._tries = tries
        self._refusals = refusals
        self._secret = secret
        self._explain = explain
        self._weight = weight
        self._asked = 0
        self._asked_at = 0.0
        self._problems: list[str] = []
        self._value: Any = None
        self._answered = False

    def ask(self, send: Callable[[], Any], read: Callable[[Any], Reply]) -> Any:
        """Return the answer; `send` makes one request and `read` says what came."""
        while not self._answered:
            self._refuse_exhausted()
            with self._permit() as permit:
                if self._is_exhausted():  # since it asked for the permit
                    continue
                self._begin()
                try:
                    with quiet():
                        reply = read(send())
                except Exception as error:
                    self._raise(error, permit)
                self._hear(reply, permit)
        return self._value

    async def ask_async(self, send: Callable[[], Awaitable[Any]], read: Callable[[Any], Reply]) -> Any:
        """Do the same on an event loop."""
        while not self._answered:
            self._refuse_exhausted()
            async with self._permit() as permit:
                if self._is_exhausted():
                    continue
                self._begin()
                try:
                    with quiet():
                        reply = read(await send())
                except Exception as error:
                    self._raise(error, permit)
                self._hear(reply, permit)
        return self._value

    def _permit(self) -> ModelPermit:
        return ModelPermit(self._limit, self._tokens, self._weight)

    def _is_exhausted(self) -> bool:
        return self._refusals.exhausted(time.monotonic()) is not None

    def _refuse_exhausted(self) -> None:
        """Raise what a request would be answered, if this child knows; outside the permit, for it says nothing new."""
        found = self._refusals.exhausted(time.monotonic())
        if found is not None:
            told, message = found
            raise QuotaExhausted(message, code=429, retry_after=told.retry_after, quota_scope=told.scope)

    def _begin(self) -> None:
        # Before it is sent: a request whose sender dies was made all the same.
        child.usage(requests=1)
        self._asked += 1
        self._asked_at = time.monotonic()

    def _hear(self, reply: Reply, permit: ModelPermit) -> None:
        self._refusals.answered()
        child.usage(**{name: count for name, count in reply.usage.items() if count})
        if reply.counted is not None:
            permit.report(reply.counted)
        if reply.blocked:
            raise Blocked(reply.problem)
        problem = reply.problem
        if not problem:
            try:
                self._value = self._form.read(reply.value)
                self._answered = True
                return
            except (ValueError, RecursionError) as error:
                problem = str(error) or type(error).__name__
        self._problems.append(problem)
        if self._asked >= self._tries:
            self._give_up(str(reply.value))

    def _give_up(self, text: str) -> None:
        text = self._clean(text)
        tries = "" if self._asked == 1 else f" in {self._asked} tries"
        problem = self._clean(self._problems[-1])
        raise InvalidAnswer(f"no valid answer{tries}: {problem}\nThe last one was: {_shortened(text)}", reply=text)

    def _raise(self, error: Exception, permit: ModelPermit) -> None:
        """Raise what an exception of the client means; any other is the caller's."""
        failure = self._explain(error)
        if failure is None:
            raise error
        found = self._error(failure)
        if isinstance(found, QuotaExhausted):
            # Not for the hours until there is quota again: those who wait for a permit have to learn of it too.
            permit.throttled()
        # What the client raised shows where, unless it would show the key.
        raise found from (error if self._clean(str(error)) == str(error) else None)

    def _error(self, failure: Failure) -> ModelError:
        code, message = failure.code, self._clean(failure.message)
        if code == 429:
            told = read_throttle(failure.body, failure.headers, message)
            meant = self._refusals.refused(told, self._asked_at, time.monotonic())
            kind: type[ModelError] = Throttled
            if meant.scope in ("day", "spend"):
                kind = QuotaExhausted
                self._refusals.exhaust(meant, message, time.monotonic())
            return kind(message, code=code, retry_after=meant.retry_after, quota_scope=meant.scope)
        if code is None or code >= 500 or code in _PASSING:
            told = read_throttle(failure.body, failure.headers, message) if code is not None else Throttle("", None)
            return Unavailable(message, code=code, retry_after=told.retry_after)
        return Refused(message, code=code)

    def _clean(self, text: str) -> str:
        return without(self._secret[0], text, self._secret[1])


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_REPLY:
        return text
    half = _LONGEST_REPLY // 2
    return f"{text[:half]} … {len(text) - _LONGEST_REPLY} characters left out … {text[-half:]}"


def transport_failure(error: Exception) -> Failure | None:
    """Return what an exception of an HTTP library means, by its name: which library it is depends on what is there."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    said = f"{type(error).__name__}: {error}"
    if "builtins.TimeoutError" in names or {"httpx.TimeoutException", "httpx2.TimeoutException"} & names:
        return Failure(f"no answer in time ({said})")
    if {"httpx.TransportError", "httpx2.TransportError", "aiohttp.ClientError", "requests.RequestException"} & names:
        return Failure(f"the connection failed ({said})")
    if isinstance(error, ConnectionError):
        return Failure(f"the connection failed ({said})")
    if {"json.JSONDecodeError", "genai.UnknownApiResponseError", "google.UnknownApiResponseError"} & names:
        return Failure(f"the reply is no JSON ({said})")
    return None
