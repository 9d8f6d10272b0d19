"""A permit of a limit, asked of the supervisor and given back to it."""

from __future__ import annotations

from _contextvars import ContextVar

from orchestrator import _wire
from orchestrator.child._request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from orchestrator.child._scope import Scope

# What a refusal that names no time is worth.
_DEFAULT_PAUSE = 1.0
_TOO_MANY_REQUESTS = 429

# Requests of the permits that this thread, or task, and those that started it, are in.
_inside: ContextVar[tuple[int, ...]] = ContextVar("orchestrator_permits", default=())


class Permit:
    """A context manager, sync and async, that holds units of a limit.

    Left by an exception whose `code` or `status_code` is 429, it tells the supervisor that the other side refused, with
    the exception's `retry_after` if it has one: see `throttled`.

    Raises:
        RuntimeError: On entering, if the supervisor has no such limit or so much can never be granted.
        TimeoutError: On entering, if it cannot be had within `timeout`, as soon as that is known; its `retry_after`
            says in how many seconds it could be had at the earliest.
    """

    def __init__(
        self, scope: Scope | None, name: str, weight: float, timeout: float | None, units: dict[str, float]
    ) -> None:
        self._scope = scope
        self._name = name
        self._weight = weight
        self._timeout = timeout
        self._units = units
        self._used: dict[str, float] = {}
        self._dimensions: list[str] = []
        self._request: Request | None = None
        self._was_held = False

    def _ask(self, scope: Scope) -> Request:
        if self._request is not None:
            raise RuntimeError(f"permit({self._name!r}) is held already; ask for another one")
        frame: dict[str, Any] = {"type": "acquire", "name": self._name, "weight": self._weight}
        if self._units:
            frame["units"] = self._units
        if self._timeout is not None:
            frame["timeout"] = self._timeout
        if inside := _inside.get():
            frame["inside"] = inside[-1]
        self._used = {}
        self._request = Request(scope, frame)
        return self._request

    def _check(self, answer: dict[str, Any]) -> None:
        if answer["type"] != "granted":
            self._request = None
            reason = answer.get("reason", "denied")
            if "retry_after" not in answer:
                raise RuntimeError(f"permit({self._name!r}): {reason}")
            late = TimeoutError(f"permit({self._name!r}): {reason}, which is not within timeout={self._timeout:g} s")
            late.retry_after = answer["retry_after"]  # type: ignore[attr-defined]
            raise late
        self._was_held = True
        self._dimensions = answer.get("dimensions", [])
        if self._request is not None and self._request.number is not None:
            _inside.set((*_inside.get(), self._request.number))

    def _give_back(self, throttled: float | None = None) -> None:
        request, self._request = self._request, None
        if request is None or request.number is None or self._scope is None:
            return
        number = request.number
        # Not by a token: a generator may be left in another context than it was entered in.
        _inside.set(tuple(each for each in _inside.get() if each != number))
        request.forget()
        frame: dict[str, Any] = {"type": "release", "fence": self._scope.fence, "request": number}
        if throttled is not None:
            frame["throttled"] = throttled
        if self._used:
            frame["used"] = self._used
        self._scope.host.write(_wire.encode(frame))

    def report(self, **units: float) -> None:
        """Say what was really used of the limit's dimensions (`tokens=1830`), when that is known.

        What was estimated too high can be granted to others; what was estimated too low is waited for before the next
        grant. Call it while the permit is held: it counts when that is given back.

        Raises:
            ValueError: If the limit has no such dimension, or a number is negative.
            RuntimeError: If the permit is not held.
        """
        if self._scope is None:
            return
        if self._request is None:
            if self._was_held:
                return  # given back by `throttled`: a refused call used nothing
            raise RuntimeError(f"permit({self._name!r}): report what was used inside the `with`")
        for name, count in units.items():
            if name not in self._dimensions:
                known = ", ".join(self._dimensions) or "none"
                raise ValueError(f"limit {self._name!r} has no dimension {name!r}; it has {known}")
            number = float(count)
            if not 0 <= number < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, not {count!r}")
            self._used[name] = number

    def throttled(self, retry_after: float = _DEFAULT_PAUSE) -> None:
        """Tell the supervisor that the other side refused for `retry_after` seconds: the limit pauses for everybody.

        Afterwards it goes on more slowly, and regains its rate as long as nobody is refused. The permit is given back
        by this.
        """
        self._give_back(_seconds(retry_after))

    def _leave(self, error: BaseException | None) -> None:
        self._give_back(None if error is None else _refusal(error))

    def __enter__(self) -> Self:
        if self._scope is None:
            return self
        if self._scope.host.must_not_block():
            raise RuntimeError(
                f"permit({self._name!r}): `with` would block the event loop that has to answer; use `async with`"
            )
        request = self._ask(self._scope)
        try:
            answer = request.wait()
        except BaseException:  # cancelled while waiting: the supervisor must not keep the permit for nobody
            self._give_back()
            raise
        self._check(answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> Self:
        if self._scope is None:
            return self
        request = self._ask(self._scope)
        try:
            answer = await request.wait_async()
        except BaseException:
            self._give_back()
            raise
        self._check(answer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)


def _refusal(error: BaseException) -> float | None:
    """Return the seconds for which the other side refused, if that is what an exception says."""
    try:
        if _TOO_MANY_REQUESTS not in (getattr(error, "code", None), getattr(error, "status_code", None)):
            return None
        return _seconds(getattr(error, "retry_after", None))
    except Exception:
        return None  # attributes are user code, and the job's own error is what counts


def _seconds(value: Any) -> float:
    try:
        number = float(value.total_seconds() if hasattr(value, "total_seconds") else value)
    except (TypeError, ValueError):
        return _DEFAULT_PAUSE
    return number if 0.0 <= number < float("inf") else _DEFAULT_PAUSE
