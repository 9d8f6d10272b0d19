"""The errors that jobs end with, in words for whoever waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.exceptions import (
    JobCancelled,
    JobCrashed,
    JobExpired,
    JobFailed,
    JobIndeterminate,
    JobQuarantined,
    JobTimedOut,
    KeyConflict,
    PayloadError,
    PayloadTooLarge,
    TargetError,
)

if TYPE_CHECKING:
    from orchestrator import _frames
    from orchestrator._attempt import Attempt
    from orchestrator._models import DeathCertificate, ErrorRecord
    from orchestrator._record import Record
    from orchestrator.exceptions import JobError

    E = TypeVar("E", bound=JobError)


def label(record: Record) -> str:
    """Return how a job is called in messages."""
    key = "" if record.job.key is None else f" {record.job.key!r}"
    return f"job {record.id}{key} ({record.target.label})"


def _error(kind: type[E], record: Record, text: str, **data: Any) -> E:
    if record.survivors:
        text += f"; of what it started, {', '.join(map(str, record.survivors))} could not be killed"
    error = kind(f"{label(record)} {text}", job_id=record.id, key=record.job.key, attempts=record.attempts, **data)
    error.survivors = record.survivors
    return error


def cancelled(record: Record) -> JobCancelled:
    """Return the error of a job that somebody cancelled."""
    return _error(JobCancelled, record, "was cancelled")


def expired(record: Record) -> JobExpired:
    """Return the error of a job that was not done in time."""
    bound = getattr(record.job, record.expired_by)
    what = "waited for a child longer than" if record.expired_by == "queue_timeout" else "was not done within"
    text = f"{what} {record.expired_by}={bound:g} s"
    if record.retry_after is not None:
        text = f"cannot have its limits within queue_timeout={bound:g} s: in {record.retry_after:.3g} s at the earliest"
    error = _error(JobExpired, record, text)
    error.retry_after = record.retry_after
    return error


def timed_out(record: Record, attempt: Attempt) -> JobTimedOut:
    """Return the error of a job whose last attempt ran, or was silent, for too long."""
    text = f"ran longer than timeout={attempt.bound:g} s"
    if attempt.why == "silent":
        text = f"reported no progress for progress_timeout={attempt.bound:g} s"
    return _error(JobTimedOut, record, text, timeout=attempt.bound, stack=attempt.stack)


def story(error: ErrorRecord) -> str:
    """Return what happened to a job whose target raised, in words that follow its name."""
    return f"failed: {error.type}: {error.message}" if error.message else f"failed: {error.type}"


def ending(attempt: Attempt) -> str:
    """Return why an attempt was ended early, in words that follow its job's name."""
    ends = {"cancelled": "was cancelled", "expired": "was not done in time", "silent": "reported no progress"}
    return ends.get(attempt.why or "", f"ran longer than timeout={attempt.bound:g} s")


def failed(record: Record, error: ErrorRecord) -> JobFailed:
    """Return the error of a job whose target raised."""
    return _error(JobFailed, record, story(error), error=error)


def crashed(record: Record, certificate: DeathCertificate) -> JobCrashed:
    """Return the error of a job whose child died."""
    return _error(JobCrashed, record, f"crashed: {certificate}", certificate=certificate)


def crashed_for_good(record: Record, certificate: DeathCertificate) -> JobCrashed:
    """Return the error of a job whose child died, and that might have run again if there still were children."""
    text = f"crashed: {certificate}; it is not run again in this process, where jobs go on for want of children"
    return _error(JobCrashed, record, text, certificate=certificate)


def quarantined(record: Record, certificate: DeathCertificate) -> JobQuarantined:
    """Return the error of a job that killed too many children."""
    text = f"killed its child {record.killed} times and is given up; the last time: {certificate}"
    return _error(JobQuarantined, record, text, certificate=certificate)


def indeterminate(record: Record, key: str | None, what: str) -> JobIndeterminate:
    """Return the error of a job of which nobody knows whether it did what it was to do."""
    job = record.job
    remedy = "Look it up"
    if key is not None:
        text = f"{what}, between child.effect_begin({key!r}) and its end: nobody knows whether that happened"
    else:
        text = f"{what}: with effects={job.effects!r} it is not run again, and nobody knows what it did"
    if job.effects == "external" and job.reconcile is None:
        remedy += ", or give the job reconcile=, a function that does"
        remedy += "" if key is not None else ", or a retry policy for crashes, if it may run again"
    elif job.effects in ("pure", "idempotent"):
        remedy += "; a job with effects='external' can have reconcile=, a function that does"
    return _error(JobIndeterminate, record, f"{text}. {remedy}", effect=key)


def another_job(record: Record, number: int) -> KeyConflict:
    """Return the error of a job whose key the journal has for another one."""
    text = f"the journal has job {number} under the key {record.identity!r}, with another target or other arguments"
    return KeyConflict(f"{label(record)}: {text}; give this one a key of its own, or use another journal")


def unsendable(record: Record, frame: _frames.Error) -> PayloadError | TargetError:
    """Return the error of a job whose arguments or result the child could not carry, or that it is no child for."""
    remote = frame.error
    if frame.payload == "fixture":
        return TargetError(f"{label(record)} cannot be run: {remote.message}")
    path, _, problem = remote.message.partition(": ")
    if frame.payload != "argument" and not path.startswith("result"):
        path, problem = "result", remote.message  # what broke does not say where: a full disk, a huge integer
    kind = PayloadTooLarge if frame.payload == "result_too_large" else PayloadError
    return kind(path, f"{problem} (of {label(record)})")


def undecodable(record: Record, error: Exception) -> PayloadError:
    """Return the error of a job whose result cannot be rebuilt."""
    problem = f"{label(record)} returned what cannot be rebuilt here: {type(error).__name__}: {error}"
    return PayloadError("result", problem)


def of_another_kind(record: Record, kind: str) -> TargetError:
    """Return the error of a job whose target is another kind of function in its child than here."""
    text = f"{label(record)} is {kind} in a child, and {record.target.kind} here, where it was imported "
    return TargetError(f"{text}earlier: its module has changed; start this program anew")
