"""The line that reports one outcome: exactly one for each record of the input."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.exceptions import JobCrashed, JobFailed, JobTimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator._models import ErrorRecord
    from orchestrator._record import Record

# What a child already sent as exact JSON is written by json, which keeps integers of any size.
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=msgspec.to_builtins).encode

# Ten times as fast, for what it writes exactly: it would make strings of large integers and null of NaN.
_encode_plain = msgspec.json.Encoder().encode
_LARGEST = 2**63 - 1
_NO_VALUE = object()


# Not frozen: one is made for each of a million outcomes, and a frozen one costs three times as much.
@dataclass(slots=True)
class Report:
    """One outcome as the run counts and writes it.

    Attributes:
        kind: What failures are grouped by, such as `ValueError` or `crashed (SIGKILL)`; empty for a success.
        message: One line that says what happened.
        data: What the line of the output holds.
    """

    line: int
    status: str
    kind: str
    message: str
    data: Mapping[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether the job succeeded."""
        return self.status == "succeeded"

    def encode(self) -> bytes:
        """Return the line of the output, line feed included."""
        try:
            if _is_plain(self.data.get("value", _NO_VALUE)):
                return _encode_plain(self.data) + b"\n"
            return _encode_json(self.data).encode() + b"\n"
        except UnicodeEncodeError:
            # A lone surrogate cannot be UTF-8: escaped it can be written and read back.
            return json.dumps(self.data, separators=(",", ":"), default=msgspec.to_builtins).encode() + b"\n"


def report_settled(line: int, job: Record) -> Report:
    """Return the report of a job that has its outcome."""
    assert job.status is not None
    status = job.status._value_  # `value` costs as much as all else here
    key = job.job.key
    seconds = round(job.run_seconds, 6)
    if job.error is None:
        data = {"line": line, "key": key, "status": status, "value": job.value}
        data["attempts"], data["seconds"] = job.attempts, seconds
        return Report(line, status, "", "", data)
    error = describe_error(job.error)
    # The engine numbers the jobs that it took, or took in an earlier run; the reader of outcomes knows lines.
    if not isinstance(job.error, JobFailed):
        error["message"] = error["message"].replace(f"job {job.number} ", f"line {line} ", 1)
    data = {"line": line, "key": key, "status": status, "error": error, "attempts": job.attempts, "seconds": seconds}
    return Report(line, status, _kind(status, job.error), _first_line(str(error["message"])), data)


def report_problem(line: int, error: Exception, *, key: str | None = None, status: str = "failed") -> Report:
    """Return the report of a record that never became an accepted job."""
    name, message = type(error).__name__, str(error)
    described = {"type": name, "message": message, "traceback": ""}
    data = {"line": line, "key": key, "status": status, "error": described, "attempts": 0, "seconds": 0.0}
    return Report(line, status, name, _first_line(message), data)


def describe_error(error: Exception) -> dict[str, Any]:
    """Return an error as JSON values: always `type`, `message` and `traceback`, and what else its kind knows."""
    message = str(error.args[0]) if error.args else str(error)
    if isinstance(error, JobFailed):
        return _describe_record(error.error)
    described: dict[str, Any] = {"type": type(error).__name__, "message": message, "traceback": ""}
    if isinstance(error, JobTimedOut):
        described.update(traceback=error.stack, timeout=error.timeout)
    elif isinstance(error, JobCrashed):
        certificate = error.certificate
        described.update(
            reason=certificate.reason,
            exit_code=certificate.exit_code,
            signal=certificate.signal,
            pid=certificate.pid,
            worker=certificate.worker,
            generation=certificate.generation,
            uptime=round(certificate.uptime, 6),
            stderr=list(certificate.stderr),
        )
        if certificate.last_progress is not None:
            progress = certificate.last_progress
            described["last_progress"] = {"done": progress.done, "total": progress.total, "text": progress.text}
    return described


def _describe_record(record: ErrorRecord) -> dict[str, Any]:
    described: dict[str, Any] = {"type": record.type, "message": record.message, "traceback": record.traceback}
    if record.notes:
        described["notes"] = list(record.notes)
    if record.data:
        described["data"] = dict(record.data)
    return described


def _is_plain(value: Any) -> bool:
    kind = type(value)
    return kind is str or kind is bool or value is None or (kind is int and -_LARGEST <= value <= _LARGEST)


def _kind(status: str, error: Exception) -> str:
    if isinstance(error, JobFailed):
        return error.error.type
    if isinstance(error, JobCrashed):
        certificate = error.certificate
        end = certificate.signal or (f"exit code {certificate.exit_code}" if certificate.exit_code is not None else "")
        return f"{status} ({end or certificate.reason})"
    return type(error).__name__ if status == "failed" else status.replace("_", " ")


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 200 else f"{line[:199]}…"
