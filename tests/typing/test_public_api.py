"""The public API is typed: mypy --strict accepts what is right in `public_api.py` and refuses what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def test_types_of_the_public_api(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    # warn_unused_ignores makes an error of each wrong call that is none to the checker.
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", HERE / "public_api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
