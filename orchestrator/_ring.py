"""Events of a job that nobody has read yet, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections import deque

from orchestrator._events import Event, Item, Log, Progress

# As many unread events as a reader can have missed and still want; older logs are dropped and counted.
_SIZE = 1_000
# Characters of unread logs: a thousand long lines would be a hundred megabytes.
_MOST_TEXT = 2**20


class Ring:
    """Keeps the last 1,000 events, and a million characters of logs.

    The latest progress wins; logs, and items that nobody reads, give way; states never do.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._dropped = 0  # lines
        self._text = 0  # characters of the logs that are here
        self._paid = 0  # items that need no credit: they came when nobody read

    def __len__(self) -> int:
        return len(self._events)

    def push(self, event: Event, *, owed: bool) -> None:
        """Add an event; `owed` tells whether it is an item that the job has no credit for yet."""
        events = self._events
        if type(event) is Progress and events and type(events[-1]) is Progress:
            events[-1] = event
            return
        if len(events) >= _SIZE:
            self._make_room()
        if type(event) is Log:
            self._text += len(event.text)
            while self._text > _MOST_TEXT and self._drop_log():
                continue
        events.append(event)
        if type(event) is Item and not owed:
            self._paid += 1

    def _drop_log(self) -> bool:
        """Drop the oldest log, if there is one."""
        for index, event in enumerate(self._events):
            if type(event) is Log:
                del self._events[index]
                self._dropped += 1 + event.dropped
                self._text -= len(event.text)
                return True
        return False

    def _make_room(self) -> None:
        if self._drop_log():
            return
        for index, event in enumerate(self._events):
            if type(event) is Progress or (type(event) is Item and self._paid):
                del self._events[index]
                self._paid -= type(event) is Item
                return

    def pop(self) -> tuple[Event, bool]:
        """Return the oldest event, and whether the job gets a credit for it."""
        event = self._events.popleft()
        if type(event) is Item:
            if not self._paid:
                return event, True
            self._paid -= 1
        elif type(event) is Log:
            self._text -= len(event.text)
            if self._dropped:
                event = dataclasses.replace(event, dropped=event.dropped + self._dropped)
                self._dropped = 0
        return event, False

    def write_off(self) -> int:
        """Note that nobody will read what is here; returns for how many items the job gets a credit at once."""
        items = sum(type(event) is Item for event in self._events)
        owed, self._paid = items - self._paid, items
        return owed
