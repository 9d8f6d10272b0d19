"""Exact accounting: where every record is, moved only by what is committed; pure, the caller has the clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping  # noqa: TC003  whoever asks for type hints must get them
from dataclasses import dataclass, field
from typing import NamedTuple

# Thirty seconds smooth out records of a few seconds and still show within half a minute that an API became slower.
RATE_WINDOW = 30.0
# More samples would not change a figure that is shown with one decimal.
_SAMPLES = 60
# Below a second the rate of a handful of records is noise.
_SHORTEST_SPAN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a batch is at one moment.

    Attributes:
        total: Records in all; None while nobody knows.
        succeeded: Records with a result, those of earlier runs included.
        failed: Records that are given up, whatever the reason.
        by_class: Failed records by failure class.
        resumed: Of those that are done, how many an earlier run had done.
        cached: How often the shared cache had what was asked for.
        running: Records that a child has.
        waiting: Records that wait for their next attempt.
        queued: Records that were taken from the source and wait for a child.
        rate: Records that this process finished per second, over the last half minute.
        eta: Seconds that the rest takes at this rate; None when that cannot be said.
        pauses: Seconds that limits are paused for, by name.
        elapsed: Seconds since the run began.
    """

    total: int | None = None
    succeeded: int = 0
    failed: int = 0
    by_class: Mapping[str, int] = field(default_factory=dict)
    resumed: int = 0
    cached: int = 0
    running: int = 0
    waiting: int = 0
    queued: int = 0
    rate: float = 0.0
    eta: float | None = None
    pauses: Mapping[str, float] = field(default_factory=dict)
    elapsed: float = 0.0


class Tally(NamedTuple):
    """What attempts at one record came to.

    Attributes:
        attempts: How many were made.
        usage: What they used, by name.
        failure: The failure class; None when the record succeeded.
        inline: Whether the last of them ran in this process.
    """

    attempts: int
    usage: Mapping[str, float] | None = None
    failure: str | None = None
    inline: bool = False


class Unbalanced(AssertionError):
    """Raised when the accounts do not add up: an error of this program, never of its input."""


class Accounts:
    """The state of all records as numbers.

    A record is queued when it was taken from the source, running when it was handed to the supervisor, waiting when a
    failed attempt is committed and another one is due, and done when its end is committed.

    Args:
        now: The moment of the start, on the clock of all later calls, in seconds.
        slots: Attempts that can run at once; what was handed over beyond that is shown as queued.
    """

    def __init__(self, now: float, slots: int = 1) -> None:
        self.total: int | None = None
        self.taken = 0
        self.queued = 0
        self.sent = 0
        self.waiting = 0
        self.succeeded = 0
        self.resumed = 0
        self.attempts = 0
        self.retries = 0
        self.in_children = 0
        self.in_process = 0
        self.by_class: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self._slots = slots
        self._start = now
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    @property
    def failed(self) -> int:
        """Records that are given up."""
        return self.by_class.total()

    @property
    def done(self) -> int:
        """Records that are done, either way."""
        return self.succeeded + self.failed

    @property
    def open(self) -> int:
        """Records that were taken and are not done."""
        return self.queued + self.sent + self.waiting

    def count(self, total: int | None) -> None:
        """Note how many records there are, when somebody knows."""
        self.total = total

    # Moves of one record

    def take(self) -> None:
        """A record was taken from the source."""
        self.taken += 1
        self.queued += 1

    def send(self, *, again: bool) -> None:
        """A record was handed to the supervisor, after it was taken or after it waited."""
        if again:
            self.waiting -= 1
        else:
            self.queued -= 1
        self.sent += 1

    def put_back(self) -> None:
        """A record was handed over and came back untried: a run that stops leaves it to the next."""
        self.sent -= 1
        self.queued += 1

    def resume(self, end: Tally) -> None:
        """A record was taken from the source that an earlier run has done."""
        self.taken += 1
        self.resumed += 1
        self._end(end)

    def begun_before(self, spent: Tally) -> None:
        """A record was taken that an earlier run has tried, not done; `spent` is what that cost."""
        self._spend(spent)

    def retry(self, spent: Tally) -> None:
        """A failed attempt is committed, and another one will be made."""
        self.sent -= 1
        self.waiting += 1
        self._spend(spent)

    def settle(self, spent: Tally, *, sent: bool) -> None:
        """The end of a record is committed; a bad row was never sent."""
        if sent:
            self.sent -= 1
        else:
            self.queued -= 1
        self._end(spent)

    def settle_known(self, end: Tally) -> None:
        """A record was taken that an earlier run has done at another place; that it keeps its result is committed."""
        self.queued -= 1
        self.resumed += 1
        self._end(end)

    def _end(self, end: Tally) -> None:
        if end.failure is None:
            self.succeeded += 1
        else:
            self.by_class[end.failure] += 1
        if end.attempts:
            self.retries -= 1
            if end.inline:
                self.in_process += 1
            else:
                self.in_children += 1
        self._spend(end)

    def _spend(self, spent: Tally) -> None:
        self.attempts += spent.attempts
        self.retries += spent.attempts
        if spent.usage:
            for name, number in spent.usage.items():
                self.usage[name] += number  # type: ignore[assignment]  # a Counter of numbers that need not be whole

    # The whole

    def check(self) -> None:
        """Hold that every record is in exactly one state.

        Raises:
            Unbalanced: If not.
        """
        if (
            self.taken != self.queued + self.sent + self.waiting + self.done
            or min(self.queued, self.sent, self.waiting) < 0
        ):
            raise Unbalanced(
                f"{self.taken} records were taken, but {self.queued} are queued, {self.sent} running, "
                f"{self.waiting} waiting, {self.succeeded} succeeded and {self.failed} failed"
            )

    def pending(self) -> int | None:
        """Return how many records are left to do; None while nobody knows how many there are."""
        return None if self.total is None else max(0, max(self.total, self.taken) - self.done)

    def rate(self, now: float) -> float:
        """Return the records that this process finished per second, lately; call it regularly."""
        done = self.done - self.resumed
        samples = self._samples
        if now - samples[-1][0] >= RATE_WINDOW / _SAMPLES:
            samples.append((now, done))
        # One sample from before the window stays: the rate is taken from there, over at least the whole window.
        while len(samples) > 1 and samples[1][0] <= now - RATE_WINDOW:
            samples.popleft()
        since, before = samples[0]
        span = now - since
        if span < _SHORTEST_SPAN:
            return self.overall_rate(now)
        return (done - before) / span

    def overall_rate(self, now: float) -> float:
        """Return the records that this process finished per second since it began."""
        return (self.done - self.resumed) / (now - self._start) if now > self._start else 0.0

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start."""
        return max(0.0, now - self._start)

    def snapshot(self, now: float, *, pauses: Mapping[str, float] | None = None, cached: int = 0) -> Snapshot:
        """Return where things stand."""
        rate = self.rate(now)
        left = self.pending()
        running = min(self.sent, self._slots)
        return Snapshot(
            total=None if self.total is None else max(self.total, self.taken),
            succeeded=self.succeeded,
            failed=self.failed,
            by_class=dict(self.by_class),
            resumed=self.resumed,
            cached=cached,
            running=running,
            waiting=self.waiting,
            queued=self.queued + self.sent - running,
            rate=rate,
            eta=None if left is None else 0.0 if not left else left / rate if rate > 0 else None,
            pauses=pauses or {},
            elapsed=self.elapsed(now),
        )
