"""The runs of a folder: what their journals say, and what can be done with one that nobody is running."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch import _store_rows as rows
from orchestrator_adapters.batch._classes import CLASSES
from orchestrator_adapters.batch._errors import RESUMABLE, BatchError
from orchestrator_adapters.batch._exports import failed_lines
from orchestrator_adapters.batch._live_counts import last_counts
from orchestrator_adapters.batch._progress import share_of
from orchestrator_adapters.batch._sink import open_sink
from orchestrator_adapters.batch._store_file import JOURNAL, holder, open_store

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Rows that are read from a journal at once.
_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What is known of one run.

    Attributes:
        name: Of the run.
        state: `running`, `unfinished`, `finished`, or `unreadable`.
        detail: Who runs it, or why it cannot be read; else empty.
        total: Records in all, if that is known.
        succeeded: Records with a result.
        failed: Records that are given up, by failure class.
        exit_code: Of a finished run.
        target: What is called with each record.
        command: What to type to go on with it, if it was begun on a command line.
    """

    name: str
    state: str
    detail: str = ""
    total: int | None = None
    succeeded: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    target: str | None = None
    command: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for other programs."""
        failed = sum(self.failed.values())
        known = self.state != "unreadable"
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail or None,
            "total": self.total,
            "successful": self.succeeded if known else None,
            "failed": failed if known else None,
            "pending": None if self.total is None else self.total - self.succeeded - failed,
            "by_class": self.failed if known else None,
            "exit_code": self.exit_code,
            "target": self.target,
            "command": self.command,
        }

    def lines(self) -> list[str]:
        """Return it for a person."""
        if self.state == "unreadable":
            return [f"{self.name}: {self.detail}"]
        failed = sum(self.failed.values())
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.failed.items())
        head = f"{self.name}: {self.state}{f' {self.detail}' if self.detail else ''}"
        done = (
            f"{share_of(self.succeeded + failed, self.total, ',')} - {self.succeeded:,} successful, {failed:,} failed"
        )
        lines = [f"{head}, {done}{f' ({kinds})' if kinds else ''}"]
        if self.command is not None and self.state == "unfinished":
            lines.append(f"  {self.command}")
        return lines


def folders(folder: Path) -> list[Path]:
    """Return the folders of all runs, by name."""
    return sorted(path.parent for path in (folder / "batch").glob(f"*/{JOURNAL}"))


def run_folder(folder: Path, name: str | None) -> Path:
    """Return the folder of the run that a user means.

    Raises:
        BatchError: If there is none of this name, or, without a name, not exactly one.
    """
    found = folders(folder)
    names = [path.name for path in found]
    if name is not None:
        if name in names:
            return found[names.index(name)]
        there = f"there are {', '.join(names)}" if names else "there are none"
        raise BatchError(f"there is no run {name!r} in {str(folder)!r}; {there}")
    if not found:
        raise BatchError(f"there is no run in {str(folder)!r}; name its folder with --folder")
    if len(found) > 1:
        raise BatchError(f"there are {len(found)} runs in {str(folder)!r}; name one of {', '.join(names)}")
    return found[0]


def state_of(path: Path) -> RunState:
    """Return what is known of a run; never raises for one that is damaged or in use."""
    who = holder(os.fspath(path / JOURNAL))
    if who is not None:
        return _running(path, who)
    try:
        with opened(path) as journal:
            return _state_in(path, journal)
    except BatchError as error:
        if error.exit_code == RESUMABLE and "in use" in str(error):  # on a system that does not tell by whom
            return _running(path, None)
        return RunState(name=path.name, state="unreadable", detail=str(error))


def _running(path: Path, who: int | None) -> RunState:
    counts = last_counts(os.fspath(path))
    # A run that was killed left its counts; whoever goes on with it writes its own within a moment.
    pid = counts.get("pid") if who is None else who
    detail = "" if pid is None else f"in process {pid}"
    if pid is None or counts.get("pid") != pid:
        return RunState(name=path.name, state="running", detail=detail)
    return RunState(
        name=path.name,
        state="running",
        detail=detail,
        total=counts["total"],
        succeeded=counts["successful"],
        failed=counts["by_class"],
    )


def _state_in(path: Path, journal: sqlite3.Connection) -> RunState:
    facts = rows.read_meta(journal)
    succeeded, failed = rows.count_records(journal)
    finished = bool(facts.get("finished"))
    return RunState(
        name=path.name,
        state="finished" if finished else "unfinished",
        total=facts.get("total", (facts.get("metrics") or {}).get("total")),
        succeeded=succeeded,
        failed=failed,
        exit_code=facts.get("exit_code") if finished else None,
        target=facts.get("target"),
        command=facts.get("command"),
    )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the journal of a run for this process alone.

    Raises:
        BatchError: If another process has it, or it cannot be used.
    """
    journal = open_store(os.fspath(path), create=False)
    try:
        yield journal
    finally:
        journal.close()


def retry_failed(path: Path, classes: Sequence[str]) -> tuple[int, RunState]:
    """Make failed records pending again; return how many, and what the run is now."""
    for name in classes:
        if name not in CLASSES:
            raise BatchError(f"--class: {name!r} is no failure class; there are {', '.join(CLASSES)}")
    with opened(path) as journal:
        count = rows.retry_failed(journal, classes or None)
        if count:
            rows.write_meta(journal, {"finished": False})
        return count, _state_in(path, journal)


def export(path: Path, target: str, format: str | None, *, failed: bool) -> int:
    """Write what a run has so far, results or failures, in the order of the records; return how many."""
    return asyncio.run(_export(path, target, format, failed=failed))


async def _export(path: Path, target: str, format: str | None, *, failed: bool) -> int:
    count = 0
    with opened(path) as journal:
        sink = open_sink(target, format=format)
        await sink.open()
        try:
            for values in _failures(journal) if failed else _results(journal):
                await sink.write(values)
                count += len(values)
            await sink.commit()
        finally:
            await sink.abort()  # of what was committed nothing is left to abort
    return count


def _results(journal: sqlite3.Connection) -> Iterator[list[bytes]]:
    first, beyond = 1, 2**62
    while found := rows.read_values(journal, first, beyond, _BLOCK):
        yield [value.encode() for _, value in found if value is not None]
        first = found[-1][0] + 1


def _failures(journal: sqlite3.Connection) -> Iterator[list[bytes]]:
    lines = (line.rstrip(b"\n") for line in failed_lines(journal))
    while block := [*itertools.islice(lines, _BLOCK)]:
        yield block
