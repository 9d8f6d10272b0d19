"""Whose fault a death was: the job's that ran, or that of the environment they all run in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator._policy import CrashGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator._logs import Logger
    from orchestrator._record import Record

# A job that killed this many children is not given another one (promise 2).
_DEADLY = 3


class Blame:
    """Charges jobs with the deaths of their children, and refunds them.

    Args:
        unsettled: All jobs that could be refunded, by number.
        logger: Where lines go.
        refunded: Told of each job, other than the one that died last, that gets back what it was charged.
    """

    def __init__(self, unsettled: Mapping[int, Record], logger: Logger, refunded: Callable[[Record], None]) -> None:
        self.guard = CrashGuard()
        self._unsettled = unsettled
        self._logger = logger
        self._refunded = refunded

    def charge(self, record: Record, now: float, *, tried: bool) -> bool:
        """Note that a child died of this job alone; returns whether that costs it an attempt."""
        guard = self.guard
        doubted, blamed = guard.doubt, guard.environment
        known = record.deaths > guard.deaths.get(record.id, 0)
        verdict = guard.crashed(record.id, now, ran=record.run_seconds, tried=tried, known=known)
        record.deaths += 1
        if verdict == "job":
            return True
        # In doubt nobody is charged with an attempt; what counts for quarantine stands, unless it is the environment.
        if not doubted:
            for other, count in self._dead():
                other.attempts -= count - (other is record)
        if verdict == "environment":
            if not blamed:
                self._logger.log("pool.environment_blamed", "error", reason="jobs keep dying, whichever they are")
            for other, count in [(record, 1)] if blamed else self._dead():
                other.deaths -= count
                other.forgiven += count
        if not doubted or (verdict == "environment" and not blamed):
            for other, _ in self._dead():
                if other is not record:
                    self._refunded(other)
        return False

    def _dead(self) -> list[tuple[Record, int]]:
        unsettled = self._unsettled
        return [(unsettled[number], count) for number, count in self.guard.deaths.items() if number in unsettled]

    def is_given_up(self, record: Record) -> bool:
        """Return whether a job has killed so many children that it gets no other.

        A set of killers with nobody else around looks like a bad environment for ever: forgiving has an end, too.
        """
        return record.deaths >= _DEADLY or record.forgiven > _DEADLY

    def ended(self) -> None:
        """Note that jobs can run: one has ended, or lives longer than those that died."""
        if self.guard.environment:
            self._logger.log("pool.environment_recovered")
        self.guard.ended()
