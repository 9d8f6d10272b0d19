"""Where the driver writes a trace while it is recorded, and how what it wrote becomes a file that its viewer opens."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO

# Copies that the driver made of a part when it was asked to stop, and was killed before it was done.
COPY = "-pwnetcopy-"
LINES = (".trace", ".network")
LEVEL = 1  # text shrinks to a sixth, and the pictures not at all

_link: Path | None = None
_users: dict[Path, int] = {}
_target: Path | None = None


def launch_folder() -> Path:
    """Return the folder to launch browsers with as their `traces_dir`, the same for the life of this process.

    A browser serves many attempts, and its `traces_dir` is fixed when it is launched. So it is a link, and each attempt
    has it point into its own folder: what is recorded lies there from the beginning, whoever is killed.
    """
    global _link
    if _link is None:
        _link = Path(tempfile.mkdtemp(prefix="traces-")) / "current"
        # There is always something behind it, for contexts that are traced by the job itself.
        (_link.parent / "none").mkdir()
        _point(_link, _link.parent / "none")
    return _link


def claim(folder: Path) -> Path:
    """Let what is recorded from now on go to `folder`; return where it goes.

    When jobs run side by side in this child, the first one's folder is used by all until the last one lets it go.
    """
    global _target
    link = launch_folder()
    if _target is None:
        folder.mkdir(mode=0o700, exist_ok=True)
        _point(link, folder)
        _target = folder
    _users[_target] = _users.get(_target, 0) + 1
    return _target


def release(folder: Path) -> bool:
    """Say that an attempt needs the folder that `claim` returned no more; return whether nobody does."""
    global _target
    _users[folder] -= 1
    if _users[folder]:
        return False
    del _users[folder]
    _target = None
    return True


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
