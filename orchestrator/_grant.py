"""What was granted: units of one or several limits, and a place among all permits, held until they are given back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator._gate import Gate
    from orchestrator._limits import Limits
    from orchestrator._window import Entry


class Place:
    """One of the permits that there may be at the same time; permits that are asked for inside others share theirs."""

    __slots__ = ("_gate", "_sharers")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._sharers = 1

    def share(self) -> Place:
        """Have one more on it."""
        self._sharers += 1
        return self

    def leave(self) -> None:
        """Have one less; the last one gives it back."""
        self._sharers -= 1
        if not self._sharers:
            self._gate.release(1)


class Grant:
    """Units of one or several limits, held until they are released.

    Attributes:
        limit: The limit that a running job named.
        place: What it holds of all permits, if they are counted.
        has_share: Another's place, in fact: that of `outer`, inside which it was asked for.
        lent: A permit that was asked for inside this one shares its place.
    """

    __slots__ = ("_began_at", "_entries", "_held", "_limits", "has_share", "lent", "limit", "outer", "place")

    def __init__(self, limits: Limits, held: list[tuple[Gate, float]], place: Place | None) -> None:
        self._limits = limits
        self._held = held
        self._entries: list[Entry | None] = []
        self._began_at = math.inf
        self.limit = ""
        self.place = place
        self.outer: Grant | None = None
        self.has_share = self.lent = False

    @property
    def is_of_limits(self) -> bool:
        """Whether it holds more than a place."""
        return bool(self._held)

    def began(self) -> None:
        """Note that what was asked for begins now: from here on the far end counts. Once more does nothing."""
        if self._began_at == math.inf:
            self._began_at = self._limits.now()
            self._entries = [gate.begin(units) for gate, units in self._held]

    def release(self, used: Mapping[str, float] | None = None) -> None:
        """Give the units back; once more does nothing.

        Args:
            used: What was really used of dimensions, by the name of their gates.
        """
        if self._held:
            self.began()  # whoever died before he said so may have begun
        if used:
            self._correct(used)
        held, self._held = self._held, []
        for gate, units in held:
            gate.release(units)
        self.leave_place()

    def leave_place(self) -> None:
        """Give back what it holds of all permits, but keep its units."""
        place, self.place = self.place, None
        if place is not None:
            place.leave()

    def forgo(self) -> None:
        """Give everything back that was never used."""
        if self._began_at != math.inf:
            self.release()
            return
        held, self._held = self._held, []
        for gate, units in held:
            gate.forgo(units)
        self.leave_place()

    def throttled(self, retry_after: float, used: Mapping[str, float] | None = None) -> None:
        """Give the units back, pause their limits for everybody for `retry_after` seconds, and slow them down."""
        if self._held:
            self.began()
            self._limits.throttled({gate.bounds.limit for gate, _ in self._held}, retry_after, self._began_at)
        self.release(used)

    def _correct(self, used: Mapping[str, float]) -> None:
        left = dict(used)
        for (gate, units), entry in zip(self._held, self._entries, strict=True):
            if gate.bounds.name in left:
                gate.correct(entry, left.pop(gate.bounds.name) - units)
        for name, units in left.items():  # of a dimension that was not estimated
            self._limits.charge(name, units)
