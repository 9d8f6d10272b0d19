"""What an app's author says in `[tool.orchestrator.pyinstaller]` of the pyproject.toml beside the app."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.exceptions import ConfigurationError

TABLE = "tool.orchestrator.pyinstaller"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What to put into the bundle beside what PyInstaller finds.

    Attributes:
        folder: Where the paths below start.
        modules: Modules that nothing imports by a statement, such as those of jobs that are named by strings; of a
            package all its modules.
        pages: Patterns of scripts that are run as files, such as Streamlit pages; what they import goes along.
        data: Patterns of other files; they have the same place in the bundle as in the folder.
        keep: Patterns of files in the bundle, as they are named there, that trimming must leave.
        trim: Whether to leave out what a running app does not read.
        pack: Whether the largest files are compressed, to be unpacked for each user when they are first needed.
    """

    folder: Path
    modules: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    trim: bool = True
    pack: bool = True

    def files(self, patterns: tuple[str, ...], key: str) -> list[Path]:
        """Return the files that the patterns of a key mean, in a steady order.

        Raises:
            ConfigurationError: If there is none for one of them.
        """
        found: dict[Path, None] = {}
        for index, pattern in enumerate(patterns):
            matching = sorted(path for path in self.folder.glob(pattern) if path.is_file())
            if not matching:
                raise _error(self.folder / "pyproject.toml", f"{key}[{index}]", f"no file matches {pattern!r}")
            found.update(dict.fromkeys(matching))
        return list(found)

    def destination(self, path: Path) -> str:
        """Return the folder of the bundle that a file belongs in."""
        return path.parent.relative_to(self.folder).as_posix()


def read(script: Path) -> Configuration:
    """Return the configuration of the app whose main script this is: of the nearest pyproject.toml that has one.

    Raises:
        ConfigurationError: If the file cannot be read, or has a key or a value that means nothing here.
    """
    for folder in script.resolve().parents:
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(str(path), f"cannot be read: {error}") from error
        for name in TABLE.split("."):
            table = table.get(name) if isinstance(table, dict) else None
        if table is not None:
            return _checked(path, table)
    return Configuration(script.resolve().parent)


def _checked(path: Path, table: Any) -> Configuration:
    if not isinstance(table, dict):
        raise _error(path, "", "must be a table")
    known = {field.name: field.type for field in fields(Configuration) if field.name != "folder"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise _error(path, key, f"is no key here; there are {', '.join(known)}")
        if known[key] == "bool":
            if not isinstance(value, bool):
                raise _error(path, key, f"must be true or false, not {value!r}")
            values[key] = value
            continue
        if not isinstance(value, list):
            raise _error(path, key, f"must be a list of strings, not {value!r}")
        for index, item in enumerate(value):
            _check_item(path, key, index, item)
        values[key] = tuple(value)
    return Configuration(path.parent, **values)


def _check_item(path: Path, key: str, index: int, item: object) -> None:
    name = f"{key}[{index}]"
    if not isinstance(item, str) or not item:
        raise _error(path, name, f"must be a string, not {item!r}")
    if key == "modules":
        if not all(part.isidentifier() for part in item.split(".")):
            raise _error(path, name, f"{item!r} is no name of a module: write it as in an import")
    elif key != "keep" and (Path(item).is_absolute() or ".." in Path(item).parts):
        # It could have no place in the bundle that the app would find.
        raise _error(path, name, f"{item!r} is not within the folder of this file")


def _error(path: Path, key: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{path}: {TABLE}{key and '.' + key}", problem)
