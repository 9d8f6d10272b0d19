"""The quotas of the local model server: sliding windows that it keeps, and counts, by itself."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

DAY = 86_400.0


@dataclass(frozen=True)
class Quota:
    """At most `amount` of `metric` (`requests` or `tokens`) in any `per` seconds; from a day on it is a daily one."""

    metric: str
    amount: float
    per: float

    def __post_init__(self) -> None:
        if self.metric not in ("requests", "tokens"):
            raise ValueError(f"metric must be 'requests' or 'tokens', not {self.metric!r}")
        if self.amount < 0 or self.per <= 0:
            raise ValueError("amount must not be negative, and per must be positive")

    @property
    def is_daily(self) -> bool:
        return self.per >= DAY


class Window:
    """Counts two things in a sliding window: what was admitted (which is bounded), and all that arrived."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.refused = 0
        self._admitted = _Sum(quota.per)
        self._arrived = _Sum(quota.per)

    def arrive(self, now: float, amount: float) -> None:
        """Count an arrival, admitted or not."""
        self._arrived.add(now, amount)

    def wait(self, now: float, amount: float) -> float:
        """Return for how many seconds there is no room for `amount`; 0 if there is now."""
        return self._admitted.until_below(now, self.quota.amount - amount)

    def admit(self, now: float, amount: float) -> None:
        """Take room that there is."""
        self._admitted.add(now, amount)

    def describe(self) -> dict[str, Any]:
        """Return the figures as JSON; `peak` is the most that arrived in any window, refused or not."""
        return {
            **asdict(self.quota),
            "peak": self._arrived.peak,
            "arrived": self._arrived.whole,
            "peak_admitted": self._admitted.peak,
            "admitted": self._admitted.whole,
            "refused": self.refused,
        }


class _Sum:
    """The sum of what was added in the last `seconds`, and the largest that it ever was."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        self.peak = 0.0
        self.whole = 0.0

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0][0] <= now - self._seconds:
            self._sum -= self._entries.popleft()[1]
        if not self._entries:
            self._sum = 0.0  # what rounding has left

    def add(self, now: float, amount: float) -> None:
        self._forget(now)
        self._entries.append((now, amount))
        self._sum += amount
        self.whole += amount
        self.peak = max(self.peak, self._sum)

    def until_below(self, now: float, room: float) -> float:
        self._forget(now)
        excess = self._sum - room
        if excess <= 1e-9:
            return 0.0
        for at, amount in self._entries:
            excess -= amount
            if excess <= 1e-9:
                return at + self._seconds - now
        return self._seconds  # more than a whole window holds: never
