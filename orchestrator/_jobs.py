"""The lives of jobs: accepted, sent, answered, tried again, settled exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator import _artifacts, _codec, _frames, _verdicts
from orchestrator._blame import Blame
from orchestrator._effects import Effects
from orchestrator._models import DeathCertificate, Status
from orchestrator._policy import retry_delay, should_retry
from orchestrator._record import NOBODY, SETTLED, SETTLING, Record, change
from orchestrator._spill import write_and_send

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator._attempt import Attempt
    from orchestrator._child_process import Burial
    from orchestrator._guarded_loop import GuardedLoop
    from orchestrator._limits import Limits
    from orchestrator._logs import Logger
    from orchestrator._models import ErrorRecord
    from orchestrator._queue import Queue
    from orchestrator._recipe import InThread
    from orchestrator._store_rows import StoredEffect
    from orchestrator._worker import Worker
    from orchestrator.exceptions import OrchestratorError

# Seconds for killing what a cancelled job left in its living child.
_STRAYS = 1.5


class Jobs:
    """All jobs of one supervisor.

    Args:
        queue: Where they wait.
        limits: What admits them.
        logger: Where their lines go.
        in_thread: Runs a blocking function in a thread.
        start_soon: Runs a coroutine in the engine's task group.
        proved: Called when a worker's child answered: it is healthy.
        loop: The engine's loop.

    Attributes:
        idle: Set while no accepted job is without an outcome.
        blame: Tells a bad job from a bad environment.
    """

    def __init__(
        self,
        queue: Queue,
        limits: Limits,
        logger: Logger,
        in_thread: InThread,
        start_soon: Callable[..., None],
        proved: Callable[[Worker], None],
        loop: GuardedLoop,
    ) -> None:
        self.queue = queue
        self.limits = limits
        self.accepted = 0
        self.running = 0
        self.waiting: set[Record] = set()
        self.outcomes: Counter[Status] = Counter()
        self.retries = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.made_space: Callable[[], None] = lambda: None  # told when fewer jobs wait
        self.effects = Effects(self._put_again, self._settle, self._note_effect)
        self._unsettled: dict[int, Record] = {}
        self.blame = Blame(self._unsettled, logger, self._refunded)
        self._fence = 0
        self._will_pump = False
        self._logger = logger
        self._in_thread = in_thread
        self._start_soon = start_soon
        self._proved = proved
        self._loop = loop

    # Coming and going

    @property
    def outstanding(self) -> int:
        """How many accepted jobs have no outcome yet."""
        return len(self._unsettled)

    @property
    def queued(self) -> int:
        return len(self._unsettled) - self.running - len(self.waiting)

    def holds(self, record: Record) -> bool:
        """Return whether the job was accepted and has no outcome yet."""
        return record.id in self._unsettled

    def unsettled(self) -> list[Record]:
        return list(self._unsettled.values())

    def accept(self, record: Record) -> None:
        """Take a job; from here on it gets exactly one outcome."""
        self._register(record)
        self._enqueue(record)

    async def taken(self, record: Record) -> None:
        """Wait until a job that was handed over is sure not to be lost; without a journal, it is as sure as can be."""

    def _register(self, record: Record) -> None:
        self.accepted += 1
        if not self._unsettled:
            self.idle.clear()
        self._unsettled[record.id] = record
        job = record.job
        if job.queue_timeout is not None:
            record.queue_timer = self._loop.call_later(job.queue_timeout, self._waited_too_long, record)  # type: ignore[arg-type]
        if job.total_timeout is not None:
            record.total_timer = self._loop.call_later(job.total_timeout, self.expire, record, "total_timeout")  # type: ignore[arg-type]
        if record.listener.wants_events:
            record.listener.event(record, change("queued", 0))

    def _enqueue(self, record: Record) -> None:
        self.queue.put(record)
        if record.queue_timer is not None:
            self.queue.check_time(record)
        self.queue.pump(more_follow=True)

    def _put_again(self, record: Record) -> None:
        self.queue.put(record, front=True)
        self.queue.pump()

    def cancel(self, record: Record) -> None:
        """End a job, wherever it is; its outcome follows."""
        record.abandoned = True
        self._end(record, "cancelled")

    def _waited_too_long(self, record: Record) -> None:
        # Not when it runs, or ran and waits to be tried again; a job that waits in a child behind others has not begun.
        if record.attempts == 0 or (record.attempts == 1 and record.attempt is not None and not record.attempt.begun):
            self.expire(record, "queue_timeout")

    def _pump(self) -> None:
        self._will_pump = False
        self.queue.pump()

    def expire(self, record: Record, bound: str) -> None:
        """End a job because one of its bounds ran out."""
        record.expired_by = bound
        record.abandoned = True
        self._end(record, "expired")

    def _end(self, record: Record, why: Any) -> None:
        attempt = record.attempt
        if record.state in (SETTLED, SETTLING) or (record.state in ("running", "cancelling") and attempt is None):
            return  # it is being settled
        effects = record.step(why)
        if attempt is not None:
            attempt.end_early(why)
        elif "settle" in effects:
            self.waiting.discard(record)
            self.queue.dropped(record)
            if not self._will_pump:
                # It may have stood in the way of others: asked for permits in front of them, or wanted another child.
                self._will_pump = True
                self._loop.call_soon(self._pump)
            if why == "cancelled":
                self._settle(record, Status.CANCELLED, error=_verdicts.cancelled(record))
            else:
                self._settle(record, Status.EXPIRED, error=_verdicts.expired(record))

    def refuse(self, record: Record, error: OrchestratorError, status: Status = Status.FAILED) -> None:
        """Settle a job that waits: it cannot be run."""
        if record.state in ("queued", "waiting"):
            record.step("refused")
            self.waiting.discard(record)
            self.queue.dropped(record)
            self._settle(record, status, error=error)

    def abandon(self, record: Record, error: OrchestratorError, status: Status = Status.CANCELLED) -> None:
        """Settle a job, whatever its state: the engine ends."""
        if record.attempt is not None:
            record.attempt.over()
            self._take_from(record.attempt)
        if record.state in ("running", "cancelling"):
            self.running -= 1
        self.waiting.discard(record)
        self._settle(record, status, error=error)

    def withdraw(self, record: Record) -> None:
        """Cancel a job because the supervisor ends; in a journal it stays open, for the next one."""
        record.withdrawn = True
        self.cancel(record)

    def sending(self, attempt: Attempt, frame: bytes) -> bytes:
        """Return the frame of an attempt if it may be sent at once, else nothing: it will be sent in due time."""
        return frame

    def leased(self, record: Record) -> int:
        """Note that a child gets the job; returns the fence of the attempt."""
        self._fence += 1
        self.running += 1
        if record.items:
            record.items.clear()  # of an earlier attempt
        if record.listener.wants_events:
            record.listener.event(record, change("running", record.attempts))
        self.made_space()
        return self._fence

    def _settle(
        self,
        record: Record,
        status: Status,
        *,
        value: Any = None,
        typed: str | None = None,
        error: OrchestratorError | None = None,
    ) -> None:
        """Give a job its outcome; `typed` is the value's text when its annotation carried it."""
        record.status = status  # before the state: other threads look at both
        record.state = SETTLED
        record.value = value
        record.error = error
        record.disarm()
        del self._unsettled[record.id]
        self.outcomes[status] += 1
        if record.listener.wants_events:
            record.listener.event(record, change(status, record.attempts))
        record.listener.settled(record)
        record.listener = NOBODY
        self.made_space()
        if not self._unsettled:
            self.idle.set()

    # What children answer

    def answered(self, attempt: Attempt, frame: _frames.Result | _frames.Error) -> None:
        """An attempt ended with a frame."""
        attempt.over()
        record = self._take_from(attempt)
        self.running -= 1
        seconds = frame.ms / 1e3
        record.run_seconds = seconds
        record.target.learn_time(seconds)
        if self.blame.guard.deaths:
            self.blame.ended()
        self._proved(attempt.worker)
        if attempt.made is not None and attempt.why is None:
            self._keep_files(attempt, partial(self._decide, attempt, record, frame))
        elif type(frame) is _frames.Result and attempt.why is None and record.asking is None:
            self._succeeded(record, frame)
        else:
            self._decide(attempt, record, frame)

    def _decide(self, attempt: Attempt, record: Record, frame: _frames.Result | _frames.Error) -> None:
        """Do what is to be done now that an attempt has ended with a frame."""
        if record.asking is not None and attempt.why is None:
            self.effects.answered(record, frame)
        elif type(frame) is _frames.Error:
            if attempt.why is not None:
                self._clean_up(attempt, record, frame.keep)
            else:
                self._failed(record, frame)
        elif type(frame) is _frames.Result:
            if attempt.why is None or attempt.why == "cancelled":
                self._succeeded(record, frame)
                return
            self._clean_up(attempt, record, frame.keep)  # it answered when its time had run out
            unread = frame.value_file or frame.typed_file
            if unread is not None:
                with contextlib.suppress(OSError):
                    os.unlink(unread)

    def _keep_files(self, attempt: Attempt, go_on: Callable[[], None], buried: Burial | None = None) -> None:
        """Go on when the files that an attempt named are listed; until then its job has not ended."""
        self.running += 1

        def listed() -> None:
            self.running -= 1
            go_on()

        self._start_soon(_artifacts.keep, attempt, self._in_thread, listed, buried)

    def _take_from(self, attempt: Attempt) -> Record:
        """Part an attempt that is over from its job, and give back the job's permits."""
        record = attempt.record
        record.attempt = None
        record.worker = attempt.worker.name
        grant, record.grant = record.grant, None
        if grant is not None:
            grant.release()
        return record

    def _succeeded(self, record: Record, frame: _frames.Result) -> None:
        if frame.typed is None and frame.value_file is None and frame.typed_file is None:
            value = frame.value
            if record.items and value is None and record.gather and record.target.is_generator:
                value, record.items = record.items, []
            elif record.target.is_generator and value is None and record.gather and not record.read:
                value = []
            self._settle(record, Status.SUCCEEDED, value=value)
        elif frame.typed is not None and len(frame.typed) < _codec.LARGE:
            self._settle_decoded(record, frame.typed)
        else:
            self.running += 1  # until it is decoded
            self._start_soon(self._decode_large, record, frame)

    async def _decode_large(self, record: Record, frame: _frames.Result) -> None:
        try:
            value, typed = await self._in_thread(_codec.read_result, frame, record.target)
        except Exception as error:  # whatever is in that file, the job must settle
            self.running -= 1
            self._undecodable(record, error)
        else:
            self.running -= 1
            self._settle(record, Status.SUCCEEDED, value=value, typed=typed)

    def _settle_decoded(self, record: Record, typed: str) -> None:
        try:
            value = _codec.decode_typed(typed, record.target)
        except Exception as error:  # annotations are user code: anything may come of them
            self._undecodable(record, error)
        else:
            self._settle(record, Status.SUCCEEDED, value=value, typed=typed)

    def _undecodable(self, record: Record, error: Exception) -> None:
        self._settle(record, Status.FAILED, error=_verdicts.undecodable(record, error))

    def _failed(self, record: Record, frame: _frames.Error) -> None:
        if frame.payload is not None:
            self._settle(record, Status.FAILED, error=_verdicts.unsendable(record, frame))
            return
        known = frame.error.record()
        fail = partial(self._retry_or_fail, record, known)
        if not record.effects or not self.effects.take(record, _verdicts.story(known), died=False, otherwise=fail):
            fail()

    def _retry_or_fail(self, record: Record, known: ErrorRecord) -> None:
        if not self._retry(record, "error", known):
            self._settle(record, Status.FAILED, error=_verdicts.failed(record, known))

    def returned(self, attempt: Attempt, kind: str | None = None) -> None:
        """A child gave an attempt back (its target is of that kind), or died before it began it: it never counted."""
        record = self._take_from(attempt)
        record.worker = record.isolation = None
        self.running -= 1
        record.attempts -= 1
        if attempt.why is not None:
            self._conclude(attempt, record)
            return
        if kind is not None and not record.target.learn(kind):
            self._settle(record, Status.FAILED, error=_verdicts.of_another_kind(record, kind))
            return
        record.step("returned")
        if record.listener.wants_events:
            record.listener.event(record, change("queued", 0))
        self.queue.put(record, front=True)
        if record.queue_timer is not None and record.queue_timer.when() <= self._loop.time():
            self._waited_too_long(record)  # it was taken to be running when its time was up

    def _clean_up(self, attempt: Attempt, record: Record, keep: Any) -> None:
        """Settle an attempt that ended early in a child that lives on, once all that it started is gone."""
        worker = attempt.worker
        if worker.state == "dying" and worker.child is not None:
            # The answer crossed with the kill: what the job started is gone when the child is buried.
            self.running += 1
            self._start_soon(self._conclude_after, worker.child.buried, attempt, record)
            return
        # With other jobs in that child nobody can tell whose process is whose.
        if worker.held or not worker.has_strays(attempt.moment, keep):
            self._conclude(attempt, record)
            return
        self.running += 1
        worker.cleaning = True
        self._start_soon(self._kill_strays, attempt, record, keep)

    async def _kill_strays(self, attempt: Attempt, record: Record, keep: Any) -> None:
        record.survivors += await attempt.worker.kill_strays(attempt.moment, keep, _STRAYS)
        self.running -= 1
        self._conclude(attempt, record)

    def _conclude(self, attempt: Attempt, record: Record) -> None:
        """Settle, or try again, an attempt that was ended early and is over."""
        if attempt.made is not None:
            self._keep_files(attempt, partial(self._conclude, attempt, record))
            return
        conclude = partial(self._retry_or_settle, attempt, record)
        uncertain = record.effects or record.asking
        if not uncertain or not self.effects.take(record, _verdicts.ending(attempt), died=False, otherwise=conclude):
            conclude()

    def _retry_or_settle(self, attempt: Attempt, record: Record) -> None:
        if attempt.why == "cancelled":
            self._settle(record, Status.CANCELLED, error=_verdicts.cancelled(record))
        elif attempt.why == "expired" or record.expired_by:
            self._settle(record, Status.EXPIRED, error=_verdicts.expired(record))
        elif not self._retry(record, "timeout"):
            self._settle(record, Status.TIMED_OUT, error=_verdicts.timed_out(record, attempt))

    def crashed(self, attempts: list[Attempt], certificate: DeathCertificate, buried: Burial) -> None:
        """A child died while it ran these attempts."""
        ours = certificate.reason in ("cancelled", "timeout")
        for attempt in attempts:
            record = self._take_from(attempt)
            self.running -= 1
            record.run_seconds = max(0.0, self._loop.time() - attempt.begun_at)
            if attempt.why is not None:
                self.running += 1
                self._start_soon(self._conclude_after, buried, attempt, record)
                continue
            # Of several nobody knows whose fault it was, unless it was ours: they run alone next, and that counts.
            charged = len(attempts) == 1
            if charged and not ours:
                tried = self.queue.in_trial and self.queue.tried is record
                charged = self.blame.charge(record, self._loop.time(), tried=tried)
            record.suspect = record.suspect or not ours
            settle = partial(self._settle_crashed, record, certificate, charged=charged)
            if attempt.made is None:
                settle()
            else:
                self._keep_files(attempt, settle, buried)

    async def _conclude_after(self, buried: Burial, attempt: Attempt, record: Record) -> None:
        await buried.wait()
        record.survivors += buried.survivors
        self.running -= 1
        self._conclude(attempt, record)
        # While the environment is in doubt, the next one is tried when this one has ended.
        self.queue.has_room()
        self.queue.pump()

    def _refunded(self, record: Record) -> None:
        """Nobody but this process needs to know."""

    def outlived(self, attempt: Attempt) -> None:
        """Note that an attempt that was tried runs longer than what died: jobs can run here."""
        if attempt.record.attempt is attempt and attempt.why is None:
            self.blame.ended()
            self.queue.has_room()
            self.queue.pump()

    def _settle_crashed(self, record: Record, certificate: DeathCertificate, *, charged: bool) -> None:
        record.certificate = certificate
        given_up = self.blame.is_given_up(record)
        acts = record.job.effects != "pure" or record.effects  # some do without saying so
        if acts and self.effects.take(record, f"crashed: {certificate}", died=True, ask=not given_up):
            return
        if given_up:
            self._logger.log("job.quarantined", "error", job=record.id, key=record.job.key, deaths=record.killed)
            self._settle(record, Status.QUARANTINED, error=_verdicts.quarantined(record, certificate))
        elif not self._retry(record, "crash", charged=charged):
            self._settle(record, Status.CRASHED, error=_verdicts.crashed(record, certificate))

    def _retry(self, record: Record, kind: Any, error: ErrorRecord | None = None, *, charged: bool = True) -> bool:
        """Have the job attempted again if its policy says so; an attempt that is not charged does not count there."""
        policy = record.job.retry
        # At least one, all the same: a policy of one attempt means that it must not run twice.
        counted = record.attempts if charged else max(1, record.attempts - 1)
        if record.abandoned or policy is None or not should_retry(policy, kind, counted, error):
            return False
        record.step("retry")
        self.retries += 1
        self.waiting.add(record)
        self.made_space()
        delay = retry_delay(policy, record.attempts, random.random)
        record.retry_timer = self._loop.call_later(delay, self._due, record)
        self._logger.log("job.retry_scheduled", job=record.id, key=record.job.key, after=kind, delay=round(delay, 3))
        if record.listener.wants_events:
            record.listener.event(record, change("waiting", record.attempts))
        if not charged:
            record.attempts -= 1
        return True

    def _due(self, record: Record) -> None:
        record.retry_timer = None
        record.step("due")
        self.waiting.discard(record)
        self.queue.put(record, front=True)
        self.queue.pump()

    def _note_effect(self, effect: StoredEffect, done: Callable[[], None]) -> None:
        done()  # nobody but this process needs to know

    def spill(self, attempt: Attempt, path: str) -> None:
        """Write a large payload to a file, then send the job."""
        self._start_soon(write_and_send, attempt, path, self._in_thread, self)

    def unsent(self, attempt: Attempt, problem: OrchestratorError) -> None:
        """Settle a job that could not be sent."""
        record = self._take_from(attempt)
        self.running -= 1
        self._settle(record, Status.FAILED, error=problem)
