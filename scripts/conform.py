"""Run the standard library's own tests of process pools against `OrchestratorExecutor`, and compare with what is known.

The tests come with some builds of CPython 3.13 and newer (`test.test_concurrent_futures`); the exit code is 77 where
none is found. Which of them pass, and why others cannot, is in `tests/acceptance/executor_conformance.toml`: a change
in either direction fails.
"""

import _venv

_venv.enter("dev")

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

KNOWN = _venv.ROOT / "tests" / "acceptance" / "executor_conformance.toml"
SUITE = _venv.ROOT / "scripts" / "_conform_suite.py"
NAMES = ("python3.13", "python3.14", "python3.15", "python3", "python")
SKIPPED = 77
# It takes a minute and a half, and four with an environment to be made.
TIMEOUT = 1200
LOOK = "import sys, venv, ensurepip; from test.test_concurrent_futures import util; print(*sys.version_info[:2])"


def main() -> int:
    """Run them and say what differs."""
    parser = argparse.ArgumentParser(prog="conform.py", description=__doc__)
    parser.add_argument("only", nargs="*", help="words that the names of tests contain; nothing is compared then")
    only = parser.parse_args().only
    found = find()
    if found is None:
        print("skipped: no CPython 3.13 or newer with test.test_concurrent_futures, venv and ensurepip was found")
        return SKIPPED
    interpreter, version = found
    print(f"The tests of {interpreter}, Python {version}", flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in (_venv.VARIABLE, "PYTHONPATH")}
    suite = subprocess.Popen(
        [interpreter, str(SUITE), *only], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    ended: dict[str, str] | None = None
    try:
        assert suite.stdout is not None
        for line in suite.stdout:
            if line.startswith("RESULT "):
                ended = json.loads(line.removeprefix("RESULT "))["ended"]
            else:
                print(line, end="", flush=True)
        suite.wait(TIMEOUT)
    finally:
        suite.kill()
        suite.wait()
    if ended is None:
        print(f"FAIL: the suite ended with exit code {suite.returncode} before its end")
        return 1
    if only:
        return 0
    known = tomllib.loads(KNOWN.read_text("utf-8"))
    problems = list(compare(known["tests"], ended, same_version=known["python"] == version))
    print(*problems, sep="\n")
    passed = sum(how == "passed" for how in ended.values())
    print(f"{passed} of {len(ended)} pass; {len(problems)} differ from {KNOWN.relative_to(_venv.ROOT)}")
    return 1 if problems else 0


def find() -> tuple[str, str] | None:
    """Return an interpreter that has the tests, and its version."""
    seen = set()
    for path in candidates():
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        # Isolated, and elsewhere: the folder of these scripts has a `test` of its own.
        done = subprocess.run([path, "-I", "-c", LOOK], capture_output=True, text=True, cwd=_venv.ROOT, check=False)
        words = done.stdout.split()
        if done.returncode == 0 and len(words) == 2 and (int(words[0]), int(words[1])) >= (3, 13):
            return path, ".".join(words)
    return None


def candidates() -> Iterator[str]:
    """Yield interpreters that may have them: this one, those on PATH, those of a version manager."""
    yield getattr(sys, "_base_executable", sys.executable)
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            yield path
    roots = [os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv"), *_above(sys.base_prefix)]
    for root in roots:
        if root and Path(root, "versions").is_dir():
            for folder in sorted(Path(root, "versions").iterdir()):
                if (folder / "bin" / "python3").exists():
                    yield str(folder / "bin" / "python3")


def _above(prefix: str) -> list[str]:
    """Return the folder of the version manager that this Python came from, if it is where those keep them."""
    path = Path(prefix)
    return [str(path.parent.parent)] if path.parent.name == "versions" else []


def compare(known: dict[str, str], ended: dict[str, str], *, same_version: bool) -> Iterator[str]:
    """Yield what differs: `passed` stands for a test that passes, anything else is the reason why it does not."""
    for name, how in ended.items():
        passes = how == "passed"
        if name not in known:
            if same_version:
                yield f"NEW   {name}: {how}"
            elif not passes:
                print(f"not in the list, which is of another version: {name}: {how.splitlines()[-1]}")
        elif passes and known[name] != "passed":
            yield f"PASSES {name}, though it should not: {known[name]}"
        elif not passes and known[name] == "passed":
            yield f"FAILS {name}:\n{how}"
    if same_version:
        yield from (f"GONE  {name}" for name in known if name not in ended)


if __name__ == "__main__":
    sys.exit(main())
