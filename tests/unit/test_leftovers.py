"""What a sweep removes of a supervisor that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator._leftovers import sweep_left_behind


class Trace(NamedTuple):
    pid: int
    started: float
    marker: str
    temp: str


@pytest.fixture
def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_folders_of_children_that_were_never_recorded_go_too(tmp_path: Path, ended: int) -> None:
    # Killed with its guardian, while it started two more: their folders are made before anybody knows their pids.
    folder = tmp_path / "orchestrator-abc"
    for name in ("w1-1", "w2-1", "w3-1"):
        (folder / name).mkdir(parents=True)
    (folder / "w3-1" / "file").touch()
    assert sweep_left_behind([Trace(ended, 1.0, os.urandom(8).hex(), str(folder / "w1-1"))]) == ()
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_goes(tmp_path: Path, ended: int) -> None:
    other = tmp_path / "somebody"
    (other / "w1-1").mkdir(parents=True)
    (other / "precious").touch()
    link = tmp_path / "orchestrator-link"
    link.symlink_to(other)
    births = [Trace(ended, 1.0, os.urandom(8).hex(), str(place / "w1-1")) for place in (other, link)]
    assert sweep_left_behind(births) == ()
    assert (other / "precious").exists()
