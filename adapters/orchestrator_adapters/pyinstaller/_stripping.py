"""Takes the symbols for debuggers out of copies of Linux libraries, and puts those in their place."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator_adapters.pyinstaller._trimming import Entry

# Of smaller ones a copy gains nothing.
_SMALLEST = 100_000
_SECONDS = 120.0
_LOADED = 1  # kind of a program header: a part of the file that is mapped into memory


def strip(entries: Iterable[Entry], folder: Path, installed: Sequence[str]) -> list[Entry]:
    """Return the entries, with stripped copies in `folder` in the place of those that are smaller so.

    Args:
        entries: Files of the bundle.
        folder: Where copies may be made.
        installed: Folders that packages are installed in; nothing else is touched.
    """
    entries = list(entries)
    tool = shutil.which("strip")
    if sys.platform != "linux" or tool is None:
        return entries  # elsewhere symbols are in files of their own, or signed

    def stripped(entry: Entry) -> Entry:
        name, source, kind = entry
        path = Path(source)
        if kind not in ("BINARY", "EXTENSION") or not any(path.is_relative_to(place) for place in installed):
            return entry
        copy = strip_file(tool, path, folder / name)
        return (name, str(copy), kind) if copy is not None else entry

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:  # each waits for a process that is mostly busy with the disk
        return list(pool.map(stripped, entries))


def strip_file(tool: str, path: Path, copy: Path) -> Path | None:
    """Return the path of a stripped copy, or None if there is nothing to gain or it would not load."""
    if path.stat().st_size < _SMALLEST or path.with_name(f".{path.name}.hmac").exists():
        return None  # one with a checksum beside it must stay as it is
    copy.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [tool, "--strip-unneeded", "-o", copy, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode or not copy.exists():
        return None
    if copy.stat().st_size >= path.stat().st_size or not is_loadable(copy):
        copy.unlink()
        return None
    shutil.copymode(path, copy)
    return copy


def is_loadable(path: Path) -> bool:
    """Return whether the parts of a 64-bit library can be mapped: libraries that were patched may not be after this."""
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:5] != b"\x7fELF\x02":
            return False
        order = "<" if head[5] == 1 else ">"
        (offset,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
        length = os.fstat(file.fileno()).st_size
    for index in range(count):
        kind, _, start, address, _, in_file, _, align = struct.unpack_from(f"{order}IIQQQQQQ", table, index * size)
        if kind == _LOADED and (start + in_file > length or (align > 1 and (address - start) % align)):
            return False
    return True
