"""The guide on Streamlit: its page does what it says and looks as its pictures show, and so does the example."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pin_boards import picture
from streamlit_visits import DEADLINE, PYTHON, StreamlitServer, is_alive, until, visitor

pytest.importorskip("streamlit")
pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stops servers with POSIX signals")

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "howto" / "streamlit.md"
PICTURES = ROOT / "docs" / "images"
# Set to write the pictures of the guide again.
WRITE = "ORCHESTRATOR_WRITE_PICTURES"


@pytest.fixture
def visit(browser_path: str) -> Iterator[Any]:
    with visitor(browser_path) as function:
        yield function


def take_picture(page: Any, name: str, folder: Path) -> None:
    """Take a picture; write it into the guide if that is asked for."""
    path = folder / name
    page.screenshot(path=path, animations="disabled")
    if os.environ.get(WRITE):
        PICTURES.mkdir(exist_ok=True)
        shutil.copyfile(path, PICTURES / name)
    assert size_of(path) == size_of(PICTURES / name)


def size_of(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])  # type: ignore[return-value]


def test_the_page_of_the_guide(visit: Any, tmp_path: Path) -> None:
    for title, text in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', GUIDE.read_text("utf-8"), re.S | re.M):
        (tmp_path / title).write_text(text, "utf-8")
    # Its barriers: the job takes as long as the picture does.
    jobs = (tmp_path / "jobs.py").read_text("utf-8")
    assert "time.sleep(0.5)" in jobs
    barrier = "while number == 3 and not os.path.exists('go'): time.sleep(0.01)"
    (tmp_path / "jobs.py").write_text("import os\n" + jobs.replace("time.sleep(0.5)", barrier), "utf-8")
    with StreamlitServer(tmp_path / "page.py") as server:
        page = visit(server.url)
        page.set_viewport_size({"width": 800, "height": 660})
        page.get_by_role("button", name="Publish").click()
        page.get_by_text("2 of 4 · Birch Lake").wait_for()
        page.get_by_text("published Birch Lake").wait_for()
        take_picture(page, "streamlit-running.png", tmp_path)
        (server.folder / "go").touch()
        page.get_by_text("4 pins are published.").wait_for()
        page.get_by_label("Titles, one a line").fill("Ash Hill\nBirch Lake\n\nDune Bay")
        page.get_by_role("button", name="Publish").click()
        page.get_by_text("Traceback (most recent call last)").wait_for()
        page.get_by_text("Publishing: failed").wait_for()
        take_picture(page, "streamlit-failed.png", tmp_path)
        server.stop(signal.SIGTERM)


# The example


@contextmanager
def example(folder: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Serve the example; yields the addresses of page and board, and leaves nothing."""
    environment = {**os.environ, "ORCHESTRATOR_VENV": "none", "HOME": str(folder)}
    command = [PYTHON, str(ROOT / "scripts" / "streamlit_pins.py"), "--port", "0", "--headless", *arguments]
    output = folder / "output"
    seen: set[psutil.Process] = set()
    with open(output, "wb") as file:
        serving = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        board = until(lambda: re.match(r"The board is (http\S+),", output.read_text()), "the board is served")[1]
        page = until(psutil.Process(serving.pid).children, "the page's server is started")[0]
        yield until(lambda: address_of(page), "it listens"), board
        seen.update(psutil.Process(serving.pid).children(recursive=True))
        serving.terminate()
        serving.wait(DEADLINE)
        until(lambda: not any(map(is_alive, seen)), lambda: f"its processes end: {seen}")
    except BaseException as error:
        error.add_note(output.read_text())
        raise
    finally:
        if serving.poll() is None:
            # Not what these two have started: that somebody ends it, and removes its files, is the promise.
            for each in [*psutil.Process(serving.pid).children(), serving]:
                each.kill()
        serving.wait()


def address_of(server: psutil.Process) -> str | None:
    found = [each.laddr.port for each in server.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return f"http://127.0.0.1:{found[0]}" if found else None


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return json.loads(answer.read())


def at_rest(page: Any) -> None:
    """Wait until no run of the page's script is on its way."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def uploaded() -> list[dict[str, Any]]:
    """Return a table with a bad row and a missing picture, and the pictures, as files to upload."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["title", "description", "board", "link", "image"])
    for number in range(4):
        rows.writerow([f"Pin {number}", "", "Travel", f"https://example.com/{number}", f"images/{number}.png"])
    rows.writerow(["No picture", "", "Travel", "https://example.com/5", "images/5.png"])
    rows.writerow(["Too short", "Travel"])
    table = {"name": "mine.csv", "mimeType": "text/csv", "buffer": text.getvalue().encode()}
    images = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": picture(n)} for n in range(4)]
    return [table, *images]


def test_the_example_publishes_what_is_uploaded(visit: Any, tmp_path: Path) -> None:
    with example(tmp_path, "--errors", "0") as (address, board):
        page = visit(address)
        page.set_viewport_size({"width": 1000, "height": 900})
        table, *images = uploaded()
        inputs = page.locator("input[type=file]")
        # Each upload makes the server run the page anew, and a file that is chosen during such a run is lost.
        page.get_by_role("button", name="Publish", exact=True).wait_for()
        at_rest(page)
        inputs.nth(0).set_input_files([table])
        page.get_by_text("Line 2: its image '0.png' is not there").first.wait_for()
        at_rest(page)
        inputs.nth(1).set_input_files(images)
        page.get_by_text("4 pins are ready to be published").wait_for()
        at_rest(page)
        page.get_by_text("Line 6: its image '5.png' is not there").wait_for()
        page.get_by_text("Line 7: has 2 cells, and the header 5").wait_for()
        page.get_by_role("button", name="Publish", exact=True).click()
        page.get_by_text("Publishing: done in").wait_for()
        assert [pin["title"] for pin in ask(f"{board}/api/pins")["pins"]] == [f"Pin {number}" for number in range(4)]
        page.get_by_test_id("stDataFrame").wait_for()


@pytest.mark.browser
def test_the_example_shows_it_live_is_cancelled_and_publishes_the_rest_later(visit: Any, tmp_path: Path) -> None:
    with example(tmp_path, "--pins", "16") as (address, board):
        page = visit(address)
        page.set_viewport_size({"width": 1000, "height": 1250})
        page.get_by_text("Take the sample table").click()
        page.get_by_text("16 pins are ready to be published").wait_for()
        page.get_by_role("button", name="Publish", exact=True).click()
        page.get_by_text(re.compile(r"^[3-9] of 16")).wait_for()
        page.wait_for_function("() => [...document.images].some(each => each.naturalWidth > 300)")
        take_picture(page, "streamlit-pins.png", tmp_path)
        page.get_by_role("button", name="Cancel").click()
        # The second, if that was between the click on the board's button and its answer: then nobody knows of that pin.
        page.get_by_text(re.compile(r"^Publishing: (cancelled|unknown end)$")).wait_for()
        assert len(ask(f"{board}/api/pins")["pins"]) < 16
        page.get_by_role("button", name="Publish", exact=True).click()
        page.get_by_text("Publishing: done in").wait_for()
        stats = ask(f"{board}/api/stats")
        assert (stats["pins"], stats["twice"]) == (16, [])
