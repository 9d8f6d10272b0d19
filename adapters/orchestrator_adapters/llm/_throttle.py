"""What a 429 means, from its body, its message and its headers (pure), and what several of them in a row mean."""

from __future__ import annotations

import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# A daily quota that is really used up does not come back within two minutes: such a refusal contradicts itself.
LONGEST_PROBE = 120.0
# So long nobody is asked after a quota is used up: then one request may find out that it was put right.
REST = 60.0
# Without a delay told: 1 s, doubled with every refusal in a row, as cloud providers advise.
SHORTEST_WAIT = 1.0
LONGEST_WAIT = 60.0

_SUFFIX = re.compile(r"(?:retry|try again) (?:in|after) ((?:\d+(?:\.\d+)?\s*(?:ms|[dhms])[a-z]*\s*)+)", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[dhms])", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DAY = re.compile(r"per[ _-]?day|\b[RT]PD\b", re.IGNORECASE)
_MINUTE = re.compile(r"per[ _-]?(?:min|sec|hour)|\b[RT]P[MSH]\b", re.IGNORECASE)
# How OpenAI and services like it say that there is no money left.
_SPENT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


class Throttle(NamedTuple):
    """What one refusal says."""

    scope: str
    retry_after: float | None


def read_throttle(body: Any, headers: Mapping[str, str], message: str = "") -> Throttle:
    """Return what a 429 says; `body` is its JSON, whatever shape that has."""
    error = _error_of(body)
    text = str(error.get("message") or message)
    details = [detail for detail in _list(error.get("details")) if isinstance(detail, dict)]
    delay = None
    for detail in details:
        if str(detail.get("@type", "")).endswith("RetryInfo"):
            delay = _duration(detail.get("retryDelay"))
    if delay is None:
        delay = _suffix(text)
    if delay is None:
        delay = _header(headers)
    return Throttle(_scope(error, details, text), delay)


def _scope(error: dict[str, Any], details: list[dict[str, Any]], text: str) -> str:
    violations = [
        violation
        for detail in details
        if str(detail.get("@type", "")).endswith("QuotaFailure")
        for violation in _list(detail.get("violations"))
        if isinstance(violation, dict)
    ]
    words = {str(error.get("code")), str(error.get("type"))}
    if words & _SPENT or any(str(violation.get("quotaValue")) == "0" for violation in violations):
        return "spend"
    said = " ".join(str(violation.get("quotaId", "")) for violation in violations) or ("" if details else text)
    if _DAY.search(said):
        return "day"
    if _MINUTE.search(said):
        return "minute"
    # Nothing of ours was exceeded: what everybody uses together was.
    return "shared" if error and not violations else "unknown"


def _error_of(body: Any) -> dict[str, Any]:
    if isinstance(body, list) and len(body) == 1:  # as Google's OpenAI-compatible endpoint wraps it
        body = body[0]
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, dict) else {"message": error}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _duration(value: Any) -> float | None:
    """Return the seconds of a protobuf duration: "53.01s", or {"seconds": 53, "nanos": 10000000}."""
    if isinstance(value, dict):
        try:
            return float(value.get("seconds", 0)) + float(value.get("nanos", 0)) / 1e9
        except (TypeError, ValueError):
            return None
    return _sum(value) if isinstance(value, str) else None


def _sum(text: str) -> float | None:
    parts = _PART.findall(text)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts) if parts else None


def _suffix(text: str) -> float | None:
    found = _SUFFIX.search(text)
    return _sum(found.group(1)) if found else None


def _header(headers: Mapping[str, str]) -> float | None:
    found = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(found[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(found["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


class Refusals:
    """The refusals of one model in a row, as one child sees them.

    A single refusal cannot tell a used-up day from a provider that names the wrong quota, nor how long to wait when
    it names no delay. Times are of a monotonic clock.
    """

    def __init__(self) -> None:
        self._probe_at: float | None = None
        self._exhausted: tuple[Throttle, str, float] | None = None
        self._last = float("-inf")
        self._in_a_row = 0

    def exhausted(self, now: float) -> tuple[Throttle, str] | None:
        """Return what the last refusal for a quota that is used up said, as long as it makes no sense to ask again."""
        if self._exhausted is None or now >= self._exhausted[2]:
            return None
        return self._exhausted[:2]

    def exhaust(self, told: Throttle, message: str, now: float) -> None:
        """Note that a quota is used up."""
        self._exhausted = (told, message, now + REST)

    def answered(self) -> None:
        """Note that a request was answered: what was refused before is over."""
        self._exhausted = None
        self._probe_at = None
        self._in_a_row = 0

    def refused(self, told: Throttle, asked_at: float, now: float) -> Throttle:
        """Return what a refusal means; `asked_at` is when its request was sent."""
        # Those that were under way together say the same thing once.
        if asked_at >= self._last:
            self._in_a_row += 1
            self._last = now
        if told.scope == "spend":
            return told
        if told.scope == "day":
            if told.retry_after is None or told.retry_after > LONGEST_PROBE:
                return told
            if self._probe_at is not None and asked_at >= self._probe_at:
                return told  # asked again when it was time, and refused again: it means it
            if self._probe_at is None:
                self._probe_at = now + told.retry_after
            return Throttle("minute", told.retry_after)
        if told.retry_after is not None:
            return told
        longest = min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(self._in_a_row, 10))
        return told._replace(retry_after=round(random.uniform(SHORTEST_WAIT, longest), 3))
