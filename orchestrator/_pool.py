"""All workers of one supervisor: when they get children, and what is said when they cannot."""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING, Any

from orchestrator import _verdicts
from orchestrator._memory import OFTEN, SELDOM, OomCounter, Sampler
from orchestrator._models import Status
from orchestrator._pings import Pinger
from orchestrator._policy import StartGuard
from orchestrator._resources import Allowance
from orchestrator._worker import Worker
from orchestrator.exceptions import PoolBroken

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator._child_process import Child
    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._inline import InlineChild
    from orchestrator._jobs import Jobs
    from orchestrator._killset import Identity
    from orchestrator._logs import Logger
    from orchestrator._models import DeathCertificate
    from orchestrator._options import Options
    from orchestrator._queue import Caution, Queue
    from orchestrator._recipe import Recipe
    from orchestrator._record import Record
    from orchestrator._talk import Talk

# A job that is tried while jobs keep dying, and runs for so many seconds and twice as long as they did, can run.
_OUTLIVED = 1.0
# Jobs that are ended at once by the same cause: so many take about a millisecond.
_LOT = 100
# A spare that was used is replaced after so many seconds: a child that starts keeps a processor busy for some of them.
_REFILL = 0.1
# Of the last words of a child that could not start: where a traceback ends.
_TOLD = 5


def by_lots(loop: GuardedLoop, records: Iterator[Record], act: Callable[[Record], object]) -> None:
    """Do the same to many jobs, and let the loop do other things in between."""
    lot = list(islice(records, _LOT))
    for record in lot:
        act(record)
    if len(lot) == _LOT:
        loop.call_soon(by_lots, loop, records, act)


class Pool:
    """The workers, each with its child, and the guard that says when a child may be started.

    Args:
        options: The supervisor's options.
        loop: The engine's loop.
        logger: Where lines go.
        start_soon: Runs a coroutine in the engine's task group.

    Attributes:
        workers: Those that take jobs.
        spares: Those whose children are kept for the place of another's.
        closing: No child is started any more.
        survivors: Processes that could not be killed.
        fallback_reason: Why children are no processes any more; None while they are, or if they never were to be.
    """

    def __init__(self, options: Options, loop: GuardedLoop, logger: Logger, start_soon: Callable[..., None]) -> None:
        self.start_timeout: float = options.start_timeout  # type: ignore[assignment]
        self.grace: float = options.grace  # type: ignore[assignment]
        self.slots = options.concurrency
        self.workers: list[Worker] = []
        self.spares: list[Worker] = []
        self.restarts = 0
        self.survivors: list[int] = []
        self.closing = False
        self.fallback_reason: str | None = None
        self.guard = StartGuard(options.restart, random.random)
        self.loop = loop
        self._options = options
        self._logger = logger
        self._start_soon = start_soon
        self._names = 0
        self._opened = False
        self._held_until: float | None = None
        self._last_certificate: DeathCertificate | None = None
        self._born: asyncio.Future[Exception | None] | None = None
        self._allowance = Allowance(
            max_jobs=options.max_jobs,
            max_rss=options.max_rss,
            max_age=options.max_age,  # type: ignore[arg-type]
            memory_limit=options.memory_limit,
        )
        self._oom = OomCounter()
        self._pinger = Pinger(loop, self.everybody, options.hang_timeout, self.log, self._oom.note)  # type: ignore[arg-type]
        interval = SELDOM if options.memory_limit is None else OFTEN
        self._sampler = Sampler(loop, self._roots, lambda worker, memory: worker.health.weighed(memory), interval)

    def furnish(self, queue: Queue, jobs: Jobs, talk: Talk, recipe: Recipe) -> None:
        """Make the workers; they get children when they are started."""
        self.queue = queue
        self.jobs = jobs
        self._talk = talk
        self._recipe = recipe
        for _ in range(self._options.workers or 0):
            self.workers.append(self._new_worker())
        if self._recipe.inline:
            self._log_ignored()
        else:
            for _ in range(self._options.spares):
                worker = self._new_worker()
                worker.spare = True
                self.spares.append(worker)

    def _log_ignored(self) -> None:
        """Say which options mean nothing to children that are no processes."""
        names = ("command", "env", "env_allow", "cwd", "hang_timeout", "max_rss", "memory_limit")
        ignored = [name for name in names if getattr(self._options, name) is not None]
        ignored += ["spares"] if self._options.spares else []
        if ignored:
            self.log("supervisor.options_ignored", "warning", options=ignored, reason="jobs run in this process")

    def _new_worker(self) -> Worker:
        self._names += 1
        return Worker(f"w{self._names}", self, self.jobs, self._talk, self._recipe, self._allowance)

    def everybody(self) -> list[Worker]:
        """Return all workers, those that are kept in reserve last."""
        return self.workers + self.spares

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """Log one event of this pool."""
        self._logger.log(event, level, **fields)

    async def start_first(self) -> Exception | None:
        """Start one child now: only trying tells whether this loop can; the others come when there is work."""
        if not self.workers:
            self._begin_watch()
            return None
        born = self._born = self.loop.create_future()
        self._start(self.workers[0])
        error: Exception | None = await born
        if error is None:
            self._begin_watch()
        return error

    def _begin_watch(self) -> None:
        self._opened = True
        if not self._recipe.inline:
            self._pinger.start()
            if self._allowance.weighs:
                self._sampler.start(f"orchestrator-{self._options.name}-memory")

    def stop(self) -> None:
        """Stop all children as planned; none is started any more."""
        self.closing = True
        self._pinger.stop()
        for worker in self.everybody():
            worker.stop()

    def kill(self) -> None:
        """Kill all children; none is started any more."""
        self.closing = True
        self._pinger.stop()
        self._sampler.stop()
        for worker in self.everybody():
            worker.kill("stopped")

    def end(self) -> None:
        """Leave no thread behind."""
        self._sampler.join()

    # What workers tell

    def run_child(self, worker: Worker, child: Child | InlineChild) -> None:
        """Run a child in the engine's task group."""
        self.guard.began(worker.name, self.loop.time())
        self._start_soon(self._live, worker, child)

    def _roots(self) -> list[tuple[Worker, Identity]]:
        """Return whose memory is to be looked up."""
        killsets = [(worker, getattr(worker.child, "killset", None)) for worker in self.everybody()]
        return [(worker, killset.root) for worker, killset in killsets if killset is not None]

    def ran_out_of_memory(self) -> bool:
        """Return whether the kernel says that it killed one of its processes for want of memory just now."""
        return self._oom.rose()

    async def _live(self, worker: Worker, child: Child | InlineChild) -> None:
        first, self._born = self._born, None

        def born(error: Exception | None) -> None:
            if first is not None and not first.done():
                first.set_result(error)

        try:
            await worker.run_child(child, born)
        except BaseException as error:
            born(error if isinstance(error, Exception) else None)
            raise

    def child_ready(self, worker: Worker) -> None:
        """A child takes jobs from now on."""
        self.guard.ready(worker.name, self.loop.time())
        self.log("worker.child_ready", worker=worker.name, generation=worker.generation)
        self.queue.has_room()
        self.queue.pump()
        self._revisit()
        for spare in self.spares:
            if spare.state == "down":
                self._start(spare)

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
        if planned or (self._recipe.inline and worker.isolation == "process"):
            self.guard.withdrew(worker.name)  # of processes, the guard of what came after them knows nothing
        elif not was_ready:
            self.guard.start_failed(worker.name, now, str(certificate))
        elif not blameless:
            self.guard.died_idle(worker.name, now, str(certificate))
        if worker.retiring or self.closing:
            self.guard.withdrew(worker.name)
            for workers in (self.workers, self.spares):
                if worker.retiring and worker in workers:
                    workers.remove(worker)
        elif not planned:
            self.restarts += 1
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
            "info" if planned or not self._opened else "warning",
            worker=worker.name,
            generation=certificate.generation,
            pid=certificate.pid,
            reason=certificate.reason,
            exit_code=certificate.exit_code,
            signal=certificate.signal,
            detail=certificate.detail or None,
        )
        if not planned or worker.spare:
            self._start(worker)
        if self.guard.broken and self.can_fall_back:
            self.fall_back(f"children keep failing to start: {self.guard.reason}", certificate.stderr[-_TOLD:])
        elif self.guard.broken:
            self._refuse_all()
        self.protect_host()
        self._revisit()
        self.queue.pump()

    @property
    def can_fall_back(self) -> bool:
        """Whether there is something else to try when no child can be started."""
        return self._options.fallback is not None and not self._recipe.inline and not self.closing

    def fall_back(self, reason: str, stderr: Sequence[str] = ()) -> None:
        """Have children in this process from now on: no process is started any more, not even to see if it could be.

        Those that live go on. Whoever waits for a child, or for its time to be started, gets one of the new kind.
        """
        self.fallback_reason = reason
        self._recipe.inline = True
        waiting, running = self.jobs.queued + len(self.jobs.waiting), self.jobs.running
        said = {"stderr": "\n".join(stderr)} if stderr else {}
        self.log("supervisor.fell_back", "warning", reason=reason, waiting=waiting, running=running, **said)
        self._log_ignored()
        self.guard = StartGuard(self._options.restart, random.random)
        for spare in self.spares.copy():
            spare.retire()
            if spare.state == "down":
                self.spares.remove(spare)
        self.queue.has_room()

    def protect_host(self) -> None:
        """After a fallback, give up jobs that have killed a child: in this process they would kill that."""
        if self.fallback_reason is not None:
            # Those whose deaths were the environment's fault are none.
            by_lots(self.loop, (record for record in self.jobs.unsettled() if record.deaths > 0), self._give_up)

    def _give_up(self, record: Record) -> None:
        if record.certificate is not None:
            error = _verdicts.crashed_for_good(record, record.certificate)
            self.jobs.refuse(record, error, Status.CRASHED)
        else:  # it came from a journal
            text = f"job {record.id} killed a child in an earlier run; there are none now: {self.fallback_reason}"
            self.jobs.refuse(record, PoolBroken(text, self._last_certificate))

    def child_buried(self, worker: Worker, child: Child | InlineChild) -> None:
        """A child's kill set is empty, or as empty as it gets."""
        if child.survivors:
            self.survivors.extend(child.survivors)
            self.log("child.survived", "error", worker=worker.name, pids=list(child.survivors))

    def proved(self, worker: Worker) -> None:
        """A worker's child answered: it is healthy."""
        self.guard.proved(worker.name, self.loop.time())

    def _start(self, worker: Worker) -> None:
        """Start a worker's child now, or when the start guard allows it."""
        if self.closing or worker.retiring or worker.is_blocked or worker.state not in ("down", "backoff"):
            return
        if self.relieve(worker):
            # Its child will be the spare, and is wanted less than what the one that took its place does first.
            if worker.start_timer is not None:
                worker.start_timer.cancel()
            worker.start_timer = self.loop.call_later(_REFILL, self._start, worker)
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
        for worker in self.everybody():
            if worker.state == "backoff":
                self._start(worker)

    def relieve(self, worker: Worker) -> bool:
        """Have a spare take the place of a worker that has no child, or soon has none; returns whether one did.

        That worker is a spare from now on. Workers change places, and never children: each child belongs to one worker
        for life, under that one's name.
        """
        # A fresh one rather than one that was silent for a while and got well again.
        ready = [spare for spare in self.spares if spare.is_open()]
        spare = min(ready, key=lambda spare: spare.flavour is not None, default=None)
        if spare is None or worker.spare or worker.retiring or self.closing:
            return False
        self.workers[self.workers.index(worker)] = spare
        self.spares[self.spares.index(spare)] = worker
        worker.spare, spare.spare = True, False
        self.log("worker.relieved", worker=worker.name, by=spare.name)
        self.queue.has_room()
        self.loop.call_soon(self.queue.pump)  # not now: it may be at work
        return True

    def want_children(self) -> None:
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
        error = self.broken()
        hopeless = (record for record in self.jobs.unsettled() if not self.is_served(record))
        by_lots(self.loop, hopeless, lambda record: self.jobs.refuse(record, error))

    def is_served(self, record: Record) -> bool:
        """Return whether a living child will take such a job."""
        return any(worker.state == "ready" and worker.could_serve(record) for worker in self.workers)

    def broken(self) -> PoolBroken:
        """Return the error of a pool whose children keep failing."""
        certificate = self._last_certificate
        text = f"children keep failing to start: {self.guard.reason}"
        if certificate is not None and certificate.stderr:
            text += "\n\nThe last lines of its stderr:\n" + "\n".join(certificate.stderr)
        return PoolBroken(text, certificate)

    def in_question(self) -> bool:
        """Return whether a child died of its job, and nothing has ended since."""
        return bool(self.jobs.blame.guard.deaths)

    def caution(self) -> Caution | None:
        """Return what is to be done while jobs keep dying: one at a time is tried, once blamed after a wait."""
        guard = self.jobs.blame.guard
        if not guard.doubt or self.queue.is_trying:
            self._held_until = None
            return "wait" if guard.doubt else None
        if not guard.environment:
            return "doubt"
        now = self.loop.time()
        if self._held_until is None:
            delay = guard.delay(random.random, strangers=self.queue.stranger()[1] is not None)
            self._held_until = now + delay
            self.loop.call_later(delay + 0.001, self._let_one_try)
        return "wait" if now < self._held_until else "blame"

    def trying(self, record: Record) -> None:
        """See whether a job that is tried outlives those that died."""
        self._held_until = None
        if record.attempt is not None:
            bound = max(_OUTLIVED, 2 * self.jobs.blame.guard.longest)
            self.loop.call_later(bound, self.jobs.outlived, record.attempt)

    def _let_one_try(self) -> None:
        self.queue.has_room()
        self.queue.pump()

    async def scale(self, count: int) -> None:
        """Have `count` workers; those that are too many finish their jobs first."""
        kept = [worker for worker in self.workers if not worker.retiring]
        for _ in range(count - len(kept)):
            self.workers.append(self._new_worker())
        # Idle ones go first, for they lose nothing.
        for worker in sorted(kept, key=lambda worker: worker.held)[: max(0, len(kept) - count)]:
            worker.retire()
            if worker.state == "down":
                self.workers.remove(worker)
        self.queue.has_room()
        self.queue.pump()
