"""Recognise, before anything else runs, that this start of a frozen app is a child; prove that the app looks for it.

`sys.executable` of a frozen app is the app. A child is such a start with a flag in its arguments and the same token in
its environment; a start with only one of the two went wrong on its way, and ends instead of running the app again.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any, NoReturn

FLAG = "--orchestrator-child"
# After the token, when the start is to be the supervisor's guardian and no child.
GUARDIAN = ":guardian"
VARIABLE = "ORCHESTRATOR_CHILD"

# What a start that is half a child exits with: the first two of the exit codes that sysexits.h names for bad input.
EXIT_NO_TOKEN = 64
EXIT_NO_FLAG = 65
_EXIT_PARENT_GONE = 113

_armed = False
_token = ""


def freeze_support() -> None:
    """Run as a child if this start of the program is one; otherwise return, and let the program start children.

    The first line of a frozen app's `main`, before other imports. In a child it never returns. In a program that is
    not frozen it does nothing, and it may be called twice.
    """
    global _armed
    if not _armed:
        _divert()
        _armed = True


def armed() -> bool:
    """Return whether every start of this program comes through `freeze_support`: this one has."""
    return _armed


def token() -> str:
    """Return this process's token for its children."""
    global _token
    if not _token:
        _token = os.urandom(16).hex()
    return _token


def _compiled() -> Any:
    """Return what Nuitka puts into the modules it compiles, or None."""
    main = sys.modules.get("__main__")
    return globals().get("__compiled__") or getattr(main, "__compiled__", None)


def is_frozen() -> bool:
    """Return whether `sys.executable` is an app and not Python."""
    return bool(getattr(sys, "frozen", False)) or _compiled() is not None


def executable() -> str:
    """Return the path of the frozen app."""
    compiled = _compiled()
    for name in ("process_exe", "original_argv0"):
        # Nuitka's sys.executable names a Python that does not exist.
        found = getattr(compiled, name, None)
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
        elif getattr(sys, "_MEIPASS", None) and environment.get(name):
            del environment[name]  # it was not set before the loader did


def _divert() -> None:
    first = sys.argv[1] if len(getattr(sys, "argv", ())) > 1 else ""
    flag, _, given = first.partition("=")
    # Taken out at once: nothing that a child starts may be taken for a child.
    expected = os.environ.pop(VARIABLE, None)
    if flag != FLAG and expected is None:
        return
    if flag != FLAG:
        _end(EXIT_NO_FLAG, f"this start of the program was to be a child, but its argument {FLAG} is missing")
    if not expected or given not in (expected, expected + GUARDIAN):
        _end(EXIT_NO_TOKEN, f"{FLAG} is for the program itself to start its children with")
    without_loader(os.environ)
    del sys.argv[1:]
    if given != expected:
        from orchestrator import _guardian_main

        _guardian_main.main()
    nonce = _read_nonce()
    from orchestrator.child._main import main

    main(nonce)
    os._exit(0)  # main does not return


def _read_nonce() -> str:
    """Read the preamble, of which a frozen child needs no paths; unbuffered, for the frames come after it."""
    size = int(_read(8), 16)
    return os.fsdecode(_read(size)).partition("\0")[0]


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(_EXIT_PARENT_GONE)
        data += more
    return data


def _end(code: int, problem: str) -> NoReturn:
    try:
        os.write(2, f"orchestrator: {problem}\n".encode())
    except OSError:
        pass  # a windowed app has no stderr
    os._exit(code)
