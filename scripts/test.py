"""Check the code and run the tests: the quick lane, or with `--lane NAME` a long one, or with `--all` everything."""

import _venv

_venv.enter("dev")

import argparse
import compileall
import json
import subprocess
import sys
import time

import _browser
import pytest

# Each is a marker in pyproject.toml; a test without one of them is in the quick lane.
LANES = ("browser", "frozen", "soak", "conformance")
# More tests than this that fail beside others are not bad luck.
_FEW = 4
# Where pytest keeps which tests failed.
_FAILED = _venv.ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"


def main() -> int:
    """Run what the command line asks for and return the first exit code that is not 0."""
    parser = argparse.ArgumentParser(
        prog="test.py", description=__doc__, epilog="Other arguments go to pytest, for example: tests/unit -k stamp"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--lane", action="append", choices=LANES, help="only this long lane; may be given again")
    which.add_argument("--all", action="store_true", help="the quick lane and every long one")
    parser.add_argument("--no-check", action="store_true", help="leave out check.py (a long lane always does)")
    options, pytest_arguments = parser.parse_known_args()

    # Most tests start Pythons, and where these may not write what they compiled, each would compile it all anew.
    for folder in ("orchestrator", "adapters", "tests/targets"):
        compileall.compile_dir(_venv.ROOT / folder, quiet=1)

    ended: list[tuple[str, int, float]] = []
    if not (options.no_check or options.lane):
        ended.append(("check", *_run("scripts/check.py")))
    _browser.provide()  # tests that drive a browser are skipped without one, and fail in CI
    selection = ["-m", _expression(options.lane)] if not options.all else []
    if not options.lane:
        # Two processes: with more, tests that hold deadlines would miss them on two cores.
        # Files go as a whole, in the order of conftest.py. Long lanes have the machine to themselves, for figures.
        selection += ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"]
    if options.lane or options.all:
        # One test of a long lane may take minutes: that is no hang, and a dump of a busy process may crash it.
        selection += ["-o", "faulthandler_timeout=0"]
    _FAILED.unlink(missing_ok=True)  # pytest adds to it
    ended.append(("tests", *_run("-m", "pytest", "--durations=10", "--durations-min=1", *selection, *pytest_arguments)))
    if ended[-1][1] == pytest.ExitCode.TESTS_FAILED and not (options.lane or options.all):
        ended[-1:] = _try_alone(ended[-1])

    for name, code, seconds in ended:
        print(f"{name} {'passed' if code == 0 else f'failed with exit code {code}'} in {seconds:.0f} s")
    return next((code for _, code, _ in ended if code), 0)


def _try_alone(beside: tuple[str, int, float]) -> list[tuple[str, int, float]]:
    """Run the few tests that failed beside others once more, one by one, and say so.

    Many tests hold deadlines with real browsers and processes. One that misses its own on two busy cores and holds it
    on quiet ones says something of the machine; one that fails again, or more than a few, something of the code.
    """
    failed = list(json.loads(_FAILED.read_text("utf-8"))) if _FAILED.exists() else []
    if not 0 < len(failed) <= _FEW:
        return [beside]
    print(f"\n{len(failed)} failed beside others; once more, alone:", *failed, sep="\n  ", flush=True)
    code, seconds = _run("-m", "pytest", *failed)
    if code == 0:
        print("\nFLAKY: these failed beside others and passed alone:", *failed, sep="\n  ")
    return [("tests", code, beside[2] + seconds)]


def _expression(lanes: list[str] | None) -> str:
    return " or ".join(lanes) if lanes else " and ".join(f"not {lane}" for lane in LANES)


def _run(*arguments: str) -> tuple[int, float]:
    began = time.monotonic()
    code = subprocess.run([sys.executable, *arguments], cwd=_venv.ROOT, check=False).returncode
    return code, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
