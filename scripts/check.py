"""Check format, lint, types for Linux, Windows and macOS, and the architecture; `--fix` repairs what ruff can."""

import _venv

_venv.enter("dev")

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TYPED = ("orchestrator", "adapters/orchestrator_adapters", "scripts", "tests/typing")
# Programs of several modules, which they import as their own folder's.
APPS = ("scripts/desktop_app", "scripts/freezers_app")
PLATFORMS = ("linux", "win32", "darwin")


class Step(NamedTuple):
    """One command of the check."""

    name: str
    command: Sequence[str]


class Finding(NamedTuple):
    """How a step ended."""

    step: Step
    passed: bool
    seconds: float
    output: str


def main() -> int:
    """Run all steps, whichever of them fail, and return the exit code."""
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__)
    parser.add_argument("--fix", action="store_true", help="first let ruff format the code and repair what it can")
    if parser.parse_args().fix:
        for arguments in (["format"], ["check", "--fix-only"]):
            subprocess.run([*_module("ruff"), *arguments, "."], cwd=_venv.ROOT, check=False)
    passed = True
    # Two at a time: each step keeps one core busy. The slow ones come first.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for finding in pool.map(_run, _steps()):
            print(f"{'ok  ' if finding.passed else 'FAIL'} {finding.step.name} ({finding.seconds:.1f} s)", flush=True)
            if not finding.passed:
                print(finding.output, flush=True)
            passed &= finding.passed
    return 0 if passed else 1


def _steps() -> list[Step]:
    typed = [path for path in TYPED if (_venv.ROOT / path).exists()]
    return [
        *(
            # A cache for each platform: mypy forgets one platform's results when it is asked about another.
            Step(
                f"mypy {platform}",
                [*_module("mypy"), "--platform", platform, "--cache-dir", f".mypy_cache/{platform}", *typed],
            )
            for platform in PLATFORMS
        ),
        *(
            Step(f"mypy {app}", [*_module("mypy"), "--cache-dir", f".mypy_cache/{Path(app).name}", *_files(app)])
            for app in APPS
            if _files(app)
        ),
        Step("ruff format", [*_module("ruff"), "format", "--check", "."]),
        Step("ruff lint", [*_module("ruff"), "check", "."]),
        Step("architecture", [*_module("pytest"), "-q", "-p", "no:cacheprovider", "tests/test_architecture.py"]),
    ]


def _files(folder: str) -> list[str]:
    return sorted(map(str, (_venv.ROOT / folder).glob("*.py")))


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _run(step: Step) -> Finding:
    began = time.monotonic()
    done = subprocess.run(
        step.command, cwd=_venv.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return Finding(step, done.returncode == 0, time.monotonic() - began, (done.stdout + done.stderr).strip())


if __name__ == "__main__":
    sys.exit(main())
