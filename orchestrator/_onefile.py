"""What the loader of an app in one file leaves to the app: to end when the loader is killed, and its DLL folder."""

from __future__ import annotations

import os
import sys

from orchestrator.child import _orphan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# From <sys/prctl.h> and <signal.h>.
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
# From winnt.h and winbase.h.
_SYNCHRONIZE = 0x00100000
_INFINITE = 0xFFFFFFFF
# Whose pid the guardian asks for.
LOADER = "ORCHESTRATOR_LOADER"
# What the app ends with when its loader is gone: as it would if it were killed together with it.
_EXIT_LOADER_GONE = 137


def loader_of(starts: str) -> int | None:
    """Return the pid of the loader that unpacked this app, and that removes its files when it ends; 0 if it is gone.

    None: this app has no loader, or nothing tells whether its parent is one.

    Args:
        starts: Pids of the app's starts that led to this one. A child of the app has one of them for a parent; the
            loader is none of them, for it runs no Python.
    """
    folder = os.path.join(getattr(sys, "_MEIPASS", None) or "", "")
    parent = os.getppid()
    if not os.path.basename(folder[:-1]).startswith("_MEI"):
        return None  # in one folder: the loader has become the app
    if str(parent) in starts.split():
        return None
    if not sys.platform.startswith("linux"):
        return parent
    try:
        with open(f"/proc/{parent}/maps", encoding="utf-8", errors="replace") as file:
            if any(folder in line for line in file):
                return None  # it has loaded Python from there: a child of the app
        if os.path.samefile(f"/proc/{parent}/exe", sys.executable):
            return parent
    except PermissionError:
        pass  # another user's, such as the first process of the system: the loader is of the same user
    except OSError:
        return None
    # Somebody else has inherited this process, or started it within the app.
    return None if starts else 0


def die_with_loader(loader: int) -> None:
    """End this process when the loader that unpacked it is killed, or was: nobody else would.

    Its children are left to the guardian, as always when the app is killed, and so are the loader's files.
    """
    if not loader:
        os._exit(_EXIT_LOADER_GONE)
    os.environ[LOADER] = str(loader)
    if sys.platform.startswith("linux"):
        import ctypes

        try:
            # Not SIGTERM: code that never returns to the interpreter, such as a window's loop, would not see it.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):
            return
        if os.getppid() != loader:
            os._exit(_EXIT_LOADER_GONE)  # it went before the kernel knew whom to tell
        return
    import threading

    watch = _wait_for_exit_on_windows if sys.platform == "win32" else _wait_for_exit_by_kqueue
    threading.Thread(target=_end_after, args=(watch, loader), name="orchestrator-loader", daemon=True).start()


def _end_after(watch: Any, pid: int) -> None:
    if watch(pid):
        os._exit(_EXIT_LOADER_GONE)


def _wait_for_exit_by_kqueue(pid: int, system: Any = None) -> bool:
    """Wait until a process is gone; False when that cannot be known (macOS and the BSDs)."""
    if system is None:
        import select as system
    try:
        queue = system.kqueue()
        wanted = system.kevent(pid, system.KQ_FILTER_PROC, system.KQ_EV_ADD, system.KQ_NOTE_EXIT)
        queue.control([wanted], 1, None)
    except ProcessLookupError:
        return True
    except (OSError, AttributeError):
        return False
    return True


def _wait_for_exit_on_windows(pid: int, kernel32: Any = None) -> bool:
    """Wait until a process is gone; False when that cannot be known."""
    import ctypes

    if kernel32 is None:
        kernel32 = _kernel32()
    kernel32.OpenProcess.restype = ctypes.c_void_p  # a handle, which may be longer than an int
    kernel32.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    handle = kernel32.OpenProcess(_SYNCHRONIZE, False, pid)
    return bool(handle) and kernel32.WaitForSingleObject(handle, _INFINITE) == 0


def remove_unpacked() -> None:
    """In a guardian, last of all: remove what the loader unpacked, if the loader was killed and cannot."""
    folder = getattr(sys, "_MEIPASS", None) or ""
    loader = os.environ.get(LOADER, "")
    if not os.path.basename(folder).startswith("_MEI") or not loader.isdecimal() or sys.platform == "win32":
        return  # Windows removes no file that is in use, such as those that this process has loaded
    if _is_gone(int(loader)):
        _orphan.remove_tree(folder)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"  # dead, and nobody has asked how it ended
    except (ProcessLookupError, FileNotFoundError):
        return not os.path.exists(f"/proc/{pid}") if sys.platform.startswith("linux") else not _answers(pid)
    except (OSError, IndexError):
        return False  # somebody else's, or no such file: this is no time to guess


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def leave_library_folder(kernel32: Any = None) -> None:
    """Windows: have programs that this process starts look for DLLs where they would without the app.

    The loader has set a folder for that, which is handed on. This process keeps it, in a way that is its own.
    """
    folder = getattr(sys, "_MEIPASS", None)
    if not folder:
        return
    add: Any = getattr(os, "add_dll_directory", None)
    if add is not None:
        add(folder)
    (kernel32 or _kernel32()).SetDllDirectoryW(None)


def _kernel32() -> Any:
    import ctypes

    return ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
