"""A permit of a limit, asked of the supervisor and given back to it."""

from __future__ import annotations

from orchestrator import _wire
from orchestrator.child._request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from orchestrator.child._scope import Scope


class Permit:
    """A context manager, sync and async, that holds `weight` units of a limit.

    Raises:
        RuntimeError: On entering, if the supervisor has no such limit or the weight can never be granted.
    """

    def __init__(self, scope: Scope | None, name: str, weight: float) -> None:
        self._scope = scope
        self._name = name
        self._weight = weight
        self._request: Request | None = None

    def _ask(self, scope: Scope) -> Request:
        self._request = Request(scope, {"type": "acquire", "name": self._name, "weight": self._weight})
        return self._request

    def _check(self, answer: dict[str, Any]) -> None:
        if answer["type"] != "granted":
            self._request = None
            raise RuntimeError(f"permit({self._name!r}): {answer.get('reason', 'denied')}")

    def _give_back(self, throttled: float | None = None) -> None:
        request, self._request = self._request, None
        if request is None or request.number is None or self._scope is None:
            return
        request.forget()
        frame = {"type": "release", "fence": self._scope.fence, "request": request.number}
        if throttled is not None:
            frame["throttled"] = throttled
        self._scope.host.write(_wire.encode(frame))

    def throttled(self, retry_after: float = 1.0) -> None:
        """Tell the supervisor that the other side refused for `retry_after` seconds: the limit pauses for everybody.

        The permit is given back by this.
        """
        self._give_back(float(retry_after))

    def __enter__(self) -> Self:
        if self._scope is None:
            return self
        if self._scope.host.must_not_block():
            raise RuntimeError(
                f"permit({self._name!r}): `with` would block the event loop that has to answer; use `async with`"
            )
        try:
            answer = self._ask(self._scope).wait()
        except BaseException:  # cancelled while waiting: the supervisor must not keep the permit for nobody
            self._give_back()
            raise
        self._check(answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    async def __aenter__(self) -> Self:
        if self._scope is None:
            return self
        try:
            answer = await self._ask(self._scope).wait_async()
        except BaseException:
            self._give_back()
            raise
        self._check(answer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
