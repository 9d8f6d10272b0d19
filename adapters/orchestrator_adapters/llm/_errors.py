"""How a call of a model fails: exceptions whose attributes travel to the supervisor and say what to do about it."""

from __future__ import annotations


class ModelError(Exception):
    """A call of a model failed.

    Attributes:
        code: HTTP status of the reply, None without one.
        retry_after: Seconds after which to ask again, None if nobody said.
        failure_class: `permanent`, `transient` or `throttled`: whether it makes sense to try again.
        quota_scope: Which quota a 429 is about: `minute`, `day`, `spend`, `shared` (the provider is busy with others)
            or `unknown`; None if it is no 429.
    """

    failure_class = "permanent"

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        retry_after: float | None = None,
        quota_scope: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.quota_scope = quota_scope


class Throttled(ModelError):
    """The provider refused for now (429): the limit that was asked for a permit pauses for everybody."""

    failure_class = "throttled"


class QuotaExhausted(Throttled):
    """The quota of the day is used up, or no more may be spent: waiting for minutes does not help."""


class Unavailable(ModelError):
    """The provider failed, did not answer in time, or could not be reached: the same call may succeed later."""

    failure_class = "transient"


class Refused(ModelError):
    """The provider does not take this call (a 4xx, a key it does not know): the same call would fail again."""


class Blocked(ModelError):
    """The provider's safety rules stopped the prompt or its answer."""


class InvalidAnswer(ModelError):
    """No try gave a whole answer that satisfies the schema.

    Attributes:
        reply: The last answer, as it was paid for.
    """

    def __init__(self, message: str, *, reply: str = "") -> None:
        super().__init__(message)
        self.reply = reply


# They are reported by the name under which people import them.
for _kind in (ModelError, Throttled, QuotaExhausted, Unavailable, Refused, Blocked, InvalidAnswer):
    _kind.__module__ = "orchestrator_adapters.llm"
