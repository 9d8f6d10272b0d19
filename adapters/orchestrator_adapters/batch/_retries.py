"""Whether and when a record is tried again: pure, for a given failure and what the record has behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator_adapters.batch._classes import Failure

# Half a second lets a short outage pass, and a minute is where waiting longer no longer helps a polite client.
FIRST_BACKOFF = 0.5
LAST_BACKOFF = 60.0
# A service that throttles and does not say for how long is asked again after this, doubled each time.
FIRST_PAUSE = 1.0
# Being throttled is free of charge, but a record that a service never takes must not wait for ever.
MOST_THROTTLES = 10
# A small batch may try again a few times whatever the share says.
LEAST_BUDGET = 10


@dataclass(frozen=True, slots=True)
class Again:
    """The record is tried again.

    Attributes:
        delay: Seconds to wait.
        charged: Attempts that count against the record's bound from now on.
        throttles: How often it was throttled.
        pause: Seconds in which nothing is sent at all.
        spends: Whether it takes one from the retry budget.
    """

    delay: float
    charged: int
    throttles: int
    pause: float = 0.0
    spends: bool = False


@dataclass(frozen=True, slots=True)
class Retries:
    """The rules of one run.

    Args:
        attempts: Most attempts at one record that count.
        share: Most retries of transient failures, as a share of the records.
    """

    attempts: int = 3
    share: float = 0.2

    def budget(self, records: int) -> int:
        """Return how many retries of transient failures all records together may have."""
        return max(LEAST_BUDGET, int(self.share * records))

    def decide(
        self, failure: Failure, *, made: int, charged: int, throttles: int, budget_left: int, jitter: float
    ) -> Again | None:
        """Return when a record is tried again, or None if it is given up.

        Args:
            failure: Why the last attempt failed.
            made: Attempts made since the record was sent; more than one when the supervisor retried crashes.
            charged: Attempts that counted before.
            throttles: How often it was throttled before.
            budget_left: Retries of transient failures that are left for all.
            jitter: A random number from 0 to 1: waits are spread over half to all of their length.
        """
        if failure.kind == "throttled":
            throttles += 1
            charged += made - 1  # the one that was throttled is free
            if throttles > MOST_THROTTLES:
                return None
            pause = failure.retry_after
            if pause is None:
                pause = min(LAST_BACKOFF, FIRST_PAUSE * 2 ** (throttles - 1))
            # All that were throttled come back one after the other, not in one moment.
            return Again(pause + jitter * max(0.1, pause / 10), charged, throttles, pause=pause)
        if failure.kind not in ("transient", "timeout"):
            return None  # permanent, invalid, poison; a crash has been retried by the supervisor
        charged += made
        if charged >= self.attempts or budget_left <= 0:
            return None
        backoff = min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** (charged - 1)) * (0.5 + jitter / 2)
        return Again(max(backoff, failure.retry_after or 0.0), charged, throttles, spends=True)

    def wait(self, charged: int, throttles: int) -> Again:
        """Return that a record is left to the next run: what it needs is used up, whatever its attempts."""
        return Again(0.0, charged, throttles)
