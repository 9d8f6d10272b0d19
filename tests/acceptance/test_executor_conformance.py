"""The standard library's own tests of process pools pass with our executor, but for those of its insides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFORM = Path(__file__).resolve().parents[2] / "scripts" / "conform.py"
NONE_FOUND = 77


@pytest.mark.conformance
def test_the_suite_of_the_standard_library_ends_as_the_list_says() -> None:
    done = subprocess.run([sys.executable, str(CONFORM)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == NONE_FOUND:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
