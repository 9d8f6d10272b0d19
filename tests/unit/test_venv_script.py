"""The decisions with which the scripts make, repair and enter their environment, without network."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def load_venv_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripts_venv", SCRIPTS / "_venv.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_venv = load_venv_script()
STAMP = _venv.Stamp(
    directory="/tree/.venv", python="cpython 3.11", base="/usr/bin/python3", requirements="dev", inputs="abc"
)


def test_fitting_environment_is_used() -> None:
    assert _venv.decide(STAMP, STAMP, exists=True, runs=True) == ("use", "")


def test_missing_environment_is_made_without_a_reason() -> None:
    assert _venv.decide(None, STAMP, exists=False, runs=False) == ("make", "")


@pytest.mark.parametrize(
    ("stamp", "runs", "reason"),
    [
        (None, True, "its set-up was never finished"),
        (STAMP, False, "its Python is missing"),
        (STAMP._replace(directory="/elsewhere/.venv"), True, "it was made for /elsewhere/.venv"),
        (STAMP._replace(python="cpython 3.13"), True, "it was made by cpython 3.13, and this is cpython 3.11"),
    ],
)
def test_unusable_environment_is_made_again_and_the_reason_said(stamp: object, runs: bool, reason: str) -> None:
    assert _venv.decide(stamp, STAMP, exists=True, runs=runs) == ("make", reason)


@pytest.mark.parametrize("change", [{"inputs": "def"}, {"requirements": "runtime"}])
def test_changed_requirements_are_installed_on_top(change: dict[str, str]) -> None:
    assert _venv.decide(STAMP._replace(**change), STAMP, exists=True, runs=True) == ("update", "")


@pytest.mark.parametrize(
    ("requested", "present", "served"),
    [("runtime", None, "runtime"), ("runtime", "dev", "dev"), ("dev", "runtime", "dev"), ("bench", "dev", "bench")],
)
def test_larger_set_also_serves_the_smaller(requested: str, present: str | None, served: str) -> None:
    assert _venv.serving_set(requested, present) == served


def test_digest_follows_requirements_and_project(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    pins, project = tmp_path / "requirements" / "dev.txt", tmp_path / "pyproject.toml"
    seen = set()
    for pin, table in [("a==1", "x"), ("a==2", "x"), ("a==2", "y"), ("a==2x", "")]:
        pins.write_text(pin)
        project.write_text(table)
        seen.add(_venv.inputs_digest(tmp_path, "dev"))
    assert len(seen) == 4


def test_digest_without_the_project_follows_requirements_alone(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    seen = set()
    for pin, table in [("a==1", "x"), ("a==1", "y"), ("a==2", "y")]:
        (tmp_path / "requirements" / "dvc.txt").write_text(pin)
        (tmp_path / "pyproject.toml").write_text(table)
        seen.add(_venv.inputs_digest(tmp_path, "dvc", project=False))
    assert len(seen) == 2


def test_stamp_survives_writing_and_reading(tmp_path: Path) -> None:
    assert _venv.read_stamp(tmp_path) is None
    _venv.write_stamp(tmp_path, STAMP)
    assert _venv.read_stamp(tmp_path) == STAMP
    assert [path.name for path in tmp_path.iterdir()] == [_venv.STAMP]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", json.dumps({"python": "cpython 3.11"})])
def test_damaged_stamp_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / _venv.STAMP).write_text(text)
    assert _venv.read_stamp(tmp_path) is None


def test_old_python_gets_one_line_with_a_command() -> None:
    problem = _venv.old_python_problem((3, 9, 18), "/usr/bin/python3", "run python3.12 scripts/test.py")
    assert problem == (
        "Error: this project needs Python 3.11 or newer, and /usr/bin/python3 is 3.9.18: run python3.12 scripts/test.py"
    )
    assert _venv.old_python_problem((3, 11, 0), "/usr/bin/python3", "") is None


def test_debian_python_without_ensurepip_gets_the_package_to_install() -> None:
    problem = _venv.missing_modules_problem(["ensurepip"], (3, 12, 1), is_debian=True)
    assert problem == (
        "Error: this Python 3.12 lacks ensurepip, which .venv needs: apt install python3.12-venv, and start this again."
    )
    assert "apt" not in _venv.missing_modules_problem(["venv", "ensurepip"], (3, 12, 1), is_debian=False)
    assert _venv.missing_modules_problem([], (3, 12, 1), is_debian=True) is None


def test_python_without_ensurepip_stops_before_it_touches_anything(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("scripts/_venv.py", "requirements/runtime.txt", "pyproject.toml"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    start = "import sys; sys.modules['ensurepip'] = None; sys.path.insert(0, 'scripts'); import _venv; _venv.enter()"
    done = subprocess.run([sys.executable, "-I", "-c", start], cwd=tree, env={}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1 and "ensurepip" in done.stderr
    assert not (tree / ".venv").exists()


def starters() -> list[Path]:
    return [path for path in sorted(SCRIPTS.glob("*.py")) if "_venv.enter(" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", starters(), ids=lambda path: path.name)
def test_old_pythons_can_read_a_script_as_far_as_the_message(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_requirements_are_pinned_with_hashes_and_name_no_place(path: Path) -> None:
    text = path.read_text("utf-8")
    pins = [entry for entry in text.replace("\\\n", " ").splitlines() if not entry.lstrip().startswith("#")]
    assert pins and all("==" in pin and "--hash=sha256:" in pin for pin in pins)
    assert "://" not in text and "-index" not in text and "--find-links" not in text


def test_lanes_are_markers() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    # Read, not imported: a script that is imported enters its environment.
    lanes = re.search(r"^LANES = (.*)$", (SCRIPTS / "test.py").read_text("utf-8"), re.MULTILINE)
    assert lanes is not None
    assert [marker.partition(":")[0] for marker in options["markers"]] == list(ast.literal_eval(lanes[1]))
