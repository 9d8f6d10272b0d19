"""What goes wrong on a pin board, as on a real site: errors, lost answers, rate limits, slowness, and on command."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OPTIONS = ("errors", "lost_answers", "rate", "per", "late", "slow", "fail_next", "lose_next", "limit_next", "hold")


class Faults:
    """Decides what goes wrong; changed from any thread, asked on the server's loop.

    Args:
        errors: Share of the pages, publishing included, that fail with status 500 before anything is done.
        lost_answers: Share of the publishes that fail with status 500 after the pin is stored.
        rate: How many publishes are taken in `per` seconds; more get status 429 with `Retry-After`. None: any number.
        per: Seconds.
        late: At most how many seconds after the page the fields of a form appear.
        slow: At most how many seconds a page takes.
        seed: Of what is random.
    """

    def __init__(
        self,
        *,
        errors: float = 0.0,
        lost_answers: float = 0.0,
        rate: int | None = None,
        per: float = 10.0,
        late: float = 0.4,
        slow: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.errors = errors
        self.lost_answers = lost_answers
        self.rate = rate
        self.per = per
        self.late = late
        self.slow = slow
        self.fail_next = 0  # so many publishes from now on fail before the pin is stored
        self.lose_next = 0  # so many publishes from now on fail after the pin is stored
        self.limit_next = 0  # so many publishes from now on are too many, and to come again after a second
        self.hold: str | None = None  # publishes wait `before` or `after` the pin is stored, until this is None
        self.count: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._held = 0
        self._closed = False
        self._publishes: deque[float] = deque()

    def configure(self, **changes: Any) -> None:
        """Change any of the options while the board serves.

        Raises:
            ValueError: There is no such option.
        """
        unknown = sorted(set(changes) - set(OPTIONS))
        if unknown:
            raise ValueError(f"there is no option {unknown[0]!r}; there are: {', '.join(OPTIONS)}")
        with self._changed:
            for name, value in changes.items():
                setattr(self, name, value)
            if changes.get("rate", 0) is None:
                self._publishes.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of everything that waits."""
        with self._changed:
            self._closed = True
            self.hold = None
            self._changed.notify_all()

    def wait_until_held(self, number: int, timeout: float) -> bool:
        """Wait until so many publishes are held; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held >= number, timeout)

    def delays(self, number: int) -> list[int]:
        """Return after how many milliseconds each of so many fields appears, one after the other."""
        most = self.late * 1000
        return sorted(round(self._random.uniform(most / 4, most)) for _ in range(number))

    def fails(self, *, publishes: bool = False) -> bool:
        """Return whether this page fails."""
        if publishes and self._take("fail_next"):
            return True
        return self._random.random() < self.errors

    def loses_answer(self) -> bool:
        """Return whether the answer to this publish is lost."""
        return self._take("lose_next") or self._random.random() < self.lost_answers

    def wait_of(self) -> float | None:
        """Take a publish's place in the window; returns after how many seconds to come again if there is none."""
        if self._take("limit_next"):
            return 1.0
        if self.rate is None:
            return None
        now = time.monotonic()
        while self._publishes and now - self._publishes[0] >= self.per:
            self._publishes.popleft()
        if len(self._publishes) < self.rate:
            self._publishes.append(now)
            return None
        return self.per - (now - self._publishes[0])

    async def dawdle(self) -> None:
        """Take the time that a page takes."""
        ends = time.monotonic() + self._random.uniform(0, self.slow)
        # The board may be closed from another thread meanwhile, and does not wait for this.
        while not self._closed and (left := ends - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 0.05))

    async def held(self, moment: str, is_gone: Callable[[], Awaitable[bool]]) -> None:
        """Wait at a moment while publishes are held there, and their client is there."""
        if self.hold != moment:
            return
        self._count_held(1)
        try:
            # Nothing tells when a client goes, and other threads let go: a look every few milliseconds is enough.
            while self.hold == moment and not await is_gone():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            self._count_held(-1)

    def _count_held(self, change: int) -> None:
        with self._changed:
            self._held += change
            self._changed.notify_all()

    def _take(self, name: str) -> bool:
        with self._changed:
            left = getattr(self, name)
            if left:
                setattr(self, name, left - 1)
            return bool(left)
