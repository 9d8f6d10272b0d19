"""The folders in which attempts leave their evidence: named, marked with whose they are, found again and pruned."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator  # noqa: TC003  whoever asks for type hints must get them
from pathlib import Path
from typing import Any

from orchestrator_adapters.playwright._retention import Kept, outdated

# In each attempt's folder; without it a folder is not ours, and is never removed.
MARKER = "attempt.json"
FORMAT = "orchestrator.attempt/1"
LONGEST_NAME = 60
# A walk through thousands of folders takes a second: often enough, for a run that fails all the time.
PRUNE_EVERY = 60.0
# Whoever just ended is not pruned whatever its marker says: its supervisor may still be listing what it left.
FRESH = 60.0


def make(folder: str, name: str, job: int | str, attempt: int) -> Path:
    """Make the folder of an attempt, `folder/<name>-<job>/attempt-<n>`, readable by nobody else; return its path.

    Jobs are numbered anew in each run: when the name is taken by another run, a number is added.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST_NAME] or "job"
    run = this_run()
    number = 1
    while True:
        jobs = Path(folder, f"{plain}-{job}" + (f"~{number}" if number > 1 else ""))
        number += 1
        jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(marker.get("run") != run for _, marker in _attempts_of(jobs)):
            continue
        path = jobs / f"attempt-{attempt}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except FileNotFoundError:
            number -= 1  # another process pruned the empty folder in between
            continue
        return path


def this_run() -> list[float]:
    """Return what tells this run from others: the process that started this child, and when that began."""
    # A child's parent is its supervisor's process, or on Windows the virtual environment's redirector before it.
    return _identity(os.getppid())


def mark(path: Path, **facts: Any) -> None:
    """Write down whose folder it is and how the attempt stands, in one step."""
    text = json.dumps({"format": FORMAT, "pid": _identity(os.getpid()), "run": this_run(), **facts}, indent=1)
    partial = path / f".{MARKER}"
    partial.write_text(text + "\n", "utf-8")
    os.replace(partial, path / MARKER)


def read_mark(path: Path) -> dict[str, Any] | None:
    """Return what `mark` wrote, or None when the folder is none of ours."""
    try:
        marker = json.loads((path / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("format") == FORMAT else None


def remove(path: Path) -> None:
    """Remove an attempt's folder, and its job's if that is empty then."""
    shutil.rmtree(path, ignore_errors=True)
    _remove_if_empty(path.parent)


def remove_if_bare(path: Path) -> None:
    """Remove an attempt's folder if there is nothing in it but its marker."""
    try:
        if any(name != MARKER for name in os.listdir(path)):
            return
    except OSError:
        return
    remove(path)


def size_of(path: Path) -> int:
    """Return how many bytes a file, or all files below a folder, have."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue  # gone meanwhile
    return total


class Pruner:
    """Keeps one folder of evidence within its bounds, looking at it now and then."""

    def __init__(self, folder: str, most: float, max_age: float) -> None:
        self._folder = Path(folder)
        self._most = most
        self._max_age = max_age
        self._next = 0.0
        self._size = 0

    @property
    def full(self) -> bool:
        """Whether this run has left as much as there may be, for nothing of it is removed."""
        return self._size > self._most

    def added(self, size: int) -> None:
        """Count what an attempt left."""
        self._size += size

    def prune(self, *, at_once: bool = False) -> None:
        """Remove what is too old or too much, unless somebody looked a moment ago."""
        if time.monotonic() < self._next and not at_once:
            return
        self._next = time.monotonic() + PRUNE_EVERY
        gone, self._size = outdated(self._kept(), now=time.time(), most=self._most, max_age=self._max_age)
        for path in gone:
            remove(Path(path))

    def _kept(self) -> Iterator[Kept]:
        alive: dict[tuple[float, ...], bool] = {}

        def lives(identity: Any) -> bool:
            if not isinstance(identity, list) or len(identity) != 2:
                return False
            key = tuple(identity)
            if key not in alive:
                alive[key] = _identity(int(identity[0])) == identity
            return alive[key]

        for jobs in _folders(self._folder):
            for path, marker in _attempts_of(jobs):
                ended = marker.get("ended") or marker.get("started") or 0.0
                size = marker.get("size")
                running = marker.get("ended") is None and lives(marker.get("pid"))
                fresh = time.time() - ended < FRESH
                yield Kept(
                    path=str(path),
                    ended=ended,
                    size=size if isinstance(size, int) else size_of(path),
                    spared=running or fresh or lives(marker.get("run")),
                )


def _attempts_of(jobs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in _folders(jobs):
        if path.name.startswith("attempt-") and (marker := read_mark(path)) is not None:
            yield path, marker


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove_if_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return  # other attempts of the job, or it is gone


def _identity(pid: int) -> list[float]:
    import psutil

    try:
        return [pid, psutil.Process(pid).create_time()]
    except psutil.Error:
        return [pid, 0.0]
