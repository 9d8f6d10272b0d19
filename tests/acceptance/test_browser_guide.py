"""The guide on browser jobs: the evidence that its program leaves opens in Playwright's viewer, as shown there."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "howto" / "browser-jobs.md"
PICTURE = ROOT / "docs" / "images" / "browser-jobs-trace.png"
# Set to write the pictures of the guide again.
WRITE = "ORCHESTRATOR_WRITE_PICTURES"
DEADLINE = 120
SIZE = {"width": 1000, "height": 620}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write_programs(folder: Path) -> None:
    for title, text in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', GUIDE.read_text("utf-8"), re.S | re.M):
        (folder / title).write_text(text, "utf-8")


def test_the_trace_of_the_failed_job_shows_where_it_failed(tmp_path: Path, browser_path: str) -> None:
    write_programs(tmp_path)
    done = subprocess.run(
        [sys.executable, "many.py"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (trace,) = tmp_path.glob("artifacts/*/attempt-1/trace.zip")
    viewer = viewer_with(trace, tmp_path / "viewer")
    picture = tmp_path / "trace.png"
    with served(viewer) as address:
        done = subprocess.run(
            [sys.executable, "-c", LOOK, browser_path, address, str(picture), str(SIZE["width"]), str(SIZE["height"])],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert size_of(picture) == (SIZE["width"], SIZE["height"])
    if os.environ.get(WRITE):
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, PICTURE)
    assert size_of(PICTURE) == size_of(picture)


# In a process of its own: Playwright's sync API marks the thread that it was used on.
LOOK = """
import sys
from playwright.sync_api import sync_playwright
program, address, picture, width, height = sys.argv[1:]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=program)
    page = browser.new_page(viewport={"width": int(width), "height": int(height)})
    page.set_default_timeout(60_000)
    page.goto(f"{address}/index.html?trace={address}/trace.zip")
    page.get_by_text("Screenshot").first.click()  # taken when the job had failed: the last step
    page.frame_locator("iframe:visible").first.get_by_text("There is a pin").wait_for()
    page.screenshot(path=picture)
    browser.close()
"""


def viewer_with(trace: Path, folder: Path) -> Path:
    """Copy the viewer that comes with Playwright, with the trace beside it."""
    playwright = pytest.importorskip("playwright")
    shutil.copytree(Path(playwright.__file__).parent / "driver" / "package" / "lib" / "vite" / "traceViewer", folder)
    shutil.copyfile(trace, folder / "trace.zip")
    return folder


def size_of(picture: Path) -> tuple[int, int]:
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height
