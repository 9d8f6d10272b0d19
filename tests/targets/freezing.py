"""Freezes apps with PyInstaller for tests, and runs what came out, never more processes of it than a test allows."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
# Of one build: half a minute for a small app and two for one with Streamlit, on a machine with nothing else to do.
BUILD_SECONDS = 1500.0
# Of one start of an app.
RUN_SECONDS = 120.0
MARKER = "ORCHESTRATOR_FROZEN_TEST"
# A folder that keeps builds from one run of the tests to the next, for people who work on the tests.
KEPT = "ORCHESTRATOR_FROZEN_BUILDS"


class BuildError(Exception):
    """PyInstaller failed; its output is the message."""


class Builder:
    """Builds each combination of files and options once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = os.environ.get(KEPT)
        self._built: dict[str, Path] = {}
        self.logs: dict[Path, str] = {}

    def __call__(
        self, files: str | Path | Mapping[str, str | bytes], *options: str, main: str = "app.py", hooks: bool = True
    ) -> Path:
        """Run `pyinstaller *options app.py` and return the path of the app's program.

        Args:
            files: The source of app.py, or of all files by their path, or a folder that is copied.
            options: Of PyInstaller: "--onefile", "--windowed"; without one it builds a folder.
            main: The script to freeze; the program has its name without the suffix.
            hooks: Whether PyInstaller finds our hooks; without them it is what an unsuspecting author builds.

        Raises:
            BuildError: With what PyInstaller printed.
        """
        sources = _sources(files, main)
        key = _digest(sources, (*options, main, str(hooks)))
        found = self._built.get(key)
        if found is None:
            place = (Path(self._kept) if self._kept else self._folder) / key
            done = place / "built"
            if not done.exists():
                _build(place, sources, options, main, place.parent / "caches", hooks=hooks)
                done.touch()
            self.logs[program(place, main)] = (place / "pyinstaller.log").read_text("utf-8", "replace")
            found = self._built[key] = program(place, main)
        return found


def program(place: Path, main: str = "app.py") -> Path:
    """Return the path of the program that was built there."""
    name = Path(main).stem
    suffix = ".exe" if sys.platform == "win32" else ""
    folder = place / "dist" / name
    return folder / f"{name}{suffix}" if folder.is_dir() else place / "dist" / f"{name}{suffix}"


def _sources(files: str | Path | Mapping[str, str | bytes], main: str) -> dict[str, bytes]:
    if isinstance(files, str):
        files = {main: files}
    if isinstance(files, Path):
        found = [path for path in sorted(files.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
        return {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
    return {name: text.encode() if isinstance(text, str) else text for name, text in sorted(files.items())}


def _digest(sources: Mapping[str, bytes], words: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr((words, sys.version, version("pyinstaller"))).encode())
    library = [path for folder in ("orchestrator", "adapters") for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*library, ROOT / "requirements" / "dev.txt"]:
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    for name, data in sources.items():
        digest.update(repr((name, data)).encode())
    return digest.hexdigest()[:12]


def _build(
    place: Path, sources: Mapping[str, bytes], options: tuple[str, ...], main: str, caches: Path, *, hooks: bool
) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for name, data in sources.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    # Its own cache: of the user's, --clean would take what another build is just writing.
    env = os.environ | {"PYINSTALLER_CONFIG_DIR": str(place / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    # What one build has compressed, the next one takes.
    env |= {"XDG_CACHE_HOME": str(caches), "LOCALAPPDATA": str(caches)}
    if not hooks:
        (place / "without-hooks").mkdir()
        (place / "without-hooks" / "sitecustomize.py").write_text(_WITHOUT_OUR_HOOKS)
        env["PYTHONPATH"] = str(place / "without-hooks")
    command = [sys.executable, "-m", "PyInstaller", "--clean", "--noconfirm", *options, main]
    log = place / "pyinstaller.log"
    with log.open("wb") as output:
        building = subprocess.Popen(
            command, cwd=place, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = building.wait(BUILD_SECONDS)
        except BaseException:
            _kill([*_descendants(building.pid), psutil.Process(building.pid)])
            building.wait()
            raise
    shutil.rmtree(place / "cache", ignore_errors=True)
    shutil.rmtree(place / "build", ignore_errors=True)
    if code or not program(place, main).exists():
        raise BuildError(f"exit code {code} of {' '.join(command)}\n{log.read_text('utf-8', 'replace')}")


# PyInstaller asks for folders of hooks in a process of its own, which is to forget ours too.
_WITHOUT_OUR_HOOKS = """\
import importlib.metadata as metadata
every = metadata.entry_points
metadata.entry_points = lambda **wanted: [each for each in every(**wanted) if "orchestrator" not in each.value]
"""


class Running:
    """A started app, and everything that it started in turn: what carries the marker in its environment.

    Attributes:
        process: The start of it.
        most: The largest number of processes that were seen at once.
    """

    def __init__(self, process: subprocess.Popen[bytes], token: str, allowed: int) -> None:
        self.process = process
        self.most = 0
        self._token = token
        self._allowed = allowed
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name="frozen-app-watch")
        self._watch.start()

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the app that run now, children and guardian too, zombies left out."""
        return [process for process in psutil.process_iter() if _carries(process, self._token)]

    def wait_gone(self, seconds: float = RUN_SECONDS) -> list[psutil.Process]:
        """Wait until none of its processes is left, and return those that are."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _look(self) -> None:
        # The guard of the test's own: whatever the app does, it does not become a storm.
        while not self._ended.wait(0.05):
            found = self.processes()
            self.most = max(self.most, len(found))
            if len(found) > self._allowed:
                _kill(found)

    def close(self) -> None:
        """Kill what is left."""
        self._ended.set()
        self._watch.join()
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            _kill(left)
        self.process.wait(10)


@contextmanager
def start(
    program: Path, *arguments: str, allowed: int = 12, env: Mapping[str, str | None] | None = None, **options: object
) -> Iterator[Running]:
    """Start an app; whatever the body did, nothing of it runs afterwards.

    Args:
        program: Its path.
        arguments: Of its command line.
        allowed: How many processes it may have at once: with more, all are killed at once.
        env: What to set in its environment; None takes a variable out.
        options: Of `subprocess.Popen`; its output goes nowhere unless they say so.
    """
    token = uuid.uuid4().hex
    changed = {name: value for name, value in (os.environ | (env or {}) | {MARKER: token}).items() if value is not None}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen(
        [program, *arguments],
        env=changed,
        start_new_session=True,
        **(streams | options),  # type: ignore[call-overload]
    )
    running = Running(process, token, allowed)
    try:
        yield running
    finally:
        running.close()


def run(
    program: Path,
    *arguments: str,
    allowed: int = 12,
    env: Mapping[str, str | None] | None = None,
    timeout: float = RUN_SECONDS,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run an app to its end, and return its exit code and all that it printed.

    Raises:
        subprocess.TimeoutExpired: With what it printed, and then it is dead.
        AssertionError: If something of it was left behind.
    """
    # Files, not pipes: the end of a pipe comes only when everything that inherited it is gone.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

        def printed() -> tuple[str, str]:
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))
            return texts[0], texts[1]

        with start(program, *arguments, allowed=allowed, env=env, cwd=cwd, stdout=out, stderr=err) as app:
            try:
                code = app.process.wait(timeout)
            except subprocess.TimeoutExpired as late:
                late.add_note("\n".join(printed()))
                raise
            left = [process.cmdline() for process in app.wait_gone(10)]
        assert not left, f"left behind: {left}\n{printed()}"
        return subprocess.CompletedProcess(app.process.args, code, *printed())


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get(MARKER) == token and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False  # gone, or somebody else's


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    # Stopped first, so that none starts another while we are at it.
    for name in ("SIGSTOP", "SIGKILL") if sys.platform != "win32" else ("SIGTERM",):
        for process in processes:
            try:
                process.send_signal(getattr(signal, name))
            except psutil.Error:
                pass
