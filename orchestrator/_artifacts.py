"""The files that a job's attempts named: told as they come, and all that are left of them with the outcome."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from orchestrator._events import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator._attempt import Attempt
    from orchestrator._child_process import Burial
    from orchestrator._frames import Made
    from orchestrator._recipe import InThread

# Of one attempt: enough for the evidence of a job, and a bound for what a folder named by mistake (`/`, say) brings.
MOST_FILES = 1_000


def named(attempt: Attempt, frame: Made) -> None:
    """Note a file, or a folder, whose files count when the attempt has ended."""
    record = attempt.record
    if attempt.made is None:
        attempt.made = {}
    if frame.path in attempt.made or len(attempt.made) < MOST_FILES:
        attempt.made[frame.path] = frame
    if not frame.folder:
        artifact = Artifact(path=frame.path, name=frame.name, attempt=record.attempts)
        record.listener.event(record, artifact)


async def keep(
    attempt: Attempt,
    in_thread: InThread,
    go_on: Callable[[], None],
    buried: Burial | None = None,
) -> None:
    """Give the record of an attempt that has ended the files that are left of it, then go on.

    Args:
        attempt: The attempt; it named files.
        in_thread: Runs a blocking function in a thread.
        go_on: What is to be done then.
        buried: Of its child, if that died: its processes may be writing until then.
    """
    record, number = attempt.record, attempt.record.attempts
    made, attempt.made = attempt.made or {}, None
    if buried is not None:
        await buried.wait()
    found: list[Artifact] = await in_thread(_look, made, number)
    for artifact in found:
        if artifact.path not in made:
            record.listener.event(record, artifact)
    record.artifacts = {**(record.artifacts or {}), **{artifact.path: artifact for artifact in found}}
    go_on()


def _look(made: dict[str, Made], number: int) -> list[Artifact]:
    """Return the files that are there, those in folders included."""
    found: dict[str, Artifact] = {}
    for path, frame in made.items():
        if not frame.folder and os.path.isfile(path):
            found[path] = Artifact(path=path, name=frame.name, attempt=number)
    for folder, frame in made.items():
        for path in _files_in(folder) if frame.folder else ():
            if len(found) >= MOST_FILES:
                break
            name = os.path.relpath(path, folder).replace(os.sep, "/")
            found.setdefault(
                path, Artifact(path=path, name=f"{frame.name}/{name}" if frame.name else name, attempt=number)
            )
    return list(found.values())


def _files_in(folder: str) -> Iterator[str]:
    """Yield the files of a folder and of those in it, in the order of their names; no links are followed."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return  # it is there no more, or nobody may read it
    for entry in inside:
        if entry.is_file(follow_symlinks=False):
            yield entry.path
    for entry in inside:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_in(entry.path)
