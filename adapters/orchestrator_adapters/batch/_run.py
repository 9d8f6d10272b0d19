"""One run of a batch: from the journal it finds to the files it leaves."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import (
    CacheDamaged,
    CacheError,
    CacheInUse,
    LaunchError,
    OrchestratorError,
    PoolBroken,
    SupervisorClosed,
    TargetError,
)
from orchestrator_adapters.batch import _exports, _plan
from orchestrator_adapters.batch import _store_rows as rows
from orchestrator_adapters.batch._accounts import Accounts, Snapshot, Tally
from orchestrator_adapters.batch._delivery import Delivery
from orchestrator_adapters.batch._errors import RESUMABLE, USAGE, BatchError
from orchestrator_adapters.batch._failure_lines import FailureLines
from orchestrator_adapters.batch._feed import Feed
from orchestrator_adapters.batch._gate import Gate
from orchestrator_adapters.batch._judge import Judge, first_line, sentence
from orchestrator_adapters.batch._live_counts import LiveCounts
from orchestrator_adapters.batch._plan import Earlier
from orchestrator_adapters.batch._report import Report
from orchestrator_adapters.batch._retries import Retries
from orchestrator_adapters.batch._store import Commit, Store
from orchestrator_adapters.batch._work import Plan, run_records

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from orchestrator import Supervisor
    from orchestrator_adapters.batch._sink import Sink
    from orchestrator_adapters.batch._source import Source

FAILED = 1
INTERRUPTED = 130
# What runs when a run is stopped gets this long to finish: a request to a model takes seconds, and the next run repeats
# the rest.
FINISH_DEADLINE = 30.0
# How often it is looked whether the supervisor fell back: nobody tells, and a second late is soon enough.
_WATCH_INTERVAL = 0.5
# The supervisor goes on trying, ever more slowly, when jobs keep killing their children. After so many deaths with
# nothing done in between somebody has to look; the same command goes on.
_HOPELESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run is told, checked.

    Attributes:
        name: Of the run.
        folder: Its folder.
        plan: How records are run.
        facts: What the journal is compared with: target, params, hash of the handler's file.
        failed: Where failed records are told of; None: nowhere.
        failed_always: Whether that file is written also when none failed.
        metrics: Where the numbers go.
        max_failures: Most failed records.
        classify: Asked first what kind of failure an error is.
        fresh: Forget what an earlier run did.
    """

    name: str
    folder: str
    plan: Plan
    facts: dict[str, Any]
    failed: str
    failed_always: bool
    metrics: str
    max_failures: int | None
    classify: Callable[[Any], str | None] | None
    fresh: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ends before its end."""

    reason: str
    exit_code: int


class Run:
    """Runs the records of one batch; for one call of `execute`.

    Args:
        settings: What is to be done.
        source: Where records come from.
        sink: Where results go.
        say: Shows a line.
    """

    def __init__(self, settings: Settings, source: Source, sink: Sink, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._say = say
        self._loop = asyncio.get_running_loop()
        options = settings.plan.params.multiprocessing
        self._accounts = Accounts(self._loop.time(), settings.plan.slots)
        self._gate = Gate(options.task_queue_size, options.result_queue_size, settings.plan.slots)
        self._store = Store(settings.folder, self._committed, self._store_failed)
        self._delivery = Delivery(self._store, sink, options.result_queue_size, self._delivered)
        self._judge = Judge(
            self._gate,
            self._accounts,
            self._store,
            Retries(options.attempts, options.retry_budget),
            settings.classify,
            clock=self._loop.time,
            stop=self.stop,
            say=say,
        )
        self._feed: Feed | None = None
        self._earlier: Earlier | None = None
        self._supervisor: Supervisor | None = None
        self._work: asyncio.Task[None] | None = None
        self._read: asyncio.Task[None] | None = None
        self._stopped: Stop | None = None
        self._is_cancelled = False
        self._interrupts = 0
        self._fell_back = not settings.plan.in_children
        self._found: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._failed_file: str | None = None
        self._worked = False
        self._failures = FailureLines(say)
        self._live = LiveCounts(settings.folder)
        self._problem: Exception | None = None

    # From outside

    def snapshot(self) -> Snapshot:
        """Return where the run is."""
        now = self._loop.time()
        pauses: dict[str, float] = {}
        cached = 0
        if self._supervisor is not None:
            with contextlib.suppress(OrchestratorError):
                statistics = self._supervisor.statistics()
                pauses = {each.name: each.paused_for for each in statistics.limits if each.paused_for > 0}
                cached = statistics.cache.hits
        left = self._gate.paused_for(now)
        if left and not pauses:
            pauses["requests"] = left
        return self._accounts.snapshot(now, pauses=pauses, cached=cached)

    def stop(self, reason: str, exit_code: int, *, cancel: bool = False) -> None:
        """Take and send nothing more; the first reason is told.

        Args:
            reason: Why, for the report.
            exit_code: What it means.
            cancel: Also cancel what runs, else it is finished.
        """
        if self._stopped is None:
            self._stopped = Stop(reason, exit_code)
        if not self._gate.is_closed:
            self._gate.close()
            if self._read is not None:
                self._read.cancel()
            if self._feed is not None:
                self._feed.wake()
            self._loop.call_later(FINISH_DEADLINE, self._too_late)
        if cancel and not self._is_cancelled:
            self._is_cancelled = True
            if self._work is not None:
                self._work.cancel()

    def interrupt(self, why: str) -> None:
        """Finish what runs; the second time, cancel it."""
        self._interrupts += 1
        if self._interrupts == 1:
            self._say(f"{why}: taking no more records; finishing what runs. Again cancels it.")
            self.stop(f"interrupted by {why}", INTERRUPTED)
        else:
            if not self._is_cancelled:
                self._say(f"{why}: cancelling what runs.")
            self.stop(f"interrupted by {why}", INTERRUPTED, cancel=True)

    def _too_late(self) -> None:
        if self._work is not None and not self._work.done() and not self._is_cancelled:
            self._say(f"What runs is not finished after {FINISH_DEADLINE:g} s: cancelling it.")
            self.stop("", INTERRUPTED, cancel=True)

    # The whole

    async def execute(self) -> Report:
        """Run to the end, or until it is stopped.

        Raises:
            BatchError: If it cannot begin, or was wrong from the start.
        """
        await self._store.open()
        try:
            await self._begin()
            await self._sink.open()
            try:
                await self._move()
                return await self._end()
            finally:
                await self._sink.abort()
        finally:
            self._live.remove()
            await self._store.close()

    async def _begin(self) -> None:
        """Decide what counts of what an earlier run did."""
        settings, store = self._settings, self._store
        self._found = await store.call(rows.read_meta)
        self._failed_file = self._found.get("failed_file")
        decision = _plan.decide(self._found, settings.facts, fresh=settings.fresh)
        for note in decision.notes:
            self._say(note)
        facts = self._facts = {**settings.facts, "name": settings.name}
        if decision.anew:
            # Not before there is something to keep instead: a slip in the command must not cost what was paid for.
            store.before_first_commit(lambda connection: rows.begin_anew(connection, {**facts, "finished": False}))
            self._found = {}
        else:
            self._earlier = Earlier(store)
            await self._earlier.open()
            await store.call(lambda connection: rows.write_meta(connection, facts))
        self._feed = Feed(self._source, self._gate, self._accounts, self._earlier, store, self._advance)

    async def _move(self) -> None:
        """Move records from the source through the supervisor to the sink."""
        assert self._feed is not None
        self._read = self._guarded(self._feed.read(), "source")
        delivery = self._guarded(self._delivery.run(), "delivery")
        helpers = [self._read, delivery, self._guarded(self._count(), "count"), self._guarded(self._watch(), "watch")]
        if self._gate.is_closed:
            self._read.cancel()
        try:
            if await self._feed.first():
                await self._run_work()
            await self._committed_all()
            if self._problem is not None:
                raise self._problem
            if self._feed.problem is not None:
                self.stop(str(self._feed.problem), self._feed.problem.exit_code)
            if self._earlier is not None:
                self._say_changed(self._earlier)
            self._delivery.end()
            if self._stopped is None:
                await asyncio.wait([delivery])
                if self._problem is not None:
                    raise self._problem
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.wait(helpers)

    async def _run_work(self) -> None:
        self._worked = True
        if self._earlier is not None:
            await self._store.call(lambda connection: rows.write_meta(connection, {"finished": False}))
        self._say(f"batch {self._settings.name}: {self._settings.plan.start_line()}")
        self._work = asyncio.create_task(self._work_on(), name="orchestrator batch: work")
        try:
            await asyncio.wait([self._work])
        except asyncio.CancelledError:
            self._work.cancel()
            await asyncio.wait([self._work])
            raise
        if self._work.cancelled():
            return
        error = self._work.exception()
        if isinstance(error, TargetError):
            self.stop(str(error), USAGE)
        elif isinstance(error, PoolBroken | LaunchError | SupervisorClosed):
            self.stop(sentence(error), RESUMABLE)
        elif isinstance(error, BatchError):
            self.stop(str(error), error.exit_code)
        elif error is not None:
            raise error

    async def _work_on(self) -> None:
        assert self._feed is not None
        plan = self._settings.plan
        try:
            supervisor = await plan.supervisor().__aenter__()
        except CacheInUse as error:
            self._say(f"warning: {sentence(error)}. This run keeps a cache of its own, in memory")
            supervisor = await plan.supervisor(cached=False).__aenter__()
        except CacheError as error:
            raise BatchError(str(error), USAGE if isinstance(error, CacheDamaged) else RESUMABLE) from error
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(supervisor)
            self._supervisor = supervisor
            if not self._is_cancelled:
                await run_records(supervisor, plan.job(), self._feed, self._judge.settle, self._judge.refuse)
            self._look_at(supervisor)

    async def _committed_all(self) -> None:
        """Wait until every record that came back is in the journal."""
        with contextlib.suppress(Exception):  # it was told when it happened
            await self._store.call(lambda _connection: None)

    def _guarded(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await coroutine
            except BatchError as error:
                self.stop(str(error), error.exit_code, cancel=True)
            except Exception as error:
                self._break(error)

        return asyncio.create_task(run(), name=f"orchestrator batch: {name}")

    def _break(self, error: Exception) -> None:
        """End at once for an error of this program; `execute` raises it."""
        if self._problem is None:
            self._problem = error
        self.stop("", RESUMABLE, cancel=True)

    async def _count(self) -> None:
        total = await self._source.count()
        if self._accounts.total is None and total is not None:
            self._accounts.count(total)
            # Whoever asks how far a run is that was killed wants to know of how many.
            self._facts["total"] = total
            if self._store.has_begun:
                await self._store.call(lambda connection: rows.write_meta(connection, {"total": total}))

    async def _watch(self) -> None:
        done, restarts = -1, 0
        while True:
            self._live.show(self.snapshot)
            await asyncio.sleep(_WATCH_INTERVAL)
            if self._supervisor is None:
                continue
            with contextlib.suppress(OrchestratorError):  # it is closed: the run is over
                self._look_at(self._supervisor)
                statistics = self._supervisor.statistics()
                if done != (now_done := self._accounts.done + self._accounts.retries):
                    done, restarts = now_done, statistics.restarts
                elif statistics.restarts - restarts >= _HOPELESS:
                    last = next((each.last_death for each in statistics.workers if each.last_death is not None), None)
                    self.stop(f"children keep dying, whichever record they run: {last}", RESUMABLE, cancel=True)

    def _isolation(self) -> str:
        return "process" if self._supervisor is None else self._supervisor.statistics().isolation

    def _look_at(self, supervisor: Supervisor) -> None:
        if not self._fell_back and self._isolation() == "inline":
            self._fell_back = True
            why = first_line(supervisor.statistics().fallback_reason or "children cannot be had here")
            self._say(f"warning: going on in this process, without children: {why}")

    def _say_changed(self, earlier: Earlier) -> None:
        if earlier.has_changed and self._stopped is None:
            kept, total = self._accounts.resumed, self._accounts.taken
            self._say(f"the input has changed: {kept:,} of {total:,} records are as before and keep their results")

    # What is safe

    def _committed(self, commit: Commit) -> None:
        try:
            self._move_on(commit)
        except Exception as error:
            self._break(error)

    def _move_on(self, commit: Commit) -> None:
        gate, accounts, delivery = self._gate, self._accounts, self._delivery
        for row in commit.ends:
            entry = gate.end(row.number)
            accounts.settle(Tally(entry.made, entry.used, row.failure_class, row.inline), sent=entry.tried)
            delivery.hold(row.number, entry.value)
            if row.failure_class is not None:
                self._failures.show(row)
        for attempt in commit.tries:
            entry = gate.open[attempt.number]
            accounts.retry(Tally(entry.made, entry.used))
            gate.again(entry)
        for known in commit.found:
            gate.end(known.number)
            accounts.settle_known(Tally(known.attempts, rows.usage_of(known), known.failure_class, known.inline))
        accounts.check()
        self._advance()
        most = self._settings.max_failures
        if most is not None and accounts.failed > most:
            self.stop(f"{accounts.failed:,} records failed, and at most {most:,} may (max_failures)", FAILED)

    def _advance(self) -> None:
        self._delivery.reach(self._gate.frontier(self._accounts.taken))
        self._delivered()

    def _delivered(self) -> None:
        # A live sink is owed everything that is done, in order. For a file results wait in the journal for a late one.
        gate, delivery = self._gate, self._delivery
        beyond = self._accounts.taken + 1 - len(gate.open) if self._sink.is_live else delivery.beyond
        gate.ready, gate.awaited = beyond - delivery.next, delivery.next
        if self._feed is not None:
            self._feed.wake()

    def _store_failed(self, error: Exception) -> None:
        if isinstance(error, BatchError):
            self.stop(str(error), error.exit_code, cancel=True)
        else:
            self._break(error)

    # The end

    async def _end(self) -> Report:
        """Put files in their places if every record is done, and report."""
        settings, accounts = self._settings, self._accounts
        report = self._report()
        if self._stopped is None:
            try:
                await self._sink.commit()
                report = await self._export(replace(report, output=self._sink.path))
            except BatchError as error:
                return replace(report, exit_code=error.exit_code, reason=str(error), output=None)
            if not self._worked and accounts.attempts:
                self._say(f"nothing to do: all {accounts.done:,} records were done before")
        elif self._stopped.exit_code == FAILED:
            try:
                report = await self._export(report, finished=False)
            except BatchError as error:
                self._say(f"warning: {error}")
        elif self._stopped.exit_code == USAGE:
            raise BatchError(self._stopped.reason)
        return replace(report, folder=settings.folder)

    def _report(self) -> Report:
        accounts, now = self._accounts, self._loop.time()
        most = self._settings.max_failures
        code = 0 if not accounts.failed or (most is not None and accounts.failed <= most) else FAILED
        return Report(
            name=self._settings.name,
            exit_code=code if self._stopped is None else self._stopped.exit_code,
            reason=None if self._stopped is None else self._stopped.reason,
            total=None if accounts.total is None else max(accounts.total, accounts.taken),
            succeeded=accounts.succeeded,
            failed=accounts.failed,
            pending=accounts.pending(),
            by_class={name: count for name, count in accounts.by_class.items() if count},
            resumed=accounts.resumed,
            attempts=accounts.attempts,
            retries=accounts.retries,
            usage=dict(accounts.usage),
            in_children=accounts.in_children,
            in_process=accounts.in_process,
            seconds=accounts.elapsed(now),
            rate=accounts.overall_rate(now),
            folder=self._settings.folder,
        )

    async def _export(self, report: Report, *, finished: bool = True) -> Report:
        """Write the files beside the results, and note that the run is finished."""
        settings, earlier = self._settings, self._found
        # A run that had nothing to do leaves the numbers of the one that did it.
        same = self._accounts.resumed == self._accounts.taken and not (self._earlier and self._earlier.has_changed)
        metrics = earlier.get("metrics") if same and earlier.get("finished") else None
        metrics = report.metrics() if metrics is None else metrics
        write_failed = settings.failed_always or report.failed

        def write(connection: Any) -> None:
            if write_failed:
                _exports.write_failed(connection, settings.failed)
            elif self._failed_file == settings.failed:
                _exports.remove(settings.failed)
            _exports.write_metrics(metrics, settings.metrics)
            facts: dict[str, Any] = {"failed_file": settings.failed if write_failed else None}
            if finished:
                rows.forget_kept(connection)
                facts |= {"finished": True, "exit_code": report.exit_code, "metrics": metrics}
            rows.write_meta(connection, facts)

        await self._store.begin()
        await self._store.call(write)
        return replace(report, failed_file=settings.failed if write_failed else None, metrics_file=settings.metrics)
