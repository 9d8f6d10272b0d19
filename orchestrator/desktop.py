"""Where a desktop app's log is: the folder that the system keeps for that, of the user who runs it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("log_file", "log_folder")


def log_folder(app: str | None = None) -> Path:
    r"""Return the folder for an app's logs; it need not exist.

    Linux: `$XDG_STATE_HOME/APP/log`, or `~/.local/state/APP/log`. macOS: `~/Library/Logs/APP`.
    Windows: `%LOCALAPPDATA%\APP\Logs`.

    Args:
        app: Name of the app; by default that of the frozen app's file, or of the main script.
    """
    from pathlib import Path

    name = app or _name_of_app()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local", name, "Logs")
    if sys.platform == "darwin":
        return _home() / "Library" / "Logs" / name
    state = os.environ.get("XDG_STATE_HOME", "")
    # An XDG variable that holds no absolute path counts as not set.
    return Path(state if os.path.isabs(state) else _home() / ".local" / "state", name, "log")


def log_file(app: str | None = None) -> Path:
    """Return the file where a frozen app finds what went wrong with its children, and what to do about it.

    It is written because a windowed app has nowhere to print; it stays below two megabytes.
    """
    return log_folder(app) / "orchestrator.log"


def _home() -> Path:
    from pathlib import Path

    home = os.path.expanduser("~")
    if not os.path.isabs(home) or home == os.sep:  # HOME is empty, or nonsense
        import tempfile

        home = tempfile.gettempdir()
    return Path(home)


def _name_of_app() -> str:
    from orchestrator import _freezer

    if _freezer.is_frozen():
        path = _freezer.executable()
    else:
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        path = str(script or (sys.argv[0] if getattr(sys, "argv", None) else ""))
    name = os.path.splitext(os.path.basename(path))[0]
    return name if name and not name.startswith("-") else "orchestrator"
