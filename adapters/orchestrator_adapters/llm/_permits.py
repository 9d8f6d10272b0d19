"""The permit of one request: with an estimate of its tokens where the limit counts tokens."""

from __future__ import annotations

from orchestrator import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self


class ModelPermit:
    """A context manager, sync and async, that holds a permit of a limit; of no limit it is none.

    Job code does not know whether its limit has a dimension `tokens`: whoever runs it says so in params.yaml. So it
    asks with tokens until a limit turns out to have none, and then without.
    """

    def __init__(self, limit: str | None, tokens: float, weight: float) -> None:
        self._limit = limit
        self._tokens = tokens
        self._weight = weight
        self._permit: Any = None
        self._counts = True

    def report(self, tokens: float) -> None:
        """Say how many tokens it really were."""
        if self._permit is not None and self._counts:
            self._permit.report(tokens=tokens)

    def throttled(self) -> None:
        """Give it back because the provider refuses: the limit pauses for a moment."""
        if self._permit is not None:
            self._permit.throttled()

    def _ask(self) -> Any:
        assert self._limit is not None
        self._counts = self._limit not in _without_tokens()
        self._permit = child.permit(self._limit, self._weight, **({"tokens": self._tokens} if self._counts else {}))
        return self._permit

    def _learn(self, error: RuntimeError) -> None:
        """Note that the limit counts no tokens; if that is not what the error says, raise it."""
        self._permit = None
        if not self._counts or "there is no limit" not in str(error):
            raise error
        _without_tokens().add(self._limit)

    def __enter__(self) -> Self:
        if self._limit is not None:
            try:
                self._ask().__enter__()
            except RuntimeError as error:
                self._learn(error)
                self._ask().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            self._permit.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        if self._limit is not None:
            try:
                await self._ask().__aenter__()
            except RuntimeError as error:
                self._learn(error)
                await self._ask().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            await self._permit.__aexit__(kind, error, trace)


def _without_tokens() -> set[Any]:
    """Return the names of the limits that are known to count no tokens."""
    return child.resource("orchestrator_adapters: limits without tokens", set)
