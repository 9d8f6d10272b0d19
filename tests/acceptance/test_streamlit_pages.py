"""A Streamlit app, driven with a real browser: progress, reruns, Cancel, errors, and a server that is stopped."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, Self

import pytest
from small_site import Site
from streamlit_visits import DEADLINE, StreamlitServer, is_alive, until, visitor

pytest.importorskip("streamlit")
pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stops servers with POSIX signals")
browser = pytest.mark.browser

UNCHANGED = "pins.publisher:Publisher.publish"
PATIENT = "patient_publisher:PatientPublisher.publish"
PINS = [{"title": f"Pin {number}", "board": "Maps"} for number in range(1, 4)]


@pytest.fixture
def visit(browser_path: str) -> Iterator[Any]:
    with visitor(browser_path) as function:
        yield function


class Board(Site):
    """A site where publishing waits while the gate is closed."""

    def __enter__(self) -> Self:
        self.gate, self.ending = threading.Event(), False
        self.gate.set()
        super().__enter__()
        self.on_publish = self._wait
        return self

    def __exit__(self, *_: object) -> None:
        self.ending = True
        self.gate.set()
        super().__exit__()

    def _wait(self, _: int) -> None:
        self.gate.wait(DEADLINE)
        if self.ending:
            raise ConnectionAbortedError

    def wait_until_held(self, count: int = 1) -> None:
        self.wait_asked("POST /new", count)


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as opened:
        yield opened


def publishing(board: Board, way: str = "keep", target: str = PATIENT, **options: Any) -> StreamlitServer:
    environment = {"PAGE_BOARD": board.url, "PAGE_PINS": json.dumps(PINS), "PAGE_WAY": way, "PAGE_TARGET": target}
    return StreamlitServer("page_of_pins.py", **environment, **options)


def expect(page: Any, text: str) -> None:
    try:
        page.get_by_text(text).first.wait_for(state="visible")
    except Exception as error:
        error.add_note(f"the page has:\n{page.inner_text('body')}")
        raise


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def write(page: Any, text: str) -> None:
    page.get_by_label("Note").fill(text)
    page.get_by_label("Note").press("Enter")


def share(page: Any) -> float:
    return float(page.get_by_role("progressbar").get_attribute("aria-valuenow"))


def step(server: StreamlitServer, number: int) -> None:
    (server.folder / f"step-{number}").touch()


def runs(server: StreamlitServer) -> list[int]:
    path = server.folder / "ran"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


# One page and one job


def test_progress_rises_a_rerun_finds_the_job_and_its_value_stays(visit: Any) -> None:
    with StreamlitServer("page_of_steps.py") as server:
        page = visit(server.url)
        press(page, "Start")
        expect(page, "running")
        shares = []
        for number in (1, 2):
            step(server, number)
            expect(page, f"{number} of 4 · step {number}")
            expect(page, f"made step {number}")
            shares.append(share(page))
        assert shares == [25, 50]
        write(page, "seen")
        expect(page, "The note is seen.")
        expect(page, "2 of 4 · step 2")
        for number in (3, 4):
            step(server, number)
        expect(page, "It succeeded: 4")
        expect(page, "Making steps: done in")
        write(page, "again")
        expect(page, "The note is again.")
        expect(page, "It succeeded: 4")
        assert len(runs(server)) == 1, "what has ended is shown again, and not run again"
        press(page, "Start")
        until(lambda: len(runs(server)) == 2, "a click runs it again")
        expect(page, "It succeeded: 4")
        server.stop(signal.SIGTERM)


def test_cancel_ends_the_job_and_the_next_one_runs(visit: Any) -> None:
    with StreamlitServer("page_of_steps.py") as server:
        page = visit(server.url)
        press(page, "Start")
        step(server, 1)
        expect(page, "1 of 4 · step 1")
        began = time.monotonic()
        press(page, "Cancel")
        expect(page, "Making steps: cancelled")
        assert time.monotonic() - began < 30
        expect(page, "It cancelled: None")
        assert page.get_by_role("button", name="Cancel").count() == 0
        for number in (2, 3, 4):
            step(server, number)
        press(page, "Start")
        expect(page, "It succeeded: 4")
        server.stop(signal.SIGTERM)


def test_errors_are_shown_with_what_the_child_said(visit: Any) -> None:
    with StreamlitServer("page_of_endings.py") as server:
        page = visit(server.url)
        press(page, "Fail")
        expect(page, "ValueError: not *this* pin")
        expect(page, "Traceback (most recent call last)")
        expect(page, "about to fail")
        expect(page, "Fail: failed")
        press(page, "Crash")
        expect(page, "exited with code 7")
        expect(page, "last words")
        press(page, "Hang")
        expect(page, "Hang: took too long")
        expect(page, "_await")
        press(page, "Page")
        expect(page, "is in a Streamlit script, which a child would run as a whole; move here to a module of its own")
        press(page, "Wrong")
        expect(page, "Wrong: not started")
        expect(page, "The page has ended.")
        server.stop(signal.SIGTERM)


@pytest.mark.parametrize("reruns", [10, pytest.param(50, marks=browser)])
def test_many_reruns_keep_the_number_of_processes(visit: Any, reruns: int) -> None:
    with StreamlitServer("page_of_steps.py") as server:
        page = visit(server.url)
        press(page, "Start")
        step(server, 1)
        expect(page, "1 of 4 · step 1")
        before = {each.pid for each in server.note()}
        threads = server.process.num_threads()
        for number in range(reruns):
            write(page, f"number {number}")  # some are overtaken by the next, which is what a storm is
        expect(page, f"The note is number {reruns - 1}.")
        expect(page, "1 of 4 · step 1")
        assert {each.pid for each in server.note()} == before
        assert server.process.num_threads() <= threads + 20  # those that the server keeps for its own work
        for number in (2, 3, 4):
            step(server, number)
        expect(page, "It succeeded: 4")
        assert {each.pid for each in server.note()} == before
        assert len(runs(server)) == 1
        server.stop(signal.SIGTERM)


@pytest.mark.parametrize("way", ["fragment", pytest.param("blocking", marks=browser)])
def test_live_pictures_are_shown(visit: Any, way: str) -> None:
    from PIL import Image

    with StreamlitServer("page_of_pictures.py", PAGE_WAY=way) as server:
        for number, width in ((1, 200), (2, 300)):
            Image.new("RGB", (width, 100), "teal").save(server.folder / f"picture-{number}.jpg")
        page = visit(server.url)
        for number, width in ((1, 200), (2, 300)):
            (server.folder / f"show-{number}").touch()
            page.wait_for_function("width => [...document.images].some(each => each.naturalWidth === width)", arg=width)
        (server.folder / "end").touch()
        expect(page, "It succeeded.")
        server.stop(signal.SIGTERM)


# Publishing with a browser in the child


@pytest.mark.parametrize("policy", ["selector", pytest.param("own", marks=browser)])
def test_a_publisher_that_knows_nothing_of_it_publishes(visit: Any, board: Board, policy: str) -> None:
    with publishing(board, target=UNCHANGED, selector_policy=policy == "selector") as server:
        page = visit(server.url)
        press(page, "Publish")
        expect(page, "It succeeded:")
        assert [pin["title"] for pin in board.pins] == [pin["title"] for pin in PINS]
        expect(page, json.dumps([str(number) for number in range(len(PINS))]))
        server.stop(signal.SIGTERM)


def test_others_are_answered_while_it_publishes(visit: Any, board: Board) -> None:
    board.gate.clear()
    with publishing(board) as server:
        page = visit(server.url)
        press(page, "Publish")
        board.wait_until_held()
        expect(page, "running")
        began = time.monotonic()
        for _ in range(5):
            with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=DEADLINE) as answer:
                assert answer.read() == b"ok"
        assert time.monotonic() - began < 30
        began = time.monotonic()
        other = visit(server.url)
        write(other, "from another session")
        expect(other, "The note is from another session.")
        assert time.monotonic() - began < 60
        assert other.get_by_text("Publishing").count() == 0, "the job is the first session's"
        board.gate.set()
        expect(page, "It succeeded:")
        server.stop(signal.SIGTERM)


@browser
def test_a_fragment_leaves_the_page_usable(visit: Any, board: Board) -> None:
    board.gate.clear()
    with publishing(board, "fragment") as server:
        page = visit(server.url)
        press(page, "Publish")
        board.wait_until_held()
        expect(page, "running")
        expect(page, "The note is empty.")  # which stands below
        write(page, "meanwhile")
        expect(page, "The note is meanwhile.")
        expect(page, "running")
        board.gate.set()
        expect(page, "It succeeded:")
        assert len(board.pins) == len(PINS)
        board.gate.clear()
        press(page, "Publish")
        board.wait_until_held(len(PINS) + 1)
        press(page, "Cancel")
        expect(page, "It cancelled: null")
        server.stop(signal.SIGTERM)


def test_a_job_ends_with_its_page_if_it_is_to(visit: Any, board: Board) -> None:
    board.gate.clear()
    with publishing(board, "cancel") as server:
        page = visit(server.url)
        press(page, "Publish")
        board.wait_until_held()
        write(page, "this runs the page anew")
        expect(page, "It cancelled: null")
        press(page, "Publish")
        board.wait_until_held(2)
        browsers = [each for each in server.note() if "chrom" in each.name()]
        assert browsers
        page.close()
        until(lambda: not any(map(is_alive, browsers)), "the job ends with its tab")
        server.stop(signal.SIGTERM)


@browser
def test_a_closed_tab_does_not_end_a_job_that_is_kept(visit: Any, board: Board) -> None:
    board.gate.clear()
    with publishing(board) as server:
        page = visit(server.url)
        press(page, "Publish")
        board.wait_until_held()
        page.close()
        board.gate.set()
        until(lambda: len(board.pins) == len(PINS), "all pins are published")
        server.stop(signal.SIGTERM)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=browser), signal.SIGKILL], ids=["SIGTERM", "SIGKILL"]
)
def test_a_stopped_server_leaves_nothing(visit: Any, board: Board, number: int) -> None:
    board.gate.clear()
    with publishing(board) as server:
        page = visit(server.url)
        press(page, "Publish")
        board.wait_until_held()
        expect(page, "running")
        assert [each for each in server.note() if "chrom" in each.name()]
        assert server.folders_left(), "there is something to leave"
        server.stop(number)
