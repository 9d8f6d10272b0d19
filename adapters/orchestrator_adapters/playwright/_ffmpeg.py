"""Gives Playwright's driver the ffmpeg of the system, without which it records no video."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping  # noqa: TC003  whoever asks for type hints must get them
from pathlib import Path

from orchestrator_adapters.playwright._errors import LaunchFailed

VARIABLE = "PLAYWRIGHT_BROWSERS_PATH"
# The file that the driver looks for, by platform.
EXECUTABLE = {"win32": "ffmpeg-win64.exe", "darwin": "ffmpeg-mac"}.get(sys.platform, "ffmpeg-linux")
REMEDY = (
    "a video needs ffmpeg, and none was found: install it (Debian, Ubuntu: `apt-get install ffmpeg`; elsewhere "
    "`playwright install ffmpeg`), or leave video off (artifacts=ArtifactPolicy(video='off'))"
)


def find(environment: MutableMapping[str, str] | None = None) -> str | None:
    """Return the ffmpeg that videos would be recorded with."""
    variables = os.environ if environment is None else environment
    for name in _folder_names():
        own = _installed(variables) / name / EXECUTABLE
        if own.exists():
            return str(own)
    return shutil.which("ffmpeg", path=variables.get("PATH"))


def require(environment: MutableMapping[str, str] | None = None) -> None:
    """Raise `LaunchFailed`, which says what to install, when a video is asked for and there is no ffmpeg."""
    if not prepare(environment):
        raise LaunchFailed(REMEDY, "missing_libraries")


def prepare(environment: MutableMapping[str, str] | None = None) -> bool:
    """Make the driver find an ffmpeg; call it before the driver starts, which takes its environment along.

    Playwright's own is used if it was installed. Else a folder of links is made that holds all that Playwright
    installed and the system's ffmpeg under the name that the driver expects, and the environment points to it.

    Args:
        environment: What is changed; this process's by default.

    Returns:
        Whether there is one.
    """
    variables = os.environ if environment is None else environment
    names = _folder_names()
    installed = _installed(variables)
    if any((installed / name / EXECUTABLE).exists() for name in names):
        return True
    system = shutil.which("ffmpeg", path=variables.get("PATH"))
    if system is None or not names:
        return False
    # In the child this is its own temporary folder, which is deleted with it.
    folder = Path(tempfile.mkdtemp(prefix="playwright-browsers-"))
    if installed.is_dir():
        for entry in installed.iterdir():
            _link(entry, folder / entry.name)
    for name in names:
        if (folder / name).is_symlink():
            (folder / name).unlink()  # installed, but without the program
        (folder / name).mkdir(exist_ok=True)
        _link(Path(system), folder / name / EXECUTABLE)
    variables[VARIABLE] = str(folder)
    return True


def _folder_names() -> list[str]:
    """Return the names of folders in which this version of the driver looks for ffmpeg."""
    try:
        known = json.loads((_package() / "browsers.json").read_text("utf-8"))
        entry = next(entry for entry in known["browsers"] if entry["name"] == "ffmpeg")
        special = entry.get("revisionOverrides", {})
        names = [f"ffmpeg_{platform.replace('-', '_')}_special-{number}" for platform, number in special.items()]
        return [f"ffmpeg-{entry['revision']}", *names]
    except (ImportError, OSError, ValueError, KeyError, StopIteration):
        return []  # a driver that keeps its book elsewhere: it says itself what it misses


def _package() -> Path:
    import playwright

    return Path(playwright.__file__).parent / "driver" / "package"


def _installed(variables: MutableMapping[str, str]) -> Path:
    """Return the folder of what `playwright install` installed."""
    named = variables.get(VARIABLE)
    if named == "0":
        return _package() / ".local-browsers"
    if named:
        return Path(named)
    home = Path(variables.get("HOME") or variables.get("USERPROFILE") or os.path.expanduser("~"))
    if sys.platform == "win32":
        cache = Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = home / "Library" / "Caches"
    else:
        cache = Path(variables.get("XDG_CACHE_HOME") or home / ".cache")
    return cache / "ms-playwright"


def _link(target: Path, link: Path) -> None:
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:  # Windows lets only some users make links
        if target.is_dir():
            shutil.copytree(target, link, copy_function=os.link)
        else:
            shutil.copy2(target, link)
