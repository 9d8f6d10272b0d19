"""Exact accounting: where every record is, moved only by what is committed; pure, the caller has the clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

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
