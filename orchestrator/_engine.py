"""One supervisor's inside, on one event loop: its pool of workers, its jobs, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import create_task_group

from orchestrator import _wire
from orchestrator._cache import Cache
from orchestrator._durable import DurableJobs
from orchestrator._guarded_loop import GuardedLoop, known_to_sniffio
from orchestrator._guardian import Guardian
from orchestrator._jobs import Jobs
from orchestrator._limits import Limits
from orchestrator._logs import Logger
from orchestrator._models import Status
from orchestrator._permits import settle_unadmitted
from orchestrator._persist import outlast
from orchestrator._pool import Pool, by_lots
from orchestrator._queue import Caution, Queue
from orchestrator._recipe import main_module, recipe_of
from orchestrator._recovery import Recovery, Witnesses
from orchestrator._secrets import NoSecret
from orchestrator._spawn import NoSpawn
from orchestrator._statistics import Statistics
from orchestrator._talk import Talk
from orchestrator.exceptions import (
    CacheError,
    ConfigurationError,
    JournalError,
    LaunchError,
    PoolBroken,
    SupervisorClosed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from orchestrator._models import Limit
    from orchestrator._options import Options
    from orchestrator._recipe import Witness
    from orchestrator._record import Record
    from orchestrator._services import Services

T = TypeVar("T")

# Cancelled jobs end within the grace time and two seconds (promise 3); this is on top, for a busy machine.
_CANCEL_SLACK = 3.0


class Engine:
    """Owns workers and jobs; every method belongs to the loop it was opened on.

    Args:
        options: The supervisor's options.
        is_last: There is no other loop to try if this one cannot start processes.

    Attributes:
        state: `new`, `open`, `draining` or `closed`.
        last_job: The highest number that a job of an earlier run had.
    """

    def __init__(self, options: Options, *, is_last: bool = False) -> None:
        self.options = options
        self._is_last = is_last
        self.state = "new"
        self.logger = Logger(options.name)
        self._folder = ""
        self._room: dict[asyncio.Future[None], None] = {}  # submitters that wait for space, in their order
        self._woken = 0  # submitters that were told of space, and have not taken it yet
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._end = asyncio.Event()
        self._recovery: Recovery | None = None
        self.last_job = 0
        self._services: Services | None = None

    async def serve(self, act: Callable[[Services], Awaitable[T]]) -> T:
        """Do something with the services."""
        if self._services is None:
            from orchestrator._services import Services  # who has only jobs need not wait for it

            soon = self._start_soon
            self._services = Services(self._guarded_loop, self.logger, soon, self.pool, self.talk, self._recipe)
            self._services.closing = self.state != "open"
        return await act(self._services)

    # Opening

    async def open(self) -> None:
        """Start the engine's task, and the first child.

        Raises:
            NoSpawn: If this loop cannot start processes; nothing is left then.
            LaunchError: If no child can be started here; nothing is left then.
            JournalError: If the journal cannot be opened; nothing is left then.
        """
        self.loop = asyncio.get_running_loop()
        options = self.options
        self._executor = ThreadPoolExecutor(4, thread_name_prefix=f"orchestrator-{self.options.name}")
        self._guarded_loop = GuardedLoop(self.loop, self._fail)
        self.limits = Limits(options.limits, self._fail, max_permits=options.max_permits, tell=self.log)
        self._count_jobs(options.workers or 1)
        self.pool = Pool(options, self._guarded_loop, self.logger, self._start_soon)
        self.queue = Queue(self.pool.workers, self.limits, self.pool.want_children, self.loop.time)
        self.queue.caution, self.queue.trying = self._caution, self.pool.trying
        self.queue.in_question = self.pool.in_question
        self.jobs = (Jobs if options.journal is None else DurableJobs)(
            self.queue,
            self.limits,
            self.logger,
            self.in_thread,
            self._start_soon,
            self.pool.proved,
            self._guarded_loop,
        )
        self.jobs.made_space = self._made_space
        self.queue.refused = partial(settle_unadmitted, self.jobs)
        self.cache = Cache(options, self._make_folder, self.log, self.guarded)
        self.talk = Talk(self.limits, self.logger, self.jobs.effects, self.cache)
        self._guardian = Guardian(self.log, options.secrets)
        witness: Witness = self._guardian
        if isinstance(self.jobs, DurableJobs) and options.journal is not None:
            self._recovery = Recovery(
                options.journal, self.jobs, self.log, self.in_thread, self._journal_moved, main_module()
            )
            witness = Witnesses(self._guardian, self._recovery.store)
        self._recipe = recipe_of(options, self._make_folder, self.in_thread, self.logger, witness)
        self.pool.furnish(self.queue, self.jobs, self.talk, self._recipe)
        opened: asyncio.Future[None] = self.loop.create_future()
        self._task = asyncio.create_task(self._run(opened), name=f"orchestrator {self.options.name}")
        try:
            await asyncio.shield(opened)
        except BaseException:
            self._end.set()
            with contextlib.suppress(asyncio.CancelledError):  # the first one is raised
                await outlast(self._task)
            raise

    def _make_folder(self) -> str:
        # Systems remove temp files that are old, and a supervisor may live for weeks.
        if not self._folder or not os.path.isdir(self._folder):
            self._folder = tempfile.mkdtemp(prefix=_wire.FOLDER)
        return self._folder

    async def _run(self, opened: asyncio.Future[None]) -> None:
        """Be the engine's task: hold the task group that everything runs in, from the first child to the last."""
        failure: BaseException | None = None
        try:
            async with create_task_group() as group:
                self._group = group
                try:
                    # Kept out of the group, which would wrap it.
                    failure = await self._open_files() or await self._start_first()
                    if failure is None:
                        self.state = "open"
                        if self._recovery is not None:
                            await self._recovery.resume()
                            self.pool.protect_host()
                        opened.set_result(None)
                        await self._end.wait()
                        self._kill_services()
                except BaseException:
                    # The loop ends, or something in here is broken: the group waits for its children, so they go now.
                    self.hurry()
                    self.pool.kill()
                    self._kill_services()
                    raise
                self.pool.stop()
        except BaseException as error:
            failure = error
            if isinstance(error, Exception):
                self._fail(error)
        finally:
            await self._tear_down()
        if not opened.done():
            opened.set_exception(failure or self._failure or SupervisorClosed("closed while it was opening"))
            opened.exception()
        elif isinstance(failure, asyncio.CancelledError):
            raise failure

    async def _start_first(self) -> Exception | None:
        """Start the first child: a process, or what there is to fall back on."""
        failure = await self.pool.start_first()
        is_hopeless = isinstance(failure, (LaunchError, NoSpawn) if self._is_last else LaunchError)
        if is_hopeless and not isinstance(failure, NoSecret) and self.pool.can_fall_back:
            self.pool.fall_back(str(failure))
            failure = await self.pool.start_first()
        return failure

    async def _open_files(self) -> JournalError | CacheError | None:
        try:
            await self.cache.open()
            if self._recovery is not None:
                self.last_job = await self._recovery.open()
        except (JournalError, CacheError) as error:
            return error
        return None

    def describe_run(self, key: str, text: str) -> None:
        """Record in the journal what this run is of."""
        if self._recovery is not None:
            self._recovery.store.set_meta(key, text)

    @property
    def _is_stalled(self) -> bool:
        return self._recovery is not None and self._recovery.store.stalled is not None

    def _caution(self) -> Caution | None:
        return "wait" if self._is_stalled else self.pool.caution()

    def _journal_moved(self) -> None:
        self.queue.has_room()
        self.queue.pump()
        self._made_space()

    def guarded(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function of the engine; what it raises is a fault of ours, and ends the engine."""
        try:
            function(*args)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the engine, loudly, for a fault of its own: nobody must wait for what may never come."""
        if self._failure is None:
            self._failure = error
            self.logger.log("supervisor.failed", "critical", exc_info=error)
            self.state = "closed"
            self._end.set()
            if self._task is not None:
                self.loop.call_soon(self._salvage)

    def _salvage(self) -> None:
        """Settle all jobs and kill all children, for the engine failed, and may be in any state."""
        self._abandon_jobs()
        self.pool.closing = True
        self._kill_services()
        for worker in self.pool.workers:
            try:
                worker.kill("stopped")
            except Exception as error:
                self.log("worker.kill_failed", "critical", worker=worker.name, exc_info=error)
                if worker.child is not None:
                    worker.child.kill()
        self._made_space()

    def _abandon_jobs(self) -> None:
        """Settle what is not settled."""
        status = Status.CANCELLED if self._failure is None else Status.FAILED
        for record in self.jobs.unsettled():
            error = self._closed("ended before the job did")
            try:
                self.jobs.abandon(record, error, status)
            except Exception:
                record.refuse(error, status)
        if self._failure is not None:
            self.jobs.idle.set()
            for worker in self.pool.workers:
                if worker.leases is not None:
                    worker.leases.held.clear()  # whatever its child says now is about jobs that are settled

    def _closed(self, state: str) -> SupervisorClosed:
        """Return the error for callers of a supervisor that takes no jobs."""
        if self._failure is None:
            return SupervisorClosed(f"supervisor {self.options.name!r} {state}")
        what = f"{type(self._failure).__name__}: {self._failure}"
        error = SupervisorClosed(
            f"supervisor {self.options.name!r} failed: {what} (a fault of its own; please report it)"
        )
        error.__cause__ = self._failure
        return error

    # Jobs

    def check_state(self) -> None:
        """Raise SupervisorClosed when the supervisor is not open, or no longer."""
        if self.state != "open":
            state = {"new": "has not been entered", "draining": "is draining"}.get(self.state, "is closed")
            raise self._closed(f"{state}; it takes no jobs")

    def check_open(self) -> None:
        """Raise SupervisorClosed, or PoolBroken, when no jobs are taken."""
        self.check_state()
        if not self.pool.workers:
            raise ConfigurationError("workers", "is 0, so nobody takes jobs: this supervisor has services only")
        if self.pool.guard.broken and not any(worker.state == "ready" for worker in self.pool.workers):
            raise self.pool.broken()

    @property
    def has_space(self) -> bool:
        """Whether the queue takes another job without waiting."""
        return self.jobs.queued + self._woken < self.options.queue_size and not self._is_stalled

    async def wait_for_space(self) -> None:
        """Wait until the queue takes another job."""
        if not self.has_space and self._takes_jobs():
            waiter = self.loop.create_future()
            self._room[waiter] = None
            try:
                await waiter
            finally:
                if waiter in self._room:
                    del self._room[waiter]
                else:
                    self._woken -= 1
                    # It takes the space now; if it was cancelled when it had been woken, it is the next one's turn.
                    self._guarded_loop.call_soon(self._made_space)

    def _made_space(self) -> None:
        """Wake as many submitters as there is space for, or all when they will be told that no jobs are taken."""
        if self._room:
            left = 0 if self._is_stalled else self.options.queue_size - self.jobs.queued - self._woken
            space = max(0, left) if self._takes_jobs() else len(self._room)
            for waiter in list(islice(self._room, space)):
                del self._room[waiter]
                self._woken += 1
                if not waiter.done():
                    waiter.set_result(None)

    def _takes_jobs(self) -> bool:
        try:
            self.check_open()
        except (SupervisorClosed, PoolBroken):
            return False
        return True

    def accept(self, record: Record) -> None:
        """Take a job; one that came too late is settled at once, and never counted."""
        try:
            self.check_open()
        except (SupervisorClosed, PoolBroken) as error:
            record.refuse(error)
        else:
            self.guarded(self._accept, record)
            if self._failure is not None and not self.jobs.holds(record) and record.status is None:
                record.refuse(self._closed("failed"), Status.FAILED)

    def _accept(self, record: Record) -> None:
        self.jobs.accept(record)
        if self.pool.guard.broken and not self.pool.is_served(record):
            self.jobs.refuse(record, self.pool.broken())

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in one of the engine's threads; when cancelled, wait for it all the same."""
        try:
            future = self.loop.run_in_executor(self._executor, function, *args)
        except RuntimeError:
            return function(*args)  # the interpreter is going down, and starts no threads any more
        return await outlast(future)

    def hurry(self) -> None:
        """Cancel every job that has no outcome; no child is started for them any more."""
        self.pool.closing = True
        by_lots(self._guarded_loop, iter(self.jobs.unsettled()), self.jobs.withdraw)

    def cancel(self, records: Iterable[Record]) -> None:
        """Cancel many jobs."""
        by_lots(self._guarded_loop, iter(records), self.jobs.cancel)

    async def scale(self, workers: int) -> None:
        """Have so many workers."""
        self._count_jobs(workers)
        await self.pool.scale(workers)

    async def set_limit(self, limit: Limit) -> None:
        """Have other bounds for a limit."""
        self.limits.change(limit)

    def _count_jobs(self, workers: int) -> None:
        # With fewer slots than permits no job has to wait for being counted: they can be sent ahead then.
        most = self.options.max_permits
        self.limits.counts_jobs = most is not None and workers * self.options.concurrency > most

    def _start_soon(self, function: Callable[..., Any], *args: Any) -> None:
        with known_to_sniffio():
            self._group.start_soon(self._guarded_loop.guard, function, *args)

    def statistics(self) -> Statistics:
        """Return a snapshot."""
        broken = self.state == "open" and self.pool.guard.broken
        return Statistics(
            state="broken" if broken else "stalled" if self.state == "open" and self._is_stalled else self.state,
            submitted=self.jobs.accepted,
            queued=self.jobs.queued,
            running=self.jobs.running,
            waiting=len(self.jobs.waiting),
            settled={str(status): count for status, count in tuple(self.jobs.outcomes.items())},
            retries=self.jobs.retries,
            restarts=self.pool.restarts,
            workers=tuple(worker.statistics() for worker in self.pool.everybody()),
            limits=self.limits.statistics(),
            dropped_log_lines=self.talk.dropped_lines,
            abandoned_threads=len(self._recipe.abandoned),
            survivors=tuple(self.pool.survivors),
            broken_reason=self.pool.guard.reason if broken else None,
            isolation="inline" if self._recipe.inline else "process",
            fallback_reason=self.pool.fallback_reason,
            cache=self.cache.statistics(),
            services=() if self._services is None else self._services.statistics(),
        )

    async def drain(self) -> None:
        """Take no more jobs, and wait until all have their outcomes."""
        self._take_no_more()
        await self.jobs.idle.wait()

    def _take_no_more(self) -> None:
        if self.state == "open":
            self.state = "draining"
        self.talk.let_calls_go(self.jobs.unsettled())
        self._made_space()

    # Closing

    async def close(self, *, cancel: bool) -> None:
        """Settle all jobs, stop all children, and end the engine's task."""
        if self._task is None or self._task.done():
            return
        self._take_no_more()
        if cancel:
            await self._cancel_all()
        else:
            await self.jobs.idle.wait()
        try:
            if self._services is not None:
                await self._services.stop_all()  # not before: jobs may use them
        finally:
            self._end.set()
            await outlast(self._task)

    async def _cancel_all(self) -> None:
        self.hurry()
        try:
            async with asyncio.timeout(self.pool.grace + 2 + _CANCEL_SLACK):
                await self.jobs.idle.wait()
        except TimeoutError:
            self.log("supervisor.cancel_took_long", "error", outstanding=self.jobs.outstanding)

    def kill_now(self) -> None:
        """Kill all children and remove their files without waiting; nothing works afterwards, so end the process."""
        if self._services is not None:
            self._services.kill_now()
        for worker in self.pool.everybody():
            killset = getattr(worker.child, "killset", None)
            if killset is not None:
                killset.kill_now()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _kill_services(self) -> None:
        if self._services is not None:
            self._services.kill()

    async def _tear_down(self) -> None:
        """Leave nothing behind, however the engine's task ends."""
        self.state = "closed"
        self._made_space()
        self._kill_services()
        self.pool.kill()
        self._abandon_jobs()
        self.pool.end()
        await self.limits.aclose()
        if self._recovery is not None:
            await self._recovery.aclose()
        await self.cache.aclose()
        self._executor.shutdown(wait=True)
        if self._services is not None:
            self._services.end()
        self._recipe.secrets.restore()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        # Last: should this process die within these lines, there is somebody who removes the folder.
        await self._guardian.aclose()

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """Log one event of this supervisor."""
        self.logger.log(event, level, **fields)
