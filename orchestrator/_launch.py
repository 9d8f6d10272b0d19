"""Which command starts a child here, with what environment and first bytes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from orchestrator import _frozen
from orchestrator._killset_process import MARKER, OUTER_MARKERS
from orchestrator._wire import FOLDER
from orchestrator.child import _target
from orchestrator.exceptions import ConfigurationError, LaunchError, SelfSpawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import FrameType

__all__ = (
    "BOOT",
    "Launch",
    "check_host",
    "describe",
    "describe_guardian",
    "environment",
    "guardian_environment",
    "preamble",
)

# A command for children, as a JSON list or a single path, where no `Supervisor(command=…)` can be written.
COMMAND = "ORCHESTRATOR_CHILD_COMMAND"
# How many children this process is nested in. A program that starts itself by mistake grows in depth: four levels of
# supervisors within jobs are more than anybody was seen to mean.
DEPTH = "ORCHESTRATOR_DEPTH"
DEEPEST = 4
# What process lists show of a child.
LABEL = "orchestrator-child"
GUARDIAN_LABEL = "orchestrator-guardian"

_LAUNCHER = "__PYVENV_LAUNCHER__"

# Meant for the child alone, not for what it starts.
_TAKEN_OUT = (_frozen.VARIABLE, _LAUNCHER) if sys.platform == "win32" else (_frozen.VARIABLE,)

# The program of a child until it can import anything of ours. Reads the preamble unbuffered: what follows are frames.
#   If the supervisor is gone before that, it removes their two folders, which are empty: nobody else knows of them yet.
#   From the same Python ("=") it takes over sys.path, to another's ("+") it adds some entries. The library is imported
# from a folder that is then forgotten: to another Python it may be full of packages of the wrong version, and a package
# finds its own modules without it.
BOOT = f"""\
import os,sys
def r(n):
 b=b""
 while len(b)<n:
  c=os.read(0,n-len(b))
  if not c:
   t=os.environ.get("TMPDIR","")
   try:
    if "{FOLDER}" in t:os.rmdir(t);os.rmdir(os.path.dirname(t))
   finally:os._exit(113)
  b+=c
 return b
n,o,l,*p=os.fsdecode(r(int(r(8),16))).split("\\0")
for k in {_TAKEN_OUT}:os.environ.pop(k,0)
if o=="=":sys.path[:]=p
else:sys.path+=[x for x in p if x not in sys.path]
p=sys.path[:]
sys.path.append(l)
from orchestrator.child._main import main
sys.path[:]=p
main(n)
"""

# The program of a guardian.
GUARDIAN_BOOT = """\
import sys
sys.path+=sys.argv[2:]
from orchestrator._guardian_main import main
main()
"""

# With an allow-list these are inherited all the same: a Python whose libraries or home are found through them would
# not start, file names would be read in another encoding, and jobs could not find any program.
_NEEDED = frozenset(
    "DYLD_FRAMEWORK_PATH DYLD_LIBRARY_PATH LANG LC_ALL LC_CTYPE LD_LIBRARY_PATH ORCHESTRATOR_DEBUG PATH "
    "PYTHONHOME".split()
)
_NEEDED_ON_WINDOWS = frozenset("COMSPEC PATHEXT SYSTEMDRIVE SYSTEMROOT TEMP TMP USERPROFILE WINDIR".split())
_OURS = frozenset((MARKER, OUTER_MARKERS, DEPTH, _frozen.VARIABLE))


# What C code prints would wait in a buffer of the C library, and be lost when the child is killed.
_UNBUFFERED = "-u"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a child is started here.

    Attributes:
        command: Program and arguments.
        reason: Why this one, in a sentence for a person.
    """

    command: list[str]
    reason: str


def describe(command: Sequence[str] | None = None) -> Launch:
    """Return the command that starts a child.

    Args:
        command: A Python, with arguments perhaps; None lets this function find one.

    Raises:
        LaunchError: If there is none; the message says what to do.
        SelfSpawnError: If it would run the program itself.
        ConfigurationError: If `command` is not a list of strings.
    """
    _check_depth()
    given, source = _given(command)
    if given is not None:
        return Launch(
            [*_existing(given, source), *_flags(), _UNBUFFERED, "-c", BOOT, LABEL], f"{source} names this command"
        )
    if _frozen.is_frozen():
        _check_armed()
        return Launch(
            [_frozen.executable(), f"{_frozen.FLAG}={_frozen.token()}"],
            "this is a frozen app, and its start goes through freeze_support()",
        )
    python, reason = _find_python()
    return Launch([python, *_flags(), _UNBUFFERED, "-c", BOOT, LABEL], reason)


def describe_guardian() -> Launch:
    """Return the command that starts this supervisor's guardian.

    It never is a command that somebody gave for children: that may lead into a container or to another machine.

    Raises:
        LaunchError: If no Python is to be found here.
        SelfSpawnError: If it would run the program itself.
    """
    if _frozen.is_frozen():
        _check_armed()
        flag = f"{_frozen.FLAG}={_frozen.token()}{_frozen.GUARDIAN}"
        return Launch([_frozen.executable(), flag], "this is a frozen app, and its start goes through freeze_support()")
    python, reason = _find_python()
    # As few imports as can be. With PYTHONHOME, without which this Python may not find its library, not quite isolated.
    flags = ["-P", "-s", "-S"] if "PYTHONHOME" in os.environ else ["-I", "-S"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    places = [_library()]
    if sys.platform != "linux":
        import psutil

        places.append(os.path.dirname(os.path.dirname(os.path.abspath(psutil.__file__))))
    return Launch([python, *flags, "-c", GUARDIAN_BOOT, GUARDIAN_LABEL, *places], reason)


def guardian_environment(secrets: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of the guardian: this process's, so that whoever looks for what we started finds it."""
    found = dict(os.environ)
    if _frozen.is_frozen():
        found[_frozen.VARIABLE] = _frozen.token()
        found["PYINSTALLER_SUPPRESS_SPLASH_SCREEN"] = "1"
    for name in secrets:
        found.pop(name, None)
    return found


def preamble(nonce: str, *, own: bool = True) -> bytes:
    """Return the first bytes for a child's stdin, before any frame: its nonce, and where to import from.

    Args:
        nonce: What the child repeats in its hello.
        own: Whether the child runs this very Python: it gets all of `sys.path`. Another one keeps its own and gets
            the folder of the main script and the current folder after it, if they are in ours, and the library.
    """
    library = _library()
    if own and _given(None)[0] is None:
        kind, paths = "=", _absolute(sys.path)
    else:
        kind, paths = "+", _absolute(_near_script())
    body = os.fsencode("\0".join([nonce, kind, library, *paths]))
    return b"%08x" % len(body) + body


def environment(
    overrides: Mapping[str, str | None] | None,
    allow: Sequence[str] | None,
    marker: str,
    *,
    command: Sequence[str] | None = None,
) -> dict[str, str]:
    """Return the environment of a child.

    Args:
        overrides: What to set; None takes a variable out.
        allow: Inherit these variables only, and those without which no Python starts or finds a program. None: all.
        marker: What the child's kill set is known by.
        command: What `describe` was given: another program does not get what our own needs to start.

    Raises:
        ConfigurationError: If a name or value cannot be in an environment, or is the library's own.
    """
    inherited = dict(os.environ)
    found = inherited if allow is None else _allowed(inherited, allow)
    for name in (*_OURS, _LAUNCHER) if sys.platform == "win32" else _OURS:
        found.pop(name, None)
    own = _given(command)[0] is None
    if own and _frozen.is_frozen():
        # The loader's variables tell it to share what the parent has unpacked; the child takes them out.
        found[_frozen.VARIABLE] = _frozen.token()
        found["PYINSTALLER_SUPPRESS_SPLASH_SCREEN"] = "1"
    else:
        _frozen.without_loader(found)
    if own and sys.platform == "win32" and _is_redirected():
        found[_LAUNCHER] = sys.executable
    for name, value in (overrides or {}).items():
        _check_variable(name, value)
        key = name.upper() if sys.platform == "win32" else name
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
    found[DEPTH] = str(_depth() + 1)
    found[MARKER] = marker
    outer = f"{os.environ.get(OUTER_MARKERS, '')} {os.environ.get(MARKER, '')}".split()
    if outer:
        found[OUTER_MARKERS] = " ".join(outer)
    return found


def check_host(*, children: bool = True) -> None:
    """Refuse to open a supervisor in a process that must not start children.

    Args:
        children: Whether it is to have child processes in any case; else only what must not open one at all is refused.

    Raises:
        SelfSpawnError: If the main script opens it while a child imports that script, or the app is frozen and not
            prepared: each child would start the program anew, for ever.
        LaunchError: If this process is nested too deep in children.
    """
    if _target.loading_main or _is_multiprocessing_import():
        raise SelfSpawnError(_unguarded())
    if not children:
        return  # each launch looks for itself
    _check_depth()
    if _frozen.is_frozen() and _given(None)[0] is None:
        _check_armed()


# Commands


def _given(command: Sequence[str] | None) -> tuple[list[str] | None, str]:
    """Return the command that the caller or the user gave, and where."""
    if command is not None:
        if isinstance(command, str | bytes) or not all(isinstance(word, str) for word in command):
            raise ConfigurationError(
                "command", f"must be a list of strings such as ['/path/to/python'], not {command!r}"
            )
        if not command or not command[0]:
            raise ConfigurationError("command", "is empty; leave it out to have a Python found")
        return [*command], "command="
    text = os.environ.get(COMMAND, "").strip()
    if not text:
        return None, ""
    if not text.startswith("["):
        return [text], COMMAND
    import json

    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise LaunchError(f"{COMMAND} is neither a path nor a JSON list of strings: {text}")
    return words, COMMAND


def _existing(command: list[str], source: str) -> list[str]:
    """Return the command with its program as an absolute path: children may have another current folder."""
    import shutil

    program, where = command[0], " on PATH"
    if os.path.dirname(program):
        program, where = os.path.abspath(program), ""
    path = shutil.which(program)
    if path is not None:
        return [os.path.abspath(path), *command[1:]]
    if os.path.exists(program) and not where:
        raise LaunchError(f"{source}: {program!r} is no program that may be run; give the path of a Python interpreter")
    raise LaunchError(f"{source}: there is no {program!r}{where}; give the path of a Python interpreter")


def _find_python() -> tuple[str, str]:
    """Return a Python of this version and environment, and why that one."""
    executable = sys.executable or ""
    if executable and _is_python(executable) and _is_program(executable):
        if sys.platform == "win32" and _is_redirected():
            return _base_executable(), "it is the Python that the virtual environment's redirector would start"
        if sys.prefix != sys.base_prefix:
            return executable, "it is the Python of the virtual environment that this process runs in"
        return executable, "it is the Python that this process runs in"
    if executable and not _is_python(executable):
        problem = f"sys.executable is {executable!r}, which is not Python"
    elif executable:
        problem = f"sys.executable is {executable!r}, which does not exist or may not be run"
    else:
        problem = "sys.executable is not set"
    candidates = _candidates()
    for path in candidates:
        if _is_python(path) and _is_program(path):
            return path, f"{problem}; this one belongs to the same installation"
    looked = "; looked for " + ", ".join(candidates) if candidates else ""
    raise LaunchError(
        f"cannot tell how to start a Python: {problem}{looked}. Name one: "
        f'Supervisor(command=["/path/to/python"]), or {COMMAND}=/path/to/python in the environment'
    )


def _candidates() -> list[str]:
    """Return where the Python may be that an embedding program has loaded, virtual environments before their base."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found: list[str] = []
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        if sys.platform == "win32":
            found += [os.path.join(prefix, "Scripts", "python.exe"), os.path.join(prefix, "python.exe")]
        else:
            found += [os.path.join(prefix, "bin", name) for name in (f"python{version}", "python3", "python")]
    return list(dict.fromkeys([*found, *filter(None, [_base_executable()])]))


def _is_python(path: str) -> bool:
    # By name only: a file of another name may be the program itself, which must not be run to find out.
    name = os.path.basename(path).lower()
    return name.startswith(("python", "pypy")) and not name.startswith("pythonservice")


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_redirected() -> bool:
    """Return whether `sys.executable` only starts the real Python (virtual environments on Windows).

    Its pid would not be the child's, and to kill it would leave the child alone.
    """
    base = _base_executable()
    return bool(base) and os.path.normcase(base) != os.path.normcase(sys.executable) and _is_program(base)


def _base_executable() -> str:
    return getattr(sys, "_base_executable", None) or ""


def _flags() -> list[str]:
    """Return the options that this interpreter was started with."""
    import subprocess

    flags = list(getattr(subprocess, "_args_from_interpreter_flags", list)())
    for name, value in getattr(sys, "_xoptions", {}).items():
        option = name if value is True else f"{name}={value}"
        if option not in flags:  # CPython's own list of those to hand on is not complete
            flags += ["-X", option]
    return flags


# Paths


def _absolute(paths: Sequence[object]) -> list[str]:
    """Return import paths that mean the same in another current folder."""
    found = []
    for path in paths:
        if isinstance(path, str) and "\0" not in path:
            try:
                found.append(path if os.path.isabs(path) else os.path.abspath(path))
            except OSError:
                continue  # the current folder was deleted
    return list(dict.fromkeys(found))


def _library() -> str:
    """Return the folder that this library is in."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _near_script() -> list[str]:
    """Return the entries of `sys.path` that are about this program and not about this Python."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    near = {"", *_absolute([""])}
    if isinstance(script, str):
        near.add(os.path.dirname(os.path.abspath(script)))
    return [path for path in sys.path if path in near]


# Environment


def _allowed(inherited: dict[str, str], allow: Sequence[str]) -> dict[str, str]:
    if isinstance(allow, str) or not all(isinstance(name, str) for name in allow):
        raise ConfigurationError("env_allow", f"must be a list of names, not {allow!r}")
    names = {*allow, *_NEEDED}
    if sys.platform == "win32":
        names = {name.upper() for name in names} | _NEEDED_ON_WINDOWS
    if _frozen.is_frozen():
        names |= {name for name in inherited if name.startswith("_PYI_") or name == "LD_LIBRARY_PATH_ORIG"}
    return {name: value for name, value in inherited.items() if name in names}


def _check_variable(name: object, value: object) -> None:
    field = f"env[{name!r}]"
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise ConfigurationError(field, "is no name of an environment variable")
    if name in _OURS:
        raise ConfigurationError(field, "is set by the library")
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(field, f"must be a string, or None to take it out, not {type(value).__name__}")
    if value is not None and "\0" in value:
        raise ConfigurationError(field, "contains a null character")


# Guards


def _depth() -> int:
    text = os.environ.get(DEPTH, "")
    return int(text) if text.isdecimal() else 0


def _check_depth() -> None:
    depth = _depth()
    if depth >= DEEPEST:
        raise LaunchError(
            f"this process is a child within {depth} levels of children, and may not start another level: "
            f"does the program start itself? If not, unset {DEPTH}"
        )


def _check_armed() -> None:
    if not _frozen.armed():
        raise SelfSpawnError(
            f"this is a frozen app: to start {_frozen.executable()!r} as a child would run the app again. "
            "Make its first line `from orchestrator import freeze_support; freeze_support()`, before other imports, "
            'or name a Python: Supervisor(command=["/path/to/python"])'
        )


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
