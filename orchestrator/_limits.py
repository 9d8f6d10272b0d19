"""Grant units of named limits, first come, first served, for all children together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from orchestrator._adaptive import Adaptation
from orchestrator._gate import Gate
from orchestrator._ticket import Granted, Refused, Ticket, TooLate
from orchestrator._units import Bounds, Catalogue, bounds_of

if TYPE_CHECKING:
    from orchestrator._grant import Place
    from orchestrator._models import Limit
    from orchestrator._statistics import LimitStatistics

# At most one line of each kind in this many seconds for each limit, however the other side storms.
_SAY_EVERY = 10.0
# Clocks and rounding make a wait of exactly the time that is left look a little longer.
_TOLERANCE = 1e-3

Failed = Callable[[Exception], None]
Tell = Callable[..., None]


class _Kept:
    """One limit: its gates, and what they have in common."""

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.adaptation = Adaptation(now, _longest(bounds_of(limit)), cast("float | None", limit.ramp_up))
        self.gates: list[Gate] = []
        self.said: dict[str, float] = {}  # when an event was logged
        self.timer: asyncio.TimerHandle | None = None


class Limits:
    """The limits of one supervisor; made, used and closed on its loop.

    Args:
        limits: Limits with distinct names.
        failed: Hears of what a callback raises, or the limits themselves in the midst of their work.
        max_permits: So many grants may be held at the same time, of whichever limits.
        tell: Logs an event.

    Attributes:
        counts_jobs: A running job that asks for no permit counts as one.
        timed: Tickets with a deadline.

    Raises:
        ConfigurationError: When two limits have the same name.
    """

    def __init__(
        self,
        limits: Iterable[Limit],
        failed: Failed | None = None,
        *,
        max_permits: int | None = None,
        tell: Tell = lambda *_, **__: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.failed = _tell_loop if failed is None else failed
        self.max_permits = max_permits
        self.counts_jobs = False
        self.timed: set[Ticket] = set()
        self._tell = tell
        known = tuple(limits)
        self._catalogue = Catalogue(known)
        self._gates: dict[str, Gate] = {}
        self._kept = {limit.name: _Kept(limit, self.now()) for limit in known}
        for kept in self._kept.values():
            for bounds in bounds_of(kept.limit):
                gate = Gate(bounds, kept.adaptation, self.failed, leads=bounds.name == bounds.limit)
                kept.gates.append(gate)
                self._gates[bounds.name] = gate
        self.cap: Gate | None = None
        if max_permits is not None:
            bounds = Bounds("max_permits", "", concurrency=max_permits)
            self.cap = Gate(bounds, Adaptation(self.now(), 1.0, None), self.failed)

    # Asking

    def check(self, units: Mapping[str, Any], where: str) -> dict[str, float]:
        """Return what a request takes of each gate, or refuse one that can never be granted.

        Raises:
            ConfigurationError: Naming `{where}.{limit}`, when there is no such limit or it can't give that much.
        """
        return self._catalogue.expand(units, where)

    def dimensions(self, name: str) -> list[str]:
        """Return the names of a limit's dimensions."""
        return self._catalogue.dimensions(name)

    def request(
        self,
        units: Mapping[str, float],
        granted: Granted,
        *,
        refused: Refused = lambda _: None,
        begins_later: bool = False,
        counted: bool = True,
        place: Place | None = None,
        urgent: bool = False,
        timeout: float | None = None,
    ) -> Ticket:
        """Ask for units of checked limits; `granted` is called on the loop, maybe at once, when all gave theirs.

        Args:
            units: What `check` returned.
            granted: Gets the grant.
            refused: Hears that the deadline can't be kept, or that a changed limit can never give so much.
            begins_later: The holder calls `Grant.began` when it begins; until then its units count as if they began
                at every moment, so that no start that is delayed makes a window too full.
            counted: It is one of the permits that there may be at the same time.
            place: The part of such a permit's place that it has already.
            urgent: Before all others, for the one who asks holds what those may wait for.
            timeout: Seconds after which the grant is of no use.
        """
        # Everybody takes limits in the same order, so no two requests hold what the other waits for. The place among
        # all permits comes last: who waits for one limit must not keep others from using theirs.
        wanted = {self._gates[name]: units[name] for name in sorted(units)}
        if counted and place is None and self.cap is not None:
            wanted[self.cap] = 1
        ticket = Ticket(self, wanted, granted, refused, begins_later=begins_later, place=place, urgent=urgent)
        if timeout is not None:
            earliest = self.earliest_of(wanted, timeout)
            if earliest > timeout + _TOLERANCE:
                ticket.refuse(TooLate(earliest))
                return ticket
        ticket.proceed()
        if timeout is not None:
            ticket.expire_at(ticket.since + timeout)
        return ticket

    def earliest_of(self, wanted: Mapping[Gate, float], by: float, ahead: Mapping[str, float] | None = None) -> float:
        """Return the seconds before which a request that came now could not be granted, as far as is known."""
        ahead = ahead or {}
        found = (gate.earliest(units, ahead.get(gate.bounds.name, 0.0), by) for gate, units in wanted.items())
        return max(found, default=0.0)

    def too_late(self, units: Mapping[str, float], timeout: float, ahead: Mapping[str, float]) -> TooLate | None:
        """Return what is wrong with a request for checked units before which others will ask for some, if anything."""
        wanted = {self._gates[name]: count for name, count in units.items()}
        earliest = self.earliest_of(wanted, timeout, ahead)
        return TooLate(earliest) if earliest > timeout + _TOLERANCE else None

    # Hearing

    def throttled(self, names: Iterable[str], retry_after: float, began: float) -> None:
        """Pause limits, for the other side refused what began at a time."""
        now = self.now()
        for name in names:
            kept = self._kept[name]
            cut = kept.adaptation.throttled(now, retry_after, began)
            for gate in kept.gates:
                gate.paused()
            self._log("limit.paused", "warning", kept, seconds=round(kept.adaptation.paused_for(now), 3))
            if cut:
                self._say_rate(kept)
                self._look_again(kept)
        for ticket in tuple(self.timed):
            paused = ticket.paused_for(now)
            if now + paused > ticket.deadline + _TOLERANCE:
                ticket.refuse(TooLate(paused))

    def charge(self, name: str, units: float) -> None:
        """Count units of a dimension that were used without having been asked for."""
        gate = self._gates.get(name)
        if gate is not None and units > 0:
            gate.correct(None, units)

    def change(self, limit: Limit) -> None:
        """Have other bounds for a limit from now on.

        Raises:
            ConfigurationError: If there is no such limit, or it has other dimensions.
        """
        self._catalogue.change(limit)
        kept = self._kept[limit.name]
        kept.limit = limit
        bounds = bounds_of(limit)
        kept.adaptation.change(_longest(bounds))
        for new in bounds:
            self._gates[new.name].change(new)

    # Telling

    def _look_again(self, kept: _Kept) -> None:
        """See to it that somebody says when the rate has grown again, though nobody may ask for any."""
        if kept.timer is not None:
            kept.timer.cancel()
        wait = kept.adaptation.next_change(self.now()) + kept.adaptation.paused_for(self.now())
        kept.timer = self.loop.call_later(max(wait, _SAY_EVERY), self._tell_growth, kept)

    def _tell_growth(self, kept: _Kept) -> None:
        kept.timer = None
        try:
            if kept.adaptation.factor(self.now()) >= 1.0:
                kept.said.pop("limit.rate_changed", None)  # that it is over is said in any case
            self._say_rate(kept)
        except Exception as error:
            self.failed(error)
        if kept.adaptation.factor(self.now()) < 1.0:
            self._look_again(kept)

    def _say_rate(self, kept: _Kept) -> None:
        factor = kept.adaptation.factor(self.now())
        rate = kept.limit.rate
        fields = {} if rate is None else {"rate": round(rate * factor, 6), "per": kept.limit.per}
        self._log("limit.rate_changed", "info", kept, factor=round(factor, 3), **fields)

    def _log(self, event: str, level: str, kept: _Kept, **fields: Any) -> None:
        now = self.now()
        if now - kept.said.get(event, -math.inf) >= _SAY_EVERY:
            kept.said[event] = now
            refusals = kept.adaptation.refusals
            self._tell(event, level, limit=kept.limit.name, throttled=refusals, **fields)

    def statistics(self) -> tuple[LimitStatistics, ...]:
        """Return one snapshot of each limit, and of its dimensions."""
        return tuple(gate.statistics() for gate in self._gates.values())

    async def aclose(self) -> None:
        """Stop granting; requests that wait are never granted, and no task or timer remains."""
        for ticket in tuple(self.timed):
            ticket.cancel()
        for kept in self._kept.values():
            if kept.timer is not None:
                kept.timer.cancel()
        gates = [*self._gates.values(), *([] if self.cap is None else [self.cap])]
        tasks = [task for gate in gates for task in gate.close()]
        await asyncio.gather(*tasks, return_exceptions=True)


def _longest(bounds: Iterable[Bounds]) -> float:
    return max((each.per for each in bounds if each.rate is not None), default=1.0)


def _tell_loop(error: Exception) -> None:
    context = {"message": "A callback of a granted limit failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
