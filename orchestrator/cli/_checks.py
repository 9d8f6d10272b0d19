"""What `orchestrator doctor` looks at without starting anything; each check names the remedy when it fails."""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DISTRIBUTION = "subprocess-orchestrator"
PACKAGE = "orchestrator"
CHECKS_GROUP = "orchestrator.checks"
# A child costs three pipes, a pidfd and, for a moment, both ends of each; the rest is for the program itself.
FILES_PER_CHILD = 8
FILES_FOR_THE_PROGRAM = 64
# Large arguments and the children's own temporary files go there.
FREE_TEMP_BYTES = 64 * 2**20

OLDEST = (3, 11)

Status = Literal["ok", "failed", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: What was looked at.
        status: `ok`, `failed`, or `note` for what only some uses need.
        detail: What was found.
        remedy: What to do about it.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def check_python() -> Check:
    """Name the interpreter and the platform."""
    name = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    if platform.python_implementation() != "CPython":
        return Check(name="python", status="note", detail=f"{name}; only CPython is tested")
    return Check(name="python", status="ok", detail=name)


def check_dependencies(distribution: str = DISTRIBUTION) -> Check:
    """Compare the installed versions of the core dependencies with what the distribution asks for."""
    try:
        requirements = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        remedy = f"install it: python -m pip install {distribution}"
        return Check(name="dependencies", status="failed", detail=f"{distribution} is not installed", remedy=remedy)
    found: list[str] = []
    wrong: list[str] = []
    for requirement in requirements:
        match = re.match(r"([\w.-]+)\s*(?:>=\s*([\w.]+))?", requirement)
        if match is None or ";" in requirement:
            continue
        name, least = match[1], match[2]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        found.append(f"{name} {version}")
        if least is not None and _numbers(version) < _numbers(least):
            wrong.append(f"{name} {version} is older than {least}")
    if wrong:
        remedy = f"install them: python -m pip install --upgrade {distribution}"
        return Check(name="dependencies", status="failed", detail=", ".join(wrong), remedy=remedy)
    return Check(name="dependencies", status="ok", detail=", ".join(found))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]


def check_package(owners: Mapping[str, Iterable[str]] | None = None) -> Check:
    """Find out whether another distribution installed a package of the same name over ours."""
    known = metadata.packages_distributions() if owners is None else owners
    others = sorted({owner for owner in known.get(PACKAGE, ()) if owner.lower() != DISTRIBUTION})
    if others:
        return Check(
            name="package",
            status="failed",
            detail=f"the import package {PACKAGE!r} also belongs to {', '.join(others)}: files overwrite each other",
            remedy=f"pip uninstall {' '.join(others)}, then pip install --force-reinstall {DISTRIBUTION}",
        )
    return Check(name="package", status="ok", detail=f"{Path(__file__).parents[1]}")


def check_loop() -> Check:
    """Say which event loop a program gets here, and whether it can start processes."""
    loop = asyncio.new_event_loop()
    try:
        kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
        can = type(loop)._make_subprocess_transport is not asyncio.BaseEventLoop._make_subprocess_transport  # type: ignore[attr-defined]
    finally:
        loop.close()
    if can:
        return Check(name="loop", status="ok", detail=f"{kind}: can start processes")
    detail = f"{kind} cannot start processes; a Supervisor moves its engine to a thread with a loop that can"
    return Check(name="loop", status="note", detail=detail)


def check_files(workers: int) -> Check:
    """Compare the limit of open files with what so many children need."""
    if sys.platform == "win32":
        return Check(name="open files", status="ok", detail="Windows sets no limit that matters here")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_files(workers, soft, hard, unlimited=resource.RLIM_INFINITY)


def judge_files(workers: int, soft: int, hard: int, *, unlimited: int = -1) -> Check:
    """Judge the soft and the hard limit of open files."""
    need = FILES_FOR_THE_PROGRAM + FILES_PER_CHILD * workers
    children = f"{workers} {'child needs' if workers == 1 else 'children need'} about {need:,}"
    if soft == unlimited or soft >= need:
        limit = "no limit" if soft == unlimited else f"limit {soft:,}"
        return Check(name="open files", status="ok", detail=f"{limit}; {children}")
    if hard == unlimited or hard >= need:
        remedy = f"ulimit -n {need}"
    else:
        most = max(1, (hard - FILES_FOR_THE_PROGRAM) // FILES_PER_CHILD)
        remedy = f"ask for at most {most} {'worker' if most == 1 else 'workers'}, or raise the hard limit of {hard:,}"
    return Check(name="open files", status="failed", detail=f"limit {soft:,}; {children}", remedy=remedy)


def check_temp() -> Check:
    """Write to the folder for temporary files."""
    remedy = "set TMPDIR (on Windows: TEMP) to a folder you may write to, with some room"
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name="temp folder", status="failed", detail=f"cannot be written: {error}", remedy=remedy)
    room = f"{folder}: {free / 2**30:,.1f} GiB free"
    if free < FREE_TEMP_BYTES:
        return Check(name="temp folder", status="failed", detail=room, remedy=remedy)
    return Check(name="temp folder", status="ok", detail=room)


def check_log_folder() -> Check:
    """Name the file in which a frozen app keeps what it would say on a terminal."""
    from orchestrator import _freezer, desktop

    if _freezer.is_frozen():
        detail = str(desktop.log_file())
    else:
        detail = f"a frozen app named NAME writes what went wrong to {desktop.log_file('NAME')}"
    return Check(name="log file", status="ok", detail=detail)


def installed_checks() -> Iterator[Check]:
    """Run what other distributions look at: each entry point is a function that yields the attributes of checks."""
    for point in sorted(metadata.entry_points(group=CHECKS_GROUP), key=lambda point: point.name):
        try:
            yield from [Check(**attributes) for attributes in point.load()()]
        except Exception as error:
            problem = f"{point.value} cannot be asked: {type(error).__name__}: {error}"
            remedy = "reinstall the distribution that it belongs to"
            yield Check(name=point.name, status="failed", detail=problem, remedy=remedy)
