"""Calls of the caller's functions that a job asked for, kept in order until they are made."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator._models import callback
    from orchestrator._record import Record

    Call = tuple[callback, list[Any], Mapping[str, Any]]

# The job may be a thousand calls ahead; what is made is credited to it in lots.
LOT = 100


class Calls:
    """The calls of one job that wait.

    Attributes:
        refused: No more are made: one of them raised, or nobody wants them any more.
    """

    __slots__ = ("_made", "_waiting", "refused")

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._made = 0
        self.refused = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """Keep a call of function number `index`; one of a `latest` function takes the place of the one before it."""
        wrapped = record.payload.callbacks
        if self.refused or not 0 <= index < len(wrapped):
            return
        call = (wrapped[index], args, kwargs)
        if call[0].latest and self._waiting and self._waiting[-1][0] is call[0]:
            self._waiting[-1] = call
        else:
            self._waiting.append(call)

    def take(self) -> Call:
        """Return the first call; it is to be made now."""
        return self._waiting.popleft()

    def made(self, call: Call) -> bool:
        """Note that a call was made; returns whether the job is to be credited with a lot."""
        if call[0].latest:
            return False
        self._made += 1
        return self._made % LOT == 0

    def refuse(self) -> None:
        """Drop what waits and what will come."""
        self.refused = True
        self._waiting.clear()
