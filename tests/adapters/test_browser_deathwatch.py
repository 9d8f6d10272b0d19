"""The watch over a browser's life: it ends what waits only when the death has lasted, and nothing after its stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from orchestrator_adapters.playwright import _deathwatch


class Clock:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[list[Any]] = []

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> Any:
        timer = [self.now + delay, function]
        self._timers.append(timer)

        class Handle:
            def cancel(_) -> None:  # noqa: N805
                timer[1] = None

        return Handle()

    def pass_(self, seconds: float) -> None:
        ends = self.now + seconds
        while due := [timer for timer in self._timers if timer[0] <= ends]:
            first = min(due, key=lambda timer: timer[0])
            self._timers.remove(first)
            self.now = max(self.now, first[0])
            if first[1] is not None:
                first[1]()
        self.now = ends


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_deathwatch, "time", clock)
    return clock


def test_a_death_that_lasts_ends_what_waits(clock: Clock) -> None:
    dead, ended = [False], []
    watch = _deathwatch.DeathWatch(clock, lambda: dead[0], lambda: ended.append(clock.now))  # type: ignore[arg-type]
    clock.pass_(60)
    assert ended == []
    dead[0] = True
    clock.pass_(1.5)
    dead[0] = False  # another one has taken its place
    clock.pass_(10)
    assert ended == []
    dead[0] = True
    clock.pass_(3)
    assert 173.5 <= ended[0] <= 174.5  # two seconds after it was seen, not at once
    watch.stop()
    ended.clear()
    clock.pass_(60)
    assert ended == []
