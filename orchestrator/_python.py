"""Find a Python that can be a child here, and say of every other candidate what it lacks."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from orchestrator._guards import DEEPEST, DEPTH
from orchestrator.exceptions import ConfigurationError, LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ("COMMAND", "Candidate", "examine", "existing", "find", "flags", "given", "is_redirected")

# A command for children, as a JSON list or a single path, where no `Supervisor(command=…)` can be written.
COMMAND = "ORCHESTRATOR_CHILD_COMMAND"

# A Python says what it is within 20 ms; one that a slow disk or a virus scanner holds up for longer is not waited for.
_PROBE = 10.0
_PROBED = "import sys; print(sys.version_info[0], sys.version_info[1], sys.implementation.cache_tag)"

_probed: dict[str, str] = {}  # what each asked one lacks; none of them changes while this process lives


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program that may be the Python to start children with.

    Attributes:
        path: Where it is; empty when its source names none.
        source: Who names it.
        lack: Why it will not do; empty when it will.
    """

    path: str
    source: str
    lack: str


def given(command: Sequence[str] | None) -> tuple[list[str] | None, str]:
    """Return the command that the caller or the user gave, and where.

    Raises:
        ConfigurationError: If the caller's is no list of strings.
        LaunchError: If the user's is neither a path nor a JSON list of strings.
    """
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


def existing(command: list[str], source: str) -> list[str]:
    """Return the command with its program as an absolute path: children may have another current folder.

    Raises:
        LaunchError: If there is no such program.
    """
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


def find() -> tuple[str, str]:
    """Return a Python of this version and environment, and why that one.

    Raises:
        LaunchError: If there is none; the message names every candidate and what it lacks.
    """
    failed: list[Candidate] = []
    for candidate in _candidates():
        if not candidate.lack:
            return candidate.path, _reason(candidate, failed)
        failed.append(candidate)
    looked = ", ".join(f"{each.path or each.source}: {each.lack}" for each in failed)
    raise LaunchError(
        f"cannot tell how to start a Python (looked at {looked}); name one: "
        f'Supervisor(command=["/path/to/python"]), or {COMMAND}=/path/to/python in the environment'
    )


def examine() -> list[Candidate]:
    """Return all candidates in their order, each with what it lacks; the first that lacks nothing is taken."""
    return list(_candidates())


def _reason(candidate: Candidate, failed: Sequence[Candidate]) -> str:
    if candidate.source == _BASE_OF_REDIRECTOR:
        return "it is the Python that the virtual environment's redirector would start"
    if candidate.source == _OWN:
        if sys.prefix != sys.base_prefix:
            return "it is the Python of the virtual environment that this process runs in"
        return "it is the Python that this process runs in"
    if candidate.source == _CHOSEN:
        return "multiprocessing.set_executable() names it"
    own = next((each for each in failed if each.source == _OWN), None)
    if own is None:
        return "it belongs to the installation that this process has loaded"
    problem = f"sys.executable is {own.path!r}, which {own.lack}" if own.path else "sys.executable is not set"
    return f"{problem}; this one belongs to the same installation"


_CHOSEN = "multiprocessing.set_executable()"
_OWN = "sys.executable"
_BASE_OF_REDIRECTOR = "the redirector's Python"
_BASE = "sys._base_executable"


def _candidates() -> Iterator[Candidate]:
    """Yield what may be the Python, best first; each is only looked at when it is asked for."""
    chosen = _chosen_for_multiprocessing()
    if chosen:
        # Whatever its name is: somebody said that it is a Python.
        yield Candidate(chosen, _CHOSEN, "is no program that may be run" if not _is_program(chosen) else _probe(chosen))
    executable = sys.executable or ""
    if sys.platform == "win32" and _is_python(executable) and is_redirected():
        yield Candidate(base_executable(), _BASE_OF_REDIRECTOR, "")
    yield Candidate(executable, _OWN, _looks(executable))
    # Where the Python may be that an embedding program has loaded, virtual environments before their base.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found: dict[str, str] = {}
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        prefix = getattr(sys, name)
        if sys.platform == "win32":
            paths = [os.path.join(prefix, "Scripts", "python.exe"), os.path.join(prefix, "python.exe")]
        else:
            paths = [os.path.join(prefix, "bin", each) for each in (f"python{version}", "python3", "python")]
        for path in paths:
            found.setdefault(path, f"sys.{name}")
    if base_executable():
        found.setdefault(base_executable(), _BASE)
    for path, source in found.items():
        if path != executable:
            yield Candidate(path, source, _looks(path) or _probe(path))


def _chosen_for_multiprocessing() -> str:
    """Return the program that somebody told multiprocessing to start instead of `sys.executable`, if any."""
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = None if spawn is None else spawn.get_executable()
    if not chosen:
        return ""
    path = os.fsdecode(chosen)
    # What it has by itself: in a Windows service, the python.exe of the installation.
    usual = {sys.executable or "", os.path.join(sys.exec_prefix, "python.exe")}
    return "" if path in usual else path


def _looks(path: str) -> str:
    """Return why a file can be no Python, without running it."""
    if not path:
        return "is not set"
    # By name only: a file of another name may be the program itself, which must not be run to find out.
    if not _is_python(path):
        return "is not Python"
    if not os.path.isfile(path):
        return "does not exist"
    return "" if _is_program(path) else "may not be run"


def _is_python(path: str) -> bool:
    name = os.path.basename(path).lower()
    return name.startswith(("python", "pypy")) and not name.startswith("pythonservice")


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _probe(path: str) -> str:
    """Ask a Python, once, what it is; return why it is not the one that this process has loaded."""
    if path not in _probed:
        _probed[path] = _ask(path)
    return _probed[path]


def _ask(path: str) -> str:
    import subprocess

    try:
        # If it is the program itself after all, it may start no children.
        done = subprocess.run(
            [path, "-I", "-S", "-c", _PROBED],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, DEPTH: str(DEEPEST)},
            timeout=_PROBE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"did not say within {_PROBE:g} s which Python it is"
    except OSError as error:
        return f"cannot be run: {error}"
    said = done.stdout.decode("utf-8", "replace").split()
    own = [str(sys.version_info[0]), str(sys.version_info[1]), str(sys.implementation.cache_tag)]
    if said == own:
        return ""
    if done.returncode or len(said) != 3:
        return f"does not say which Python it is: it ended with code {done.returncode}"
    return f"is {said[2]} {said[0]}.{said[1]}, and this process runs {own[2]} {own[0]}.{own[1]}"


def is_redirected() -> bool:
    """Return whether `sys.executable` only starts the real Python (virtual environments on Windows).

    Its pid would not be the child's, and to kill it would leave the child alone.
    """
    base = base_executable()
    return bool(base) and os.path.normcase(base) != os.path.normcase(sys.executable or "") and _is_program(base)


def base_executable() -> str:
    """Return the interpreter outside of any virtual environment, as far as it is known."""
    return getattr(sys, "_base_executable", None) or ""


def flags() -> list[str]:
    """Return the options that this interpreter was started with."""
    import subprocess

    found = list(getattr(subprocess, "_args_from_interpreter_flags", list)())
    for name, value in getattr(sys, "_xoptions", {}).items():
        option = name if value is True else f"{name}={value}"
        if option not in found:  # CPython's own list of those to hand on is not complete
            found += ["-X", option]
    return found
