"""What jobs do outside: brackets that are open or closed, and what becomes of a job that died within one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator import _archive, _codec, _frames, _verdicts
from orchestrator._faults import FAULTS, strike
from orchestrator._models import Status
from orchestrator._policy import may_run_again
from orchestrator._store_rows import StoredEffect
from orchestrator._targets import Targets
from orchestrator.exceptions import OrchestratorError, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator._attempt import Attempt
    from orchestrator._codec import Payload
    from orchestrator._record import Record
    from orchestrator._targets import Target


def _nothing() -> None:
    pass


class Done(NamedTuple):
    """An effect that happened, with what the job said of it (JSON)."""

    ref: Any = None


class Question(NamedTuple):
    """What the job's reconcile function is asked at present, in place of the job itself.

    Attributes:
        key: The effect's key; None asks for the job as a whole.
        target: The job's own.
        payload: The job's own.
        attempts: Of the job, so far.
        what: What happened to the job, in words.
        otherwise: What is to become of the job if the effect did not happen; None has it run again.
    """

    key: str | None
    target: Target
    payload: Payload
    attempts: int
    what: str
    otherwise: Callable[[], None] | None


class Effects:
    """Decides for jobs whose effect may have happened; asks their reconcile function, never tries silently again.

    Args:
        queue: Puts a job in line once more.
        settle: Gives a job its outcome.
        note: Has the journal know of an effect's phase, and calls what it is given when it does.
    """

    def __init__(
        self,
        queue: Callable[[Record], None],
        settle: Callable[..., None],
        note: Callable[[StoredEffect, Callable[[], None]], None],
    ) -> None:
        self._queue = queue
        self._settle = settle
        self._note = note
        self._targets = Targets(same_modules=False)

    def begun(self, attempt: Attempt, frame: _frames.EffectBegin) -> None:
        """Open a bracket, and let the job act when that is known; not if the effect happened in an earlier attempt."""
        record = attempt.record
        if record.effects is None:
            record.effects = {}
        known = record.effects.setdefault(frame.key, None)

        def acknowledge() -> None:
            if record.attempt is not attempt:
                return  # its child died meanwhile, and the worker may have another one by now
            answer: dict[str, Any] = {"done": False} if known is None else {"done": True, "ref": known.ref}
            ack = {"type": "effect_ack", "fence": attempt.fence, "key": frame.key, "request": frame.request, **answer}
            attempt.worker.send(ack)

        if known is None:
            self._note(StoredEffect(record.id, frame.key, "begun", attempt.fence, None), acknowledge)
        else:
            acknowledge()

    def done(self, attempt: Attempt, frame: _frames.EffectDone) -> None:
        """Close a bracket."""
        if FAULTS:
            strike("C7")
        record = attempt.record
        if record.effects is None:
            record.effects = {}
        record.effects[frame.key] = Done(frame.ref)
        ref = None if frame.ref is None else _codec.to_json(frame.ref).decode()
        self._note(StoredEffect(record.id, frame.key, "done", attempt.fence, ref), _nothing)

    def take(
        self,
        record: Record,
        what: str,
        *,
        died: bool,
        lost: bool = False,
        ask: bool = True,
        otherwise: Callable[[], None] | None = None,
    ) -> bool:
        """Take a job over if it must not simply fail or run again; says whether it did.

        Args:
            record: A job of which no attempt is on.
            what: What happened to it, in words that follow its name.
            died: Its child is dead, so that nobody can tell what it did last.
            lost: The supervisor died with it: nobody asked for another attempt yet.
            ask: Whether its reconcile function may be asked.
            otherwise: What is to become of it if that says that the effect did not happen; None has it run again.
        """
        if record.asking is not None:
            if died and ask and not record.abandoned:
                self._again(record)  # whoever killed its child: to ask once more changes nothing outside
            else:
                self._give_up(record, f"and its reconcile function {what}")
            return True
        key = next((key for key, state in (record.effects or {}).items() if state is None), None)
        job = record.job
        if key is None:
            again = may_run_again(job.effects, job.retry) if lost else job.effects != "at_most_once"
            if again or not died:
                return False
        if job.reconcile is None or record.abandoned or not ask:
            self._indeterminate(record, key, what)
        else:
            self._ask(record, key, what, otherwise)
        return True

    def _ask(self, record: Record, key: str | None, what: str, otherwise: Callable[[], None] | None) -> None:
        assert record.job.reconcile is not None
        try:
            target = self._targets.resolve(record.job.reconcile)
        except TargetError as error:  # one of an earlier run, which does not exist any more
            self._indeterminate(record, key, f"{what}, and its reconcile function cannot be called: {error}")
            return
        record.asking = Question(key, record.target, record.payload, record.attempts, what, otherwise)
        record.payload = _archive.reconcile_payload(record.payload, target, key)
        record.target = target
        record.step("asked")
        self._queue(record)

    def answered(self, record: Record, frame: _frames.Result | _frames.Error) -> None:
        """Act on what the reconcile function said."""
        if type(frame) is _frames.Error:
            self._give_up(record, f"and its reconcile function raised {frame.error.type}: {frame.error.message}")
            return
        question = self._restore(record)
        happened = frame.value if type(frame) is _frames.Result else None
        if happened is not True and happened is not False:
            self._indeterminate(record, question.key, f"{question.what}, and its reconcile function could not tell")
        elif question.key is None:
            if happened:
                self._settle(record, Status.SUCCEEDED)
            else:
                self._again(record)
        else:
            assert record.effects is not None
            if happened:
                record.effects[question.key] = Done()
            else:
                del record.effects[question.key]
            self._note(StoredEffect(record.id, question.key, "done" if happened else "undone", 0, None), _nothing)
            if self.take(record, question.what, died=False, otherwise=question.otherwise):
                return  # another one is open
            if happened or question.otherwise is None:
                self._again(record)
            else:
                question.otherwise()

    def _again(self, record: Record) -> None:
        record.step("asked")
        self._queue(record)

    def _restore(self, record: Record) -> Question:
        question = record.asking
        assert question is not None
        record.asking = None
        record.target, record.payload, record.attempts = question.target, question.payload, question.attempts
        return question

    def _give_up(self, record: Record, problem: str) -> None:
        question = self._restore(record)
        self._indeterminate(record, question.key, f"{question.what}, {problem}")

    def _indeterminate(self, record: Record, key: str | None, what: str) -> None:
        error: OrchestratorError = _verdicts.indeterminate(record, key, what)
        self._settle(record, Status.INDETERMINATE, error=error)
