"""One request on its way through the lines of the limits it names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator._grant import Grant, Place

if TYPE_CHECKING:
    import asyncio

    from orchestrator._gate import Gate
    from orchestrator._limits import Limits
    from orchestrator.exceptions import ConfigurationError


class TooLate(Exception):
    """A request would be granted after its deadline, or that has passed.

    Args:
        retry_after: Seconds until it could be granted at the earliest, as far as is known.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"could be granted in {retry_after:.3g} s at the earliest")
        self.retry_after = retry_after


Granted = Callable[[Grant], None]
Refused = Callable[["TooLate | ConfigurationError"], None]


class Ticket:
    """One request that waits for its limits, one after the other.

    What it took of one it holds while it waits for the next: nobody begins with a part, and a cancel gives all back.

    Attributes:
        since: When it was made.
        deadline: When it is of no use any more.
        outer: The permit inside which it was asked for.
    """

    __slots__ = (
        "_again",
        "_at",
        "_begins_later",
        "_done",
        "_granted",
        "_limits",
        "_place",
        "_refused",
        "_taken",
        "_timer",
        "_urgent",
        "_wanted",
        "deadline",
        "outer",
        "since",
    )

    def __init__(
        self,
        limits: Limits,
        wanted: dict[Gate, float],
        granted: Granted,
        refused: Refused,
        *,
        begins_later: bool,
        place: Place | None,
        urgent: bool,
    ) -> None:
        self.since = limits.now()
        self.deadline = math.inf
        self.outer: Grant | None = None
        self._limits = limits
        self._wanted = wanted
        self._granted = granted
        self._refused = refused
        self._begins_later = begins_later
        self._place = place
        self._urgent = urgent
        self._taken: dict[Gate, None] = {}
        self._again: set[Gate] = set()  # whose units it had to give back
        self._at: Gate | None = None  # in whose line it stands
        self._timer: asyncio.TimerHandle | None = None
        self._done = False

    def cancel(self) -> None:
        """Leave the line and give back what was taken; nothing after the grant: its holder releases it."""
        if self._done:
            return
        self._end()
        at, self._at = self._at, None
        if at is not None:
            at.leave(self)
        for gate in self._taken:
            gate.give_back(self)
        if self._place is not None:
            self._place.leave()

    def refuse(self, problem: TooLate | ConfigurationError) -> None:
        """Cancel it, and say why."""
        if not self._done:
            self.cancel()
            self._refused(problem)

    def expire_at(self, deadline: float) -> None:
        """Refuse it at that time, and before, when it becomes known that it can't be granted by then."""
        self.deadline = deadline
        if not self._done:
            self._limits.timed.add(self)
            self._timer = self._limits.loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        try:
            self.refuse(TooLate(self._limits.earliest_of(self._wanted, 0.0)))
        except Exception as error:
            self._limits.failed(error)

    def _end(self) -> None:
        self._done = True
        self._limits.timed.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def proceed(self, *, clear: bool = True) -> None:
        """Go into the line of the next limit, or be granted when there is none left.

        Args:
            clear: An urgent one has others give way. Not when it gave way itself: they would take turns for ever.
        """
        if self._done or self._at is not None:
            return  # cancelled by a neighbour's callback, or it waits
        for gate in self._wanted:
            if gate not in self._taken:
                self._at = gate
                gate.enter(self, urgent=self._urgent or gate in self._again)
                if clear and self._urgent and self._at is gate:
                    gate.clear_way(self)
                return
        for gate in self._wanted:
            # Its units were taken before the pause, but nobody has used them yet.
            if gate.is_paused():
                self.restart()
                return
        self._end()
        for gate in self._wanted:
            gate.granted(self)
        place = self._place
        cap = self._limits.cap
        if cap is not None and cap in self._wanted:
            del self._wanted[cap]
            place = Place(cap)
        grant = Grant(self._limits, list(self._wanted.items()), place)
        grant.has_share = self.has_share
        if not self._begins_later:
            grant.began()
        try:
            self._granted(grant)
        except Exception as error:
            # Whoever asked is at fault; the limits, and those who wait behind, must not suffer.
            grant.release()
            self._limits.failed(error)

    def share(self, place: Place) -> None:
        """Have a part of a place that somebody holds, and need none of its own any more."""
        cap = self._limits.cap
        if self._done or cap is None or cap not in self._wanted:
            return
        self._place = place.share()
        if self._at is cap:
            self._at = None
            cap.leave(self)
        del self._wanted[cap]
        self.proceed()

    @property
    def is_over(self) -> bool:
        """Whether it was granted, refused or cancelled."""
        return self._done

    @property
    def has_share(self) -> bool:
        """Whether it has a share of another's place."""
        return self._place is not None

    @property
    def wants_place(self) -> bool:
        """Whether it still waits for a place of its own."""
        cap = self._limits.cap
        return not self._done and cap in self._wanted and cap not in self._taken

    def paused_for(self, now: float) -> float:
        """Return the seconds for which the other side has asked to be left alone."""
        return max((gate.adaptation.paused_for(now) for gate in self._wanted), default=0.0)

    # What gates ask of those in their line

    def units_at(self, gate: Gate) -> float:
        return self._wanted[gate]

    def took(self, gate: Gate) -> None:
        """Note that the limit it waited for gave its units."""
        self._taken[gate] = None
        self._at = None
        self.proceed()

    def restart(self) -> None:
        """Give back all that it took, to take it again before those who come later."""
        at, self._at = self._at, None
        taken, self._taken = self._taken, {}
        self._again.update(taken)
        if at is not None:
            self._again.add(at)
            at.leave(self)
        for gate in taken:
            gate.give_back(self)
        self.proceed(clear=False)
