"""Which command starts a child here, with what environment and first bytes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from orchestrator import _frozen, _guards, _python, _remedies
from orchestrator._guards import APPS, DEPTH
from orchestrator._killset_process import MARKER, OUTER_MARKERS
from orchestrator._python import COMMAND
from orchestrator._wire import FOLDER
from orchestrator.exceptions import ConfigurationError, LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = (
    "BOOT",
    "COMMAND",
    "DEPTH",
    "Launch",
    "check_host",
    "describe",
    "describe_guardian",
    "environment",
    "guardian_environment",
    "preamble",
)

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
    f"PYTHONHOME {_frozen.STARTS}".split()
)
_NEEDED_ON_WINDOWS = frozenset("COMSPEC PATHEXT SYSTEMDRIVE SYSTEMROOT TEMP TMP USERPROFILE WINDIR".split())
_OURS = frozenset((MARKER, OUTER_MARKERS, DEPTH, APPS, _frozen.VARIABLE))


# What C code prints would wait in a buffer of the C library, and be lost when the child is killed.
_UNBUFFERED = "-u"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a child is started here.

    Attributes:
        command: Program and arguments.
        reason: Why this one, in a sentence for a person.
        is_app: It is this program itself, a frozen app, that is started.
    """

    command: list[str]
    reason: str
    is_app: bool = False


def describe(command: Sequence[str] | None = None) -> Launch:
    """Return the command that starts a child.

    Args:
        command: A Python, with arguments perhaps; None lets this function find one.

    Raises:
        LaunchError: If there is none; the message says what to do.
        SelfSpawnError: If it would run the program itself.
        ConfigurationError: If `command` is not a list of strings.
    """
    _guards.check_depth()
    given, source = _python.given(command)
    if given is not None:
        given = _python.existing(given, source)
        if _frozen.is_frozen():
            _guards.check_command(given[0], source)
        return Launch(
            [*given, *_python.flags(), _UNBUFFERED, "-c", BOOT, LABEL],
            f"{source} names this command",
        )
    if _frozen.is_frozen():
        return _app("")
    python, reason = _python.find()
    return Launch([python, *_python.flags(), _UNBUFFERED, "-c", BOOT, LABEL], reason)


def _app(suffix: str) -> Launch:
    _guards.check_app()
    return Launch(
        [_frozen.executable(), f"{_frozen.FLAG}={_frozen.token()}{suffix}"],
        "this is a frozen app, and its start goes through freeze_support()",
        is_app=True,
    )


def describe_guardian() -> Launch:
    """Return the command that starts this supervisor's guardian.

    It never is a command that somebody gave for children: that may lead into a container or to another machine.

    Raises:
        LaunchError: If no Python is to be found here.
        SelfSpawnError: If it would run the program itself.
    """
    if _frozen.is_frozen():
        return _app(_frozen.GUARDIAN)
    python, reason = _python.find()
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
        _add_loader(found)
        _guards.nest(found)
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
    if own and _python.given(None)[0] is None:
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
    own = _python.given(command)[0] is None
    if own and _frozen.is_frozen():
        _add_loader(found)
    else:
        _frozen.without_loader(found)
    if own and sys.platform == "win32" and _python.is_redirected():
        found[_LAUNCHER] = sys.executable
    for name, value in (overrides or {}).items():
        _check_variable(name, value)
        key = name.upper() if sys.platform == "win32" else name
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
    found[DEPTH] = str(_guards.depth() + 1)
    if APPS in os.environ:
        found[APPS] = os.environ[APPS]
    if _frozen.is_frozen():
        _guards.nest(found)
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
    try:
        _guards.check_host()
        if not children:
            return  # each launch looks for itself
        _guards.check_depth()
        if _frozen.is_frozen() and _python.given(None)[0] is None:
            _guards.check_app()
    except LaunchError as error:
        _remedies.note(str(error))
        raise


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


def _add_loader(environment: dict[str, str]) -> None:
    """Add what a start of this frozen app needs to be a child, and to share what its parent has unpacked."""
    # The child takes them out for what it starts itself.
    environment.update(_frozen.loader())
    environment[_frozen.VARIABLE] = _frozen.token()
    environment["PYINSTALLER_SUPPRESS_SPLASH_SCREEN"] = "1"


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
