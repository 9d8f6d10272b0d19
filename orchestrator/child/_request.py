"""A question to the supervisor whose answer the job waits for, in a thread or on its event loop."""

from __future__ import annotations

from _thread import allocate_lock

from orchestrator import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.child._scope import Scope


class Request:
    """One question.

    Args:
        scope: The job that asks.
        frame: The question; its fence and its number are added.

    Attributes:
        number: What the answer refers to; None before the question was asked.
    """

    def __init__(self, scope: Scope, frame: dict[str, Any]) -> None:
        self._scope = scope
        self._frame = frame
        self.number: int | None = None

    def _ask(self, answered: Callable[[dict[str, Any]], None]) -> None:
        # Known before it is sent: a cancel may be raised by the sending, and then it is to be withdrawn.
        self.number = self._scope.host.expect(answered)
        self._scope.host.write(_wire.encode({**self._frame, "fence": self._scope.fence, "request": self.number}))

    def forget(self) -> None:
        """Wait no more for the answer."""
        if self.number is not None:
            self._scope.host.forget(self.number)

    def wait(self) -> dict[str, Any]:
        """Ask, and block until the answer is there; raises JobCancelled if it is that the job is to end."""
        done = allocate_lock()
        done.acquire()
        answers: list[dict[str, Any]] = []

        def arrived(answer: dict[str, Any]) -> None:
            answers.append(answer)
            done.release()

        self._ask(arrived)
        done.acquire()
        if answers[0]["type"] == "denied" and self._scope.cancelled:
            self._scope.end()
        return answers[0]

    async def wait_async(self) -> dict[str, Any]:
        """Ask, and wait for the answer without blocking the loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()

        def settle(answer: dict[str, Any]) -> None:
            if not future.done():
                future.set_result(answer)

        def arrived(answer: dict[str, Any]) -> None:
            try:
                loop.call_soon_threadsafe(settle, answer)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

        self._ask(arrived)
        return await future
