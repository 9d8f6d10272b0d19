"""What our hook for `orchestrator` adds to an app: what its configuration names, and what pages import."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.exceptions import ConfigurationError
from orchestrator_adapters.pyinstaller import _configuration, _imports

if TYPE_CHECKING:
    from orchestrator_adapters.pyinstaller._configuration import Configuration

_log = logging.getLogger("PyInstaller.orchestrator")


def configured(script: str) -> Configuration:
    """Return the configuration of the app with this main script; a build with a wrong one ends with its message."""
    try:
        return _configuration.read(Path(script))
    except ConfigurationError as error:
        raise SystemExit(f"Error: {error}") from error


def collect(configuration: Configuration, paths: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return files and hidden imports; a build whose configuration means nothing ends with a message.

    Args:
        configuration: What the app's author wrote.
        paths: Where PyInstaller looks for modules before `sys.path`.
    """
    try:
        return _collect(configuration, [*paths, str(configuration.folder), *sys.path])
    except ConfigurationError as error:
        raise SystemExit(f"Error: {error}") from error


def _collect(configuration: Configuration, path: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    files: list[tuple[str, str]] = []
    modules: dict[str, None] = {}
    for index, name in enumerate(configuration.modules):
        found = _imports.modules_of(name, path)
        if not found:
            file = configuration.folder / "pyproject.toml"
            raise ConfigurationError(
                f"{file}: {_configuration.TABLE}.modules[{index}]",
                f"there is no module {name!r} beside the app or in this environment",
            )
        modules.update(dict.fromkeys(found))
    for page in configuration.files(configuration.pages, "pages"):
        files.append((str(page), configuration.destination(page)))
        names, missing = _imports.resolve(_imports.read_script(page), [str(page.parent), *path])
        modules.update(dict.fromkeys(names))
        for each in missing:
            _log.warning("%s, line %d: there is no module %r to put into the app", page, each.line, each.module)
    files += [(str(file), configuration.destination(file)) for file in configuration.files(configuration.data, "data")]
    return files, list(modules)
