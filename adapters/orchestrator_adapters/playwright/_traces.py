"""Where the driver writes a trace while it is recorded, and how what it wrote becomes a file that its viewer opens."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable  # noqa: TC003  whoever asks for type hints must get them
from contextlib import suppress
from pathlib import Path
from typing import IO

# Copies that the driver made of a part when it was asked to stop, and was killed before it was done.
COPY = "-pwnetcopy-"
LINES = (".trace", ".network")
LEVEL = 1  # text shrinks to a sixth, and the pictures not at all

# Frames of the film strip are a trace's own; what else the driver stores it shares by content.
FRAME = re.compile(rb'"file":"(screencast/[^"/]+)"')

_link: Path | None = None
_target: Path | None = None
_users: set[str] = set()


def launch_folder() -> Path:
    """Return the folder to launch browsers with as their `traces_dir`, the same for the life of this process.

    A browser serves many attempts, and its `traces_dir` is fixed when it is launched. So it is a link, and each attempt
    has it point into its own folder: what is recorded lies there from the beginning, whoever is killed.
    """
    global _link
    if _link is None:
        _link = Path(tempfile.mkdtemp(prefix="traces-")) / "current"
        _point_nowhere(_link)
    return _link


def _point_nowhere(link: Path) -> None:
    # There is always something behind the link, for jobs that ask for no trace and record one themselves.
    nowhere = link.parent / "jobs"
    nowhere.mkdir(exist_ok=True)
    _point(link, nowhere)


def claim(name: str, folder: Path) -> None:
    """Let what is recorded as `name` go to `folder`.

    When jobs run side by side in this child, all record to one place, for the driver knows only one: the folder of the
    first of them, until that one ends.
    """
    global _target
    link = launch_folder()
    if _target is None:
        folder.mkdir(mode=0o700, exist_ok=True)
        _point(link, folder)
        _target = folder
    _users.add(name)


def place() -> Path:
    """Return where is recorded now."""
    return _target or launch_folder()


def release(name: str, folder: Path, aside: Callable[[], Path], *, keep: bool) -> None:
    """Remove what was recorded as `name`, for it is packed, or nobody wants it.

    Args:
        name: As it was claimed.
        folder: As it was claimed.
        aside: Makes a folder on the same disk, for what others go on recording when theirs was in `folder`.
        keep: It is not packed, and stays as it is, if nobody else records there.
    """
    global _target
    _users.discard(name)
    target = _target
    if target is None:
        return
    if not _users:
        _target = None
        _point_nowhere(launch_folder())
        if not keep:
            forget(target)
        if target != folder:
            with suppress(OSError):
                target.parent.rmdir()  # it was made by `aside`
        return
    _remove_one(target, name)
    if target == folder:
        moved = aside()
        _adopt(target, moved)
        _point(launch_folder(), moved)
        _target = moved
        _adopt(target, moved)  # what was made between the two steps
        forget(target)


def _adopt(source: Path, target: Path) -> None:
    """Let files have a second name in `target`, under which the driver goes on writing them."""
    for found in source.rglob("*"):
        name = target / found.relative_to(source)
        if found.is_dir():
            name.mkdir(parents=True, exist_ok=True)
        else:
            name.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.link(found, name)


def _remove_one(folder: Path, name: str) -> None:
    """Remove one of several traces from a folder, so that it does not grow as long as others come."""
    lines = folder / f"{name}.trace"
    with suppress(OSError):
        frames = {found.group(1).decode() for line in lines.open("rb") for found in FRAME.finditer(line)}
        for path in [*(folder / frame for frame in frames), *folder.glob(f"{name}{COPY}*")]:
            path.unlink(missing_ok=True)
        (folder / f"{name}.network").unlink(missing_ok=True)
        lines.unlink()


def pack_trace(
    folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None, *, name: str | None = None
) -> Path:
    """Make one trace file of what the driver wrote before it, or the browser, was killed.

    `playwright show-trace` opens it, and in most cases the folder itself too. The lines of the job's own source are
    missing in it, for the driver writes them last.

    Args:
        folder: The `trace` folder of an attempt.
        path: The file to write, by default `trace.zip` beside the folder.
        name: Which trace, if jobs that ran side by side wrote to the same folder; all by default.

    Raises:
        FileNotFoundError: There is no trace in the folder.
    """
    source = Path(folder)
    target = Path(path) if path is not None else source.parent / "trace.zip"
    if not any(source.glob(f"{name or '*'}.trace")):
        raise FileNotFoundError(f"there is no recorded trace in {source}")
    partial = target.with_name(f".{target.name}.part")
    try:
        with (
            partial.open("wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as packed,
        ):
            for found in sorted(source.rglob("*")):
                entry = found.relative_to(source).as_posix()
                if not found.is_file() or COPY in entry:
                    continue
                if found.suffix in LINES:
                    if name in (None, found.stem):
                        with found.open("rb") as lines, packed.open(entry, "w", force_zip64=True) as into:
                            _copy_whole_lines(lines, into)
                elif found.parent != source:
                    packed.write(found, entry)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _copy_whole_lines(source: IO[bytes], target: IO[bytes]) -> None:
    # A line that was being written when the driver was killed would keep the viewer from opening all others.
    for line in source:
        if line.endswith(b"\n"):
            target.write(line)


def _point(link: Path, folder: Path) -> None:
    """Have `link` lead to `folder` from one moment to the next."""
    if sys.platform == "win32":
        import _winapi

        # A junction, for only some users may make links; it cannot be replaced in one step, and nobody records now.
        if os.path.lexists(link):
            os.rmdir(link)
        _winapi.CreateJunction(str(folder), str(link))
        return
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder, target_is_directory=True)
    os.replace(fresh, link)


def forget(folder: Path) -> None:
    """Remove what the driver wrote of a trace that is not kept, or that is packed."""
    shutil.rmtree(folder, ignore_errors=True)
