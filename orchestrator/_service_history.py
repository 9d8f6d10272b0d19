"""What happened to a service, for readers who come and go: the last events, numbered, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator._events import Log

if TYPE_CHECKING:
    from orchestrator._service_spec import ServiceEvent

# As many lines as a reader can have missed and still want; older ones are dropped and counted.
_MOST_LINES = 1_000
# Characters of lines: a thousand long ones would be a hundred megabytes.
_MOST_TEXT = 2**20
# States are kept for as long as there are not more of them than a flapping service makes in days.
_MOST_STATES = 10_000
# So many are handed over at once.
_LOT = 200


class History:
    """Keeps the last lines, and all changes of state as far as anybody could want them.

    A reader says which number it has seen last, so a read that was cancelled loses nothing. Numbers begin with 1.
    """

    def __init__(self) -> None:
        self._lines: deque[tuple[int, Log]] = deque()
        self._states: deque[tuple[int, ServiceEvent]] = deque(maxlen=_MOST_STATES)
        self._text = 0
        self._last = 0
        self._dropped: deque[tuple[int, int]] = deque()  # number of a dropped line, and how many lines it stood for
        self._readers: set[asyncio.Future[None]] = set()
        self._closed = False

    def push(self, event: ServiceEvent) -> None:
        """Add an event."""
        self._last += 1
        if isinstance(event, Log):
            self._lines.append((self._last, event))
            self._text += len(event.text)
            while len(self._lines) > _MOST_LINES or (self._text > _MOST_TEXT and len(self._lines) > 1):
                number, line = self._lines.popleft()
                self._text -= len(line.text)
                self._note_dropped(number, 1 + line.dropped)
        else:
            self._states.append((self._last, event))
        self._wake()

    def _note_dropped(self, number: int, count: int) -> None:
        # Readers that are far behind learn the sum; nobody needs to know which of thousands it was.
        if len(self._dropped) >= _MOST_LINES:
            _, earlier = self._dropped.popleft()
            at, more = self._dropped.popleft()
            self._dropped.appendleft((at, earlier + more))
        self._dropped.append((number, count))

    def close(self) -> None:
        """Say that nothing comes any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        readers, self._readers = self._readers, set()
        for reader in readers:
            if not reader.done():
                reader.set_result(None)

    async def read(self, seen: int) -> list[tuple[int, ServiceEvent]]:
        """Return the events after number `seen`, at least one; none when nothing comes any more."""
        while self._last <= seen and not self._closed:
            reader = asyncio.get_running_loop().create_future()
            self._readers.add(reader)
            try:
                await reader
            finally:
                self._readers.discard(reader)
        return self.since(seen)

    def since(self, seen: int) -> list[tuple[int, ServiceEvent]]:
        """Return what is here after number `seen`, the first of it, in order."""
        lines = [found for found in self._lines if found[0] > seen]
        missed = sum(count for number, count in self._dropped if number > seen)
        if lines and missed:
            number, line = lines[0]
            lines[0] = number, replace(line, dropped=line.dropped + missed)
        states = [found for found in self._states if found[0] > seen]
        return sorted([*lines, *states], key=lambda found: found[0])[:_LOT]
