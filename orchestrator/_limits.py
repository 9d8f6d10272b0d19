"""Grant units of named limits, first come, first served, for all children together."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from aiolimiter import AsyncLimiter

from orchestrator._statistics import LimitStatistics
from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from orchestrator._models import Limit

# Whoever counts at the far end sees a late request and a punctual one closer together than they were granted. Two per
# cent of the window leave room for that and still use 98 % of the rate.
_WINDOW = 1.02
# Grants this close together share an entry of the log, so that it stays short whatever the rate.
_GRAIN = 1 / 1024
# A limit without `burst` hands out one unit, and what comes in within this many seconds: a timer that wakes late can
# then catch up.
_CATCH_UP = 0.25
# Sums of fractions (ten times 0.1) may miss a bound by rounding.
_ROUNDING = 1e-9
# Shorter sleeps end at once on clocks with a coarse tick, and the pump would spin.
_SHORTEST_SLEEP = 0.001

Granted = Callable[["Grant"], None]
Failed = Callable[[Exception], None]


class Grant:
    """Units of one or several limits, held until they are released."""

    __slots__ = ("_begun", "_held")

    def __init__(self, held: list[tuple[_Gate, float]]) -> None:
        self._held = held
        self._begun = False

    def began(self) -> None:
        """Note that what was asked for begins now: from here on the far end counts. Once more does nothing."""
        if not self._begun:
            self._begun = True
            for gate, units in self._held:
                gate.stamp(units)

    def release(self) -> None:
        """Give the units back; once more does nothing."""
        if self._held:
            self.began()  # whoever died before he said so may have begun
        held, self._held = self._held, []
        for gate, units in held:
            gate.release(units)

    def throttled(self, retry_after: float) -> None:
        """Give the units back and pause their limits for everybody for `retry_after` seconds."""
        for gate, _ in self._held:
            gate.pause(retry_after)
        self.release()


class Ticket:
    """One request that waits for its limits, one after the other in the order of their names."""

    __slots__ = ("_begins_later", "_done", "_failed", "_granted", "_taken", "_wanted")

    def __init__(
        self, wanted: list[tuple[_Gate, float]], granted: Granted, failed: Failed, *, begins_later: bool
    ) -> None:
        self._failed = failed
        self._wanted = wanted
        self._begins_later = begins_later
        self._taken = 0  # how many of the limits have given their units
        self._granted = granted
        self._done = False

    @property
    def units(self) -> float:
        """What the limit the ticket waits for shall give."""
        return self._wanted[self._taken][1]

    def cancel(self) -> None:
        """Leave the queue and give back what was taken; nothing after the grant: its holder releases it."""
        if self._done:
            return
        self._done = True
        for number, (gate, units) in enumerate(self._wanted):
            gate.leave(self)
            if number < self._taken:
                gate.give_back(units)

    def proceed(self) -> None:
        """Queue at the next limit, or be granted when there is none left."""
        if self._done:
            return  # cancelled by a neighbour's callback
        if self._taken < len(self._wanted):
            self._wanted[self._taken][0].enter(self)
            return
        for gate, _ in self._wanted:
            # Its units were taken before the pause, but nobody has used them yet.
            if gate.paused():
                gate.park(self)
                return
        self._done = True
        grant = Grant(self._wanted)
        if not self._begins_later:
            grant.began()
        try:
            self._granted(grant)
        except Exception as error:
            # Whoever asked is at fault; the limits, and those who wait behind, must not suffer.
            grant.release()
            self._failed(error)

    def took(self) -> None:
        """Note that the limit the ticket waited for gave its units."""
        self._taken += 1
        self.proceed()


class Limits:
    """The limits of one supervisor; made, used and closed on its loop.

    Args:
        limits: Limits with distinct names.
        failed: Hears of what a callback raises, or the limits themselves in the midst of their work.

    Raises:
        ConfigurationError: When two limits have the same name.
    """

    def __init__(self, limits: Iterable[Limit], failed: Failed | None = None) -> None:
        self._failed = _tell_loop if failed is None else failed
        self._gates: dict[str, _Gate] = {}
        for limit in limits:
            if limit.name in self._gates:
                raise ConfigurationError("limits", f"has two limits named {limit.name!r}")
            self._gates[limit.name] = _Gate(limit, self._failed)

    def check(self, units: Mapping[str, float], where: str) -> None:
        """Refuse a request that can never be granted.

        Raises:
            ConfigurationError: Naming `{where}.{limit}`, when there is no such limit or it can't give that much.
        """
        for name, count in units.items():
            field = f"{where}.{name}"
            if name not in self._gates:
                known = f"known are {', '.join(sorted(self._gates))}" if self._gates else "the supervisor has no limits"
                raise ConfigurationError(field, f"there is no limit {name!r}; {known}")
            if isinstance(count, bool) or not isinstance(count, int | float) or not 0 < count < math.inf:
                raise ConfigurationError(field, f"must be a number of units greater than 0, not {count!r}")
            self._gates[name].check(count, field)

    def request(self, units: Mapping[str, float], granted: Granted, *, begins_later: bool = False) -> Ticket:
        """Ask for units of checked limits; `granted` is called on the loop, maybe at once, when all gave theirs.

        Args:
            units: Units by limit.
            granted: Gets the grant.
            begins_later: The holder calls `Grant.began` when it begins; until then its units count as if they began
                at every moment, so that no start that is delayed makes a window too full.
        """
        # Everybody takes limits in the same order, so no two requests hold what the other waits for.
        ticket = Ticket(
            [(self._gates[name], units[name]) for name in sorted(units)],
            granted,
            self._failed,
            begins_later=begins_later,
        )
        ticket.proceed()
        return ticket

    def statistics(self) -> tuple[LimitStatistics, ...]:
        """Return one snapshot of each limit."""
        return tuple(gate.statistics() for gate in self._gates.values())

    async def aclose(self) -> None:
        """Stop granting; requests that wait are never granted, and no task or timer remains."""
        tasks = [task for gate in self._gates.values() for task in gate.close()]
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_loop(error: Exception) -> None:
    context = {"message": "A callback of a granted limit failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


class _Gate:
    """One limit: its queue, what is held of it, and the pump that waits on behalf of the queue's head.

    A rate is kept twice. A leaky bucket (AsyncLimiter) spreads the units; the pump alone draws from it, for its own
    queue would let light requests pass heavy ones. A log of what was granted within the last window is what makes the
    bound exact: a bucket alone admits up to its burst more. Units count in the log from when they are taken until a
    window after their holder began, so that those who wait for a second limit, or for a child that first imports a
    module, can't start in one crowd.
    """

    def __init__(self, limit: Limit, failed: Failed) -> None:
        self._limit = limit
        self._failed = failed
        self._rate = limit.rate
        self._per = cast("float", limit.per)
        self._loop = asyncio.get_running_loop()
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self._held = 0.0
        self._granted = 0.0
        self._paused_until = -math.inf
        self._parked: dict[Ticket, None] = {}
        self._unpark: asyncio.TimerHandle | None = None
        self._log: deque[_Entry] = deque()
        self._logged = 0.0  # units in the log
        self._pending = 0.0  # units taken by requests that are not granted yet
        self._capacity = 0.0
        self._drawn = 0.0  # from the bucket, for the queue's head
        if self._rate is not None:
            catch_up = min(self._rate, 1 + _CATCH_UP * self._rate / self._per)
            self._capacity = catch_up if limit.burst is None else limit.burst
            self._bucket = AsyncLimiter(self._capacity, self._capacity * self._per / self._rate)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._pump_waits = False
        self._advancing = False
        self._closed = False

    def check(self, units: float, field: str) -> None:
        """Raise ConfigurationError when that many units could never be granted."""
        limit = self._limit
        for bound, what in ((limit.concurrency, "concurrency"), (limit.burst, "burst"), (limit.rate, "rate")):
            if bound is not None and units > cast("float", bound):
                problem = f"{units:g} units can never be granted: limit {limit.name!r} has {what}={bound:g}"
                raise ConfigurationError(field, problem)

    def statistics(self) -> LimitStatistics:
        waiting = len(self._queue) + len(self._parked)
        return LimitStatistics(name=self._limit.name, held=self._held, waiting=waiting, granted=self._granted)

    def enter(self, ticket: Ticket) -> None:
        """Queue a ticket."""
        self._queue[ticket] = None
        self._advance()

    def leave(self, ticket: Ticket) -> None:
        """Forget a ticket that was cancelled."""
        self._parked.pop(ticket, None)
        head = next(iter(self._queue), None)
        self._queue.pop(ticket, None)
        if not self._queue:
            self._drawn = 0.0
        if head is ticket:
            self._reconsider()

    def give_back(self, units: float) -> None:
        """Take back what a request took that was never granted."""
        self._held = self._rounded(self._held - units)
        if self._rate is not None:
            self._pending = self._rounded(self._pending - units)
        self._reconsider()

    def stamp(self, units: float) -> None:
        """Note that what a request took is now granted: from here on the far end counts."""
        self._granted += units
        if self._rate is None:
            return
        now = self._loop.time()
        self._pending = self._rounded(self._pending - units)
        self._logged += units
        if self._log and now - self._log[-1].first <= self._per * _GRAIN:
            self._log[-1].extend(now, units)
        else:
            self._log.append(_Entry(now, units))

    def release(self, units: float) -> None:
        """Take back what was held."""
        self._held = self._rounded(self._held - units)
        self._advance()

    def pause(self, seconds: float) -> None:
        """Grant nothing for that long."""
        if seconds > 0:
            self._paused_until = max(self._paused_until, self._loop.time() + seconds)

    def paused(self) -> bool:
        """Say whether nothing may be granted now."""
        return self._paused_until > self._loop.time()

    def park(self, ticket: Ticket) -> None:
        """Let a ticket that has its units wait for the end of a pause."""
        if self._closed:
            return
        self._parked[ticket] = None
        if self._unpark is None:
            self._unpark = self._loop.call_at(self._paused_until, self._unpark_guarded)

    def _unpark_guarded(self) -> None:
        try:
            self._unpark_all()
        except Exception as error:
            self._failed(error)

    def _unpark_all(self) -> None:
        self._unpark = None
        tickets = tuple(self._parked)
        self._parked.clear()
        for ticket in tickets:
            ticket.proceed()  # parks again if the pause has become longer

    def close(self) -> Iterable[asyncio.Task[None]]:
        """Stop for good, and return the tasks to wait for."""
        self._closed = True
        self._queue.clear()
        self._parked.clear()
        if self._unpark is not None:
            self._unpark.cancel()
        for task in self._tasks:
            task.cancel()
        return tuple(self._tasks)

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
            while self._queue and self._rate is None and self._has_room() and self._blocked_for() <= 0:
                self._take()
        finally:
            self._advancing = False
        if self._queue and self._pump is None and self._has_room():
            self._pump_waits = False
            # Not by the host's task factory: an eager one would run it before it is known here that there is a pump.
            self._pump = asyncio.Task(self._pump_guarded(), loop=self._loop, name=f"limit {self._limit.name}")
            self._tasks.add(self._pump)
            self._pump.add_done_callback(self._tasks.discard)

    async def _pump_guarded(self) -> None:
        try:
            await self._pump_queue()
        except Exception as error:
            self._failed(error)

    async def _pump_queue(self) -> None:
        while self._queue and self._has_room():
            if (wait := self._blocked_for()) > 0:
                await self._wait(asyncio.sleep(max(wait, _SHORTEST_SLEEP)))
            elif self._rate is not None and (missing := self._head().units - self._drawn) > self._rate * _ROUNDING:
                draw = min(missing, self._capacity)
                await self._wait(self._bucket.acquire(draw))
                self._drawn += draw
            else:
                self._advancing = True  # what the callback changes is seen by this loop
                try:
                    self._take()
                finally:
                    self._advancing = False
        if not self._queue:
            # Kept, it would come on top of the next burst.
            self._drawn = 0.0
        # Nothing awaits between the loop's last look and here, so nobody can have queued unseen.
        self._pump = None

    async def _wait(self, event: Coroutine[Any, Any, None]) -> None:
        self._pump_waits = True
        await event
        self._pump_waits = False

    def _head(self) -> Ticket:
        return next(iter(self._queue))

    def _has_room(self) -> bool:
        concurrency = self._limit.concurrency
        return concurrency is None or self._held + self._head().units <= concurrency * (1 + _ROUNDING)

    def _blocked_for(self) -> float:
        """Return the seconds until neither a pause nor the window keeps the head waiting, as far as is known now."""
        now = self._loop.time()
        wait = self._paused_until - now
        if self._rate is None:
            return wait
        while self._log and self._log[0].last + self._per * _WINDOW <= now:
            self._logged -= self._log.popleft().units
        if not self._log:
            self._logged = 0.0  # rounding errors end here
        excess = self._logged + self._pending + self._head().units - self._rate * (1 + _ROUNDING)
        for entry in self._log:
            if excess <= 0:
                break
            excess -= entry.units
            wait = max(wait, entry.last + self._per * _WINDOW - now)
        # What is pending comes back by a cancel, which looks here again, or expires a window after its grant.
        return wait if excess <= 0 else max(wait, self._per * _WINDOW)

    def _take(self) -> None:
        ticket, _ = self._queue.popitem(last=False)
        units = ticket.units
        self._held += units
        if self._rate is not None:
            self._drawn = max(0.0, self._drawn - units)
            self._pending += units
        ticket.took()

    def _rounded(self, value: float) -> float:
        return value if value > _ROUNDING else 0.0


class _Entry:
    """Units granted so close together that they expire as one."""

    __slots__ = ("first", "last", "units")

    def __init__(self, now: float, units: float) -> None:
        self.first = self.last = now
        self.units = units

    def extend(self, now: float, units: float) -> None:
        """Add units; all expire with the latest."""
        self.last = now
        self.units += units
