"""What is committed together: of everything that was told about a row only what it comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator._store_rows import StoredAttempt, StoredEffect, StoredJob, StoredOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

# Longer texts go to a file: a row of them would push dozens of others out of the page cache.
LARGE = 64 * 1024
# Bytes: a longer transaction would hold up those behind it, and the write-ahead log must stay bounded.
FULL = 4 * 2**20
# A row's columns that are not text, and its place in the index.
_ROW = 400


class BirthRow(NamedTuple):
    """A child that was started."""

    marker: str
    name: str
    worker: str
    generation: int
    pid: int
    started: float
    temp: str


class Batch:
    """Rows of one transaction, and whom to tell of it.

    The order of the calls does not show in what they come to: a job is known before anything is told of it, and each
    row has one last state.

    Attributes:
        jobs: New jobs by number.
        identified: Numbers of the new jobs that may be known already.
        outcomes: Outcomes by job, with the wall clock: the first that was told.
        updates: Attempts, deaths and suspicion of jobs that are older than the batch.
        dones: Whom to tell, in the order of the calls; with the job's number if it wants to hear what is known.
        size: Bytes, roughly.
        has_large: Whether something has to go to a file.
    """

    __slots__ = (
        "attempts",
        "births",
        "burials",
        "dones",
        "effects",
        "has_large",
        "identified",
        "jobs",
        "meta",
        "outcomes",
        "size",
        "updates",
    )

    def __init__(self) -> None:
        self.jobs: dict[int, StoredJob] = {}
        self.identified: list[int] = []
        self.attempts: dict[int, StoredAttempt] = {}
        self.effects: dict[tuple[int, str], StoredEffect] = {}
        self.outcomes: dict[int, tuple[StoredOutcome, float]] = {}
        self.updates: dict[int, tuple[int, int, bool]] = {}
        self.births: list[BirthRow] = []
        self.burials: dict[str, str | None] = {}
        self.meta: dict[str, str] = {}
        self.dones: list[tuple[Callable[..., object], int | None]] = []
        self.size = 0
        self.has_large = False

    def submit(self, job: StoredJob) -> None:
        """Add a job."""
        self.jobs[job.id] = job
        if job.identity is not None:
            self.identified.append(job.id)
        self._measure(len(job.head) + len(job.body) + len(job.options))

    def attempt(self, row: StoredAttempt) -> None:
        """Add an attempt, or what became of it."""
        self.attempts[row.fence] = row
        self.size += _ROW if row.certificate is None else _ROW + len(row.certificate)

    def effect(self, row: StoredEffect) -> None:
        """Add an effect, or what became of it."""
        self.effects[row.job, row.key] = row
        self.size += _ROW if row.ref is None else _ROW + len(row.ref)

    def settle(self, job: int, outcome: StoredOutcome, now: float) -> None:
        """Give a job its outcome; a second one changes nothing."""
        if job not in self.outcomes:
            self.outcomes[job] = (outcome, now)
            self._measure(len(outcome.value or "") + len(outcome.error or ""))

    def update(self, job: int, attempts: int, deaths: int, suspect: bool) -> None:
        """Change what an open job has used up."""
        if job in self.outcomes:
            return
        row = self.jobs.get(job)
        if row is not None:
            self.jobs[job] = row._replace(attempts=attempts, deaths=deaths, suspect=suspect)
        else:
            self.updates[job] = (attempts, deaths, suspect)
            self.size += _ROW

    def bury(self, marker: str, certificate: str | None) -> None:
        """Record the end of a child; a second one changes nothing."""
        self.burials.setdefault(marker, certificate)

    def repair(self) -> None:
        """Make values storable that no column takes: halves of surrogate pairs, numbers beyond 64 bits.

        Inside of JSON text a half becomes its escape, and the text means the same as before.
        """
        self.jobs = {number: StoredJob(*map(_storable, row)) for number, row in self.jobs.items()}
        self.attempts = {fence: StoredAttempt(*map(_storable, row)) for fence, row in self.attempts.items()}
        self.effects = {place: StoredEffect(*map(_storable, row)) for place, row in self.effects.items()}
        self.outcomes = {
            number: (StoredOutcome(*map(_storable, outcome)), when) for number, (outcome, when) in self.outcomes.items()
        }
        self.births = [BirthRow(*map(_storable, row)) for row in self.births]
        self.burials = {marker: _storable(text) for marker, text in self.burials.items()}
        self.meta = {_storable(key): _storable(value) for key, value in self.meta.items()}

    def _measure(self, length: int) -> None:
        self.size += _ROW + length
        if length > LARGE:
            self.has_large = True

    @property
    def is_full(self) -> bool:
        """Whether what is told next belongs into another batch."""
        return self.size >= FULL

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.size or self.births or self.burials or self.meta)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**63 - 1))
    return value
