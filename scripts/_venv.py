"""Make the repository's `.venv` when it is missing or out of date, with only the standard library, and go on inside it.

A script starts with

    import _venv

    _venv.enter("dev")

before its other imports. Old Pythons must be able to read such a script as far as their error message,
so it keeps to the grammar of Python 3.6, and quotes annotations that are evaluated before the message is given.
"""

import os
import sys

OLDEST = (3, 11)


def old_python_problem(version: "tuple[int, ...]", executable: str, remedy: str) -> "str | None":
    """Return what to tell the user of a Python that is too old, or None; `remedy` is a command for this machine."""
    if version >= OLDEST:
        return None
    found = ".".join(map(str, version[:3]))
    needed = ".".join(map(str, OLDEST))
    return f"Error: this project needs Python {needed} or newer, and {executable} is {found}: {remedy}"


def _refuse_old_python() -> None:
    if sys.version_info < OLDEST:
        import shutil
        import subprocess

        remedy = "install one, and start this script with it"
        for name in ("python3.14", "python3.13", "python3.12", "python3.11"):
            # A version manager may have a command for a Python that it does not have.
            if shutil.which(name) and not subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL):
                remedy = f"run {name} {' '.join(sys.argv)}"
                break
        sys.exit(old_python_problem(sys.version_info[:3], sys.executable, remedy))


_refuse_old_python()

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ROOT = Path(__file__).resolve().parent.parent
STAMP = "orchestrator-setup.json"
# Set by `enter` to the environment that was entered, so that scripts started by scripts lose no time and never wait
# for each other; set to "none" by people who bring an environment of their own.
VARIABLE = "ORCHESTRATOR_VENV"
# A set of requirements also serves those that ask for one that it contains.
CONTAINS = {"dev": ("runtime", "demo"), "demo": ("runtime",)}


class Stamp(NamedTuple):
    """What an environment was made from and by; written last, so an environment without one is unfinished."""

    directory: str  # environments can't be moved: their scripts and the link to this tree hold absolute paths
    python: str  # which kind of Python
    base: str  # the executable that python stands on
    requirements: str  # name of the set
    inputs: str  # digest of all that decides what is installed


def enter(requirements: str = "runtime", directory: str = ".venv") -> None:
    """Go on inside the environment: make, repair or update it when needed, then start the script again with its Python.

    Args:
        requirements: Name of a file in `requirements/`, without its suffix.
        directory: Where the environment is, relative to the repository's root.

    Raises:
        SystemExit: The environment can't be made; the message says what to do.
    """
    venv = ROOT / directory
    entered = os.environ.get(VARIABLE)
    if entered == "none":
        return
    try:
        while entered != str(venv):
            if _state(venv, requirements)[0] == "use" and _claim(venv):
                break
            with _only_one_at_a_time(venv):
                _prepare(venv, requirements)
    except KeyboardInterrupt:
        sys.exit(f"Interrupted: the next start completes {venv.name}.")
    os.environ[VARIABLE] = str(venv)
    if not _is_inside(venv):
        _start_again(venv)


def provide(requirements: str, directory: str) -> Path:
    """Make, repair or update an environment that has a set of pinned packages and not this project.

    Args:
        requirements: Name of a file in `requirements/`, without its suffix.
        directory: Where the environment is, relative to the repository's root.

    Returns:
        The environment's Python.

    Raises:
        SystemExit: The environment can't be made; the message says what to do.
    """
    venv = ROOT / directory
    if _state(venv, requirements, project=False)[0] != "use":
        with _only_one_at_a_time(venv):
            _prepare(venv, requirements, project=False)
    return python_of(venv)


def decide(stamp: "Stamp | None", wanted: Stamp, *, exists: bool, runs: bool) -> tuple[str, str]:
    """Return what to do with an environment (`use`, `update` or `make`) and, if it has to be made again, why.

    Args:
        stamp: What is known of the environment, None for an unfinished one.
        wanted: What this start needs.
        exists: Whether its directory exists.
        runs: Whether its Python exists.
    """
    if not exists:
        return "make", ""
    if stamp is None:
        return "make", "its set-up was never finished"
    if not runs:
        return "make", "its Python is missing"
    if stamp.directory != wanted.directory:
        return "make", f"it was made for {stamp.directory}"
    if stamp.python != wanted.python:
        return "make", f"it was made by {stamp.python}, and this is {wanted.python}"
    if (stamp.requirements, stamp.inputs) != (wanted.requirements, wanted.inputs):
        return "update", ""
    return "use", ""


def serving_set(requested: str, present: "str | None") -> str:
    """Return the set of requirements to work with: the one already there if it contains what is asked for."""
    return present if present is not None and requested in CONTAINS.get(present, ()) else requested


def missing_modules_problem(missing: "list[str]", version: "tuple[int, ...]", *, is_debian: bool) -> "str | None":
    """Return what to tell the user of a Python that can't make environments, or None."""
    if not missing:
        return None
    name = f"{version[0]}.{version[1]}"
    remedy = (
        f"apt install python{name}-venv" if is_debian else "install a complete Python from your system or python.org"
    )
    return (
        f"Error: this Python {name} lacks {' and '.join(missing)}, which .venv needs: {remedy}, and start this again."
    )


def inputs_digest(root: Path, requirements: str, *, project: bool = True) -> str:
    """Return a digest of the files that decide what is installed."""
    digest = hashlib.sha256()
    for path in (root / "requirements" / f"{requirements}.txt", *([root / "pyproject.toml"] if project else [])):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def python_of(venv: Path) -> Path:
    """Return the path of an environment's Python."""
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def read_stamp(venv: Path) -> "Stamp | None":
    """Return the stamp of an environment, or None if there is no readable one."""
    try:
        return Stamp(**json.loads((venv / STAMP).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(venv: Path, stamp: Stamp) -> None:
    """Write the stamp of an environment in one step."""
    new = venv / f"{STAMP}.new"
    new.write_text(json.dumps(stamp._asdict(), indent=1), "utf-8")
    new.replace(venv / STAMP)


def _state(venv: Path, requirements: str, *, project: bool = True) -> tuple[str, str, Stamp]:
    stamp = read_stamp(venv)
    requirements = serving_set(requirements, stamp and stamp.requirements)
    wanted = Stamp(
        directory=str(venv),
        python=f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}",
        base=getattr(sys, "_base_executable", sys.executable),
        requirements=requirements,
        inputs=inputs_digest(ROOT, requirements, project=project),
    )
    runs = all(path.exists() for path in (python_of(venv), venv / "pyvenv.cfg", Path((stamp or wanted).base)))
    return (*decide(stamp, wanted, exists=venv.exists(), runs=runs), wanted)


def _prepare(venv: Path, requirements: str, *, project: bool = True) -> None:
    # Under the lock: whoever held it before may just have done the work.
    action, reason, wanted = _state(venv, requirements, project=project)
    if action == "use":
        return
    began = time.monotonic()
    python = str(python_of(venv))
    if action == "make":
        _refuse_incomplete_python()
        with _nobody_inside(venv):
            _say(f"{'Rebuilding' if venv.exists() else 'Making'} {venv.name} with {_title()}{reason and ': ' + reason}")
            (venv / STAMP).unlink(missing_ok=True)
            _run([wanted.base, "-I", "-m", "venv", "--clear", str(venv)])
    (venv / STAMP).unlink(missing_ok=True)
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-user"]
    pins = f"requirements/{wanted.requirements}.txt"
    _say(f"Installing the pinned packages of {pins} into {venv.name}")
    _run([*pip, "--require-hashes", "-r", str(ROOT / pins)])
    if project:
        _say(f"Installing this project into {venv.name}, editable")
        _run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    write_stamp(venv, wanted)
    _say(f"{venv.name} is ready after {time.monotonic() - began:.0f} s")


def _refuse_incomplete_python() -> None:
    from importlib import import_module

    missing = []
    for name in ("venv", "ensurepip"):
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    # A Python that somebody built by hand on Debian is not mended by Debian's packages.
    is_debian = os.path.exists("/etc/debian_version") and sys.base_prefix == "/usr"
    problem = missing_modules_problem(missing, sys.version_info[:3], is_debian=is_debian)
    if problem:
        sys.exit(problem)


_lock = -1  # the descriptor that holds the lock, -1 without one


@contextmanager
def _only_one_at_a_time(venv: Path) -> Iterator[None]:
    """Hold the system's lock on pyproject.toml: it goes when its holder dies, and leaves no file behind."""
    global _lock
    _lock = os.open(ROOT / "pyproject.toml", os.O_RDWR)
    try:
        if not _try_lock(_lock):
            _say(f"Waiting for another script that sets up {venv.name}")
            while not _try_lock(_lock):
                time.sleep(0.1)  # Windows has no wait without a limit
        yield
    finally:
        os.close(_lock)
        _lock = -1


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            # Windows also keeps others from reading what is locked, so lock a byte far behind the file's end.
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _claim(venv: Path) -> bool:
    """Mark the environment as in use for the life of this process; False if it is being rebuilt right now."""
    if sys.platform != "win32":  # Windows lets nobody delete a program that runs
        try:
            descriptor = os.open(venv / "pyvenv.cfg", os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Left open on purpose: the lock lives as long as this process, through exec too, and goes with it.
            os.set_inheritable(descriptor, True)
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError:
            pass  # a file system without locks
    return True


@contextmanager
def _nobody_inside(venv: Path) -> Iterator[None]:
    """Hold off scripts that would enter an environment which is about to be deleted; refuse if one is inside."""
    descriptor = -1
    try:
        if sys.platform == "win32":
            os.close(os.open(python_of(venv), os.O_RDWR))
        else:
            descriptor = os.open(venv / "pyvenv.cfg", os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        sys.exit(f"Error: another script is running in {venv}: start this again when it has ended.")
    except OSError:
        pass  # there is nothing to be in, or a file system without locks
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _run(command: "list[str]") -> None:
    """Run a command; show its output only, but then all of it, if it fails."""
    # A command that outlives this script keeps the lock: nobody else may write beside it.
    inherited = (_lock,) if sys.platform != "win32" else ()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=inherited,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout.decode("utf-8", "replace"))
        sys.exit(
            f"Error: exit code {done.returncode} from {' '.join(command)}\n(output above); start this again to go on."
        )


def _is_inside(venv: Path) -> bool:
    return os.path.exists(venv) and os.path.samefile(sys.prefix, venv)


def _start_again(venv: Path) -> NoReturn:
    os.environ.pop("__PYVENV_LAUNCHER__", None)  # set by Apple's Python, and would lead back out of the environment
    command = [str(python_of(venv)), *sys.orig_argv[1:]]
    sys.stdout.flush()
    if sys.platform != "win32":
        os.execv(command[0], command)
    # exec on Windows returns to the shell at once, while the script still runs.
    import signal

    script = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the script's to answer
    sys.exit(script.wait())


def _title() -> str:
    return f"Python {'.'.join(map(str, sys.version_info[:3]))}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
