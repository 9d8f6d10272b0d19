"""What a bundle has of its packages that a running app never reads, by rules on names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Of PyInstaller: name in the bundle, path of the file, kind.
Entry = tuple[str, str, str]

# What Playwright shows people at a desk: of its driver only the command line reads it.
_PLAYWRIGHT = "playwright/driver/package"
_SHOWN = tuple(f"{_PLAYWRIGHT}/{part}/*" for part in ("types", "lib/vite/dashboard", "lib/vite/htmlReport"))

# What compilers and type checkers read.
_SOURCES = frozenset(".pyi .pxd .pyx .pxi .h .hpp .hh .c .cc .cpp .cxx .cmake .pc .a .lib .map".split())
_TESTS = frozenset({"tests", "test"})


@dataclass(frozen=True, slots=True)
class Feature:
    """A part of a package with libraries of its own.

    Attributes:
        module: The module that a program imports to use it.
        within: Packages that import the module themselves, for the case that somebody uses it.
        files: What the part consists of, as patterns of names in the bundle.
    """

    module: str
    within: tuple[str, ...]
    files: tuple[str, ...]


_ARROW = ("pyarrow", "pandas", "streamlit", "polars", "narwhals", "altair", "numpy")
# pyarrow cannot be imported without most of its libraries; of these it says so itself when somebody wants one.
FEATURES = (
    Feature(
        "pyarrow.flight",
        _ARROW,
        ("pyarrow/_flight.*", "pyarrow/*arrow_flight*", "pyarrow/*arrow_python_flight*"),
    ),
    Feature(
        "pyarrow.fs",
        _ARROW,
        ("pyarrow/_s3fs.*", "pyarrow/*arrow_s3*", "pyarrow/_gcsfs.*", "pyarrow/_azurefs.*", "pyarrow/_hdfs.*"),
    ),
    Feature("pyarrow.orc", _ARROW, ("pyarrow/_orc.*", "pyarrow/*arrow_orc*")),
    Feature("pyarrow.cuda", _ARROW, ("pyarrow/_cuda.*", "pyarrow/*arrow_cuda*")),
    Feature("pyarrow.gandiva", _ARROW, ("pyarrow/gandiva.*", "pyarrow/*gandiva*")),
    Feature(
        "pyarrow.parquet.encryption",
        _ARROW,
        ("pyarrow/_parquet_encryption.*", "pyarrow/*parquet_encryption*", "pyarrow/_dataset_parquet_encryption.*"),
    ),
    # A photograph's format for which Pillow brings two video codecs.
    Feature("PIL.AvifImagePlugin", ("PIL", "streamlit", "pygments"), ("PIL/_avif.*", "pillow.libs/libavif-*")),
    Feature("pyarrow._pyarrow_cpp_tests", _ARROW, ("pyarrow/_pyarrow_cpp_tests.*",)),
)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What is left of a bundle's files, and what is not."""

    kept: list[Entry]
    dropped: list[Entry]


def trim(
    entries: Iterable[Entry],
    *,
    installed: Sequence[str],
    keep: Sequence[str] = (),
    uses: Callable[[Feature], bool] = lambda feature: False,
) -> Trimmed:
    """Leave out what nobody reads: tests, sources, type stubs, second copies, parts of pyarrow.

    Args:
        entries: The files.
        installed: Folders that packages are installed in; what is from elsewhere is the app's own, and stays.
        keep: Patterns of names that stay.
        uses: Says of a part of a package whether the app uses it.
    """
    entries = list(entries)
    unused = [pattern for feature in FEATURES if not uses(feature) for pattern in feature.files]
    unused += _SHOWN
    linked = {_unversioned(name) for name, _, _ in entries if name.startswith("pyarrow/")}
    kept: list[Entry] = []
    dropped: list[Entry] = []
    for entry in entries:
        name = PurePath(entry[0]).as_posix()
        if _matches(name, keep) or not _is_installed(entry[1], installed):
            kept.append(entry)
        elif _matches(name, unused) or _is_for_developers(name) or _is_second_copy(name, linked):
            dropped.append(entry)
        else:
            kept.append(entry)
    return Trimmed(kept, dropped)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_installed(source: str, installed: Sequence[str]) -> bool:
    path = PurePath(source)
    return any(path.is_relative_to(folder) for folder in installed)


def _is_for_developers(name: str) -> bool:
    path = PurePath(name)
    return (
        path.suffix.lower() in _SOURCES
        or bool(_TESTS.intersection(path.parts[1:-1]))
        or path.parts[:2] == ("pyarrow", "include")
        or path.parts[:2] == ("pyarrow", "src")
    )


_VERSIONED = re.compile(r"^(pyarrow/lib[\w]+\.so)((?:\.\d+)*)$")


def _unversioned(name: str) -> str:
    """Return the name under which a library of pyarrow is loaded: with one number."""
    found = _VERSIONED.match(PurePath(name).as_posix())
    return f"{found[1]}{found[2]}" if found and found[2].count(".") == 1 else ""


def _is_second_copy(name: str, linked: set[str]) -> bool:
    """Return whether a wheel, which has no links, holds the same library under its linked name too."""
    found = _VERSIONED.match(name)
    if not found or found[2].count(".") == 1:
        return False
    return any(other.startswith(f"{found[1]}.") for other in linked if other)
