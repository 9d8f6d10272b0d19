"""Ends what waits for a dead browser: Playwright's driver forgets calls that were under way when the browser died."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# A look costs less than a tenth of a millisecond.
_INTERVAL = 0.25
# The driver itself ends most calls within milliseconds of the death; a busy machine gets some more.
_PATIENCE = 2.0


class DeathWatch:
    """Looks at a browser from time to time while Playwright's loop runs, that is while a call waits.

    `new_page` is what is forgotten most: it would wait for as long as the job may run.

    Args:
        loop: Playwright's loop.
        is_dead: Whether the browser has died.
        end: Ends what waits; called again and again while the watch goes on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, is_dead: Callable[[], bool], end: Callable[[], None]) -> None:
        self._loop = loop
        self._is_dead = is_dead
        self._end = end
        self._since: float | None = None
        self._timer = loop.call_later(_INTERVAL, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(_INTERVAL, self._look)
        if not self._is_dead():
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
        elif time.monotonic() - self._since >= _PATIENCE:
            self._end()
