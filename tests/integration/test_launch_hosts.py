"""Supervisors in programs of other shapes: an archive, a process without handles, a host that is no Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import Any

import pytest

import orchestrator

DEADLINE = 60.0
LIBRARY = Path(orchestrator.__file__).resolve().parent.parent

JOBS = """
import os, sys

def look():
    import orchestrator
    return [os.getpid(), *map(os.path.normpath, (orchestrator.__file__, sys.path[0])), sys.executable]
"""
MAIN = """
import asyncio, json, os, sys
import host_jobs
from orchestrator import Supervisor

async def main():
    async with Supervisor(2) as supervisor:
        found = [await supervisor.run(host_jobs.look), await supervisor.run("host_jobs:look")]
        with open(os.environ["TEST_OUT"], "w") as file:
            json.dump([os.getpid(), *found], file)

if __name__ == "__main__":
    asyncio.run(main())
"""


def run(command: list[str], folder: Path, **options: Any) -> list[Any]:
    """Run a host; return what its two jobs have found."""
    out = folder / "out.json"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env={**inherited, "TEST_OUT": str(out), **options},
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"Error" not in done.stderr  # nor does the guardian lack a module
    pid, *found = json.loads(out.read_text())
    assert all(each[0] != pid for each in found)
    return list(found)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "host_jobs.py").write_text(JOBS)
    (folder / "__main__.py").write_text(MAIN)
    return folder


@pytest.mark.parametrize("bundled", [False, True])
def test_zipapp(app: Path, tmp_path: Path, bundled: bool) -> None:
    if bundled:
        ignored = shutil.ignore_patterns("__pycache__", "cli")
        shutil.copytree(LIBRARY / "orchestrator", app / "orchestrator", ignore=ignored)
    archive = tmp_path / "app.pyz"
    zipapp.create_archive(app, archive)
    shutil.rmtree(app)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for found in run([sys.executable, os.path.join("..", "app.pyz")], elsewhere):
        _, library, first, executable = found
        assert library.startswith(str(archive)) == bundled
        assert (first, executable) == (str(archive), sys.executable)


# What shiv's archives do when they are started: unpack packages once, put them on sys.path, and run the entry point.
UNPACKING = """
import os, sys, zipfile
folder = os.path.join(os.environ["TEST_UNPACKED"], "site-packages")
if not os.path.isdir(folder):
    zipfile.ZipFile(sys.argv[0]).extractall(os.path.dirname(folder))
sys.path[0:0] = [folder]
import host_main, asyncio
asyncio.run(host_main.main())
"""


def test_archive_that_unpacks_itself(app: Path, tmp_path: Path) -> None:
    packages = app / "site-packages"
    packages.mkdir()
    (app / "__main__.py").rename(packages / "host_main.py")
    (app / "host_jobs.py").rename(packages / "host_jobs.py")
    (app / "__main__.py").write_text(UNPACKING)
    zipapp.create_archive(app, tmp_path / "app.pyz", sys.executable)
    unpacked = tmp_path / "unpacked"
    for found in run([sys.executable, "app.pyz"], tmp_path, TEST_UNPACKED=str(unpacked)):
        assert found[2] == str(unpacked / "site-packages")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&-", ">&- 2>&-"])
def test_process_without_handles(app: Path, tmp_path: Path, closed: str) -> None:
    # As a windowed app has none: sys.stdin and the others are None.
    script = f'exec "$0" "$@" {closed}'
    for found in run(["/bin/sh", "-c", script, sys.executable, str(app)], tmp_path):
        assert found[3] == sys.executable


@pytest.mark.parametrize("name", ["uwsgi", "", None])
def test_host_that_is_no_python(app: Path, tmp_path: Path, name: str | None) -> None:
    # An application server that has loaded libpython: sys.executable is the server, or nothing.
    program = None if name is None else str(tmp_path / name) if name else ""
    if program:
        Path(program).write_text(f"#!/bin/sh\necho started >> {tmp_path / 'started'}\n")
        os.chmod(program, 0o755)
    host = f"import sys; sys.executable = {program!r}\nsys.path.insert(0, {str(app)!r})\n"
    host += "import runpy; runpy.run_path(sys.path[0], run_name='__main__')\n"
    for found in run([sys.executable, "-c", host], tmp_path):
        assert os.path.basename(found[3]).startswith("python")
    assert not (tmp_path / "started").exists()
