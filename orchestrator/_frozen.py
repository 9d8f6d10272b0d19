"""Recognise, before anything else runs, that this start of a frozen app is a child; prove that the app looks for it.

`sys.executable` of a frozen app is the app. A child is such a start with a flag in its arguments and the same token in
its environment; a start with only one of the two went wrong on its way, and ends instead of running the app again.
"""

from __future__ import annotations

import os
import sys

from orchestrator._freezer import executable, find_browsers, is_frozen, without_loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

__all__ = ("APPS", "executable", "freeze_support", "is_frozen", "without_loader")

FLAG = "--orchestrator-child"
# After the token, when the start is to be the supervisor's guardian and no child.
GUARDIAN = ":guardian"
VARIABLE = "ORCHESTRATOR_CHILD"

# What a start that is half a child exits with: the first two of the exit codes that sysexits.h names for bad input.
EXIT_NO_TOKEN = 64
EXIT_NO_FLAG = 65
# An error of the program itself, in the same list.
EXIT_TOO_MANY_STARTS = 70
_EXIT_PARENT_GONE = 113
# How the name of a supervisor's temp folder begins.
_FOLDER = "orchestrator-"

# What keeps a frozen app from starting itself for ever; see `_guards`. Tests take some out, to see what the others do.
GUARDS = {"armed", "marker", "nested", "handshake"}

# The frozen apps whose children this process is nested in.
APPS = "ORCHESTRATOR_APPS"

# The living starts of the app that one another led to. A person who starts an app anew from within, time and again,
# ends the one before; a dozen at the same time is a program that takes `sys.executable` for a Python.
STARTS = "ORCHESTRATOR_STARTS"
MOST_STARTS = 12

# How the programs begin that multiprocessing runs with `-c`; none of them needs the app's main.
_MULTIPROCESSING_PROGRAMS = (
    "from multiprocessing.resource_tracker import main",
    "from multiprocessing.forkserver import main",
    "import sys; from multiprocessing.forkserver import main",
)
_MULTIPROCESSING_FLAG = "--multiprocessing-fork"
# The script with which PyInstaller calls `freeze_support` before the app's main.
_RUNTIME_HOOK = "pyi_rth_orchestrator.py"

_armed = False
_child = False
_token = ""
_loader: dict[str, str] = {}


def freeze_support() -> None:
    """Run as a child if this start of the program is one; otherwise return, and let the program start children.

    The first line of a frozen app's `main`, before other imports. In a child, also in one of multiprocessing, it never
    returns. In a program that is not frozen it starts nothing, and it may be called twice.
    """
    global _armed
    if not _armed:
        _divert()
        _armed = True
        if is_frozen():
            _settle_in()
    if is_frozen():
        _divert_multiprocessing()


def armed() -> bool:
    """Return whether every start of this program comes through `freeze_support`: this one has."""
    return _armed


def is_child() -> bool:
    """Return whether this start of a frozen app is a child, or a guardian, and was recognised as one."""
    return _child


def token() -> str:
    """Return this process's token for its children."""
    global _token
    if not _token:
        _token = os.urandom(16).hex()
    return _token


def loader() -> Mapping[str, str]:
    """Return what `freeze_support` took out of a child's environment: the app's own children need it again.

    Without it the loader of an app in one file unpacks all of it anew, and stands between the child and its pid.
    """
    return _loader


def is_multiprocessing_start() -> bool:
    """Return whether multiprocessing started this process, as one that runs a function of the app."""
    return getattr(sys, "argv", [])[1:2] == [_MULTIPROCESSING_FLAG]


def _divert() -> None:
    global _armed, _child
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
    _armed = _child = True  # what runs in here may start children, too
    _leave_loader()
    del sys.argv[1:]
    # It names the app's main, or PyInstaller's hook, which a child of multiprocessing would look for, and load.
    vars(sys.modules["__main__"]).pop("__file__", None)
    if given != expected:
        from orchestrator import _guardian_main

        # Before it is asked to do anything: an app in one file has lost its modules by the time it is needed.
        _guardian_main.prepare()
        _guardian_main.main()
    find_browsers()
    nonce = _read_nonce()
    from orchestrator.child._main import main

    main(nonce)
    os._exit(0)  # main does not return


def _leave_loader() -> None:
    """Have programs that are started here find none of the loader's variables."""
    before = dict(os.environ)
    without_loader(os.environ)
    _loader.update({name: value for name, value in before.items() if os.environ.get(name) != value})
    if sys.platform == "win32":
        from orchestrator import _onefile

        _onefile.leave_library_folder()


def _divert_multiprocessing() -> None:
    """Run as a child of multiprocessing, or as one of its other processes, if this start is one."""
    argv = getattr(sys, "argv", [])
    if is_multiprocessing_start():
        # Functions of the main script are found once it has run, which is for later when this comes before it. In a
        # child of the app it never runs, so what was started from there needs none of it.
        main = getattr(sys.modules.get("__main__"), "__file__", None) or ""
        if os.path.basename(main) != _RUNTIME_HOOK or os.environ.get(APPS):
            from functools import partial
            from multiprocessing import process, spawn

            process.ORIGINAL_DIR = None  # type: ignore[attr-defined]  # there is no main script to load
            spawn.prepare = partial(_prepare, spawn.prepare)
            spawn.freeze_support()
    elif "-c" in argv[1:-1]:
        place = argv.index("-c")
        program = argv[place + 1]
        if program.startswith(_MULTIPROCESSING_PROGRAMS) and all(word.startswith("-") for word in argv[1:place]):
            exec(program, {"__name__": "__main__"})
            sys.exit()


def _prepare(prepare: Callable[[dict[str, Any]], None], data: dict[str, Any]) -> None:
    """Take over what multiprocessing tells its child, but that its modules are only where the parent has them.

    An app in one file that a job starts has unpacked its own: the parent's folder holds none that it can load.
    """
    others = data.get("sys_path") or []
    data["sys_path"] = [*sys.path, *(path for path in others if path not in sys.path)]
    prepare(data)


def _settle_in() -> None:
    """Do what a frozen app needs once: it is the app itself that runs here."""
    starts = os.environ.get(STARTS, "")
    _count_starts()
    if getattr(sys, "_MEIPASS", None):
        from orchestrator import _onefile

        loader = _onefile.loader_of(starts)
        if loader is not None:
            _onefile.die_with_loader(loader)
    find_browsers()


def _count_starts() -> None:
    pids = os.environ.get(STARTS, "").split()
    if len(pids) >= MOST_STARTS:
        pids = [pid for pid in pids if pid.isdecimal() and _lives(int(pid))]
    if len(pids) >= MOST_STARTS:
        _end(
            EXIT_TOO_MANY_STARTS,
            f"this program has started itself {len(pids)} times, each time from within the last: does it run "
            "sys.executable as if that were Python? In a frozen app it is the app",
        )
    os.environ[STARTS] = " ".join([*pids, str(os.getpid())])


def _lives(pid: int) -> bool:
    if sys.platform == "win32":
        import psutil  # os.kill would end it

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _read_nonce() -> str:
    """Read the preamble, of which a frozen child needs no paths; unbuffered, for the frames come after it."""
    size = int(_read(8), 16)
    return os.fsdecode(_read(size)).partition("\0")[0]


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            _leave()
        data += more
    return data


def _leave() -> NoReturn:
    """End, for the supervisor is gone; remove their two folders, which are empty: nobody else knows of them yet."""
    # Nothing is imported here: the loader of an app in one file has removed what could be.
    folder = os.environ.get("TMPDIR", "")
    try:
        if _FOLDER in folder:
            os.rmdir(folder)
            os.rmdir(os.path.dirname(folder))
    finally:
        os._exit(_EXIT_PARENT_GONE)


def _end(code: int, problem: str) -> NoReturn:
    try:
        os.write(2, f"orchestrator: {problem}\n".encode())
    except OSError:
        pass  # a windowed app has no stderr
    if is_frozen():
        from orchestrator import _remedies

        _remedies.note(problem)
    os._exit(code)
