"""Puts the trimmed files into the place of those that PyInstaller has found, at the end of its analysis."""

from __future__ import annotations

import logging
import os
import site
import sys
import sysconfig
from collections import Counter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.pyinstaller import _packing, _stripping, _trimming
from orchestrator_adapters.pyinstaller._configuration import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator_adapters.pyinstaller._trimming import Entry, Feature

_log = logging.getLogger("PyInstaller.orchestrator")
_RUNTIME_HOOK = "pyi_rth_orchestrator"
_MEGABYTE = 1_000_000
_SHOWN = 12


def finish(analysis: Any, configuration: Configuration) -> None:
    """Have an analysis that is still running trimmed when it has ended.

    Args:
        analysis: The `Analysis` of a spec file.
        configuration: What to leave.
    """
    save = getattr(analysis, "_save_guts", None)
    if save is None:
        _log.warning("orchestrator does not know this PyInstaller: nothing is trimmed, see docs/howto/frozen-apps.md")
        return

    def trim_and_save() -> None:
        # What is saved is what a second build without changes takes.
        del analysis._save_guts
        _order(analysis)
        trim(analysis, configuration=configuration)
        save()

    analysis._save_guts = trim_and_save


def trim(analysis: Any, *, keep: Sequence[str] = (), configuration: Configuration | None = None) -> None:
    """Take out of an analysis that has ended what the app does not use; for spec files without our hooks.

    Args:
        analysis: The `Analysis` of a spec file.
        keep: Patterns of files in the bundle that must stay, as they are named there.
        configuration: What the app's pyproject.toml says.
    """
    chosen = configuration or Configuration(Path.cwd(), keep=tuple(keep))
    work = Path(_work_folder()) / "orchestrator"
    installed = _installed()
    before = _size([*analysis.binaries, *analysis.datas])
    if chosen.trim:
        used = _importers(analysis)
        for name in ("binaries", "datas"):
            result = _trimming.trim(
                getattr(analysis, name),
                installed=installed,
                keep=chosen.keep,
                uses=lambda feature: _is_used(feature, used),
            )
            for entry in result.dropped:
                _log.debug("left out: %s", entry[0])
            setattr(analysis, name, _stripping.strip(result.kept, work / "stripped", installed))
    if chosen.pack:
        # What was a program or a library is data when it is packed.
        found = [*analysis.binaries, *analysis.datas]
        kept = _packing.archives_folder(work / "packed")
        left = _packing.pack(found, work / "packed", chosen.keep, kept=kept)
        analysis.binaries = [entry for entry in left if entry[2] in ("BINARY", "EXTENSION")]
        analysis.datas = [entry for entry in left if entry[2] not in ("BINARY", "EXTENSION")]
    after = [*analysis.binaries, *analysis.datas]
    _log.info(
        "orchestrator: %.0f MB of files, %.0f MB before trimming; largest: %s",
        _size(after) / _MEGABYTE,
        before / _MEGABYTE,
        ", ".join(f"{name} {size / _MEGABYTE:.0f} MB" for name, size in largest(after)),
    )


def largest(entries: Iterable[Entry], shown: int = _SHOWN) -> list[tuple[str, int]]:
    """Return the packages, or files beside them, that take most of a bundle."""
    sizes: Counter[str] = Counter()
    for entry in entries:
        sizes[PurePath(entry[0]).parts[0]] += _size([entry])
    return sizes.most_common(shown)


def _order(analysis: Any) -> None:
    """Let our runtime hook come last: in a child it does not return, and jobs need what the other ones do."""
    ours = [entry for entry in analysis.scripts if entry[0] == _RUNTIME_HOOK]
    others = [entry for entry in analysis.scripts if entry[0] != _RUNTIME_HOOK]
    programs = {os.path.normcase(os.path.abspath(path)) for path in analysis.inputs}
    first = next(
        (i for i, entry in enumerate(others) if os.path.normcase(os.path.abspath(entry[1])) in programs), len(others)
    )
    analysis.scripts = [*others[:first], *ours, *others[first:]]


def _importers(analysis: Any) -> dict[str, set[str]]:
    """Return which packages import the module of each feature; the app's scripts are packages too."""
    found: dict[str, set[str]] = {}
    graph = getattr(analysis, "graph", None)  # missing when the result of an earlier build is taken
    for feature in _trimming.FEATURES:
        node = graph.find_node(feature.module) if graph is not None else None
        nodes = graph.incoming(node) if graph is not None and node is not None else ()
        names = {getattr(each, "identifier", None) for each in nodes}
        found[feature.module] = {name.partition(".")[0] for name in names if name}
    return found


def _is_used(feature: Feature, importers: dict[str, set[str]]) -> bool:
    return bool(importers[feature.module] - set(feature.within))


def _installed() -> list[str]:
    """Return the folders of installed packages, and of Python itself."""
    paths = [
        *site.getsitepackages(),
        site.getusersitepackages(),
        *filter(None, map(sysconfig.get_path, ("purelib", "platlib", "stdlib"))),
    ]
    paths += [os.path.join(prefix, "lib") for prefix in (sys.prefix, sys.base_prefix)]
    return [*dict.fromkeys(path for each in paths for path in (each, os.path.realpath(each)))]


def _work_folder() -> str:
    from PyInstaller.config import CONF

    return str(CONF["workpath"])


def _size(entries: Iterable[Entry]) -> int:
    total = 0
    for _, source, kind in entries:
        if kind != "SYMLINK":
            try:
                total += os.stat(source).st_size
            except OSError:
                pass  # not a file on this machine: an option of the loader
    return total
