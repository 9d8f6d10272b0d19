"""What became of a pin, as one JSON object and one line for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.exceptions import JobFailed, KeyConflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator import Outcome
    from orchestrator_adapters.publisher._pins import Pin, PinProblem

# A pin that is where it should be.
DONE = ("published", "found", "rehearsed")
WORDS = {
    "published": "published",
    "found": "already there",
    "rehearsed": "would be published",
    "failed": "failed",
    "unknown": "unknown",
    "invalid": "bad row",
    "open": "not done",
}


def of_problem(problem: PinProblem) -> dict[str, Any]:
    """Return what became of a row that is no pin."""
    return _row(problem.line, None, problem.title, "invalid", problem.problem, problem.failure_class)


def of_pin(pin: Pin, status: str, error: str, failure_class: str) -> dict[str, Any]:
    """Return what became of a pin for which there was no job."""
    return _row(pin.line, pin.key, pin.title, status, error, failure_class)


def of_open(pin: Pin) -> dict[str, Any]:
    """Return that a run did not get to a pin."""
    return of_pin(pin, "open", "the run ended before it", "cancelled")


def of_outcome(pin: Pin, outcome: Outcome, *, withdrawn: bool) -> dict[str, Any]:
    """Return what became of a pin.

    Args:
        pin: Which one.
        outcome: Of its job.
        withdrawn: The run ended before it; whoever runs it again does what is not done.
    """
    artifacts = [artifact.path for artifact in outcome.artifacts]
    more: dict[str, Any] = {"attempts": outcome.attempts, "seconds": round(outcome.run_seconds, 3)}
    if artifacts:
        more["artifacts"] = artifacts
    if outcome.succeeded:
        value = outcome.value
        return {
            **_row(pin.line, pin.key, pin.title, value["status"], None, None),
            "id": value["id"],
            "url": value["url"],
            **more,
        }
    status = str(outcome.status)
    if withdrawn and status in ("cancelled", "expired"):
        return {**of_open(pin), **more}
    unknown = status == "indeterminate"
    return {
        **_row(pin.line, pin.key, pin.title, "unknown" if unknown else "failed", _reason(outcome), class_of(outcome)),
        **more,
    }


def class_of(outcome: Outcome) -> str:
    """Return the failure class of a job that did not succeed."""
    if isinstance(outcome.error, KeyConflict):
        return "changed"
    return outcome.failure_class or "error"


def _reason(outcome: Outcome) -> str:
    """Return in one line why a job did not succeed."""
    error = outcome.error
    if isinstance(error, KeyConflict):
        return "the journal has another pin under this id; give the changed pin another one"
    if isinstance(error, JobFailed):
        return first_line(error.error.message) or error.error.type
    return first_line(str(error))


def first_line(text: str) -> str:
    """Return the first line of a message that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _row(
    line: int, key: str | None, title: str, status: str, error: str | None, failure_class: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"line": line, "key": key, "title": title, "status": status}
    if error is not None:
        found |= {"error": error, "failure_class": failure_class}
    return found


def summary_of(counts: Mapping[str, int], total: int) -> str:
    """Return how many pins there are of each status."""
    parts = []
    for status, word in WORDS.items():
        if count := counts.get(status, 0):
            plural = "s" if status == "invalid" and count > 1 else ""
            parts.append(f"{count:,} {word}{plural}")
    return f"{total:,} {'row' if total == 1 else 'rows'}: {', '.join(parts) or 'nothing to do'}"


def line_of(row: dict[str, Any], number: int, total: int) -> str:
    """Return one line for a person."""
    width = len(str(total))
    text = f"{number:>{width}}/{total}  {WORDS[row['status']]:<13} line {row['line']}: {row['title'] or '(no title)'}"
    if row.get("id") is not None:
        text += f" (id {row['id']})"
    if row.get("error"):
        text += f": {row['error']}"
    if row.get("attempts", 1) > 1:
        text += f" [{row['attempts']} attempts]"
    return text
