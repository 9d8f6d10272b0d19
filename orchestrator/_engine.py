"""One supervisor's inside, on one event loop: its pool of workers, its jobs, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator._jobs import Jobs
from orchestrator._limits import Limits
from orchestrator._logs import Logger
from orchestrator._persist import outlast
from orchestrator._policy import StartGuard
from orchestrator._queue import Queue
from orchestrator._recipe import recipe_of
from orchestrator._statistics import Statistics
from orchestrator._talk import Talk
from orchestrator._worker import Worker
from orchestrator.exceptions import PoolBroken, SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from orchestrator._child_process import Child
    from orchestrator._inline import InlineChild
    from orchestrator._models import DeathCertificate
    from orchestrator._options import Options
    from orchestrator._record import Record

# Jobs that are ended at once by the same cause: so many take about a millisecond.
_LOT = 100
# Cancelled jobs end within the grace time and two seconds (promise 3); this is on top, for a busy machine.
_CANCEL_SLACK = 3.0


class Engine:
    """Owns workers and jobs; every method belongs to the loop it was opened on.

    Args:
        options: The supervisor's options.

    Attributes:
        state: `new`, `open`, `draining` or `closed`.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.state = "new"
        self.start_timeout: float = options.start_timeout  # type: ignore[assignment]
        self.grace: float = options.grace  # type: ignore[assignment]
        self.slots = options.concurrency
        self.workers: list[Worker] = []
        self.logger = Logger(options.name)
        self._restarts = 0
        self._survivors: list[int] = []
        self._names = 0
        self._folder = ""
        self._room: dict[asyncio.Future[None], None] = {}  # submitters that wait for space, in their order
        self._woken = 0  # submitters that were told of space, and have not taken it yet
        self._held_until: float | None = None
        self._closing = False
        self._last_certificate: DeathCertificate | None = None
        self._task: asyncio.Task[None] | None = None
        self._born: asyncio.Future[Exception | None] | None = None

    # Opening

    async def open(self) -> None:
        """Start the engine's task, and the first child.

        Raises:
            NoSpawn: If this loop cannot start processes; nothing is left then.
            LaunchError: If no child can be started here; nothing is left then.
        """
        self.loop = asyncio.get_running_loop()
        options = self.options
        self._executor = ThreadPoolExecutor(4, thread_name_prefix=f"orchestrator-{self.options.name}")
        self.limits = Limits(self.options.limits)
        self.queue = Queue(self.workers, self.limits, self._want_children, self.loop.time)
        self.queue.held_back = self._held_back
        self.guard = StartGuard(self.options.restart, random.random)
        self.jobs = Jobs(self.queue, self.limits, self.logger, self.in_thread, self._start_soon, self._proved)
        self.jobs.made_space = self._made_space
        self.talk = Talk(self.limits, self.logger)
        self._recipe = recipe_of(options, self._make_folder, self.in_thread, self.logger)
        if options.isolation == "inline":
            ignored = [name for name in ("command", "env", "env_allow", "cwd") if getattr(options, name) is not None]
            if ignored:
                self.log("supervisor.options_ignored", "warning", options=ignored, reason="jobs run in this process")
        self._end = asyncio.Event()
        for _ in range(self.options.workers or 1):
            self._add_worker()
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
            self._folder = tempfile.mkdtemp(prefix="orchestrator-")
        return self._folder

    async def _run(self, opened: asyncio.Future[None]) -> None:
        """Be the engine's task: hold the task group that everything runs in, from the first child to the last."""
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                try:
                    # Kept out of the group, which would wrap it.
                    failure = await self._spawn_first()
                    if failure is None:
                        self.state = "open"
                        opened.set_result(None)
                        await self._end.wait()
                except BaseException:
                    # The loop ends, or something in here is broken: the group waits for its children, so they go now.
                    self.hurry()
                    for worker in self.workers:
                        worker.kill("stopped")
                    raise
                self._closing = True
                for worker in self.workers:
                    worker.stop()
        except BaseException as error:
            failure = error
        finally:
            await self._tear_down(failure)
        if not opened.done():
            opened.set_exception(failure or SupervisorClosed("closed while it was opening"))
            opened.exception()
            return
        if failure is not None and not isinstance(failure, asyncio.CancelledError):
            self.logger.log("supervisor.failed", "critical", exc_info=failure)
        elif failure is not None:
            raise failure

    async def _spawn_first(self) -> Exception | None:
        """Start one child now: only trying tells whether this loop can; the others come when there is work."""
        born = self._born = self.loop.create_future()
        self._start(self.workers[0])
        error: Exception | None = await born
        return error

    # Children

    def _add_worker(self) -> None:
        self._names += 1
        self.workers.append(Worker(f"w{self._names}", self, self.jobs, self.talk, self._recipe, self.options.max_jobs))

    def run_child(self, worker: Worker, child: Child | InlineChild) -> None:
        """Run a child in the engine's task group."""
        self.guard.began(worker.name, self.loop.time())
        self._group.start_soon(self._live, worker, child, name=f"child {child.name}")

    async def _live(self, worker: Worker, child: Child | InlineChild) -> None:
        first, self._born = self._born, None

        def born(error: Exception | None) -> None:
            if first is not None and not first.done():
                first.set_result(error)

        await worker.run_child(child, born)

    def child_ready(self, worker: Worker) -> None:
        """A child takes jobs from now on."""
        self.guard.ready(worker.name, self.loop.time())
        self.log("worker.child_ready", worker=worker.name, generation=worker.generation)
        self.queue.has_room()
        self.queue.pump()
        self._revisit()

    def has_room(self, worker: Worker) -> None:
        """A child may take more jobs than before."""
        self.queue.has_room()
        if self.jobs.outstanding:
            self.queue.pump()

    def child_died(self, worker: Worker, certificate: DeathCertificate, *, was_ready: bool, blameless: bool) -> None:
        """A worker has no child any more."""
        now = self.loop.time()
        self._last_certificate = certificate
        planned = certificate.reason in ("stopped", "recycled")
        if planned:
            self.guard.withdrew(worker.name)
        elif not was_ready:
            self.guard.start_failed(worker.name, now, str(certificate))
        elif not blameless:
            self.guard.died_idle(worker.name, now, str(certificate))
        if worker.retiring or self._closing:
            self.guard.withdrew(worker.name)
            if worker.retiring and worker in self.workers:
                self.workers.remove(worker)
        elif not planned:
            self._restarts += 1
            worker.restarts += 1
        self.queue.has_room()
        if blameless:
            # Who waits for the job hears of its end first; logging and spawning take as long as all of that.
            self.loop.call_soon(self._replace, worker, certificate)
        else:
            self._replace(worker, certificate)

    def _replace(self, worker: Worker, certificate: DeathCertificate) -> None:
        """Log a child's end, and start another one if it was not planned."""
        planned = certificate.reason in ("stopped", "recycled")
        self.log(
            "worker.child_ended" if planned else "worker.child_died",
            # The first one's failure is raised to who opens the supervisor.
            "info" if planned or self.state == "new" else "warning",
            worker=worker.name,
            generation=certificate.generation,
            pid=certificate.pid,
            reason=certificate.reason,
            exit_code=certificate.exit_code,
            signal=certificate.signal,
            detail=certificate.detail or None,
        )
        if not planned:
            self._start(worker)
        if self.guard.broken:
            self._refuse_all()
        self._revisit()
        self.queue.pump()

    def child_buried(self, worker: Worker, child: Child | InlineChild) -> None:
        """A child's kill set is empty, or as empty as it gets."""
        if child.survivors:
            self._survivors.extend(child.survivors)
            self.log("child.survived", "error", worker=worker.name, pids=list(child.survivors))

    def _proved(self, worker: Worker) -> None:
        self.guard.proved(worker.name, self.loop.time())

    def _start(self, worker: Worker) -> None:
        """Start a worker's child now, or when the start guard allows it."""
        if self._closing or worker.retiring or worker.is_blocked or worker.state not in ("down", "backoff"):
            return
        delay = self.guard.delay(worker.name, self.loop.time())
        if delay is not None and delay <= 0:
            worker.step("start")
            return
        if worker.state == "down":
            worker.step("wait")
        if worker.start_timer is not None:
            worker.start_timer.cancel()
        worker.start_timer = None if delay is None else self.loop.call_later(delay, self._start, worker)

    def _revisit(self) -> None:
        """Ask the start guard again for those who wait: a start has ended."""
        for worker in self.workers:
            if worker.state == "backoff":
                self._start(worker)

    def _want_children(self) -> None:
        """Start as many children as there are jobs that nobody takes."""
        coming = 0
        idle = []
        for worker in self.workers:
            state = worker.state
            if state == "starting" or state == "backoff":
                coming += 1
            elif state == "down" and not worker.is_blocked:
                idle.append(worker)
        if idle:
            for worker in idle[: max(0, self.jobs.queued - coming)]:
                self._start(worker)

    def _refuse_all(self) -> None:
        """Tell those who wait that the pool is broken, unless a living child will take their job."""
        error = self._broken()
        hopeless = (record for record in self.jobs.unsettled() if not self._is_served(record))
        self._by_lots(hopeless, lambda record: self.jobs.refuse(record, error))

    def _is_served(self, record: Record) -> bool:
        return any(worker.state == "ready" and worker.could_serve(record) for worker in self.workers)

    def _broken(self) -> PoolBroken:
        certificate = self._last_certificate
        text = f"children keep failing to start: {self.guard.reason}"
        if certificate is not None and certificate.stderr:
            text += "\n\nThe last lines of its stderr:\n" + "\n".join(certificate.stderr)
        return PoolBroken(text, certificate)

    def _held_back(self) -> bool:
        """While the environment is to blame for deaths, one job at a time is tried, after a wait."""
        guard = self.jobs.crash_guard
        if not guard.environment:
            self._held_until = None
            return False
        if self.jobs.running:
            self._held_until = None
            return True
        now = self.loop.time()
        if self._held_until is None:
            delay = guard.delay(random.random)
            self._held_until = now + delay
            self.loop.call_later(delay + 0.001, self._let_one_try)
        return now < self._held_until

    def _let_one_try(self) -> None:
        self.queue.has_room()
        self.queue.pump()

    # Jobs

    def check_open(self) -> None:
        """Raise SupervisorClosed, or PoolBroken, when no jobs are taken."""
        if self.state != "open":
            state = {"new": "has not been entered", "draining": "is draining"}.get(self.state, "is closed")
            raise SupervisorClosed(f"supervisor {self.options.name!r} {state}; it takes no jobs")
        if self.guard.broken and not any(worker.state == "ready" for worker in self.workers):
            raise self._broken()

    @property
    def has_space(self) -> bool:
        """Whether the queue takes another job without waiting."""
        return self.jobs.queued + self._woken < self.options.queue_size

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
                    self.loop.call_soon(self._made_space)

    def _made_space(self) -> None:
        """Wake as many submitters as there is space for, or all when they will be told that no jobs are taken."""
        if self._room:
            left = self.options.queue_size - self.jobs.queued - self._woken
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
            self.jobs.accept(record)
            if self.guard.broken and not self._is_served(record):
                self.jobs.refuse(record, self._broken())

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in one of the engine's threads; when cancelled, wait for it all the same."""
        try:
            future = self.loop.run_in_executor(self._executor, function, *args)
        except RuntimeError:
            return function(*args)  # the interpreter is going down, and starts no threads any more
        return await outlast(future)

    def hurry(self) -> None:
        """Cancel every job that has no outcome; no child is started for them any more."""
        self._closing = True
        self.cancel(self.jobs.unsettled())

    def cancel(self, records: Iterable[Record]) -> None:
        """Cancel many jobs."""
        self._by_lots(iter(records), self.jobs.cancel)

    def _by_lots(self, records: Iterator[Record], act: Callable[[Record], object]) -> None:
        """Do the same to many jobs, and let the loop do other things in between."""
        lot = list(islice(records, _LOT))
        for record in lot:
            act(record)
        if len(lot) == _LOT:
            self.loop.call_soon(self._by_lots, records, act)

    def _start_soon(self, function: Callable[..., Any], *args: Any) -> None:
        self._group.start_soon(function, *args)

    def statistics(self) -> Statistics:
        """Return a snapshot."""
        broken = self.state == "open" and self.guard.broken
        return Statistics(
            state="broken" if broken else self.state,
            submitted=self.jobs.accepted,
            queued=self.jobs.queued,
            running=self.jobs.running,
            waiting=len(self.jobs.waiting),
            settled={str(status): count for status, count in tuple(self.jobs.outcomes.items())},
            retries=self.jobs.retries,
            restarts=self._restarts,
            workers=tuple(worker.statistics() for worker in self.workers),
            limits=self.limits.statistics(),
            dropped_log_lines=self.talk.dropped_lines,
            abandoned_threads=len(self._recipe.abandoned),
            survivors=tuple(self._survivors),
            broken_reason=self.guard.reason if broken else None,
        )

    async def scale(self, count: int) -> None:
        """Have `count` workers; those that are too many finish their jobs first."""
        kept = [worker for worker in self.workers if not worker.retiring]
        for _ in range(count - len(kept)):
            self._add_worker()
        # Idle ones go first, for they lose nothing.
        for worker in sorted(kept, key=lambda worker: worker.held)[: max(0, len(kept) - count)]:
            worker.retire()
            if worker.state == "down":
                self.workers.remove(worker)
        self.queue.has_room()
        self.queue.pump()

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
        self._end.set()
        await outlast(self._task)

    async def _cancel_all(self) -> None:
        self.hurry()
        try:
            async with asyncio.timeout(self.grace + 2 + _CANCEL_SLACK):
                await self.jobs.idle.wait()
        except TimeoutError:
            self.log("supervisor.cancel_took_long", "error", outstanding=self.jobs.outstanding)

    def kill_now(self) -> None:
        """Kill all children and remove their files without waiting; nothing works afterwards, so end the process."""
        for worker in self.workers:
            killset = getattr(worker.child, "killset", None)
            if killset is not None:
                killset.kill_now()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _tear_down(self, failure: BaseException | None) -> None:
        """Leave nothing behind, however the engine's task ends."""
        self._closing = True
        self.state = "closed"
        self._made_space()
        for worker in self.workers:
            worker.kill("stopped")
        for record in self.jobs.unsettled():
            self.jobs.abandon(record, SupervisorClosed("the supervisor ended before the job did"))
        await self.limits.aclose()
        self._executor.shutdown(wait=True)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """Log one event of this supervisor."""
        self.logger.log(event, level, **fields)
