"""A zipapp starts children, also one that has been moved and is started from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

JOBS = """
import os, sys

def tell(number):
    return {"square": number * number, "pid": os.getpid(), "executable": sys.executable, "file": __file__}
"""
MAIN = """
import asyncio, json, os, sys
import zipped_jobs
from orchestrator import Supervisor

async def main():
    async with Supervisor(workers=2) as supervisor:
        told = await asyncio.gather(*(supervisor.run(zipped_jobs.tell, number) for number in range(4)))
        workers = [worker.pid for worker in supervisor.statistics().workers]
    print(json.dumps({"pid": os.getpid(), "workers": workers, "told": told}))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("compressed", [False, True])
def test_children_of_a_zipapp(tmp_path: Path, compressed: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "zipped_jobs.py").write_text(JOBS)
    (source / "__main__.py").write_text(MAIN)
    archive = tmp_path / "moved" / "app.pyz"
    archive.parent.mkdir()
    zipapp.create_archive(source, archive, compressed=compressed)
    done = subprocess.run(
        [sys.executable, "moved/app.pyz"], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    found = json.loads(done.stdout)
    assert [each["square"] for each in found["told"]] == [0, 1, 4, 9]
    pids = {each["pid"] for each in found["told"]}
    assert pids <= set(found["workers"]) and found["pid"] not in pids
    for each in found["told"]:
        assert each["file"].startswith(str(archive)), "the job came out of the archive"
        assert Path(each["executable"]) == Path(sys.executable)
