"""What a batch came to: counts, usage, why it stopped, and the exit code that follows."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  whoever asks for type hints must get them
from dataclasses import dataclass, field

from orchestrator_adapters.batch._progress import whole_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a batch ended.

    Attributes:
        name: Of the run.
        exit_code: 0 when every record succeeded, or no more failed than `max_failures`; 1 when it is finished with more
            failures than that, or was stopped because of them; 75 when it is not finished and the same command goes on;
            130 when it was interrupted, which goes on likewise.
        reason: Why it is not finished, else None.
        total: Records in all; None when the input was not read to its end and nobody knows.
        succeeded: Records with a result.
        failed: Records that are given up, whatever the reason.
        pending: Records that the same command would go on with; None when `total` is.
        by_class: Failed records by failure class.
        resumed: Of those that are done, how many an earlier run had done.
        attempts: Attempts made for all records, by this run and those before it.
        retries: Of these, how many were not the first of their record.
        usage: What `child.usage` counted, summed over all attempts.
        in_children: Records whose last attempt ran in a child.
        in_process: Records whose last attempt ran in this process.
        seconds: How long this run took.
        rate: Records that this run finished per second.
        output: The file that has the results, if they are in one by now.
        failed_file: The file that says which records failed, if it was written.
        metrics_file: The file with the numbers, if it was written.
        folder: Where the run keeps its journal.
    """

    name: str
    exit_code: int
    reason: str | None = None
    total: int | None = None
    succeeded: int = 0
    failed: int = 0
    pending: int | None = None
    by_class: Mapping[str, int] = field(default_factory=dict)
    resumed: int = 0
    attempts: int = 0
    retries: int = 0
    usage: Mapping[str, float] = field(default_factory=dict)
    in_children: int = 0
    in_process: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    output: str | None = None
    failed_file: str | None = None
    metrics_file: str | None = None
    folder: str = ""

    def metrics(self) -> dict[str, float]:
        """Return the numbers of `metrics.json`: flat, and nothing that differs without a reason."""
        done = self.succeeded + self.failed
        return {
            "total": done if self.total is None else self.total,
            "successful": self.succeeded,
            "failed": self.failed,
            **{f"failed_{name}": count for name, count in sorted(self.by_class.items())},
            "attempts": self.attempts,
            "retries": self.retries,
            "resumed": self.resumed,
            "in_children": self.in_children,
            "in_process": self.in_process,
            **{f"usage_{name}": number for name, number in sorted(self.usage.items())},
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 3),
        }

    def summary(self) -> str:
        """Return the report as a few lines for a person."""
        total = "?" if self.total is None else f"{self.total:,}"
        done = self.succeeded + self.failed
        first = f"{done:,} of {total} records: {self.succeeded:,} successful, {self.failed:,} failed"
        if self.by_class:
            first += f" ({', '.join(f'{count:,} {name}' for name, count in sorted(self.by_class.items()))})"
        lines = [f"{first}; {whole_seconds(self.seconds)} s"]
        detail = [f"{self.attempts:,} attempts"]
        if self.retries:
            detail.append(f"{self.retries:,} of them retries")
        if self.resumed:
            detail.append(f"{self.resumed:,} records were done by an earlier run")
        if self.in_process:
            detail.append(f"{self.in_children:,} ran in children, {self.in_process:,} in this process")
        lines.append("; ".join(detail))
        if self.usage:
            lines.append("usage: " + ", ".join(f"{name} {number:,}" for name, number in sorted(self.usage.items())))
        if self.reason is not None:
            lines.append(f"not finished: {self.reason}")
        if self.failed_file is not None:
            lines.append(f"failed records: {self.failed_file}")
        return "\n".join(lines)
