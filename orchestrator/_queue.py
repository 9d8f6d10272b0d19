"""Jobs that wait for a child: in order, by priority, matched to a child, admitted by their limits."""

from __future__ import annotations

from bisect import insort
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Literal

from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator._grant import Grant
    from orchestrator._limits import Limits
    from orchestrator._record import Record
    from orchestrator._ticket import TooLate
    from orchestrator._worker import Worker

# A worker in one of these states has a fresh child soon.
_COMING = ("down", "starting", "stopping", "dying")

# What is to be done while jobs keep dying: nothing yet, or try one, since it may be them or the environment.
Caution = Literal["wait", "doubt", "blame"]

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
        self._named: dict[Record, None] = {}  # those in line that name limits
        self._units: dict[int, dict[str, float]] = {}  # what they will ask for, by priority

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
        if record.job.limits:
            self._named[record] = None
            self._count(record, 1)
        return front or len(line) == 1

    def _count(self, record: Record, sign: int) -> None:
        units = self._units.setdefault(record.job.priority, {})
        for name, count in record.job.limits.items():
            units[name] = units.get(name, 0.0) + sign * count

    def forget(self, record: Record) -> None:
        """Note that a job goes, or was settled where it stands: it asks for nothing any more."""
        if record in self._named:
            del self._named[record]
            self._count(record, -1)

    def ahead_of(self, record: Record) -> dict[str, float]:
        """Return the units that others in line will ask for before a job that has just come."""
        found = dict.fromkeys(record.job.limits, 0.0)
        for priority, units in self._units.items():
            if priority >= record.job.priority:
                for name in found:
                    found[name] += units.get(name, 0.0)
        if record in self._named:
            for name, count in record.job.limits.items():
                found[name] -= count
        return found

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

    def tail(self) -> Record | None:
        """Return the last job in line, or None."""
        for negative in reversed(self._priorities):
            line = self._lines[-negative]
            while line:
                if line[-1].state == "queued":
                    return line[-1]
                line.pop()
        return None

    def pop(self, record: Record) -> None:
        """Take the job that `head` or `tail` returned."""
        self.forget(record)
        line = self._lines[record.job.priority]
        if line[0] is record:
            line.popleft()
        else:
            line.pop()

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
        # Told of one that can't be admitted in time, or never.
        self.refused: Callable[[Record, TooLate | ConfigurationError], None] = lambda record, problem: None
        self.caution: Callable[[], Caution | None] = lambda: None
        self.in_question: Callable[[], bool] = lambda: False  # whether somebody died since anything ended
        self.trying: Callable[[Record], None] = lambda record: None  # told of each that is tried while there is doubt
        self.tried: Record | None = None  # the last one that was sent out alone: a suspect, or one that is tried
        self.in_trial = False  # … which of them it is
        self._suspects = Lane()
        self._any_suspects = False
        self._turns = 0
        self._tombs = 0
        self._turned: tuple[Worker, Record] | None = None  # whose child is to be replaced, for which job

    def _lane_of(self, record: Record) -> Lane:
        if record.is_on_probation:
            return self._suspects
        name = record.target.lane
        # Those that are counted while they run are admitted as by a limit without a name.
        key = (name, *(sorted(record.job.limits) or [""])) if self._is_admitted(record) else (name,)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        return lane

    def _is_admitted(self, record: Record) -> bool:
        """Return whether the job needs permits before it is sent: those that it names, or one for being there."""
        return bool(record.job.limits) or (self._limits.counts_jobs and not record.target.asks_for_permits)

    def put(self, record: Record, *, front: bool = False) -> None:
        """Add a job; `pump` sends it."""
        if record.is_on_probation:
            self._any_suspects = True
        if self._lane_of(record).push(record, front=front) or self._is_admitted(record) or record.is_on_probation:
            self._full = False  # it may be one that somebody takes, though nobody took the first of another line

    def dropped(self, record: Record) -> None:
        """Note that a waiting job was settled; many of those are cleared away together."""
        self._full = False  # it may have been the first in line
        if record.job.limits:
            for lane in self._lanes.values():
                lane.forget(record)
        self._tombs += 1
        if self._tombs > 10_000:
            self._tombs = 0
            for lane in (*self._lanes.values(), self._suspects):
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
        try:
            caution = self.caution()
            left = self._send_all() if caution is None else self._try_one(caution)
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

    def _send_all(self) -> bool:
        left = self._any_suspects and self._send_suspect()
        for key, lane in list(self._lanes.items()):
            left |= self._admit(lane) if len(key) > 1 else self._send_from(lane)
        return left

    def _send_from(self, lane: Lane) -> bool:
        """Send from the head of a lane; returns whether jobs are left."""
        while (record := lane.head()) is not None:
            worker = self._worker_for(record)
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
            if (other := self._lane_of(record)) is not lane:
                # It was learnt meanwhile that such jobs ask for their permits themselves.
                lane.pop(record)
                other.push(record)
                if not self._is_admitted(record):
                    self._send_from(other)
                continue
            lane.asking = {asked for asked in lane.asking if asked.ticket is not None}
            if self._slots_for(record) <= len(lane.asking):
                if not lane.asking:
                    self._consider_turning(record)
                return True
            lane.pop(record)
            self._ask(lane, record)
        return False

    def _ask(self, lane: Lane, record: Record) -> None:
        lane.asking.add(record)
        try:
            units = self._limits.check(record.job.limits, "job.limits")
        except ConfigurationError as error:  # they were changed after it was submitted
            self._refused(record, lane, error)
            return
        ticket = self._limits.request(
            units,
            partial(self._granted, record, lane),
            refused=partial(self._refused, record, lane),
            begins_later=True,
            timeout=self._time_left(record),
        )
        # Granted at once: the callback has run already, and the job is on its way.
        record.ticket = ticket if record.state == "queued" and record.grant is None and record in lane.asking else None

    def check_time(self, record: Record) -> None:
        """Refuse a job that was just put into line if its limits can't be had within its `queue_timeout`."""
        left = self._time_left(record)
        if left is None or not record.job.limits or record.state != "queued" or record.is_on_probation:
            return
        try:
            units = self._limits.check(record.job.limits, "job.limits")
        except ConfigurationError:
            return  # that is told when it is its turn
        problem = self._limits.too_late(units, left, self._lane_of(record).ahead_of(record))
        if problem is not None:
            self.refused(record, problem)

    def _time_left(self, record: Record) -> float | None:
        timer = None if record.attempts else record.queue_timer
        return None if timer is None else max(0.0, timer.when() - self._now())

    def _refused(self, record: Record, lane: Lane, problem: TooLate | ConfigurationError) -> None:
        lane.asking.discard(record)
        record.ticket = None
        self.refused(record, problem)

    def _granted(self, record: Record, lane: Lane, grant: Grant) -> None:
        lane.asking.discard(record)
        record.ticket = None
        worker = None if record.state != "queued" else self._worker_for(record)
        caution = self.caution()
        if worker is None or (caution is not None and record is not self.tried):
            # Its place was taken meanwhile. A permit used later than it was granted would break the rate.
            grant.forgo()
            if record.state == "queued":
                lane.push(record, front=True)
                self._any_suspects |= record.is_on_probation
            return
        record.grant = grant
        worker.lease(record)
        worker.flush()
        if caution is not None:
            self.trying(record)

    # One at a time: suspects, and jobs that are tried while the environment is in doubt

    @property
    def is_trying(self) -> bool:
        """Whether the last one that was sent out alone is still out, or waits for its permits."""
        return self.tried is not None and (self.tried.attempt is not None or self.tried.ticket is not None)

    def _send_suspect(self) -> bool:
        """Send out one suspect if none is out; returns whether any are left."""
        self._turns = 0
        record = self._suspects.head()
        if record is None:
            self._any_suspects = False
            return False
        # By turns with others: when one suspect after the other dies, nobody could tell it from a bad environment.
        others_first = self.in_question() and any(
            len(key) == 1 and lane.head() is not None for key, lane in self._lanes.items()
        )
        if not others_first and not self.is_trying:
            self._send_alone(self._suspects, record, trial=False)
        return self._suspects.head() is not None

    def _try_one(self, caution: Caution) -> bool:
        """Send out one job if it is time: one that has not been near a death, if there is any."""
        if caution == "wait":
            return True
        lane, record = self.stranger()
        suspect = self._suspects.head()
        # A job with a single attempt is lost if it dies now: those that may run again take turns with such.
        spared = record is not None and record.job.retry is None and caution == "blame" and self._turns % 2 == 1
        if record is None or (spared and suspect is not None):
            lane, record = self._suspects, suspect
        if record is not None and self._send_alone(lane, record, trial=True):
            self._turns += 1
            if record.attempt is not None:
                self.trying(record)
        return True

    def stranger(self) -> tuple[Lane, Record | None]:
        """Return a job that has not been near a death, if one waits, and its lane."""
        # Bad jobs may stand side by side, at the head of the line: the end of it is as far from them as can be.
        found = [(len(key), lane, record) for key, lane in self._lanes.items() if (record := lane.tail()) is not None]
        if not found:
            return self._suspects, None
        # Jobs of each kind by turns; those that wait for permits only if there are no others.
        fewest = min(limits for limits, _, _ in found)
        alike = [(lane, record) for limits, lane, record in found if limits == fewest]
        return alike[self._turns % len(alike)]

    def _send_alone(self, lane: Lane, record: Record, *, trial: bool) -> bool:
        worker = next((worker for worker in self._workers if not worker.held and worker.takes(record)), None)
        if worker is None:
            if record.is_on_probation:
                self._freshen(record)
            else:
                self._consider_turning(record)
            return False
        lane.pop(record)
        self.tried, self.in_trial = record, trial
        if self._is_admitted(record):
            self._ask(lane, record)
        else:
            worker.lease(record)
            self._written.add(worker)
        return True

    def _freshen(self, record: Record) -> None:
        """See to it that there will be a child that has run nothing."""
        workers = [worker for worker in self._workers if not worker.is_blocked and not worker.retiring]
        ready = [worker for worker in workers if worker.state == "ready"]
        if any(worker.is_fresh for worker in ready) or any(worker.state in _COMING for worker in workers):
            return  # there is one, or there will be
        idle = next((worker for worker in ready if not worker.held), None)
        if idle is not None:
            idle.recycle()
        elif ready and not any(worker.turning for worker in ready):
            least = min(ready, key=lambda worker: worker.held)
            least.turning = True
            self._turned = least, record

    # Choosing workers

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
