"""The guide on browser jobs: what its program leaves of a failed job can be looked at, as its pictures show."""

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
PICTURES = ROOT / "docs" / "images"
TRACE, REPORT = "browser-jobs-trace.png", "browser-jobs-report.png"
# Set to write the pictures of the guide again.
WRITE = "ORCHESTRATOR_WRITE_PICTURES"
DEADLINE = 120
WIDTH = 1000


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


@pytest.fixture
def ran(tmp_path: Path, browser_path: str) -> Path:
    """The folder in which the program that publishes many pins has run."""
    write_programs(tmp_path)
    run("many.py", cwd=tmp_path)
    return tmp_path


def run(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_trace_and_the_report_show_where_a_job_failed(ran: Path, browser_path: str) -> None:
    (trace,) = ran.glob("artifacts/*/attempt-1/trace.zip")
    with served(viewer_with(trace, ran / "viewer")) as address:
        look_at(LOOK_AT_TRACE, browser_path, f"{address}/index.html?trace={address}/trace.zip", ran / TRACE, 620)
    look_at(LOOK_AT_REPORT, browser_path, (ran / "report.html").as_uri(), ran / REPORT, 960)


def look_at(steps: str, browser_path: str, address: str, picture: Path, height: int) -> None:
    """Open a page, carry out the steps, take a picture; write it into the guide if that is asked for."""
    options = (browser_path, address, str(picture), str(WIDTH), str(height))
    run("-c", LOOK.format(steps=steps), *options, cwd=picture.parent)
    assert size_of(picture) == (WIDTH, height)
    if os.environ.get(WRITE):
        PICTURES.mkdir(exist_ok=True)
        shutil.copyfile(picture, PICTURES / picture.name)
    assert size_of(PICTURES / picture.name) == size_of(picture)


# In a process of its own: Playwright's sync API marks the thread that it was used on.
LOOK = """
import sys
from playwright.sync_api import sync_playwright
program, address, picture, width, height = sys.argv[1:]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=program)
    page = browser.new_page(viewport={{"width": int(width), "height": int(height)}})
    page.set_default_timeout(60_000)
    page.goto(address)
    {steps}
    page.screenshot(path=picture)
    browser.close()
"""
# The picture of the failed page is the last step of the job.
LOOK_AT_TRACE = """page.get_by_text("Screenshot").first.click()
    page.frame_locator("iframe:visible").first.get_by_text("There is a pin").wait_for()"""
LOOK_AT_REPORT = """page.get_by_text("raise ValueError(said)").wait_for()"""


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
