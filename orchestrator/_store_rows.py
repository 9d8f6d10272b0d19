"""What goes into the journal and comes out of it: rows as tuples, so that many are bound to one statement as they are.

The order of the fields is the order of the columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class StoredJob(NamedTuple):
    """A job as it was accepted.

    Attributes:
        identity: What makes a second submit the same job; None when every submit is a job of its own.
        head: Members of the job frame, as JSON text.
        body: Its arguments, as JSON text.
        options: The rest of the job, as JSON text.
        hash: Of target, head and body.
        attempts: Attempts that count.
        deaths: Children that died while they ran it.
        suspect: Whether it runs alone.
        created: Wall clock.
    """

    id: int
    identity: str | None
    key: str | None
    target: str
    head: bytes
    body: bytes
    options: str
    effects: str
    priority: int
    hash: bytes
    attempts: int
    deaths: int
    suspect: bool
    created: float


class StoredAttempt(NamedTuple):
    """One attempt.

    Attributes:
        state: `leased`, `started`, `returned` or `ended`.
        outcome: How it ended, once it has.
        certificate: The death certificate as JSON text, if its child died.
        refunded: Whether it does not count.
    """

    job: int
    fence: int
    number: int
    worker: str
    generation: int
    state: str
    outcome: str | None
    certificate: str | None
    refunded: bool


class StoredEffect(NamedTuple):
    """An outside effect of a job.

    Attributes:
        phase: `begun`, `done` or `undone`.
        ref: What the job said of it, as JSON text.
    """

    job: int
    key: str
    phase: str
    fence: int
    ref: str | None


class StoredOutcome(NamedTuple):
    """How a job ended.

    Attributes:
        value: What the target returned, as JSON text.
        typed: Whether the value travels by the target's annotation.
        error: As JSON text.
        seconds: How long the last attempt ran.
        ran: Its usage, and where it ran, as JSON text; kept among the options of its job.
    """

    status: str
    value: str | None
    typed: bool
    error: str | None
    attempts: int
    deaths: int
    seconds: float
    worker: str | None
    ran: str | None = None


class StoredBirth(NamedTuple):
    """A child of an earlier run of which nobody recorded the end.

    Attributes:
        marker: What its processes have in their environment; there is no other with this one.
        same_boot: Whether the machine was not started since: otherwise only its folder can be left.
    """

    marker: str
    run_id: str
    same_boot: bool
    name: str
    worker: str
    generation: int
    pid: int
    started: float
    temp: str


class Known(NamedTuple):
    """The job that is already there under an identity."""

    id: int
    hash: bytes
    settled: StoredOutcome | None


class OpenJob(NamedTuple):
    """A job without an outcome, with its last attempt and its effects."""

    job: StoredJob
    attempt: StoredAttempt | None
    effects: tuple[StoredEffect, ...]


class Opened(NamedTuple):
    """What earlier runs left in the journal.

    Attributes:
        run_id: Of this run.
        same_boot: Whether the machine was not started since the last run.
        births: Children of earlier runs of which nobody recorded the end.
        last_job: The highest number that a job ever had.
        last_fence: The highest fence that an attempt ever had.
        open_jobs: Jobs without an outcome, oldest first; those of this run are not among them.
    """

    run_id: str
    same_boot: bool
    births: list[StoredBirth]
    last_job: int
    last_fence: int
    open_jobs: AsyncIterator[OpenJob]
    meta: dict[str, str]
