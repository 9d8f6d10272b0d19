"""The future of one call; only here are the states of futures changed."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator_adapters.executor._messages import Message
    from orchestrator_adapters.executor._pool import Pool

# Names that the standard library's own futures and waiters know; it has no public ones for them.
_PENDING, _RUNNING, _CANCELLED, _NOTIFIED = "PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED"


class Call(Future[Any]):
    """A future that tells its pool of a cancel.

    Args:
        pool: Where the call runs.
        label: What the called function is called.

    Attributes:
        message: The call as it travels; None once it has gone to a child, or is not wanted any more.
        share: How much room it takes among those that are handed over to children.
    """

    def __init__(self, pool: Pool, label: str) -> None:
        super().__init__()
        self.message: Message | None = None
        self.label = label
        self.share = 1.0
        self._holds_callbacks = False
        self._pool = pool

    def cancel(self) -> bool:
        """Cancel the call if it does not run yet; with `kill_running` also one that runs, which is killed.

        Returns:
            Whether it is cancelled.
        """
        if super().cancel():
            self.message = None
            self._notify()
            return True
        if not self._pool.kill_running:
            return False
        condition: Any = self._condition
        with condition:
            if self._state != _RUNNING:
                return self.cancelled()
            self._state = _CANCELLED
            self._notify()
            condition.notify_all()  # who waits in result()
        self._pool.kill(self)
        self._invoke_callbacks()
        return True

    def begin(self) -> bool:
        """Note that it runs from now on; returns False if it was cancelled before."""
        with self._condition:
            if self._state != _PENDING:
                return False
            self._state = _RUNNING
            return True

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """Set how it ended, unless it was cancelled meanwhile."""
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)

    def settle_quietly(self, value: Any) -> bool:
        """Set the result, unless that would run callbacks that may take their time; returns whether it is settled.

        Those of asyncio only tell a loop.
        """
        with self._condition:  # so that no callback is added meanwhile
            for each in self._done_callbacks:  # type: ignore[attr-defined]
                if getattr(each, "__module__", None) != "asyncio.futures":
                    return False
            if self._state != _RUNNING:
                return True
            self._holds_callbacks = True
            self.set_result(value)
            self._holds_callbacks = False
        # Without the lock, which is the first thing that the woken loop would wait for.
        self._invoke_callbacks()
        return True

    def _invoke_callbacks(self) -> None:
        if not self._holds_callbacks:
            super()._invoke_callbacks()  # type: ignore[misc]

    def _notify(self) -> None:
        """Tell those who wait for several futures, as they are told nothing by a cancel alone."""
        with self._condition:
            if self._state == _CANCELLED:
                self.set_running_or_notify_cancel()
