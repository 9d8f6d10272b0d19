"""Jobs whose lives are in the journal: nothing is begun, and no outcome is told, before it is written."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator import _archive, _codec, _frames, _verdicts
from orchestrator._effects import Done
from orchestrator._events import StateChange
from orchestrator._faults import FAULTS, strike
from orchestrator._jobs import Jobs
from orchestrator._models import Status
from orchestrator._record import NOBODY, SETTLING, Record
from orchestrator._store_rows import StoredAttempt, StoredJob
from orchestrator._targets import Targets
from orchestrator.exceptions import SupervisorClosed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from orchestrator._attempt import Attempt
    from orchestrator._child_process import Burial
    from orchestrator._events import Event
    from orchestrator._models import DeathCertificate, Job
    from orchestrator._record import Listener
    from orchestrator._store import Store
    from orchestrator._store_rows import Known, OpenJob, StoredEffect, StoredOutcome
    from orchestrator.exceptions import OrchestratorError

# What may have begun outside must be known to a later run: their attempts are written before they are sent.
_WRITTEN_FIRST = ("external", "at_most_once")
# Of a job that was to end with its supervisor these say only that: the next run tries again, or decides.
_WITHDRAWN = (Status.CANCELLED, Status.EXPIRED, Status.INDETERMINATE)
_FINAL = frozenset(map(str, Status))


class DurableJobs(Jobs):
    """The jobs of a supervisor that has a journal."""

    def keep_in(self, store: Store, last_fence: int, main: Mapping[str, str] | None) -> None:
        """Use a journal that was opened.

        Args:
            store: The journal.
            last_fence: The highest that an attempt of an earlier run had.
            main: This program's main module, as children load it.
        """
        self._store = store
        self._fence = last_fence
        self._targets = Targets(same_modules=False)
        self._untaken: dict[Record, list[asyncio.Future[None]]] = {}
        self._main = main
        self._paths: dict[int, str] = {}
        # Of jobs that ended here and are open in the journal: what is known of their effects, should they come again.
        self._given_up: dict[int, dict[str, Done | None]] = {}
        self._options: tuple[Job | None, str] = (None, "")

    # Coming

    def accept(self, record: Record) -> None:
        """Have a job written; it is queued when that is done, unless the journal knows it already.

        A stream is not written: its items are read while it runs, and nobody could read them again.
        """
        if record.read:
            super().accept(record)
            return
        if FAULTS:
            strike("C1")
        self._register(record)
        record.kept = True
        self._untaken[record] = []
        self._store.submit(self._stored(record), partial(self._written, record))

    async def taken(self, record: Record) -> None:
        """Wait until a job that was handed over is written."""
        waiters = self._untaken.get(record)
        if waiters is not None:
            waiter = self._loop.create_future()
            waiters.append(waiter)
            await waiter

    def forsake(self) -> None:
        """Tell those who wait for jobs to be written that the journal was closed before it could be."""
        waiters = [waiter for each in self._untaken.values() for waiter in each]
        self._untaken.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(
                    SupervisorClosed("the supervisor was closed while its journal could not be written: not accepted")
                )

    def _stored(self, record: Record) -> StoredJob:
        job, target, payload = record.job, record.target, record.payload
        # Jobs of one map share theirs.
        if self._options[0] is not job:
            reconcile = None if job.reconcile is None else self._targets.resolve(job.reconcile).reference
            self._options = job, _archive.options_of(job, target, reconcile, self._main)
        return StoredJob(
            record.id,
            record.identity,
            job.key,
            target.reference,
            payload.head,
            payload.body,
            self._options[1],
            job.effects,
            job.priority,
            b"" if record.identity is None else _archive.fingerprint(payload),
            0,
            0,
            False,
            time.time(),
        )

    def _written(self, record: Record, known: Known | None) -> None:
        for waiter in self._untaken.pop(record):
            if not waiter.done():
                waiter.set_result(None)
        if known is not None:
            self._meet(record, known)
        elif record.state == "queued":
            self._enqueue(record)

    def _meet(self, record: Record, known: Known) -> None:
        """Give a job that was submitted before what that one has, or will have."""
        record.kept = False
        if record.state != "queued":
            return  # it was cancelled meanwhile, and that is all that its caller will hear
        outcome = known.settled
        record.disarm()
        if known.hash != _archive.fingerprint(record.payload):
            self._end_here(record, Status.FAILED, error=_verdicts.another_job(record, known.id))
        elif outcome is not None:
            record.number = known.id
            record.replayed = True
            record.attempts, record.run_seconds, record.worker = outcome.attempts, outcome.seconds, outcome.worker
            _archive.remember(record, outcome.ran)
            try:
                value = _archive.value_of(outcome, record.target)
            except Exception as error:  # annotations are user code: anything may come of them
                self._end_here(record, Status.FAILED, error=_verdicts.undecodable(record, error))
            else:
                self._end_here(record, Status(outcome.status), value=value, error=_archive.error_of(outcome))
        elif known.id in self._unsettled:
            self._follow(record, self._unsettled[known.id])
        else:
            # It was given up in this run without an outcome: from now on this is it.
            del self._unsettled[record.id]
            record.id = known.id
            record.kept = True
            self._unsettled[record.id] = record
            record.effects = self._given_up.pop(record.id, None)
            if not record.effects or not self.effects.take(record, "was given up before", died=False):
                self._enqueue(record)

    def _end_here(self, record: Record, status: Status, *, value: Any = None, error: OrchestratorError | None) -> None:
        """Settle a job that waits, without a word to the journal."""
        record.step("refused")
        record.kept = record.replayed
        self._tell(record, status, value, error)

    def _follow(self, record: Record, leader: Record) -> None:
        """Let a job have the events and the outcome of the one that was submitted first."""
        record.number = leader.id
        record.leader = leader
        record.state = "running"
        self.running += 1
        if leader.followers is None:
            leader.followers = []
            leader.listener = _Shared(leader.listener, leader.followers)
        leader.followers.append(record)

    def resume(self, found: OpenJob) -> None:
        """Take up a job that an earlier run left without an outcome.

        Raises:
            ConfigurationError: If it cannot be run as things are now, for want of a limit say.
        """
        stored, attempt = found.job, found.attempt
        effects: dict[str, Done | None] = {}
        for effect in found.effects:
            if effect.phase != "undone":
                ref = None if effect.ref is None else _codec.from_json(effect.ref)
                effects[effect.key] = Done(ref) if effect.phase == "done" else None
        if effects:
            self._given_up[stored.id] = effects  # should what follows fail
        job, kind, ran = _archive.job_of(stored, self._main)
        self.limits.check(job.limits, "job.limits")
        target = self._targets.resolve(stored.target, job.fixture)
        if kind is not None:
            target.learn(kind)
        record = Record(stored.id, job, target, _codec.Payload(stored.head, stored.body), NOBODY)
        record.identity, record.kept = stored.identity, True
        record.attempts, record.deaths, record.suspect = stored.attempts, stored.deaths, stored.suspect
        record.effects = self._given_up.pop(stored.id, None)
        _archive.remember(record, ran)
        self._register(record)
        lost = attempt is not None and attempt.state in ("leased", "started")
        what = "was running when its supervisor died"
        # Also when it had ended with an effect open, and the journal does not have what became of that.
        if (lost or record.effects) and self.effects.take(record, what, died=lost, lost=lost):
            return
        self._enqueue(record)

    # Attempts

    def sending(self, attempt: Attempt, frame: bytes) -> bytes:
        """Have the attempt written; one that may act outside is sent only then."""
        record = attempt.record
        if record.job.effects not in _WRITTEN_FIRST or record.asking is not None or not record.kept:
            self._note_attempt(attempt, "leased")
            if FAULTS:
                self._loop.call_soon(strike, "C5")
            return frame
        self._store.attempt(self._row(attempt, "started"), partial(self._send, attempt, frame))
        return b""

    def _send(self, attempt: Attempt, frame: bytes) -> None:
        if attempt.record.attempt is not attempt:
            self._paths.pop(attempt.fence, None)
            return  # its child died meanwhile
        path = self._paths.pop(attempt.fence, None)
        if attempt.why is None:
            if path is None:
                attempt.worker.send_bytes(frame)
            else:
                super().spill(attempt, path)
            if FAULTS:
                strike("C4")
                strike("C5")
            return
        # It was to end before it was sent: the child has no such job, and would not hear of its cancel again.
        attempt.worker.take_back(attempt)
        attempt.over()
        self.returned(attempt)
        attempt.worker.is_freed()

    def spill(self, attempt: Attempt, path: str) -> None:
        """Write a large payload to a file, then send the job."""
        record = attempt.record
        if record.job.effects in _WRITTEN_FIRST and record.asking is None and record.kept:
            self._paths[attempt.fence] = path  # when the attempt is written
        else:
            super().spill(attempt, path)

    def _row(
        self, attempt: Attempt, state: str, outcome: str | None = None, certificate: str | None = None
    ) -> StoredAttempt:
        worker, record = attempt.worker, attempt.record
        place = worker.name, worker.generation
        return StoredAttempt(
            record.id, attempt.fence, record.attempts, *place, state, outcome, certificate, refunded=state == "returned"
        )

    def _note_attempt(
        self, attempt: Attempt, state: str, outcome: str | None = None, certificate: str | None = None
    ) -> None:
        record = attempt.record
        if record.kept and record.asking is None and not (record.withdrawn and attempt.why is not None):
            self._store.attempt(self._row(attempt, state, outcome, certificate))

    def answered(self, attempt: Attempt, frame: _frames.Result | _frames.Error) -> None:
        """An attempt ended with a frame."""
        failed = type(frame) is _frames.Error
        # A result that crossed with the cancel counts all the same.
        crossed = attempt.why == "cancelled" and not failed
        ended = "succeeded" if crossed else attempt.why or ("error" if failed else "succeeded")
        self._note_attempt(attempt, "ended", ended)
        super().answered(attempt, frame)

    def returned(self, attempt: Attempt, kind: str | None = None) -> None:
        """A child gave an attempt back, or died before it began it."""
        self._note_attempt(attempt, "returned")
        super().returned(attempt, kind)

    def _refunded(self, record: Record) -> None:
        if record.kept:
            self._store.update(record.id, record.attempts, record.deaths, record.suspect)

    def crashed(self, attempts: list[Attempt], certificate: DeathCertificate, burial: Burial) -> None:
        """A child died while it ran these attempts."""
        text = _archive.to_text(certificate)
        for attempt in attempts:
            self._note_attempt(attempt, "ended", attempt.why or "crash", text)
        super().crashed(attempts, certificate, burial)

    def _retry(self, record: Record, *args: Any, **options: Any) -> bool:
        again = super()._retry(record, *args, **options)
        if again and record.kept:
            self._store.update(record.id, record.attempts, record.deaths, record.suspect)
        return again

    def _note_effect(self, effect: StoredEffect, done: Callable[[], None]) -> None:
        self._store.effect(*effect, done=done)

    # Ends

    def refuse(self, record: Record, error: OrchestratorError, status: Status = Status.FAILED) -> None:
        """Tell who waits that a job cannot be run; in the journal it stays open."""
        record.kept = False
        super().refuse(record, error, status)

    def cancel(self, record: Record) -> None:
        """End a job, wherever it is; its outcome follows."""
        super().cancel(record if record.leader is None else record.leader)

    def withdraw(self, record: Record) -> None:
        """Cancel a job because the supervisor ends; in the journal it stays open, for the next one."""
        if record.leader is None:  # else the other one is withdrawn too
            super().withdraw(record)

    def _settle(
        self,
        record: Record,
        status: Status,
        *,
        value: Any = None,
        typed: str | None = None,
        error: OrchestratorError | None = None,
    ) -> None:
        if record.withdrawn and status in _WITHDRAWN:
            record.kept = False
        if not record.kept:
            self._tell(record, status, value, error)
            return
        record.state = SETTLING
        record.disarm()
        self.running += 1  # until it is written
        store = partial(self._store_outcome, record, status, value, error)
        encode = partial(_archive.outcome_of, record, status, value, typed, error)
        if typed is None and status is Status.SUCCEEDED and _codec.is_large((value,)):
            self._start_soon(self._encode_large, encode, store)
        else:
            store(encode())

    async def _encode_large(self, encode: Callable[[], StoredOutcome], store: Callable[[StoredOutcome], None]) -> None:
        store(await self._in_thread(encode))

    def _store_outcome(
        self, record: Record, status: Status, value: Any, error: OrchestratorError | None, outcome: StoredOutcome
    ) -> None:
        self._store.settle(record.id, outcome, partial(self._settled, record, status, value, error))

    def _settled(self, record: Record, status: Status, value: Any, error: OrchestratorError | None) -> None:
        if FAULTS:
            strike("C9")
        if record.id not in self._unsettled:
            return  # the engine ended, and said so
        self.running -= 1
        self._tell(record, status, value, error)
        if FAULTS:
            strike("C10")

    def _tell(self, record: Record, status: Status, value: Any, error: OrchestratorError | None) -> None:
        listener = record.listener
        if record.effects and not record.kept:
            self._given_up[record.id] = record.effects
        super()._settle(record, status, value=value, error=error)
        if listener is NOBODY and error is not None and record.identity is None:
            self._logger.log("job.failed_unobserved", "error", job=record.id, key=record.job.key, error=str(error))
        for follower in record.followers or ():
            if follower.id in self._unsettled:
                self.running -= 1
                follower.attempts, follower.run_seconds = record.attempts, record.run_seconds
                follower.worker, follower.kept = record.worker, record.kept
                follower.usage, follower.isolation = record.usage, record.isolation
                follower.artifacts = record.artifacts
                super()._settle(follower, status, value=value, error=error)

    def abandon(self, record: Record, error: OrchestratorError, status: Status = Status.CANCELLED) -> None:
        """Settle a job, whatever its state: the engine ends, and the journal keeps what is not done."""
        record.kept = False
        if record.state == SETTLING:
            self.running -= 1
        super().abandon(record, error, status)


class _Shared:
    """Tells several listeners of one job, each with the record that it knows."""

    wants_events = True

    def __init__(self, first: Listener, followers: list[Record]) -> None:
        self._first = first
        self._followers = followers

    def settled(self, record: Record) -> None:
        self._first.settled(record)

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        self._first.event(record, event, owed=owed)
        if type(event) is StateChange and event.state in _FINAL:
            return  # each is told of its own end
        for follower in self._followers:
            # Whoever joins later reads what comes, and pays for nothing: the job waits for its first reader alone.
            follower.listener.event(follower, event)

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        if self._first is NOBODY:
            # Taken up from an earlier run: who submitted the job again has the functions.
            for follower in self._followers:
                if follower.payload.callbacks:
                    follower.listener.called(follower, index, args, kwargs)
                    return
        self._first.called(record, index, args, kwargs)
