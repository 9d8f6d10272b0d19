"""What kind of failure an error is: a pure function of what the supervisor says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from orchestrator.exceptions import (
    JobCrashed,
    JobError,
    JobFailed,
    JobQuarantined,
    JobTimedOut,
    PayloadError,
)
from orchestrator_adapters.batch._errors import BatchError

if TYPE_CHECKING:
    from collections.abc import Callable

FailureClass = Literal["permanent", "transient", "throttled", "crash", "poison", "timeout", "invalid"]
CLASSES: tuple[FailureClass, ...] = get_args(FailureClass)
# A service that says so will not take this record's request today, nor anybody else's.
EXHAUSTED_SCOPES = frozenset({"day", "spend"})

# Request timeout, conflict (a service that aborted a transaction), too early.
_TRANSIENT_CODES = frozenset({408, 409, 425})
# Names of classes, bases included, that HTTP clients have for a network that failed; the standard library's are
# ConnectionError and TimeoutError.
_TRANSIENT_NAMES = frozenset(
    "APIConnectionError ClientConnectionError ConnectionError IncompleteRead NetworkError ProtocolError "
    "ServerTimeoutError Timeout TimeoutError TimeoutException TransportError URLError gaierror".split()
)
_MOST_TEXT = 4_000  # characters of a message that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt did not succeed.

    Attributes:
        kind: Its failure class.
        error: The name of the exception.
        message: Its text, shortened if it is very long.
        retry_after: Seconds after which the service wants to be asked again, if it said so.
        quota_scope: What is exhausted, if the service said so: `minute`, `day`, `spend`, …
    """

    kind: FailureClass
    error: str
    message: str
    retry_after: float | None = None
    quota_scope: str | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether waiting does not help: a daily quota or the money is used up."""
        return self.quota_scope in EXHAUSTED_SCOPES


Classify = "Callable[[BaseException], str | None]"


def failure_of(error: BaseException, classify: Callable[[Any], str | None] | None = None) -> Failure:
    """Return what kind of failure an outcome's error is.

    Args:
        error: What the outcome has.
        classify: Is asked first; None from it means the usual class.

    Raises:
        BatchError: If `classify` raises or returns what is no failure class.
    """
    data: Any = error.error.data if isinstance(error, JobFailed) else {}
    kind = None if classify is None else _asked(classify, error)
    name, message = _told(error)
    return Failure(
        kind=kind or _kind(error, data),
        error=name,
        message=message if len(message) <= _MOST_TEXT else f"{message[:_MOST_TEXT]}… ({len(message)} characters)",
        retry_after=_seconds(data.get("retry_after")),
        quota_scope=scope if isinstance(scope := data.get("quota_scope"), str) else None,
    )


def _asked(classify: Callable[[Any], str | None], error: BaseException) -> FailureClass | None:
    try:
        answer = classify(error)
    except Exception as problem:
        raise BatchError(f"classify raised {type(problem).__name__}: {problem}") from problem
    if answer is None:
        return None
    for known in CLASSES:
        if answer == known:
            return known
    raise BatchError(f"classify returned {answer!r}; it returns one of {', '.join(CLASSES)}, or None")


def _kind(error: BaseException, data: Any) -> FailureClass:
    if isinstance(error, JobQuarantined):
        return "poison"
    if isinstance(error, JobCrashed):
        return "crash"
    if isinstance(error, JobTimedOut):
        return "timeout"
    if isinstance(error, PayloadError):
        # A record that the handler's annotation does not take, or a result that cannot travel: a bug of the handler.
        return "permanent" if error.path.startswith("result") else "invalid"
    if not isinstance(error, JobFailed):
        return "permanent"
    for known in CLASSES:
        if data.get("failure_class") == known:
            return known
    for name in ("status_code", "code"):
        code = data.get(name)
        if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
            return _kind_of_code(code)
    names = {base.rpartition(".")[2] for base in (error.error.type, *error.error.bases)}
    return "transient" if names & _TRANSIENT_NAMES else "permanent"


def _kind_of_code(code: int) -> FailureClass:
    if code == 429:
        return "throttled"
    return "transient" if code >= 500 or code in _TRANSIENT_CODES else "permanent"


def _told(error: BaseException) -> tuple[str, str]:
    """Return the name and the text of an error, as the handler's author knows it."""
    if isinstance(error, JobFailed):
        return error.error.type, error.error.message
    text = str(error.args[0]) if isinstance(error, JobError) and error.args else str(error)
    return type(error).__name__, text


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        return None
    return float(value)
