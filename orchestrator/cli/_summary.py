"""What a run says at its end: totals, and failures grouped by kind with the first lines they came from: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator._models import Status

if TYPE_CHECKING:
    from orchestrator._progress import ProgressSnapshot
    from orchestrator.cli._outcomes import Report

# Ten kinds fit a screen and a hundred cannot be told apart by a reader; beyond that they share one group.
KINDS_KEPT = 100
KINDS_SHOWN = 10
LINES_SHOWN = 3
_ORDER = [status.value for status in Status]
OTHER_KINDS = "other kinds"


@dataclass(slots=True)
class FailureGroup:
    """Failures of one kind."""

    kind: str
    example: str
    count: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class RunSummary:
    """Counts of one run; its size does not grow with the run.

    Attributes:
        statuses: Outcomes written, by status.
        failures: Groups of failures, by kind.
        not_run: Records that were left in the input, or None when nobody knows how many.
        never_started: Jobs that were cancelled before their first attempt.
        interrupted: The signal that ended the run early, if one did.
        replayed: Jobs that an earlier run had done.
        resumable: The same command takes up what was not done.
        stopped: Why the run stopped early, if it did.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    failures: dict[str, FailureGroup] = field(default_factory=dict)
    not_run: int | None = 0
    never_started: int = 0
    interrupted: str | None = None
    stopped: str | None = None
    restarts: int = 0
    retries: int = 0
    replayed: int = 0
    resumable: bool = False

    def add(self, report: Report) -> None:
        """Count one outcome."""
        self.statuses[report.status] = self.statuses.get(report.status, 0) + 1
        if report.status == "cancelled":
            self.never_started += not report.data.get("attempts")
        if report.succeeded or report.status == "cancelled":
            return
        known = report.kind in self.failures or len(self.failures) < KINDS_KEPT
        kind, example = (report.kind, report.message) if known else (OTHER_KINDS, "")
        group = self.failures.setdefault(kind, FailureGroup(kind, example))
        group.count += 1
        if len(group.lines) < LINES_SHOWN:
            group.lines.append(report.line)

    @property
    def cancelled(self) -> int:
        """Jobs that were cancelled because the run stopped early."""
        return self.statuses.get("cancelled", 0)

    @property
    def failed(self) -> int:
        """Jobs that ended, and not with success; cancelled ones aside."""
        return sum(self.statuses.values()) - self.statuses.get("succeeded", 0) - self.cancelled

    @property
    def exit_code(self) -> int:
        """0 all succeeded, 1 some did not, 130 interrupted."""
        if self.interrupted is not None:
            return 130
        return 1 if self.failed or self.cancelled or self.stopped is not None else 0

    def text(self, progress: ProgressSnapshot) -> str:
        """Return the summary, one or more lines."""
        jobs = sum(self.statuses.values())
        parts = [f"{count:,} {status.replace('_', ' ')}" for status, count in sorted(self.statuses.items(), key=_rank)]
        parts += [f"{self.retries:,} {_plural(self.retries, 'retry', 'retries')}"] if self.retries else []
        parts += [f"{self.restarts:,} {_plural(self.restarts, 'restart')}"] if self.restarts else []
        head = f"{jobs:,} {_plural(jobs, 'job')} in {duration(progress.elapsed)}"
        lines = [f"{head}: {', '.join(parts)}" if parts else head]
        if self.replayed:
            lines.append(f"{self.replayed:,} of them {_plural(self.replayed, 'was', 'were')} done by an earlier run.")
        if self.stopped is not None:
            lines.append(f"Stopped early: {self.stopped}")
        if self.interrupted is not None:
            lines.append(f"Interrupted by {self.interrupted}.")
        if self.not_run is None:
            lines.append("The rest of the input was not run.")
        elif self.not_run + self.never_started:
            count = self.not_run + self.never_started
            lines.append(f"{count:,} {_plural(count, 'line')} of the input {_plural(count, 'was', 'were')} not run.")
        if self.resumable and (self.not_run != 0 or self.cancelled or self.stopped or self.interrupted):
            lines.append("The same command again goes on from here.")
        return "\n".join([*lines, *self._failure_lines()])

    def _failure_lines(self) -> list[str]:
        groups = sorted(self.failures.values(), key=lambda group: (-group.count, min(group.lines)))
        lines = []
        for group in groups[:KINDS_SHOWN]:
            more = ", …" if group.count > len(group.lines) else ""
            where = f"{_plural(group.count, 'line')} {', '.join(map(str, sorted(group.lines)))}{more}"
            example = f": {group.example}" if group.example else ""
            lines.append(f"  {group.count:,} × {group.kind}{example} ({where})")
        rest = sum(group.count for group in groups[KINDS_SHOWN:])
        if rest:
            lines.append(f"  {rest:,} × other kinds")
        return lines


def duration(seconds: float) -> str:
    """Return a duration as people say it: `0.8 s`, `42 s`, `3:07 min`, `2:10:00 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def _rank(counted: tuple[str, int]) -> int:
    return _ORDER.index(counted[0])


def _plural(count: int, one: str, many: str | None = None) -> str:
    return one if count == 1 else many or f"{one}s"
