"""What the engine knows of one accepted job, and who hears of it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator import _state
from orchestrator._events import StateChange
from orchestrator._models import DeathCertificate, Isolation, Job, Outcome, Status

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from orchestrator._attempt import Attempt
    from orchestrator._codec import Payload
    from orchestrator._effects import Done, Question
    from orchestrator._events import Artifact, Event, Progress
    from orchestrator._grant import Grant
    from orchestrator._targets import Target
    from orchestrator._ticket import Ticket
    from orchestrator.exceptions import OrchestratorError

SETTLED = "settled"
# It ended, and the journal does not have that yet.
SETTLING = "settling"


@lru_cache(1024)
def change(state: str, attempt: int) -> StateChange:
    """Return the event; equal ones are one, for there are several per job."""
    return StateChange(state=str(state), attempt=attempt)


class Listener(Protocol):
    """Who accepted the job for a caller; every method is called on the engine's loop, events before `settled`.

    Attributes:
        wants_events: Whether anybody could read logs and states; items and progress are told in any case.
    """

    wants_events: bool

    def settled(self, record: Record) -> None:
        """The job has its outcome; called once, last."""

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        """Something happened that a reader of the job's events may want to see.

        Args:
            record: The job.
            event: What happened.
            owed: It is an item for which the job gets a credit only when it has been read.
        """

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """The job called the caller's function number `index`."""


class _Nobody:
    wants_events = False

    def settled(self, record: Record) -> None:
        pass

    def event(self, record: Record, event: Event, *, owed: bool = False) -> None:
        pass

    def called(self, record: Record, index: int, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        pass


# Who hears of a settled job: a listener that was kept would keep the caller's handle alive, which keeps the record.
NOBODY: Listener = _Nobody()


class Record:
    """One accepted job, from submit to outcome; belongs to the engine's loop until it is settled.

    Attributes:
        state: A state of the job table.
        attempts: Attempts that count.
        deaths: Children that died while they ran this job.
        attempt: The attempt that is on, or None.
        survivors: Processes that its ended attempts started and that could not be killed.
        usage: What all its attempts have used so far; None when none said so.
        artifacts: The files that its ended attempts named, by path; None when they named none.
    """

    __slots__ = (
        "abandoned",
        "artifacts",
        "asking",
        "attempt",
        "attempts",
        "certificate",
        "deaths",
        "effects",
        "error",
        "expired_by",
        "followers",
        "forgiven",
        "gather",
        "grant",
        "id",
        "identity",
        "index",
        "isolation",
        "item",
        "items",
        "job",
        "kept",
        "leader",
        "listener",
        "number",
        "payload",
        "progress",
        "queue_timer",
        "read",
        "replayed",
        "retry_after",
        "retry_timer",
        "run_seconds",
        "state",
        "status",
        "survivors",
        "suspect",
        "target",
        "ticket",
        "total_timer",
        "usage",
        "value",
        "withdrawn",
        "worker",
    )

    def __init__(self, number: int, job: Job, target: Target, payload: Payload, listener: Listener) -> None:
        self.id = self.number = number  # the second one is what callers know: of a job submitted earlier, its number
        self.job = job
        self.target = target
        self.payload = payload
        self.listener = listener
        self.state = "queued"
        self.attempts = 0
        self.deaths = 0
        self.certificate: DeathCertificate | None = None  # of the last of them
        self.abandoned = False  # nobody wants another attempt
        self.survivors: tuple[int, ...] = ()
        self.forgiven = 0  # deaths that were the environment's fault
        self.suspect = False  # it ran when a child died: from now on it runs alone
        self.effects: dict[str, Done | None] | None = None  # by key; None as long as the effect may be in the making
        self.asking: Question | None = None  # its reconcile function is called instead of its target
        self.identity = job.key  # what the journal knows it by
        self.kept = False  # its outcome goes to the journal
        self.replayed = False  # the journal had its outcome when it was submitted
        self.withdrawn = False  # it is cancelled only because the supervisor ends
        self.leader: Record | None = None  # the same job, submitted earlier: its outcome is this one's too
        self.followers: list[Record] | None = None
        self.attempt: Attempt | None = None
        self.grant: Grant | None = None
        self.ticket: Ticket | None = None
        self.queue_timer: asyncio.TimerHandle | None = None
        self.total_timer: asyncio.TimerHandle | None = None
        self.retry_timer: asyncio.TimerHandle | None = None
        self.expired_by = ""
        self.retry_after: float | None = None  # it expired because its limits could be had only then
        self.status: Status | None = None
        self.value: Any = None
        self.error: OrchestratorError | None = None
        self.progress: Progress | None = None
        self.read = False  # somebody reads the events: items wait for them
        self.gather = True  # a generator's items become the value, unless somebody reads them
        self.items: list[Any] = []
        self.run_seconds = 0.0
        self.usage: dict[str, float] | None = None
        self.artifacts: dict[str, Artifact] | None = None
        self.worker: str | None = None
        self.isolation: Isolation | None = None
        self.index: int | None = None
        self.item: Any = None

    def step(self, event: str) -> tuple[str, ...]:
        """Walk the job table; the hot path of a job that succeeds sets `state` itself."""
        try:
            self.state, effects = _state.step(_state.JOB, self.state, event)
        except _state.IllegalStep as error:
            raise _state.IllegalStep(f"job {self.id} (attempt {self.attempts}): {error}") from None
        return effects

    @property
    def is_on_probation(self) -> bool:
        """Whether a child died of it alone: it runs in a child that has run nothing, one such job at a time."""
        return self.killed > 0

    @property
    def killed(self) -> int:
        """How many children died while they ran it, whoever was to blame."""
        return self.deaths + self.forgiven

    def use(self, counts: Mapping[str, float]) -> None:
        """Add what an attempt has used."""
        if self.usage is None:
            self.usage = {}
        for name, number in counts.items():
            self.usage[name] = self.usage.get(name, 0) + number

    def disarm(self) -> None:
        """Forget timers and requests of a job that is settled."""
        for timer in (self.queue_timer, self.total_timer, self.retry_timer):
            if timer is not None:
                timer.cancel()
        if self.ticket is not None:
            self.ticket.cancel()
        self.queue_timer = self.total_timer = self.retry_timer = self.ticket = None

    @property
    def public_state(self) -> str:
        """The state in words for callers, from any thread."""
        state = self.state  # first: a status that comes between the two looks is the end
        if self.status is not None:
            return str(self.status)
        return "running" if state in ("cancelling", SETTLING) else state

    def problem(self, callback_error: BaseException | None) -> BaseException | None:
        """Return what somebody should hear of a settled job: a cancel was somebody's own wish."""
        return callback_error or (None if self.status is Status.CANCELLED else self.error)

    def refuse(self, error: OrchestratorError, status: Status = Status.CANCELLED) -> None:
        """Settle a job that was never accepted."""
        self.status = status
        self.state = SETTLED
        self.error = error
        self.listener.settled(self)

    def outcome(self) -> Outcome:
        """Return the outcome of a settled job."""
        assert self.status is not None
        return Outcome(
            status=self.status,
            value=self.value,
            error=self.error,
            job_id=self.number,
            key=self.job.key,
            attempts=self.attempts,
            index=self.index,
            item=self.item,
            run_seconds=self.run_seconds,
            worker=self.worker,
            usage=self.usage or {},
            artifacts=tuple(self.artifacts.values()) if self.artifacts else (),
            isolation=self.isolation,
        )
