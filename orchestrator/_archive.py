"""Jobs and outcomes as the journal keeps them, and back again: pure."""

from __future__ import annotations

import json
from dataclasses import fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator import _codec, exceptions
from orchestrator._events import Artifact
from orchestrator._fixture import Fixture
from orchestrator._models import DeathCertificate, ErrorRecord, Job, RetryPolicy, Status
from orchestrator._store_rows import StoredOutcome
from orchestrator.child._target import MAIN
from orchestrator.exceptions import (
    ConfigurationError,
    JobCrashed,
    JobError,
    JobFailed,
    JobIndeterminate,
    JobTimedOut,
    OrchestratorError,
    PayloadError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator._codec import Payload
    from orchestrator._record import Record
    from orchestrator._store_rows import StoredJob
    from orchestrator._targets import Target

# Options that travel by themselves: what the payload or a column of its own holds is not repeated.
_OPTIONS = ("timeout", "queue_timeout", "total_timeout", "progress_timeout", "convert")
# Of the job frame: what is learnt of the target, or said by the job's options.
_NO_PART_OF_THE_CALL = ("kind", "tell", "key", "fixture", "flavour")
_encode = msgspec.json.Encoder().encode
# Where an error's message lies among its arguments is its class's business; these have data of their own.
_ERRORS: dict[str, Any] = {name: getattr(exceptions, name) for name in exceptions.__all__}


def options_of(job: Job, target: Target, reconcile: str | None, main: Mapping[str, str] | None) -> str:
    """Return a job's options as JSON text; what it is called with is not among them.

    Args:
        job: Whose options.
        target: What is known of its target.
        reconcile: Its reconcile function, by name.
        main: This program's main module.
    """
    options: dict[str, Any] = {name: getattr(job, name) for name in _OPTIONS}
    options["retry"], options["fixture"] = _members(job.retry), _members(job.fixture)
    options["limits"] = dict(job.limits)
    options["kind"] = target.kind
    options["reconcile"] = reconcile
    if target.reference.startswith(f"{MAIN}:") or (reconcile or "").startswith(f"{MAIN}:"):
        options["main"] = main
    return _encode({name: value for name, value in options.items() if value}).decode()


def _members(value: RetryPolicy | Fixture | None) -> dict[str, Any] | None:
    return None if value is None else {each.name: getattr(value, each.name) for each in fields(value)}


def job_of(stored: StoredJob, main: Mapping[str, str] | None) -> tuple[Job, str | None, str | None]:
    """Return the job of an earlier run, without its arguments, the kind of its target, and how it ran (`remember`).

    Raises:
        ConfigurationError: If it is a function of another main module than this program's.
    """
    options: dict[str, Any] = msgspec.json.decode(stored.options)
    its = options.pop("main", None)
    if its is not None and its != main:
        raise ConfigurationError("job.target", f"is of the main module of another program, {' '.join(its.values())}")
    kind = options.pop("kind", None)
    ran = options.pop("ran", None)
    retry, fixture = options.pop("retry", None), options.pop("fixture", None)
    job = Job(
        stored.target,
        key=stored.key,
        priority=stored.priority,
        effects=stored.effects,  # type: ignore[arg-type]
        retry=None if retry is None else RetryPolicy(**retry),
        fixture=None if fixture is None else Fixture(**fixture),
        **options,
    )
    return job, kind, None if ran is None else _encode(ran).decode()


def fingerprint(payload: Payload) -> bytes:
    """Return what tells one call from another: target and arguments; not the options, nor what the job is called."""
    head: dict[str, Any] = _codec.from_json(b"{" + payload.head[:-1] + b"}")
    for name in _NO_PART_OF_THE_CALL:
        head.pop(name, None)
    return blake2b(_codec.to_json(head) + payload.body, digest_size=16).digest()


def reconcile_payload(payload: Payload, target: Target, key: str | None) -> Payload:
    """Return the payload of the question whether an effect happened: its key, then the job's own arguments."""
    body: dict[str, Any] = json.loads(b"{" + payload.body + b"}")
    call: dict[str, Any] = {"args": [key, *body.get("args", ())], "kwargs": body.get("kwargs", {})}
    if "typed" in body:
        # By position or by name: every position is one further back now.
        call["typed"] = {str(int(at) + 1) if at.isdigit() else at: text for at, text in body["typed"].items()}
    text = _codec.to_json(call)
    head = b'"target":' + _codec.to_json(target.reference) + b","
    return type(payload)(head, text[1:-1])


def outcome_of(
    record: Record, status: Status, value: Any, typed: str | None, error: OrchestratorError | None
) -> StoredOutcome:
    """Return an outcome as the journal keeps it; `typed` is the value's text if its annotation carried it."""
    text = typed
    if typed is None and status is Status.SUCCEEDED:
        text = _codec.to_json(value).decode()
    return StoredOutcome(
        status=str(status),
        value=text,
        typed=typed is not None,
        error=None if error is None else _error_text(error),
        attempts=record.attempts,
        deaths=record.killed,
        seconds=record.run_seconds,
        worker=record.worker,
        ran=_ran(record),
    )


def _ran(record: Record) -> str | None:
    """Return what a record knows of how its job ran, as JSON text: nothing of one that ran as most do."""
    found: dict[str, Any] = {}
    if record.usage:
        found["usage"] = record.usage
    if record.isolation == "inline":
        found["isolation"] = "inline"
    if record.artifacts:
        found["artifacts"] = list(record.artifacts.values())
    return to_text(found) if found else None


def remember(record: Record, ran: str | None) -> None:
    """Give a record what the journal knows of how its job ran."""
    found = {} if ran is None else json.loads(ran)
    record.usage = found.get("usage")
    artifacts = [Artifact(**each) for each in found.get("artifacts", ())]
    record.artifacts = {artifact.path: artifact for artifact in artifacts} or None
    record.isolation = found.get("isolation", "process") if record.attempts else None


def value_of(outcome: StoredOutcome, target: Target) -> Any:
    """Return the value of a stored outcome.

    Raises:
        TypeError: If the annotation of today does not fit it.
    """
    if outcome.value is None:
        return None
    return _codec.decode_typed(outcome.value, target) if outcome.typed else _codec.from_json(outcome.value)


def _error_text(error: OrchestratorError) -> str:
    found: dict[str, Any] = {"type": type(error).__name__, "message": str(error.args[0]) if error.args else ""}
    if isinstance(error, JobError):
        found.update(job_id=error.job_id, key=error.key, attempts=error.attempts)
    if isinstance(error, JobFailed):
        found["error"] = error.error
    elif isinstance(error, JobCrashed):
        found["certificate"] = error.certificate
    elif isinstance(error, JobTimedOut):
        found.update(timeout=error.timeout, stack=error.stack)
    elif isinstance(error, JobIndeterminate):
        found["effect"] = error.effect
    elif isinstance(error, PayloadError):
        found["path"] = error.path
    return to_text(found)


def to_text(value: Any) -> str:
    """Return an error's or a certificate's data as JSON text."""
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, ValueError):
        return json.dumps(msgspec.to_builtins(value))  # lone surrogates, of a file name say


def error_of(outcome: StoredOutcome) -> OrchestratorError | None:
    """Return the error of a stored outcome as it was raised then."""
    if outcome.error is None:
        return None
    found: dict[str, Any] = json.loads(outcome.error)
    kind: type[OrchestratorError] = _ERRORS.get(found["type"], JobError)
    message = found["message"]
    if issubclass(kind, PayloadError):
        path = found["path"]
        unsent: PayloadError = kind(path, message.removeprefix(f"{path}: "))
        return unsent
    if not issubclass(kind, JobError):
        return kind(message) if kind is not exceptions.ConfigurationError else JobError(message)
    data: dict[str, Any] = {
        name: found[name] for name in ("job_id", "key", "attempts", "timeout", "stack", "effect") if name in found
    }
    if "error" in found:
        data["error"] = msgspec.convert(found["error"], ErrorRecord)
    if "certificate" in found:
        data["certificate"] = msgspec.convert(found["certificate"], DeathCertificate)
    error: OrchestratorError = kind(message, **data)
    return error
