"""Check the code and run the tests: the quick lane, or with `--lane NAME` a long one, or with `--all` everything."""

import _venv

_venv.enter("dev")

import argparse
import subprocess
import sys
import time

import _browser

# Each is a marker in pyproject.toml; a test without one of them is in the quick lane.
LANES = ("browser", "frozen", "soak", "conformance")


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

    ended: list[tuple[str, int, float]] = []
    if not (options.no_check or options.lane):
        ended.append(("check", *_run("scripts/check.py")))
    _browser.provide()  # tests that drive a browser are skipped without one, and fail in CI
    selection = ["-m", _expression(options.lane)] if not options.all else []
    if not options.lane:
        # Files go as a whole to one of two processes; long lanes have the machine to themselves, for their figures.
        selection += ["--numprocesses=2", "--dist=loadfile"]
    if options.lane or options.all:
        # One test of a long lane may take minutes: that is no hang, and a dump of a busy process may crash it.
        selection += ["-o", "faulthandler_timeout=0"]
    ended.append(("tests", *_run("-m", "pytest", "--durations=10", "--durations-min=1", *selection, *pytest_arguments)))

    for name, code, seconds in ended:
        print(f"{name} {'passed' if code == 0 else f'failed with exit code {code}'} in {seconds:.0f} s")
    return next((code for _, code, _ in ended if code), 0)


def _expression(lanes: list[str] | None) -> str:
    return " or ".join(lanes) if lanes else " and ".join(f"not {lane}" for lane in LANES)


def _run(*arguments: str) -> tuple[int, float]:
    began = time.monotonic()
    code = subprocess.run([sys.executable, *arguments], cwd=_venv.ROOT, check=False).returncode
    return code, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
