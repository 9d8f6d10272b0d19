"""How much of a limit is in force: nothing in a pause, less after refusals, more again with time; pure policy."""

from __future__ import annotations

import math

# Additive increase, multiplicative decrease, as congestion control in networks has it. A twentieth of the rate is
# still some traffic: without any nobody would notice that the other side has recovered.
FLOOR = 0.05
_CUT = 0.7
_STEP = 0.05
# A step up takes a whole window without a refusal, for the other side has not counted the present rate before that.
# In less than a second an answer is hardly back; and twenty steps of more than a minute would take hours.
_SHORTEST_STEP = 1.0
_LONGEST_STEP = 60.0
# After a pause the rate grows for this long, so that those who waited do not all arrive at once.
_SHORTEST_RETURN = 1.0
_LONGEST_RETURN = 5.0
# How often somebody looks while it grows all the time.
_LOOK_AGAIN = 0.05
# Nobody waits longer for another's word; a quota of a day is not for a limit to keep.
_LONGEST_PAUSE = 86_400.0


class Adaptation:
    """One limit's factor.

    Args:
        now: The time.
        per: The longest of its windows.
        ramp_up: Seconds in which it grows at the start.

    Attributes:
        refusals: How often the other side refused.
        paused_until: When the last pause ends.
    """

    def __init__(self, now: float, per: float, ramp_up: float | None = None) -> None:
        self.refusals = 0
        self.paused_until = -math.inf
        self._base = 1.0
        self._since = now  # when the last refusal was over: from here on the steps count
        self._cut_at = -math.inf
        self._start = (now, 0.0 if ramp_up is None else ramp_up)  # a slope: from when, and how long
        self._back = (now, 0.0)
        self._changes_until = now + self._start[1]
        self.change(per)

    def change(self, per: float) -> None:
        """Have another window."""
        self._step = min(max(per, _SHORTEST_STEP), _LONGEST_STEP)
        self._return = min(max(per, _SHORTEST_RETURN), _LONGEST_RETURN)

    def throttled(self, now: float, retry_after: float, began: float) -> bool:
        """Note a refusal of what began at a time; returns whether the factor was cut.

        What began before the last cut tells nothing of the rate since: it does not cut again.
        """
        self.refusals += 1
        self._base = self.factor(now)
        if cut := began > self._cut_at:
            self._base = max(FLOOR, self._base * _CUT)
            self._cut_at = now
        self.paused_until = max(self.paused_until, now + min(retry_after, _LONGEST_PAUSE))
        self._since = self.paused_until
        self._back = (self.paused_until, self._return)
        self._changes_until = max(self._changes_until, self.paused_until + self._return)
        return cut

    def paused_for(self, now: float) -> float:
        """Return the seconds until the pause is over."""
        return max(0.0, self.paused_until - now)

    def factor(self, now: float) -> float:
        """Return the share that refusals have left."""
        if self._base >= 1.0:
            return 1.0
        steps = max(0, math.floor((now - self._since) / self._step))
        return min(1.0, self._base + steps * _STEP)

    def pace(self, now: float) -> float:
        """Return the share at which it may be used now, with what a start or a return takes off."""
        share = self.factor(now)
        if now < self._changes_until:
            share *= min(_slope(now, *self._start), _slope(now, *self._back))
        return max(FLOOR, share)

    def next_change(self, now: float) -> float:
        """Return the seconds until the pace may be another, if nobody refuses."""
        return _LOOK_AGAIN if now < self._changes_until else self._step - max(0.0, now - self._since) % self._step

    def is_steady(self, now: float) -> bool:
        """Return whether all of it is in force, until somebody refuses."""
        if self._base < 1.0 and self.factor(now) >= 1.0:
            self._base = 1.0
        return self._base >= 1.0 and now >= self._changes_until


def _slope(now: float, begin: float, length: float) -> float:
    return min(1.0, max(0.0, now - begin) / length) if length else 1.0
