"""What a child may use up before it is replaced, and what it must not use at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

# Children that were started together must not all be replaced at the same moment.
_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Allowance:
    """The bounds that every child of a supervisor has; None is none.

    Attributes:
        max_jobs: Jobs, after which it is replaced.
        max_rss: Bytes of memory, above which it is replaced between two jobs.
        max_age: Seconds, after which it is replaced between two jobs.
        memory_limit: Bytes of memory, above which it is killed.
    """

    max_jobs: int | None = None
    max_rss: int | None = None
    max_age: float | None = None
    memory_limit: int | None = None

    @property
    def weighs(self) -> bool:
        """Whether the memory of children has to be known."""
        return self.max_rss is not None or self.memory_limit is not None

    def lifetime(self, random: Callable[[], float]) -> float | None:
        """Return how old one child may become: `max_age`, ten percent more or less."""
        return None if self.max_age is None else self.max_age * (1 - _SPREAD + 2 * _SPREAD * random())


class Use:
    """What one child has used up so far.

    Attributes:
        given: Jobs it was given.
        worn: It is to be replaced as soon as it is idle.
        peak: Most memory that it was seen to have with all its descendants, in bytes; None when nobody looked.
    """

    __slots__ = ("_allowance", "_told", "given", "peak", "worn")

    def __init__(self, allowance: Allowance) -> None:
        self.given = 0
        self.worn = False
        self.peak: int | None = None
        self._allowance = allowance
        self._told = False

    def give(self) -> bool:
        """Count a job; returns whether it is the child's last."""
        self.given += 1
        most = self._allowance.max_jobs
        if most is not None and self.given >= most:
            self.worn = True
        return self.worn

    def weigh(self, memory: int) -> Literal["kill", "recycle", "warn"] | None:
        """Note how much memory it has; returns what is to be done about it.

        A child that is too large before its first job would be as large again: it is not replaced, only named.
        """
        self.peak = memory if self.peak is None else max(self.peak, memory)
        allowance = self._allowance
        if allowance.memory_limit is not None and memory > allowance.memory_limit:
            return "kill"
        if allowance.max_rss is None or memory <= allowance.max_rss or self.worn:
            return None
        if self.given:
            self.worn = True
            return "recycle"
        told, self._told = self._told, True
        return None if told else "warn"


def megabytes(memory: int) -> str:
    """Return an amount of memory as text for people."""
    return f"{memory / 2**20:,.0f} MiB"
