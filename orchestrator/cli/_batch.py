"""Feed the jobs of a run to a supervisor and settle each record of the input exactly once; memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel

from orchestrator.cli._journal import identity_of
from orchestrator.cli._outcomes import Report, report_problem, report_settled
from orchestrator.cli._rows import InvalidLine, JobBuilder
from orchestrator.exceptions import (
    ConfigurationError,
    KeyConflict,
    OrchestratorError,
    PayloadError,
    PoolBroken,
    SupervisorClosed,
    TargetError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from orchestrator._events import Event
    from orchestrator._link import Link
    from orchestrator._progress import ProgressMeter
    from orchestrator._record import Record as JobRecord
    from orchestrator._supervisor import Supervisor
    from orchestrator.cli._journal import RunJournal
    from orchestrator.cli._records import Record
    from orchestrator.cli._sink import Sink
    from orchestrator.cli._source import RecordSource
    from orchestrator.cli._summary import RunSummary

# Quick sync jobs are sent up to 64 ahead to each child; four times that keeps the queue from running dry.
MOST_PER_WORKER = 256
# What each slot has at least: one job that runs and one that waits for it.
LEAST_PER_SLOT = 2
# What was read must be finished when somebody presses Ctrl-C: about a second's worth is read ahead, not hours.
SECONDS_AHEAD = 1.0
WINDOW_INTERVAL = 0.1
# With --ordered, outcomes wait for an earlier line: this many times the jobs in flight, then reading waits too.
ORDERED_FACTOR = 8

# So many records without a pause take a few milliseconds; signals, progress and children want their turn too.
RECORDS_PER_TURN = 128

T = TypeVar("T")


class Reorder(Generic[T]):
    """Gives back in order what was put in out of order.

    Attributes:
        next: The position that comes out next.
    """

    def __init__(self) -> None:
        self.next = 0
        self._held: dict[int, T] = {}

    def put(self, position: int, item: T) -> Iterable[T]:
        """Take one item and yield all that are in turn now."""
        self._held[position] = item
        while self.next in self._held:
            yield self._held.pop(self.next)
            self.next += 1


class Window:
    """How many jobs may be in flight: few slow ones, many quick ones.

    Args:
        slots: Jobs that can run at once.
        workers: Children that run them.
        now: The moment, in seconds.
    """

    def __init__(self, slots: int, workers: int, now: float) -> None:
        self._least = LEAST_PER_SLOT * slots
        self._most = max(self._least, MOST_PER_WORKER * workers)
        self._since = now
        self._settled = 0
        self.size = self._least

    def settled(self, now: float) -> None:
        """Count one job that ended."""
        self._settled += 1
        elapsed = now - self._since
        if elapsed >= WINDOW_INTERVAL:
            ahead = int(SECONDS_AHEAD * self._settled / elapsed)
            self.size = min(self._most, max(self._least, ahead))
            self._since, self._settled = now, 0


class _Entry:
    """One job that is on its way: hears of its end from the engine, which costs less than a task or a handle.

    Attributes:
        settled: Takes the job's record when it has its outcome; last.
    """

    __slots__ = ("done", "job", "line", "link", "position", "take")

    wants_events = False

    def __init__(self, position: int, line: int, link: Link, take: Callable[[_Entry, JobRecord], None]) -> None:
        self.position = position
        self.line = line
        self.link = link
        self.take = take
        self.job: JobRecord | None = None
        self.done = False

    def settled(self, record: JobRecord) -> None:
        """Report the outcome."""
        self.done = True
        self.take(self, record)

    def event(self, record: JobRecord, event: Event, *, owed: bool = False) -> None:
        """Leave progress and items of a job unread."""

    def called(self, record: JobRecord, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """Make no calls: a job that came as JSON has no functions."""

    def end(self, *, withdraw: bool) -> None:
        """Cancel the job, wherever it is; `withdraw` leaves it in the journal for the next run."""
        if self.job is not None and not self.done:
            jobs = self.link.engine.jobs
            with contextlib.suppress(SupervisorClosed):  # It settled the job when it closed.
                self.link.call(jobs.withdraw if withdraw else jobs.cancel, self.job)


class BatchRun:
    """One run: takes records, submits jobs, reports outcomes.

    Args:
        supervisor: Entered.
        source: Where records come from.
        builder: Makes jobs of records.
        report: Gets each outcome once, in the order in which they are to be written.
        output: Where reported outcomes go; while it is full no more jobs are read.
        meter: Counts outcomes as they arrive.
        ordered: Report in the order of the input.
        journal: What makes the run resumable.
        max_failures: Stop at so many jobs that did not succeed.
        window: How many jobs may be in flight.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        source: RecordSource,
        builder: JobBuilder,
        *,
        report: Callable[[Report], None],
        output: Sink,
        meter: ProgressMeter,
        summary: RunSummary,
        ordered: bool,
        max_failures: int | None,
        window: Window,
        journal: RunJournal | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._source = source
        self._builder = builder
        self._report = report
        self._output = output
        self._meter = meter
        self._summary = summary
        self._journal = journal
        self._reorder: Reorder[Report | None] | None = Reorder() if ordered else None
        self._max_failures = max_failures
        self._window = window
        self._failures = 0
        self._position = 0
        self._running: dict[int, _Entry] = {}
        self._moved = asyncio.Event()
        self._stopping = False
        self._first_open: int | None = None  # the first line that is left to the next run, as are its outcomes

    def drain(self) -> None:
        """Read no more; what was read is run."""
        self._source.stop()

    def stop(self) -> None:
        """Read no more and cancel what was read."""
        self._source.stop()
        self._stopping = True
        # Soon, not now: this may be called while the engine tells of a job that has ended.
        asyncio.get_running_loop().call_soon(self._cancel_running)

    def _cancel_running(self) -> None:
        for entry in tuple(self._running.values()):
            self._end(entry)

    def _end(self, entry: _Entry) -> None:
        entry.end(withdraw=self._journal is not None)

    def line_of(self, job: int) -> int | None:
        """Return the line of the input that a running job came from."""
        running = self._running.values()
        return next((entry.line for entry in running if entry.job is not None and entry.job.number == job), None)

    async def run(self) -> None:
        """Run to the end of the input, or to the end of what was read before `drain` or `stop`."""
        while True:
            if self._is_full():
                await self._room()
            record = self._source.take_nowait()
            if record is None:
                if not await self._source.wait():
                    break
                continue
            position, self._position = self._position, self._position + 1
            if self._position % RECORDS_PER_TURN == 0:
                await anyio.lowlevel.checkpoint()
            await self._submit(position, record)
        while self._running:
            self._moved.clear()
            await self._moved.wait()

    async def _room(self) -> None:
        """Wait until one more job may be in flight and its outcome may be written."""
        while self._is_full():
            await self._output.ready()
            if self._is_full():
                self._moved.clear()
                await self._moved.wait()

    def _is_full(self) -> bool:
        size = self._window.size
        behind = 0 if self._reorder is None else self._position - self._reorder.next
        return len(self._running) >= size or behind >= size * ORDERED_FACTOR or self._output.is_full

    async def _submit(self, position: int, record: Record) -> None:
        line, content = record
        key: str | None = None
        try:
            job, args, kwargs = self._builder.build(content)
            key = job.key
            link, submission = self._supervisor._prepare(None, job, position)
            submission.args, submission.kwargs = args, kwargs
            entry = _Entry(position, line, link, self._ended)
            identity = None if self._journal is None else identity_of(line)
            entry.job = await self._supervisor._accept(link, submission, entry, identity=identity)
        except ConfigurationError as error:
            self._settled(position, report_problem(line, InvalidLine(str(error).removeprefix("job.")), key=key))
        except (InvalidLine, TargetError, PayloadError) as error:
            self._settled(position, report_problem(line, error, key=key))
        except OrchestratorError as error:
            self._settled(position, report_problem(line, error, key=key))
            self._break(error)
        else:
            # A pool that broke meanwhile has settled it already.
            if not entry.done:
                self._running[position] = entry
                if self._stopping:
                    self._end(entry)

    def _break(self, error: OrchestratorError) -> None:
        if self._summary.stopped is None:
            # One line: the log and the outcome have the rest, such as what the child said.
            reason = str(error).partition("\n")[0].rstrip(":.")
            self._summary.stopped = f"{reason}. See `orchestrator doctor` for what this host lacks."
            self.stop()

    def _ended(self, entry: _Entry, record: JobRecord) -> None:
        self._running.pop(entry.position, None)
        if isinstance(record.error, KeyConflict):
            self._differs(entry)
            return
        self._summary.replayed += record.replayed
        # What the journal does not have is done by the next run: a line of the output would be a second one then.
        open_still = self._journal is not None and not record.kept
        if open_still and (self._first_open is None or entry.line < self._first_open):
            self._first_open = entry.line
        self._settled(entry.position, report_settled(entry.line, record), write=not open_still)
        if isinstance(record.error, PoolBroken | SupervisorClosed):
            self._break(record.error)

    def _differs(self, entry: _Entry) -> None:
        """End a run whose input is not the one that its journal is of."""
        self._moved.set()
        if self._reorder is not None:
            self._write_in_order(entry.position, None)
        if self._summary.stopped is None:
            problem = f"line {entry.line} of the input is not what the journal has for it"
            self._summary.stopped = f"{problem}; restore the input, or name another journal."
        self.stop()

    def _settled(self, position: int, report: Report, *, write: bool = True) -> None:
        self._moved.set()
        self._window.settled(time.monotonic())
        self._summary.add(report)
        if report.status != "cancelled":
            self._meter.count(report.succeeded)
            self._failures += not report.succeeded
        if self._journal is not None and report.line in self._journal.written:
            write = False
        if self._reorder is not None:
            self._write_in_order(position, report if write else None)
        elif write:
            self._report(report)
        if self._max_failures is not None and self._failures >= self._max_failures and not self._stopping:
            limit = "1 job" if self._max_failures == 1 else f"{self._max_failures:,} jobs"
            self._summary.stopped = f"{limit} did not succeed (--max-failures {self._max_failures})."
            self.stop()

    def _write_in_order(self, position: int, report: Report | None) -> None:
        assert self._reorder is not None
        for ready in self._reorder.put(position, report):
            # What is behind a line that is still open comes after it, so from the journal, in the next run.
            if ready is not None and (self._first_open is None or ready.line < self._first_open):
                self._report(ready)
