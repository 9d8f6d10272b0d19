"""Which record is sent next and when, within hard bounds on what waits; pure, the caller has the clock."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


# What was sent is finished when somebody presses Ctrl-C: of quick records so much is sent ahead, of slow ones nothing.
_SECONDS_AHEAD = 0.25
_INTERVAL = 0.1
# Records a second from which results gather before they are committed: what they cost to lose is next to nothing then.
_QUICK = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """A record that was taken from the source and is not done.

    Attributes:
        number: Of the record in the source, from 1.
        place: Where it stands, for people.
        content: The record.
        hash: Of the record.
        sequence: Failed attempts that were committed.
        attempts: Attempts made so far.
        charged: Those that count against its bound.
        throttles: How often it was throttled.
        usage: What all attempts used.
        tried: It was sent before, by this run.
        made: Attempts of the last time it was sent.
        used: What those used.
        due: The moment from which it is sent again, if its last attempt failed.
        value: Its result as JSON text.
    """

    number: int
    place: str
    content: Any
    hash: bytes
    sequence: int = 0
    attempts: int = 0
    charged: int = 0
    throttles: int = 0
    usage: dict[str, float] = field(default_factory=dict)
    tried: bool = False
    made: int = 0
    used: Mapping[str, float] = field(default_factory=dict)
    due: float = 0.0
    value: bytes | None = None

    def use(self, usage: Mapping[str, float]) -> None:
        """Add up what attempts used."""
        for name, number in usage.items():
            self.usage[name] = self.usage.get(name, 0) + number


class Gate:
    """Holds records between the source and the supervisor.

    A record is taken only while less than `task_queue_size` of them wait for a child, those that wait for a retry
    included. It is sent only when there is room for its result: at most `result_queue_size` results wait for the
    journal or the sink, beside one in each slot, as a child would hold it that finds its queue full. The record that
    the sink has to get next is always sent: no room comes before it is done. Quick records are sent ahead of the
    children, so that these never wait; slow ones are not, so that little is under way when the run is to end.

    Args:
        task_queue_size: Records that may wait, beside one in each slot.
        result_queue_size: Results that may wait, beside one in each slot.
        slots: Attempts that run at once.
    """

    def __init__(self, task_queue_size: int, result_queue_size: int, slots: int) -> None:
        self._most_open = task_queue_size + slots
        self._most_results = result_queue_size + slots
        self._most = task_queue_size + result_queue_size + slots
        self._fresh: deque[Entry] = deque()
        self._due: list[tuple[float, int, Entry]] = []
        self._paused_until = float("-inf")
        self._slots = slots
        self._ahead = 0  # records that are sent beyond one for each slot
        self._counted, self._since = 0, float("-inf")
        self.open: dict[int, Entry] = {}  # in the order of their numbers
        self.sent = 0
        self.uncommitted = 0  # came back, and are on their way to the journal
        self.ready = 0  # wait for the sink
        self.awaited = 1  # the number that the sink gets next
        self.is_closed = False

    @property
    def results(self) -> int:
        """Results that wait for the journal or the sink."""
        return self.uncommitted + self.ready

    @property
    def is_quick(self) -> bool:
        """Whether so many records come back that it pays to commit several at once."""
        return self._ahead >= _QUICK * _SECONDS_AHEAD

    def may_take(self) -> bool:
        """Return whether one more record may be taken from the source."""
        return len(self.open) < self._most_open and len(self.open) + self.results < self._most and not self.is_closed

    def take(self, entry: Entry, *, sendable: bool = True) -> None:
        """Add a record; one that is not sendable ends without an attempt."""
        self.open[entry.number] = entry
        if sendable:
            self._fresh.append(entry)

    def next(self, now: float) -> Entry | None:
        """Return the record to send now, retries that are due first; None if there is none, or no room for a result."""
        if self.is_closed or now < self._paused_until:
            return None
        entry: Entry | None = None
        if not self._has_room():
            entry = self._take_awaited(now)
        elif self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)[2]
        elif self._fresh:
            entry = self._fresh.popleft()
        if entry is not None:
            self.sent += 1
        return entry

    def _has_room(self) -> bool:
        return self.sent < self._slots + self._ahead and self.sent + self.results < self._most_results

    def _take_awaited(self, now: float) -> Entry | None:
        """Return the record that the sink waits for, if it is here and due."""
        awaited = self.open.get(self.awaited)
        if self._fresh and self._fresh[0] is awaited:
            return self._fresh.popleft()
        for index, (due, _, entry) in enumerate(self._due):
            if entry is awaited and due <= now:
                self._due[index] = self._due[-1]
                self._due.pop()
                heapq.heapify(self._due)
                return entry
        return None

    def wake_at(self) -> float | None:
        """Return the moment at which `next` may have something that it has not now; None if only an event tells."""
        if self.is_closed:
            return None
        has_room = self._has_room()
        if self._fresh and (has_room or self._fresh[0].number == self.awaited):
            return self._paused_until
        due = min((due for due, number, _ in self._due if has_room or number == self.awaited), default=None)
        return None if due is None else max(due, self._paused_until)

    def came_back(self, now: float) -> None:
        """A record that was sent has an outcome, which is on its way to the journal."""
        self.sent -= 1
        self.uncommitted += 1
        self._counted += 1
        elapsed = now - self._since
        if elapsed >= _INTERVAL:
            self._ahead = int(_SECONDS_AHEAD * self._counted / elapsed)
            self._counted, self._since = 0, now

    def again(self, entry: Entry) -> None:
        """The failed attempt is committed; the record is sent again when it is due."""
        self.uncommitted -= 1
        heapq.heappush(self._due, (entry.due, entry.number, entry))

    def end(self, number: int) -> Entry:
        """The record is done and committed."""
        entry = self.open.pop(number)
        self.uncommitted -= entry.tried
        return entry

    def put_back(self) -> None:
        """A record that was sent came back without an attempt that counts; the next run goes on with it."""
        self.sent -= 1

    def pause(self, until: float) -> None:
        """Send nothing until a moment."""
        self._paused_until = max(self._paused_until, until)

    def paused_for(self, now: float) -> float:
        """Return the seconds that are left of a pause."""
        return max(0.0, self._paused_until - now)

    def frontier(self, taken: int) -> int:
        """Return the first number that is not done, given how many records were taken."""
        return next(iter(self.open), taken + 1)

    def close(self) -> None:
        """Take and send nothing more."""
        self.is_closed = True
