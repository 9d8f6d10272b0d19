"""Build the example of a desktop app with PyInstaller, and say where it is and how large its parts are."""

from __future__ import annotations

import _venv

_venv.enter("dev")

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = _venv.ROOT / "scripts" / "desktop_app"
# All that it takes: what the app needs is found by the hooks of orchestrator_adapters, and its pyproject.toml.
OPTIONS = ("--onedir", "--windowed", "app.py")
MEGABYTE = 1_000_000
SHOWN = 8


def main() -> int:
    """Copy the app's source, build it there, and return PyInstaller's exit code."""
    parser = argparse.ArgumentParser(prog="build_desktop.py", description=__doc__)
    default = _venv.ROOT / "dist" / "desktop"
    parser.add_argument("--out", type=Path, default=default, metavar="FOLDER", help="by default %(default)s")
    out: Path = parser.parse_args().out.absolute()
    # A fresh folder: PyInstaller takes up what an earlier build left, also when a hook has changed since.
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(SOURCE, out, ignore=shutil.ignore_patterns("__pycache__"))
    command = ["pyinstaller", *OPTIONS]
    print("$", *command, flush=True)
    code = subprocess.run([sys.executable, "-m", "PyInstaller", "--log-level", "WARN", *OPTIONS], cwd=out).returncode
    if code:
        return code
    app = out / "dist" / "app"
    sizes = {path: size_of(path) for path in [*app.iterdir(), *(app / "_internal").iterdir()]}
    print(f"{app} has {size_of(app) / MEGABYTE:.0f} MB; its largest parts:")
    for path in sorted(sizes, key=lambda path: sizes[path], reverse=True)[1 : SHOWN + 1]:
        print(f"{sizes[path] / MEGABYTE:7.1f} MB  {path.relative_to(app)}")
    print(f"Start it with {app / 'app'}")
    return 0


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links count nothing."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file() and not each.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
