"""Find a browser on this machine, or say what to install."""

from __future__ import annotations

import os
import shutil
import sys
from glob import glob

from orchestrator_adapters.playwright._errors import LaunchFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("find_browser",)

_VARIABLE = "ORCHESTRATOR_BROWSER"
_ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What `playwright install` leaves in its folder, by the layouts of the systems; the headless one is the smaller.
_HEADLESS = ("chromium_headless_shell-*/*/headless_shell*", "chromium_headless_shell-*/*/chrome-headless-shell*")
_WHOLE = (
    "chromium-*/chrome-*/chrome",
    "chromium-*/chrome-*/chrome.exe",
    "chromium-*/chrome-*/*.app/Contents/MacOS/*",
)
# Where Google's own installer puts it on systems whose PATH does not have it.
_MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_WINDOWS = (r"Google\Chrome\Application\chrome.exe", r"Chromium\Application\chrome.exe")


def find_browser(
    executable: str | None = None, *, headless: bool = True, environment: Mapping[str, str] | None = None
) -> str:
    """Return the path of the Chromium that a browser job starts.

    It is looked for in this order: `executable`, the variable `ORCHESTRATOR_BROWSER`, what `playwright install` left,
    then `chromium`, `chromium-browser`, `google-chrome` and `google-chrome-stable` on PATH.

    Args:
        executable: A path, or a name on PATH.
        headless: Whether one that can do nothing else will do.
        environment: Variables to look at; by default those of this process.

    Raises:
        LaunchFailed: With `reason="no_executable"`, when there is none; the message says what to install.
    """
    variables = os.environ if environment is None else environment
    path = variables.get("PATH")
    for name, origin in ((executable, "executable"), (variables.get(_VARIABLE), _VARIABLE)):
        if name:
            found = shutil.which(name, path=path)
            if found is None:
                problem = f"{origin}={name!r} is no program on this machine: correct it, or leave it out"
                raise LaunchFailed(problem, "no_executable")
            return os.path.abspath(found)
    for found in _candidates(variables, path, headless):
        return found
    raise LaunchFailed(f"no Chromium was found on this machine: {what_to_install()}", "no_executable")


def what_to_install(engine: str = "chromium") -> str:
    """Return what brings a browser to this machine, in words for a person."""
    own = f"`{os.path.basename(sys.executable) or 'python'} -m playwright install {engine}`"
    if engine != "chromium":
        return f"run {own}"
    if os.path.exists("/etc/debian_version"):
        return f"run `apt-get install chromium` or {own}, or set {_VARIABLE} to a browser's path"
    return f"run {own}, or set {_VARIABLE} to the path of Chromium or Chrome"


def _candidates(variables: Mapping[str, str], path: str | None, headless: bool) -> Iterator[str]:
    folder = _own_folder(variables)
    if folder is not None:
        for pattern in (*(_HEADLESS if headless else ()), *_WHOLE):
            # The newest, as far as numbers tell; an older one was left behind by an older Playwright.
            for found in sorted(glob(pattern, root_dir=folder), key=_revision, reverse=True):
                program = os.path.join(folder, found)
                if os.path.isfile(program) and os.access(program, os.X_OK):
                    yield program
    for name in _ON_PATH:
        program = shutil.which(name, path=path) or ""
        if program:
            yield os.path.abspath(program)
    if sys.platform == "darwin":
        yield from filter(os.path.isfile, _MAC)
    elif sys.platform == "win32":
        roots = [variables.get(name, "") for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
        yield from filter(os.path.isfile, (os.path.join(root, name) for root in roots if root for name in _WINDOWS))


def _revision(found: str) -> int:
    number = found.split(os.sep, 1)[0].rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _own_folder(variables: Mapping[str, str]) -> str | None:
    """Return where Playwright keeps its browsers, by the rules that it documents."""
    named = variables.get("PLAYWRIGHT_BROWSERS_PATH")
    if named and named != "0":
        return named
    home = variables.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    if sys.platform == "win32":
        local = variables.get("LOCALAPPDATA") or (os.path.join(home, "AppData", "Local") if home else None)
        return os.path.join(local, "ms-playwright") if local else None
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Caches", "ms-playwright") if home else None
    cache = variables.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else None)
    return os.path.join(cache, "ms-playwright") if cache else None
