"""What a report tells of a run: its jobs, their attempts with times, and the evidence that each attempt left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping  # noqa: TC003  whoever asks for type hints must get them
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import Outcome  # noqa: TC001  whoever asks for type hints must get them
from orchestrator.exceptions import JobCrashed, JobFailed, JobTimedOut
from orchestrator_adapters.playwright._folders import MARKER, read_mark

# Most of a traceback, or of what a child wrote last, that a reader looks at.
LONGEST_TEXT = 20_000
# Statuses and failure classes of attempts in which something died.
DEATHS = ("crashed", "quarantined", "browser_died", "driver_died", "page_crashed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt as it is drawn.

    Attributes:
        number: From 1.
        lane: The worker, or the child's process when it is not known which worker that was.
        started: Seconds since the epoch; None when nobody wrote it down.
        seconds: How long it ran, as far as that is known.
        status: As an outcome's: `succeeded`, `failed`, `crashed`, `timed_out`, `cancelled` …
        died: The child, the browser, the driver or the page was killed, or crashed.
        text: Why it ended, in one line.
        files: What it left.
    """

    number: int
    lane: str
    started: float | None
    seconds: float
    status: str
    died: bool
    text: str
    files: tuple[Path, ...] = ()

    @property
    def pictures(self) -> list[Path]:
        """The screenshots."""
        return [path for path in self.files if path.suffix.lower() in (".png", ".jpg", ".jpeg")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """One job as it is told.

    Attributes:
        place: Its place among the outcomes, for links within the page.
        label: Its key, or its number.
        status: Its outcome's.
        failure_class: Its outcome's.
        summary: The error's first line, or nothing.
        details: Headed texts: traceback, what the child wrote last, where it hung.
        attempts: In order.
        seconds: How long the last attempt ran.
        worker: Who ran the last attempt.
    """

    place: int
    label: str
    status: str
    failure_class: str
    summary: str
    details: tuple[tuple[str, str], ...]
    attempts: tuple[Attempt, ...]
    seconds: float
    worker: str


def collect(outcomes: Iterable[Outcome]) -> list[JobLine]:
    """Return the jobs of a report, those that failed first, else as they came."""
    left = [(outcome, _left(outcome)) for outcome in outcomes]
    # An outcome names the worker of the last attempt; that tells of the others whose the children were.
    workers = {
        process: outcome.worker
        for outcome, attempts in left
        if outcome.worker and (process := _process(attempts.get(outcome.attempts, _NOTHING).marker))
    }
    jobs = [_job(outcome, place, attempts, workers) for place, (outcome, attempts) in enumerate(left, 1)]
    return sorted(jobs, key=lambda job: job.status == "succeeded")


class _Left(NamedTuple):
    """What one attempt left: its files, and what it wrote down of itself."""

    files: tuple[Path, ...]
    marker: dict[str, Any]


_NOTHING = _Left((), {})


def _left(outcome: Outcome) -> dict[int, _Left]:
    files: dict[int, list[Path]] = {}
    markers: dict[int, dict[str, Any]] = {}
    for artifact in outcome.artifacts:
        path = Path(artifact.path)
        # The hundreds of parts of a trace that was never finished are one thing, which the viewer opens.
        whole = next((parent for parent in path.parents if parent.name == "trace"), path)
        of_attempt = files.setdefault(artifact.attempt, [])
        if whole not in of_attempt:
            of_attempt.append(whole)
        if path.name == MARKER:
            markers[artifact.attempt] = read_mark(path.parent) or {}
    return {number: _Left(tuple(sorted(paths)), markers.get(number, {})) for number, paths in files.items()}


def _process(marker: dict[str, Any]) -> tuple[float, ...] | None:
    identity = marker.get("pid")
    return tuple(identity) if isinstance(identity, list) else None


def _job(outcome: Outcome, place: int, left: dict[int, _Left], workers: Mapping[tuple[float, ...], str]) -> JobLine:
    summary, details = _explain(outcome)
    numbers = range(1, outcome.attempts + 1)
    return JobLine(
        place=place,
        label=outcome.key or f"job {outcome.job_id}",
        status=str(outcome.status),
        failure_class=outcome.failure_class or "",
        summary=summary,
        details=tuple((head, text[-LONGEST_TEXT:]) for head, text in details if text.strip()),
        attempts=tuple(_attempt(outcome, number, left.get(number, _NOTHING), workers) for number in numbers),
        seconds=outcome.run_seconds,
        worker=outcome.worker or "",
    )


def _explain(outcome: Outcome) -> tuple[str, list[tuple[str, str]]]:
    error = outcome.error
    if error is None:
        return "", []
    first = str(error.args[0] if error.args else error).strip().partition("\n")[0]
    if isinstance(error, JobFailed):
        return first, [("Traceback in the child", error.error.traceback)]
    if isinstance(error, JobCrashed):
        death = error.certificate
        return first, [
            ("Death certificate", str(death)),
            ("Where it was", death.stack),
            ("Last lines that the child wrote", "\n".join(death.stderr)),
        ]
    if isinstance(error, JobTimedOut):
        return first, [("Where it hung", error.stack)]
    return first, [("Error", str(error))]


def _attempt(outcome: Outcome, number: int, left: _Left, workers: Mapping[tuple[float, ...], str]) -> Attempt:
    """Return an attempt from what it wrote down itself, and from what its outcome tells of the last one."""
    marker, is_last = left.marker, number == outcome.attempts
    started, ended, failure = marker.get("started"), marker.get("ended"), marker.get("failure")
    if ended is None:  # it was killed: the last it wrote is the last that is known
        ended = max((path.stat().st_mtime for path in left.files if path.exists()), default=started)
        status, text = "crashed", "the child died"
    elif failure is None:
        status, text = "succeeded", ""
    else:
        status = {"cancel": "cancelled", "timeout": "timed_out"}.get(failure, "failed")
        text = marker.get("error") or failure
    if is_last:
        status, text = str(outcome.status), text if marker else ""
    elif not marker:
        status, text = "failed", "it was attempted again"
    process = _process(marker)
    lane = workers.get(process, f"process {process[0]:g}") if process is not None else ""
    return Attempt(
        number=number,
        lane=lane or (outcome.worker or "" if is_last else ""),
        started=started,
        seconds=max(0.0, ended - started) if started is not None else outcome.run_seconds if is_last else 0.0,
        status=status,
        died=status in DEATHS or failure in DEATHS,
        text=text,
        files=left.files,
    )


def ago(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def stamp(when: float) -> str:
    """Return a point in time as people write it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
