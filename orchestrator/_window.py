"""How many units were granted within the last window, exactly: what makes a rate a promise."""

from __future__ import annotations

import math
from collections import deque

# Whoever counts at the far end sees a late request and a punctual one closer together than they were granted. Two per
# cent of the window leave room for that.
_WIDER = 1.02
# Grants this close together share an entry, so that the list stays short whatever the rate.
_GRAIN = 1 / 1024
# Sums of fractions (ten times 0.1) may miss a bound by rounding.
ROUNDING = 1e-9


class Entry:
    """Units granted so close together that they expire as one."""

    __slots__ = ("first", "last", "units")

    def __init__(self, now: float, units: float) -> None:
        self.first = self.last = now
        self.units = units


class Window:
    """Units count from when they are taken until a window after their holder began.

    So those who wait for a second limit, or for a child that first imports a module, can't start in one crowd.

    Attributes:
        pending: Units taken by requests that have not begun.
    """

    def __init__(self, rate: float, per: float) -> None:
        self.rate = rate
        self.per = per
        self.pending = 0.0
        self._entries: deque[Entry] = deque()
        self._logged = 0.0
        self._forgotten = -math.inf  # when the latest of what has expired was granted

    @property
    def width(self) -> float:
        """Seconds after which what was granted counts no more."""
        return self.per * _WIDER

    def take(self, units: float) -> None:
        """Count units from now on, until their holder begins and for a window more."""
        self.pending += units

    def give_back(self, units: float) -> None:
        """Take back units whose holder will never begin."""
        self.pending = rounded(self.pending - units)

    def begin(self, now: float, units: float) -> Entry:
        """Note that who took the units begins now; returns where they are counted."""
        self.give_back(units)
        return self.add(now, units)

    def add(self, now: float, units: float) -> Entry:
        """Count units that the far end sees now."""
        self._logged += units
        entries = self._entries
        if entries and now - entries[-1].first <= self.per * _GRAIN:
            entries[-1].last = now
            entries[-1].units += units
        else:
            entries.append(Entry(now, units))
        return entries[-1]

    def credit(self, entry: Entry, units: float) -> None:
        """Count fewer: they were not used; nothing when they have expired meanwhile."""
        units = min(units, entry.units)
        entry.units -= units
        if self._entries and entry.first >= self._entries[0].first:
            self._logged = rounded(self._logged - units)

    def wait(self, now: float, units: float, most: float | None = None) -> float:
        """Return the seconds until so many units more fit, if those that are pending begin at once.

        Args:
            now: The time.
            units: How many.
            most: Units that may start in a window; the rate unless given.
        """
        wide = self.width
        while self._entries and self._entries[0].last + wide <= now:
            entry = self._entries.popleft()
            self._logged -= entry.units
            self._forgotten = entry.last
        if not self._entries:
            self._logged = 0.0  # rounding errors end here
        bound = self.rate if most is None else most
        excess = self._logged + self.pending + units - bound * (1 + ROUNDING)
        until = now
        for entry in self._entries:
            if excess <= 0:
                break
            excess -= entry.units
            until = entry.last + wide
        if excess > 0:
            # What is pending comes back by a cancel, or expires a window after its grant; then come whole windows.
            until = max(until, now + wide * math.ceil(excess / bound))
        return until - now

    def change(self, now: float, rate: float, per: float) -> None:
        """Have other bounds from now on; what was granted before counts as far as it is within the new window."""
        if per > self.per and self._forgotten + per * _WIDER > now:
            # Nobody knows how much it was: as much as the old rate allowed, as late as can be.
            units = min(rate, self.rate * math.ceil(per / self.per))
            self._entries.appendleft(Entry(self._forgotten, units))
            self._logged += units
        self.rate, self.per = rate, per


def rounded(value: float) -> float:
    """Return 0 for what rounding has left of it."""
    return value if value > ROUNDING else 0.0
