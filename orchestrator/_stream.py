"""The values that one generator job yields, as they come."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self

from orchestrator._events import Item

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator._handle import Events, JobHandle
    from orchestrator._submission import Submission
    from orchestrator._supervisor import Supervisor


class Items:
    """An async iterator and async context manager; made by `Supervisor.stream`."""

    def __init__(self, supervisor: Supervisor, submission: Submission) -> None:
        self._supervisor = supervisor
        self._submission = submission
        self._handle: JobHandle | None = None
        self._events: Events | None = None
        self._over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        if self._over:
            raise StopAsyncIteration
        if self._handle is None or self._events is None:
            self._handle = await self._supervisor._submit_stream(self._submission)
            self._events = self._handle.events()
        async for event in self._events:
            if isinstance(event, Item):
                return event.value
        self._over = True
        await self._handle.result()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the job unless it is done, and wait for its end."""
        over, self._over = self._over, True
        if self._handle is not None and not over:
            self._handle.cancel()
            await self._handle.outcome()

    def __del__(self) -> None:
        if self._handle is not None and not self._over:
            self._handle.cancel()
            warnings.warn(
                "a stream was dropped before its end; use `async with`", ResourceWarning, source=self, stacklevel=2
            )
