"""PyInstaller finds our hooks by the package's metadata, and everything that they name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from orchestrator_adapters import pyinstaller

HOOKS = Path(pyinstaller.get_hook_dirs()[0])


def test_pyinstaller_finds_the_folder() -> None:
    found = [each for each in entry_points(group="pyinstaller40", name="hook-dirs") if "orchestrator" in each.value]
    assert [each.load()() for each in found] == [[str(HOOKS)]]
    assert (HOOKS / "hook-orchestrator.py").is_file()


def test_runtime_hooks_are_there() -> None:
    named = ast.literal_eval((HOOKS / "rthooks.dat").read_text("utf-8"))
    files = {name for names in named.values() for name in names}
    assert files == {path.name for path in (HOOKS / "rthooks").glob("*.py")}
    assert named["orchestrator"] == ["pyi_rth_orchestrator.py"]


def test_there_is_a_hook_for_every_adapter() -> None:
    adapters = {path.parent.name for path in HOOKS.parent.parent.glob("*/__init__.py")}
    named = {path.stem.rpartition(".")[2] for path in HOOKS.glob("hook-orchestrator_adapters.*.py")}
    assert named == adapters


def test_the_hook_that_runs_at_each_start_imports_next_to_nothing() -> None:
    script = (HOOKS / "rthooks" / "pyi_rth_orchestrator.py").read_text("utf-8")
    unpacking = (HOOKS / "rthooks" / "pyi_rth_orchestrator_unpacking.py").read_text("utf-8")
    code = f"import sys; before = set(sys.modules)\n{unpacking}\n{script}\nprint(*sorted(set(sys.modules) - before))"
    root = HOOKS.parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root, check=True
    )
    heavy = {"asyncio", "anyio", "json", "lzma", "hashlib", "tempfile", "ctypes", "subprocess", "structlog"}
    assert not heavy & set(done.stdout.split()), done.stdout
