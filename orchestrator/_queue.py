"""Jobs that wait for a child: in order, by priority, matched to a child, admitted by their limits."""

from __future__ import annotations

from bisect import insort
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator._limits import Grant, Limits
    from orchestrator._record import Record
    from orchestrator._worker import Worker

# A job of the other flavour has waited long enough after this to have a busy worker's child replaced for it.
_TURN_AFTER = 0.25


class Lane:
    """Jobs that may be sent to the same children, in order of priority, then of arrival.

    Settled jobs stay in line until they come to its head: taking them out of the middle would cost more.
    """

    def __init__(self) -> None:
        self._lines: dict[int, deque[Record]] = {}
        self._priorities: list[int] = []  # negative, so that the highest comes first
        self.asking: set[Record] = set()  # at the head of the line, waiting for permits

    def push(self, record: Record, *, front: bool = False) -> bool:
        """Put a job at the end of its priority's line, or in front of it; returns whether it is the first there."""
        priority = record.job.priority
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = deque()
            insort(self._priorities, -priority)
        if front:
            line.appendleft(record)
        else:
            line.append(record)
        return front or len(line) == 1

    def head(self) -> Record | None:
        """Return the next job, or None."""
        for negative in tuple(self._priorities):
            line = self._lines[-negative]
            while line:
                if line[0].state == "queued":
                    return line[0]
                line.popleft()
            if negative != 0:
                del self._lines[-negative]
                self._priorities.remove(negative)
        return None

    def pop(self, record: Record) -> None:
        """Take the job that `head` returned."""
        self._lines[record.job.priority].popleft()

    def drop_settled(self) -> None:
        """Forget settled jobs anywhere in line."""
        for priority, line in self._lines.items():
            self._lines[priority] = deque(record for record in line if record.state == "queued")


class Queue:
    """All jobs that wait, and the workers that take them.

    Args:
        workers: The supervisor's workers; the list changes.
        limits: What jobs are admitted by.
        want: Called when jobs wait that no child takes.
        now: The loop's clock.
    """

    def __init__(
        self, workers: list[Worker], limits: Limits, want: Callable[[], None], now: Callable[[], float]
    ) -> None:
        self._workers = workers
        self._limits = limits
        self._want = want
        self._now = now
        self._lanes: dict[tuple[str, ...], Lane] = {}
        self._next = 0  # where the search for a worker starts: round robin
        self._written: set[Worker] = set()
        self._pumping = False
        self._full = False  # nobody took the last job that was offered; a shortcut for floods
        self._since: dict[int, float] = {}
        self.held_back: Callable[[], bool] = lambda: False
        self._tombs = 0
        self._turned: tuple[Worker, Record] | None = None  # whose child is to be replaced, for which job

    def _lane_of(self, record: Record) -> Lane:
        kind = record.target.kind
        flavour = "any" if kind is None else "async" if kind in ("async", "async_generator") else "plain"
        key = (flavour, *sorted(record.job.limits)) if record.job.limits else (flavour,)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        return lane

    def put(self, record: Record, *, front: bool = False) -> None:
        """Add a job; `pump` sends it."""
        if self._lane_of(record).push(record, front=front) or record.job.limits:
            self._full = False  # it may be one that somebody takes, though nobody took the first of another line

    def dropped(self) -> None:
        """Note that a waiting job was settled; many of those are cleared away together."""
        self._full = False  # it may have been the first in line
        self._tombs += 1
        if self._tombs > 10_000:
            self._tombs = 0
            for lane in self._lanes.values():
                lane.drop_settled()

    def has_room(self) -> None:
        """Note that a worker may take more than before."""
        self._full = False

    def pump(self, *, more_follow: bool = False) -> None:
        """Send what can be sent; if not all could, say that more children are wanted.

        Args:
            more_follow: Others may come in this turn of the loop: a busy child gets them all with one write.
        """
        if self._full:
            self._want()
            return
        if self._pumping:
            return
        self._pumping = True
        self._turn_back()
        left = False
        try:
            for key, lane in list(self._lanes.items()):
                left |= self._admit(lane) if len(key) > 1 else self._send_from(lane)
            for worker in self._written:
                if more_follow and worker.held > 1:
                    worker.flush_soon()
                else:
                    worker.flush()
            self._written.clear()
        finally:
            self._pumping = False
        if left:
            self._full = not any(len(key) > 1 for key in self._lanes)
            self._want()

    def _send_from(self, lane: Lane) -> bool:
        """Send from the head of a lane; returns whether jobs are left."""
        while (record := lane.head()) is not None:
            worker = None if self.held_back() else self._worker_for(record)
            if worker is None:
                self._consider_turning(record)
                return True
            lane.pop(record)
            worker.lease(record)
            self._written.add(worker)
        return False

    def _admit(self, lane: Lane) -> bool:
        """Ask for permits for as many jobs as could start at once, so that a permit is never held by one that waits."""
        while (record := lane.head()) is not None:
            lane.asking = {asked for asked in lane.asking if asked.ticket is not None}
            if self.held_back() or self._slots_for(record) <= len(lane.asking):
                if not lane.asking:
                    self._consider_turning(record)
                return True
            lane.pop(record)
            lane.asking.add(record)
            ticket = self._limits.request(record.job.limits, partial(self._granted, record), begins_later=True)
            # Granted at once: the callback has run already, and the job is on its way.
            record.ticket = (
                ticket if record.state == "queued" and record.grant is None and record in lane.asking else None
            )
        return False

    def _granted(self, record: Record, grant: Grant) -> None:
        lane = self._lane_of(record)
        lane.asking.discard(record)
        record.ticket = None
        worker = None if record.state != "queued" or self.held_back() else self._worker_for(record)
        if worker is None:
            # Its place was taken meanwhile. A permit used later than it was granted would break the rate.
            grant.release()
            if record.state == "queued":
                lane.push(record, front=True)
            return
        record.grant = grant
        worker.lease(record)
        worker.flush()

    def _slots_for(self, record: Record) -> int:
        return sum(worker.slots_for(record) for worker in self._workers)

    def _worker_for(self, record: Record) -> Worker | None:
        """Return the worker to send this job to: an idle one, else one that it may be sent ahead to."""
        workers = self._workers
        count = len(workers)
        ahead = None
        for step in range(count):
            worker = workers[(self._next + step) % count]
            if worker.takes(record):
                if not worker.held:
                    self._next = (self._next + step + 1) % count
                    return worker
                if ahead is None or worker.held < ahead.held:
                    ahead = worker
        return ahead

    def _consider_turning(self, record: Record) -> None:
        """Replace an idle child of the wrong flavour, when no other can ever take this job."""
        if any(worker.could_serve(record) for worker in self._workers):
            return
        now = self._now()
        waits_since = self._since.setdefault(record.id, now)
        if len(self._since) > 1_000:
            self._since = {record.id: waits_since}
        mismatched = [worker for worker in self._workers if worker.state == "ready"]
        coming = ("starting", "stopping", "down", "backoff", "dying")
        if any(worker.state in coming and not worker.is_blocked for worker in self._workers):
            return  # there will be a fresh child anyway
        idle = next((worker for worker in mismatched if not worker.held), None)
        if idle is not None:
            idle.recycle()
        elif now - waits_since >= _TURN_AFTER and not any(worker.turning for worker in mismatched):
            fullest = min(mismatched, key=lambda worker: worker.held, default=None)
            if fullest is not None:
                fullest.turning = True
                self._turned = fullest, record

    def _turn_back(self) -> None:
        """Let a child go on that was to be replaced for a job that was cancelled since, or went elsewhere."""
        if self._turned is not None:
            worker, record = self._turned
            if record.state != "queued":
                worker.turning = worker.retiring
                self._turned = None
