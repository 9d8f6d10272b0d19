"""Turn counters into one snapshot of progress and into the line that a log shows: pure, no clock, no output."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# Thirty seconds smooth out jobs of a few seconds and still show within half a minute that an API became slower.
RECENT_WINDOW = 30.0
# More samples would not change a figure that is shown with one decimal.
SAMPLES_PER_WINDOW = 60
# Below a second the rate of a handful of jobs is noise.
SHORTEST_SPAN = 1.0
# One completion says nothing about a rate: with fewer in the window the overall rate is the better guess.
FEWEST_IN_WINDOW = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """How far a run is at one moment.

    Attributes:
        total: Jobs in all, or None while that is unknown.
        successful: Jobs that succeeded.
        failed: Jobs that ended otherwise.
        rate: Jobs finished per second.
        elapsed: Seconds since the start.
        remaining: Seconds the rest will take at this rate, or None when that cannot be said.
    """

    total: int | None
    successful: int
    failed: int
    rate: float
    elapsed: float
    remaining: float | None

    @property
    def done(self) -> int:
        """Jobs that ended, either way."""
        return self.successful + self.failed

    @property
    def fraction(self) -> float | None:
        """Share of the total that is done, from 0 to 1, or None while the total is unknown."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    def line(self) -> str:
        """Return the line for a log.

        Its form is `Progress: 40/320 (12.5%) - 35 successful, 5 failed (rate: 8.2 tasks/sec)`, and without a known
        total `Progress: 40 - 35 successful, …`.
        """
        share = f"{self.done}" if self.fraction is None else f"{self.done}/{self.total} ({self.fraction:.1%})"
        return (
            f"Progress: {share} - {self.successful} successful, {self.failed} failed (rate: {self.rate:.1f} tasks/sec)"
        )


class ProgressMeter:
    """Counts outcomes and knows the rate of the last half minute.

    Args:
        now: The moment of the start, on the clock of all later calls, in seconds.
        total: Jobs in all, if known; may be set later.
        window: Seconds over which the rate is taken.
    """

    def __init__(self, now: float, total: int | None = None, window: float = RECENT_WINDOW) -> None:
        self.total = total
        self.successful = 0
        self.failed = 0
        self._start = now
        self._window = window
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def count(self, succeeded: bool) -> None:
        """Count one outcome."""
        if succeeded:
            self.successful += 1
        else:
            self.failed += 1

    def snapshot(self, now: float, *, final: bool = False) -> ProgressSnapshot:
        """Return where things stand; call it regularly, since the recent rate is taken between calls.

        Args:
            now: The moment, on the clock that gave the start.
            final: The run is over: the rate is that of the whole run.
        """
        done = self.successful + self.failed
        overall = done / (now - self._start) if now > self._start else 0.0
        rate = overall if final else self._recent_rate(now, done, overall)
        remaining: float | None = None
        if self.total is not None:
            left = max(0, self.total - done)
            remaining = left / rate if rate > 0 else (None if left else 0.0)
        return ProgressSnapshot(
            total=self.total,
            successful=self.successful,
            failed=self.failed,
            rate=rate,
            elapsed=max(0.0, now - self._start),
            remaining=remaining,
        )

    def _recent_rate(self, now: float, done: int, overall: float) -> float:
        samples = self._samples
        if now - samples[-1][0] >= self._window / SAMPLES_PER_WINDOW:
            samples.append((now, done))
        # One sample from before the window stays: the rate is taken from there, over at least the whole window.
        while len(samples) > 1 and samples[1][0] <= now - self._window:
            samples.popleft()
        since, before = samples[0]
        if now - since < SHORTEST_SPAN or done - before < FEWEST_IN_WINDOW:
            return overall
        return (done - before) / (now - since)
