"""Whether this program is a frozen app, which file it is, and what its freezer puts in the way of other programs."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any


def _compiled() -> Any:
    """Return what Nuitka puts into the modules it compiles, or None."""
    main = sys.modules.get("__main__")
    return globals().get("__compiled__") or getattr(main, "__compiled__", None)


def is_frozen() -> bool:
    """Return whether `sys.executable` is an app and not Python."""
    return bool(getattr(sys, "frozen", False)) or _compiled() is not None or _is_briefcase()


def _is_briefcase() -> bool:
    """Return whether Briefcase packaged this app: its stub knows neither `-c` nor `-m`, and nothing in `sys` tells."""
    package = getattr(sys.modules.get("__main__"), "__package__", None)
    if not package or os.path.basename(sys.executable or "").lower().startswith(("python", "pypy")):
        return False
    from importlib import metadata

    try:
        return "Briefcase-Version" in metadata.metadata(package)
    except (metadata.PackageNotFoundError, ValueError):
        return False


def executable() -> str:
    """Return the path of the frozen app."""
    compiled = _compiled()
    if compiled is not None:
        # Nuitka's sys.executable names a Python that does not exist.
        named = [getattr(compiled, name, None) for name in ("process_exe", "original_argv0")]
        for found in (*named, sys.argv[0] if not os.path.exists(sys.executable or "") else None):
            if found:
                return os.path.abspath(str(found))
    return os.path.abspath(sys.executable)


def without_loader(environment: MutableMapping[str, str]) -> None:
    """Take out what a freezer's loader put in for itself: it breaks other frozen programs, and browsers."""
    for name in [*environment]:
        if name.startswith("_PYI_") or name in ("_MEIPASS2", "PYINSTALLER_SUPPRESS_SPLASH_SCREEN"):
            del environment[name]
    if not is_frozen():
        return
    for name in ("LD_LIBRARY_PATH", "LIBPATH"):
        original = environment.pop(f"{name}_ORIG", None)
        if original is not None:
            environment[name] = original
        elif environment.get(name):
            # It was not set before the loader did; or this was done before, and what is there is somebody else's.
            bundle = getattr(sys, "_MEIPASS", None)
            others = [path for path in environment[name].split(os.pathsep) if not bundle or not path.startswith(bundle)]
            if others:
                environment[name] = os.pathsep.join(others)
            else:
                del environment[name]


def find_browsers() -> None:
    """Have Playwright look for browsers where it installs them; in a frozen app it would look within the app."""
    name = "PLAYWRIGHT_BROWSERS_PATH"
    bundle = getattr(sys, "_MEIPASS", None) or os.path.dirname(executable())
    inside = os.path.join(bundle, "playwright", "driver", "package", ".local-browsers")
    if name in os.environ or not is_frozen() or os.path.isdir(inside):
        return
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        cache = os.path.expanduser("~/Library/Caches")
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache):
        os.environ[name] = os.path.join(cache, "ms-playwright")
