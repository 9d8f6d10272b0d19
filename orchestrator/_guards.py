"""Refuse to start children where each would run the program itself again.

A frozen app that starts itself by mistake fills a machine with processes in seconds. Four guards stand in the way, each
of which alone keeps it at one process too many:

- armed: this start of the app came through `freeze_support()`, so its children will
- marker: a start that was to be a child, and was not recognised as one, opens no supervisor
- nested: an app that was started within one of its own children, and is none itself, opens no supervisor
- handshake (`_handshake`): one child at a time, of all processes of the app, until one has proved to be a child
"""

from __future__ import annotations

import os
import sys

from orchestrator import _frozen
from orchestrator._frozen import APPS
from orchestrator.child import _target
from orchestrator.exceptions import LaunchError, SelfSpawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ("APPS", "DEEPEST", "DEPTH", "check_app", "check_command", "check_depth", "check_host", "depth", "nest")

# How many children this process is nested in. A program that starts itself by mistake grows in depth: four levels of
# supervisors within jobs are more than anybody was seen to mean.
DEPTH = "ORCHESTRATOR_DEPTH"
DEEPEST = 4

_REMEDY = (
    "Make its first line `from orchestrator import freeze_support; freeze_support()`, before other imports, "
    'or name a Python: Supervisor(command=["/path/to/python"])'
)


def check_host() -> None:
    """Refuse a supervisor in a process that must not be there, or that only imports the main script.

    Raises:
        SelfSpawnError: If each child would start the program anew, for ever.
    """
    if _target.loading_main or _is_multiprocessing_import():
        raise SelfSpawnError(_unguarded())
    if _frozen.is_frozen():
        _check_marker()
        _check_nested()
        _check_multiprocessing()


def check_app() -> None:
    """Refuse to start this frozen app as a child of its own.

    Raises:
        SelfSpawnError: If that would run the app again.
    """
    _check_marker()
    _check_nested()
    if "armed" in _frozen.GUARDS and not _frozen.armed():
        raise SelfSpawnError(
            f"this is a frozen app: to start {_frozen.executable()!r} as a child would run the app again. {_REMEDY}"
        )


def check_command(program: str, source: str) -> None:
    """Refuse to take this frozen app for a Python.

    Raises:
        SelfSpawnError: If somebody named it as one.
    """
    if _name(program) == _own_name():
        raise SelfSpawnError(f"{source} names {program!r}, which is this very app and no Python. {_REMEDY}")


def depth() -> int:
    """Return how many children this process is nested in."""
    text = os.environ.get(DEPTH, "")
    return int(text) if text.isdecimal() else 0


def check_depth() -> None:
    """Refuse another level of children within children.

    Raises:
        LaunchError: If there are too many.
    """
    levels = depth()
    if levels >= DEEPEST:
        raise LaunchError(
            f"this process is a child within {levels} levels of children, and may not start another level: "
            f"does the program start itself? If not, unset {DEPTH}"
        )


def nest(environment: dict[str, str]) -> None:
    """Have what is started with this environment, and all that it starts, know that it is nested in this app."""
    own = _own_name()
    outer = environment.get(APPS, "")
    if not _holds(outer, own):
        environment[APPS] = f"{outer}{os.pathsep}{own}" if outer else own


def _check_marker() -> None:
    if "marker" in _frozen.GUARDS and _frozen.VARIABLE in os.environ:
        raise SelfSpawnError(
            f"this start of {_frozen.executable()!r} was to be a child, and became the app again, for nothing looked "
            f"for that before its main did. {_REMEDY}"
        )


def _check_nested() -> None:
    if "nested" not in _frozen.GUARDS or _frozen.is_child() or not _holds(os.environ.get(APPS, ""), _own_name()):
        return
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return  # a child of multiprocessing: it was recognised as that
    raise SelfSpawnError(
        f"{_frozen.executable()!r} was started again within one of its own children, as the app and not as a child. "
        "In a frozen app sys.executable is the app and not Python: who starts it with -m or -c starts the app. If a "
        f"second app is what you want, take {APPS} out of the environment that it is started with. {_REMEDY}"
    )


def _check_multiprocessing() -> None:
    """Refuse the app's main in a process that multiprocessing started: it would start others, each the app again."""
    if not _frozen.is_multiprocessing_start():
        return
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        raise SelfSpawnError(
            f"multiprocessing started {_frozen.executable()!r} as a child of its own, and the app's main runs there. "
            "Make its first line `from orchestrator import freeze_support; freeze_support()`: that looks for children "
            "of multiprocessing, too"
        )


def _own_name() -> str:
    return _name(_frozen.executable())


def _name(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _holds(names: str, name: str) -> bool:
    # Not split: a name may contain what stands between two.
    return f"{os.pathsep}{name}{os.pathsep}" in f"{os.pathsep}{names}{os.pathsep}"


def _is_multiprocessing_import() -> bool:
    """Return whether a process that multiprocessing has spawned is importing the main script."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(getattr(process.current_process(), "_inheriting", False))


def _unguarded() -> str:
    """Say where the main script opens a supervisor although it is only being imported."""
    place = ""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == _target.MAIN:
            place = f"{frame.f_code.co_filename}, line {frame.f_lineno}"
            break
        frame = frame.f_back
    if not place:
        place = str(getattr(sys.modules.get(_target.MAIN), "__file__", None) or "the main script")
    return (
        f"{place}: a supervisor is opened while a child imports this script to find a function of it; "
        "that child would start children of its own, and they too. "
        'Put what starts the program under `if __name__ == "__main__":`, for example:\n\n'
        '    if __name__ == "__main__":\n'
        "        asyncio.run(main())\n"
    )
