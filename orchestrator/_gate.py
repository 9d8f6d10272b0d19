"""One bound of a limit: its line, what is held of it, and the pump that waits on behalf of the head of the line."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from aiolimiter import AsyncLimiter

from orchestrator._line import Line
from orchestrator._statistics import LimitStatistics
from orchestrator._window import ROUNDING, Entry, Window, rounded
from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from orchestrator._adaptive import Adaptation
    from orchestrator._units import Bounds

# A limit without `burst` hands out one unit, and what comes in within this many seconds: a timer that wakes late can
# then catch up.
_CATCH_UP = 0.25
# After a quiet time it hands out one unit, and what comes in within this many seconds. A larger crowd would come again
# a window later, and again, each as close to the bound as can be: whoever counts at the far end forgives nothing.
_AT_ONCE = 0.05
# The share of the rate at which units are spread: so the window, which is a little wider than what is promised, seldom
# has to hold anybody up, and a pump that woke late can make up for it.
_SPREAD = 0.98
# Shorter sleeps end at once on clocks with a coarse tick, and the pump would spin.
_SHORTEST_SLEEP = 0.001
# While the pace changes, the bucket gives at most what comes in within this many seconds at a time.
_PIECE = 0.05

Failed = Callable[[Exception], None]


class Request(Protocol):
    """What a gate needs of those in its line.

    Attributes:
        since: When it was made.
    """

    since: float

    def units_at(self, gate: Gate) -> float: ...
    def took(self, gate: Gate) -> None: ...
    def restart(self) -> None: ...
    def refuse(self, problem: Any) -> None: ...


class Gate:
    """One bound.

    A rate is kept twice. A leaky bucket (AsyncLimiter) spreads the units; the pump alone draws from it, for its own
    queue would let light requests pass heavy ones. The window of what was granted lately is what makes the bound
    exact: a bucket alone admits up to its burst more.

    Args:
        bounds: What it keeps.
        adaptation: How much of it is in force.
        failed: Hears of a fault in here.
        leads: It is the limit's own, which keeps the pauses for its dimensions too.
    """

    def __init__(self, bounds: Bounds, adaptation: Adaptation, failed: Failed, *, leads: bool = True) -> None:
        self.bounds = bounds
        self.adaptation = adaptation
        self._failed = failed
        self._leads = leads
        self._loop = asyncio.get_running_loop()
        self._line: Line[Request] = Line()
        self._held = 0.0
        self._granted = 0.0
        self._last_granted = -math.inf
        self._ungranted: dict[Request, None] = {}  # those that took units here and wait elsewhere
        self._window: Window | None = None
        self._capacity = 0.0  # of the bucket
        self._drawn = 0.0  # from the bucket, for the head of the line
        self._credit = 0.0  # drawn, and not used
        self._debt = 0.0  # to be drawn before anything else
        self._speed = 0.0  # units a second that the bucket gives
        self._level = self._level_at = 0.0  # of the bucket, as far as anybody but the bucket knows
        if bounds.rate is not None:
            self._window = Window(bounds.rate, bounds.per)
            self._make_bucket(bounds.rate)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._pump_waits = False
        self._advancing = False
        self._closed = False

    def _make_bucket(self, rate: float) -> None:
        catch_up = min(rate, 1 + _CATCH_UP * rate / self.bounds.per)
        self._capacity = catch_up if self.bounds.burst is None else self.bounds.burst
        self._speed = _SPREAD * rate / self.bounds.per
        self._bucket = AsyncLimiter(self._capacity, self._capacity / self._speed)
        self._level = 0.0

    def _leave_crowds(self) -> None:
        """Forget what came in while nobody waited, but for a little."""
        if self._window is None or self.bounds.burst is not None:
            return
        most = min(self._capacity, 1 + _AT_ONCE * self._speed)
        self._debt = max(self._debt, self._capacity - self._fill() + self._credit - most)

    # Looking

    def statistics(self) -> LimitStatistics:
        """Return a snapshot."""
        now = self._loop.time()
        rate = self.bounds.rate
        first = (next(iter(those), None) for those in (self._line, self._ungranted))
        oldest = min((request.since for request in first if request is not None), default=now)
        return LimitStatistics(
            name=self.bounds.name,
            held=self._held,
            waiting=len(self._line) + len(self._ungranted),
            granted=self._granted,
            rate=None if rate is None else rate * self.adaptation.pace(now),
            factor=self.adaptation.factor(now),
            paused_for=self._paused_for(now),
            throttled=self.adaptation.refusals if self._leads else 0,
            oldest_wait=max(0.0, now - oldest),
        )

    def _paused_for(self, now: float) -> float:
        return self.adaptation.paused_for(now) if self._leads else 0.0

    def is_paused(self) -> bool:
        """Say whether nothing may be granted now."""
        return self._paused_for(self._loop.time()) > 0.0

    def earliest(self, units: float, ahead: float, by: float) -> float:
        """Return the seconds before which a request that came now could not be granted, whoever gives back what.

        Args:
            units: What it would ask for.
            ahead: Units that others will ask for before it.
            by: How far ahead that matters, in seconds.
        """
        now = self._loop.time()
        paused = self._paused_for(now)
        if self._window is None or self.bounds.rate is None:
            return paused
        # With the best that can be hoped for: the pace that is reached by then if nobody refuses.
        pace = self.adaptation.pace(now + by)
        demand = self._line.ahead_of(units) + ahead + units
        level = 0.0 if paused else self._fill() - self._credit
        missing = demand / pace + self._debt - self._drawn - (self._capacity - level)
        return max(paused + max(0.0, missing) / self._speed, self._window.wait(now, demand))

    # Asking

    def enter(self, request: Request, *, urgent: bool = False) -> None:
        """Put a request into the line."""
        if not self._line:
            self._leave_crowds()
        self._line.add(request, request.units_at(self), urgent=urgent)
        if urgent:
            self._reconsider()
        else:
            self._advance()

    def clear_way(self, request: Request) -> None:
        """Have those wait in line again that hold units here while they wait for more elsewhere."""
        for other in [other for other in self._ungranted if other is not request]:
            other.restart()

    def leave(self, request: Request) -> None:
        """Forget a request that was cancelled."""
        head = self._line.head()
        self._line.leave(request)
        if not self._line:
            self._undraw()
        if head is request:
            self._reconsider()

    def give_back(self, request: Request) -> None:
        """Take back what a request took that was never granted."""
        if not self._closed:
            del self._ungranted[request]
            self.forgo(request.units_at(self))

    def forgo(self, units: float) -> None:
        """Take back what was never used."""
        self._held = rounded(self._held - units)
        if self._window is not None:
            self._window.give_back(units)
            self._refund(units)
        self._reconsider()

    def granted(self, request: Request) -> None:
        """Note that a request has all that it wanted."""
        del self._ungranted[request]

    def begin(self, units: float) -> Entry | None:
        """Note that what a request took is used now: from here on the far end counts."""
        self._granted += units
        self._last_granted = now = self._loop.time()
        return None if self._window is None else self._window.begin(now, units)

    def release(self, units: float) -> None:
        """Take back what was held."""
        self._held = rounded(self._held - units)
        self._advance()

    def correct(self, entry: Entry | None, units: float) -> None:
        """Count so many units more than were granted, or fewer if that is negative: so much was really used."""
        if self._window is None or not units:
            return
        if units < 0.0:
            if entry is not None:
                self._window.credit(entry, -units)
            self._refund(-units)
            self._reconsider()
        else:
            # A debt of a window at most: whoever reports nonsense must not stop everybody for ever.
            units = min(units, self._window.rate)
            self._window.add(self._loop.time(), units)
            self._debt = min(self._debt + units / self._pace(), self._window.rate)

    def _refund(self, units: float) -> None:
        if not self.is_paused():  # then everybody begins anew
            self._credit += units / self._pace()

    def _undraw(self) -> None:
        """Keep what was drawn for nobody for those who come."""
        self._credit += self._drawn
        self._drawn = 0.0

    def _fill(self) -> float:
        """Return how full the bucket is; a credit for more than that would come on top of a whole burst."""
        now = self._loop.time()
        self._level = max(0.0, self._level - (now - self._level_at) * self._speed)
        self._level_at = now
        self._credit = min(self._credit, self._level)
        return self._level

    def paused(self) -> None:
        """See to it that nothing comes at once when a pause that has just begun is over."""
        self._drawn = self._credit = 0.0
        self._debt = max(self._debt, self._capacity)  # the bucket will have filled up
        if self._leads:
            for request in tuple(self._ungranted):  # in their order, which they keep
                if request in self._ungranted:
                    request.restart()
        self._reconsider()

    def change(self, bounds: Bounds) -> None:
        """Keep other bounds from now on; who wants more than they ever allow is refused."""
        old, self.bounds = self.bounds, bounds
        now = self._loop.time()
        if bounds.rate is None:
            self._window = None
        elif self._window is None or old.rate is None:
            self._window = Window(bounds.rate, bounds.per)
            self._window.take(sum(request.units_at(self) for request in self._ungranted))
            if now - self._last_granted < 2 * bounds.per:
                self._window.add(self._last_granted, bounds.rate)  # nobody has counted them
        else:
            self._window.change(now, bounds.rate, bounds.per)
        self._drawn = self._credit = 0.0
        if bounds.rate is not None:
            self._make_bucket(bounds.rate)
            self._debt = self._capacity
        most = min(bound for bound in (bounds.rate, bounds.concurrency, math.inf) if bound is not None)
        for request in (*self._line, *self._ungranted):
            if (units := request.units_at(self)) > most:
                problem = f"{units:g} units can never be granted: limit {bounds.name!r} was changed to {most:g}"
                request.refuse(ConfigurationError("permit", problem))
        self._reconsider()

    def close(self) -> Iterable[asyncio.Task[None]]:
        """Stop for good, and return the tasks to wait for."""
        self._closed = True
        self._line.clear()
        self._ungranted.clear()
        for task in self._tasks:
            task.cancel()
        return tuple(self._tasks)

    # The pump

    def _reconsider(self) -> None:
        if self._pump is not None and self._pump_waits:
            # It waits for what an old head needed, or longer than is needed now.
            self._pump.cancel()
            self._pump = None
        self._advance()

    def _advance(self) -> None:
        """Let the head go on, and the next, as long as that takes no waiting; else see that a pump waits for it."""
        # A grant's callback may ask, release or cancel; the loop below sees what that changed. Without this guard a
        # thousand grants that are released at once would be as many frames deep.
        if self._advancing or self._closed:
            return
        self._advancing = True
        try:
            while self._line and self._window is None and self._has_room() and self._blocked_for() <= 0:
                self._take()
        finally:
            self._advancing = False
        if self._line and self._pump is None and self._may_wait():
            self._pump_waits = False
            # Not by the host's task factory: an eager one would run it before it is known here that there is a pump.
            self._pump = asyncio.Task(self._pump_guarded(), loop=self._loop, name=f"limit {self.bounds.name}")
            self._tasks.add(self._pump)
            self._pump.add_done_callback(self._tasks.discard)

    async def _pump_guarded(self) -> None:
        try:
            await self._pump_line()
        except Exception as error:
            self._failed(error)

    async def _pump_line(self) -> None:
        while self._line and self._may_wait():
            if (wait := self._paused_for(self._loop.time())) > 0:
                await self._wait(asyncio.sleep(max(wait, _SHORTEST_SLEEP)))
            elif not self._has_room():
                await self._wait(asyncio.sleep(self.adaptation.next_change(self._loop.time())))
            elif (draw := self._to_draw()) > 0.0:
                # Before the window has room: a heavy request saves up while the last one still counts.
                await self._wait(self._bucket.acquire(draw))
                self._drew(draw)
            elif (wait := self._blocked_for()) > 0:
                await self._wait(asyncio.sleep(max(wait, _SHORTEST_SLEEP)))
            else:
                self._advancing = True  # what the callback changes is seen by this loop
                try:
                    self._take()
                finally:
                    self._advancing = False
        if not self._line:
            self._undraw()
        # Nothing awaits between the loop's last look and here, so nobody can have queued unseen.
        self._pump = None

    async def _wait(self, event: Coroutine[Any, Any, None]) -> None:
        self._pump_waits = True
        await event
        self._pump_waits = False

    def _head(self) -> Request:
        head = self._line.head()
        assert head is not None
        return head

    def _pace(self) -> float:
        return self.adaptation.pace(self._loop.time())

    def _may_wait(self) -> bool:
        """Return whether time alone may let the head go on: what it needs of the concurrency is there."""
        concurrency = self.bounds.concurrency
        return concurrency is None or self._held + self._head().units_at(self) <= concurrency * (1 + ROUNDING)

    def _has_room(self) -> bool:
        """Return whether the head gets its share of the concurrency now; of a rate it is the rate that is adapted."""
        concurrency = self.bounds.concurrency
        if concurrency is None or not self._may_wait():
            return concurrency is None
        if self._window is not None or self.adaptation.is_steady(self._loop.time()) or not self._held:
            return True
        return self._held + self._head().units_at(self) <= max(1.0, concurrency * self._pace()) * (1 + ROUNDING)

    def _blocked_for(self) -> float:
        """Return the seconds until neither a pause nor the window keeps the head waiting, as far as is known now."""
        now = self._loop.time()
        wait = self._paused_for(now)
        if self._window is None:
            return wait
        units = self._head().units_at(self)
        most = max(units, self._window.rate * self.adaptation.factor(now))
        # What is pending may come back, and a factor grow: looked at again after a window.
        return max(wait, min(self._window.wait(now, units, most), self._window.width))

    def _to_draw(self) -> float:
        """Return what the bucket has to give next: for a debt, or for the head; at most what can be had at once."""
        if self._window is None:
            return 0.0
        if (missing := self._debt) <= self._window.rate * ROUNDING:
            self._debt = 0.0
            missing = self._head().units_at(self) / self._pace() - self._drawn
            if self._credit > 0.0 and missing > 0.0:
                self._fill()
                given = min(self._credit, missing)
                self._credit -= given
                self._drawn += given
                missing -= given
            if missing <= self._window.rate * ROUNDING:
                return 0.0
        # In small pieces while the pace changes, so that what a low pace made dear is not paid when it has risen.
        piece = (
            self._capacity
            if self.adaptation.is_steady(self._loop.time())
            else min(self._capacity, _PIECE * self._speed)
        )
        return min(missing, piece)

    def _drew(self, amount: float) -> None:
        self._level = self._fill() + amount
        if self._debt > 0.0:
            self._debt = rounded(self._debt - amount)
        else:
            self._drawn += amount

    def _take(self) -> None:
        request = self._line.pop()
        units = request.units_at(self)
        self._held += units
        self._ungranted[request] = None
        if self._window is not None:
            self._drawn = max(0.0, self._drawn - units / self._pace())
            self._window.take(units)
        request.took(self)
