"""Limits in virtual time: a loop whose clock jumps, clients that note what they were granted, and what windows held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from orchestrator._grant import Grant
from orchestrator._limits import Limits
from orchestrator._ticket import Ticket


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which time passes only while there is nothing else to do, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        select = self._selector.select  # type: ignore[attr-defined]

        def advance(timeout: float | None) -> list[Any]:
            events: list[Any] = select(0)
            if not events:
                assert timeout is not None, "nothing will ever happen again"
                # Nothing takes no time at all: a timer that is a rounding error early would be set again for ever.
                self.now += max(timeout, 1e-9)
            return events

        self._selector.select = advance  # type: ignore[attr-defined]

    def time(self) -> float:
        # As on a real clock no two looks see the same moment: whoever looks again and again until a rounding error has
        # passed would look for ever.
        self.now += 1e-12
        return self.now

    def timers(self) -> list[asyncio.TimerHandle]:
        return [handle for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


def virtual(body: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(body)


def now() -> float:
    return asyncio.get_running_loop().time() - 1000.0


@dataclass(eq=False)
class Asked:
    """One request of a test and what became of it."""

    units: dict[str, float]
    number: int = 0
    when: float | None = None
    grant: Grant | None = None
    ticket: Ticket | None = None
    refused: Exception | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def held(self) -> Grant:
        assert self.grant is not None
        return self.grant


@dataclass
class Client:
    """Asks, and remembers what was granted when and in which order."""

    limits: Limits
    granted: list[Asked] = field(default_factory=list)
    asked: int = 0

    def ask(
        self,
        then: Callable[[Asked], object] | None = None,
        *,
        timeout: float | None = None,
        place: Any = None,
        urgent: bool = False,
        **units: float,
    ) -> Asked:
        asked = Asked(units, self.asked)
        self.asked += 1

        def granted(grant: Grant) -> None:
            asked.when, asked.grant = now(), grant
            asked.over.set()
            self.granted.append(asked)
            if then is not None:
                then(asked)

        def refused(problem: Exception) -> None:
            asked.refused, asked.when = problem, now()
            asked.over.set()

        asked.ticket = self.limits.request(
            self.limits.check(units, "permit"), granted, refused=refused, timeout=timeout, place=place, urgent=urgent
        )
        return asked

    def times(self, name: str) -> list[tuple[float, float]]:
        return [(asked.when or 0.0, asked.units[name]) for asked in self.granted if name in asked.units]


def fullest(times: list[tuple[float, float]], per: float) -> float:
    """Return the most units in any closed stretch of `per` seconds."""
    most, total, first = 0.0, 0.0, 0
    for when, units in times:
        total += units
        while when - times[first][0] > per:
            total -= times[first][1]
            first += 1
        most = max(most, total)
    return most


async def clean(limits: Limits) -> None:
    await limits.aclose()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop) and not loop.timers()
    assert asyncio.all_tasks() == {asyncio.current_task()}
