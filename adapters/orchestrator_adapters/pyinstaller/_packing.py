"""Large files of a bundle that most starts of the app do not need: compressed when it is built, with a list of them."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.pyinstaller._unpacking import FOLDER, LIST, claim, folders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_adapters.pyinstaller._trimming import Entry

# A quarter of the time of the usual preset, and a tenth larger. What is known of the processor's jumps saves 4 %.
_LZMA: dict[str, Any] = {"id": lzma.FILTER_LZMA2, "preset": 3, "dict_size": 1 << 25}
_FILTERS = [{"id": lzma.FILTER_X86}] if platform.machine().lower() in ("x86_64", "amd64") else []
# Seconds; whoever has not built an app for so long can wait for a minute.
_KEPT = 30 * 24 * 3600.0
# A smaller group is not worth that somebody waits for it.
_SMALLEST = 20_000_000


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are needed together.

    Attributes:
        module: The module whose import needs them.
        files: Patterns of their names in the bundle, which are of one folder.
        kind: What is done with them: `program`, which Playwright starts, or `libraries`, which are loaded.
    """

    module: str
    files: tuple[str, ...]
    kind: str


GROUPS = (
    Group("playwright._impl._driver", ("playwright/driver/node", "playwright/driver/node.exe"), "program"),
    # Loaded before the modules that are linked to them, which then find them whatever their place is. Nobody has
    # tried that on Windows and macOS.
    *(
        (
            Group("pyarrow", ("pyarrow/libarrow*.so*", "pyarrow/libparquet*.so*"), "libraries"),
            Group("numpy", ("numpy.libs/*.so*",), "libraries"),
        )
        if sys.platform == "linux"
        else ()
    ),
)


def pack(entries: Sequence[Entry], folder: Path, keep: Sequence[str] = (), *, kept: Path | None = None) -> list[Entry]:
    """Return the entries with what belongs to groups compressed, and a list of it for the app.

    Args:
        entries: Files of the bundle.
        folder: Where files are written for this build.
        keep: Patterns of names that stay as they are.
        kept: Where compressed files are written instead, for the next build to find them.
    """
    left = list(entries)
    listed: dict[str, object] = {}
    for group in GROUPS:
        chosen = [entry for entry in left if _belongs(entry, group) and not _is_kept(entry, keep)]
        if sum(os.stat(source).st_size for _, source, _ in chosen) < _SMALLEST:
            continue
        left = [entry for entry in left if entry not in chosen]
        with ThreadPoolExecutor(2) as pool:
            archives = list(pool.map(lambda entry: _pack(Path(entry[1]), kept or folder), chosen))
        left += [(os.path.join(FOLDER, archive.name), str(archive), "DATA") for archive in archives]
        files = {PurePath(name).name: archive.name for (name, _, _), archive in zip(chosen, archives, strict=True)}
        listed[group.module] = {"kind": group.kind, "files": files}
    if listed:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LIST
        path.write_text(json.dumps(listed, indent=1, sort_keys=True), "utf-8")
        left.append((os.path.join(FOLDER, LIST), str(path), "DATA"))
    return left


def _belongs(entry: Entry, group: Group) -> bool:
    name = PurePath(entry[0]).as_posix()
    return entry[2] != "SYMLINK" and any(fnmatchcase(name, pattern) for pattern in group.files)


def _is_kept(entry: Entry, keep: Sequence[str]) -> bool:
    return any(fnmatchcase(PurePath(entry[0]).as_posix(), pattern) for pattern in keep)


def _pack(path: Path, folder: Path) -> Path:
    data = path.read_bytes()
    # The name says what is in it: what one app has unpacked serves another with the same, and no other.
    archive = folder / f"{hashlib.sha256(data).hexdigest()[:20]}-{len(data)}.xz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        new = archive.with_suffix(f".{os.urandom(4).hex()}")
        new.write_bytes(lzma.compress(data, filters=[*_FILTERS, _LZMA]))
        new.replace(archive)
    os.utime(archive)
    return archive


def archives_folder(otherwise: Path) -> Path:
    """Return the user's folder that keeps compressed files from one build to the next: they take a minute or two.

    Args:
        otherwise: What to take if that folder cannot be used.
    """
    place = Path(folders(os.environ)[0]).with_name("packed")
    try:
        claim(str(place))
        for path in place.iterdir():
            if time.time() - path.stat().st_mtime > _KEPT:
                path.unlink(missing_ok=True)
    except OSError:
        return otherwise
    return place
