"""The job of an app that runs itself."""

from __future__ import annotations

import os
import subprocess
import sys

COMMAND = [sys.executable, "-m", "streamlit", "run", "page.py"]


def who() -> int:
    """Return the process that this runs in."""
    return os.getpid()


def run_itself() -> tuple[int, str]:
    """Return how the program ended that was meant to be a Streamlit."""
    done = subprocess.run(COMMAND, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
