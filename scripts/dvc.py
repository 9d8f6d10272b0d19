"""Run the pinned DVC, in an environment of its own that is made when it is missing; arguments go to DVC."""

import _venv

_venv.enter("dev")

import subprocess
import sys


def main() -> int:
    """Run DVC and return its exit code."""
    # Not this project's environment: DVC would bind the versions of everything else, and people have it elsewhere too.
    python = _venv.provide("dvc", ".venv-dvc")
    return subprocess.run([python, "-m", "dvc", *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
