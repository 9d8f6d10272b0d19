"""The local pin board: what a browser and a program that verifies see, faults on command, and nothing left."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pin_boards import PASSWORD, SCRIPTS, USERNAME, PinBoard, picture
from playwright.sync_api import sync_playwright

DEADLINE = 60


class Visitor:
    """A browser without scripts."""

    def __init__(self, board: PinBoard, client: httpx.Client) -> None:
        self.board = board
        self.http = client

    def login(self, password: str = PASSWORD) -> httpx.Response:
        return self.http.post("/login", data={"username": USERNAME, "password": password, "next": "/new"})

    def publish(self, title: str = "Hills", image: bytes = picture(1), **fields: str) -> httpx.Response:
        data = {"title": title, "description": "Seen today", "board": "Travel", "link": "", **fields}
        return self.http.post("/new", data=data, files={"image": ("hills.png", image, "image/png")})


@pytest.fixture
def board() -> Iterator[PinBoard]:
    with PinBoard() as board:
        yield board


@pytest.fixture
def visitor(board: PinBoard) -> Iterator[Visitor]:
    with httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client:
        yield Visitor(board, client)


@pytest.fixture
def user(visitor: Visitor) -> Visitor:
    assert visitor.login().status_code == 303
    return visitor


def error(reply: httpx.Response) -> str:
    found = re.search(r'<p class="error"[^>]*>(.*?)</p>', reply.text)
    return re.sub("<.*", "", found[1]).strip() if found else ""


def test_the_form_is_for_those_who_are_logged_in(visitor: Visitor) -> None:
    for reply in (visitor.http.get("/new"), visitor.publish()):
        assert (reply.status_code, reply.headers["location"]) == (303, "/login?next=/new")
    refused = visitor.login("guessed")
    assert (refused.status_code, error(refused)) == (401, "Wrong user name or password.")
    assert 'id="username"' in refused.text and 'id="password"' in refused.text and 'id="login"' in refused.text
    welcome = visitor.login()
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/new")
    assert "httponly" in welcome.headers["set-cookie"].lower()
    assert 'id="publish" disabled' in visitor.http.get("/new").text
    visitor.board.end_sessions()
    assert visitor.http.get("/new").status_code == 303
    assert visitor.board.pins() == []


def test_the_way_after_login_leads_to_no_other_site(visitor: Visitor) -> None:
    for target in ("https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example"):
        given = {"username": USERNAME, "password": PASSWORD, "next": target}
        assert visitor.http.post("/login", data=given).headers["location"] == "/"


def test_a_published_pin_is_found_by_all_ways(user: Visitor) -> None:
    link = "https://example.com/hills?mark=row-17"
    reply = user.publish("Hills & <valleys>", link=link)
    assert (reply.status_code, reply.headers["location"]) == (303, "/pin/1")
    page = user.http.get("/pin/1")
    assert 'data-pin-id="1"' in page.text and "Hills &amp; &lt;valleys&gt;" in page.text
    assert user.http.get("/pin/1/image").content == picture(1)
    for wanted in ({"mark": "row-17"}, {"title": "Hills & <valleys>"}, {"board": "Travel"}):
        answer = user.http.get("/api/pins", params=wanted).json()
        assert (answer["count"], answer["pins"][0]["link"]) == (1, link)
        assert answer["pins"] == user.board.pins(**wanted)
    assert user.http.get("/api/pins", params={"mark": "row-18"}).json() == {"count": 0, "pins": []}
    assert user.http.get("/api/pins/1").json()["title"] == "Hills & <valleys>"
    assert 'data-pin="1"' in user.http.get("/search", params={"q": "valleys"}).text
    assert 'data-pin="1"' in user.http.get("/board/Travel").text
    assert 'data-pin="1"' not in user.http.get("/board/Gardens").text
    assert user.http.get("/api/pins/2").status_code == user.http.get("/pin/2").status_code == 404


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"title": " "}, "A pin needs a title."),
        ({"title": "x" * 101}, "A title has at most 100 characters, and this one 101."),
        ({"description": "x" * 501}, "A description has at most 500 characters."),
        ({"board": ""}, "Choose a board."),
        ({"board": "Attic"}, "There is no board &#x27;Attic&#x27;."),
        ({"link": "javascript:alert(1)"}, "A link starts with http:// or https://."),
        ({"image": b"no picture"}, "Choose a picture: PNG, JPEG, GIF or WebP."),
    ],
)
def test_a_pin_that_is_not_right_is_refused_with_what_was_given(user: Visitor, wrong: Any, said: str) -> None:
    reply = user.publish(**{"link": "https://example.com/kept", **wrong})
    assert (reply.status_code, error(reply)) == (422, said)
    assert ("https://example.com/kept" in reply.text) == ("link" not in wrong)
    assert user.board.pins() == []
    assert user.board.stats()["refused"] == 1


def test_what_was_published_twice_is_seen() -> None:
    with PinBoard() as board, httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client:
        user = Visitor(board, client)
        user.login()
        for title in ("Hills", "Sea", "Hills"):
            assert user.publish(title).status_code == 303
        user.publish("Hills", picture(2))  # another picture is another pin
        assert board.twice() == board.stats()["twice"] == [[1, 3]]


def test_duplicates_are_refused_when_the_board_is_told_to() -> None:
    with (
        PinBoard(duplicates="refuse") as board,
        httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        user = Visitor(board, client)
        user.login()
        user.publish()
        reply = user.publish(description="other words")
        assert (reply.status_code, error(reply)) == (
            409,
            "There is a pin with this title and picture already: pin 1.",
        )
        assert 'data-duplicate-of="1"' in reply.text
        assert len(board.pins()) == 1
        assert board.stats()["duplicates"] == 1


def test_too_many_pins_at_a_time_have_to_wait() -> None:
    with (
        PinBoard(rate=2, per=3600) as board,
        httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        user = Visitor(board, client)
        user.login()
        assert [user.publish(f"Hills {number}").status_code for number in range(4)] == [303, 303, 429, 429]
        reply = user.publish()
        assert 3500 <= int(reply.headers["retry-after"]) <= 3600
        assert error(reply).startswith("Too many pins at a time.")
        board.configure(rate=None)
        assert user.publish().status_code == 303
        assert (board.stats()["rate_limited"], len(board.pins())) == (3, 3)


def test_errors_on_command_come_before_and_after_the_pin_is_stored(user: Visitor) -> None:
    user.board.configure(fail_next=1)
    assert user.publish().status_code == 500
    assert user.board.pins() == []
    user.board.configure(lose_next=1)
    assert user.publish().status_code == 500
    assert [pin["title"] for pin in user.board.pins()] == ["Hills"]
    assert user.publish("Sea").status_code == 303
    assert user.board.stats()["lost_answers"] == 1


def test_random_errors_are_as_many_as_asked_for_and_spare_the_api() -> None:
    with (
        PinBoard(errors=0.5, seed=3) as board,
        httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        codes = [client.get("/").status_code for _ in range(60)]
        assert 15 <= codes.count(500) <= 45 and set(codes) == {200, 500}
        assert {client.get("/healthz").status_code for _ in range(20)} == {200}
        assert board.stats()["errors"] == codes.count(500)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_publish_that_is_held_shows_where_it_was(user: Visitor, moment: str) -> None:
    user.board.configure(hold=moment)
    replies: list[httpx.Response] = []
    publisher = threading.Thread(target=lambda: replies.append(user.publish()))
    publisher.start()
    try:
        user.board.wait_until_held(1, DEADLINE)
        assert len(user.board.pins()) == (moment == "after")
    finally:
        user.board.configure(hold=None)
        publisher.join()
    assert replies[0].status_code == 303
    assert len(user.board.pins()) == 1


def test_nothing_is_stored_for_a_client_that_went(user: Visitor) -> None:
    user.board.configure(hold="before")
    request = user.http.build_request(
        "POST", "/new", data={"title": "Hills", "board": "Travel"}, files={"image": ("hills.png", picture(1))}
    )
    lines = [b"POST /new HTTP/1.1", *(b"%s: %s" % header for header in request.headers.raw), b"", request.read()]
    with socket.create_connection(("127.0.0.1", request.url.port or 0), DEADLINE) as connection:
        connection.sendall(b"\r\n".join(lines))
        user.board.wait_until_held(1, DEADLINE)
    ends = time.monotonic() + DEADLINE
    while not user.http.get("/api/stats").json()["gone"]:
        assert time.monotonic() < ends
    user.board.configure(hold=None)
    assert user.publish("Sea").status_code == 303
    assert [pin["title"] for pin in user.board.pins()] == ["Sea"]


def test_it_closes_while_clients_wait() -> None:
    board = PinBoard()
    with httpx.Client(base_url=board.url, timeout=DEADLINE, trust_env=False) as client:
        with board:
            user = Visitor(board, client)
            user.login()
            board.configure(hold="after")
            publisher = threading.Thread(target=user.publish)
            publisher.start()
            board.wait_until_held()
        publisher.join()
    assert len(board.pins()) == 1


def test_a_browser_waits_for_the_form_and_publishes(
    board: PinBoard, browser_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # without a home Chromium leaves a cache where it is started
    image = tmp_path / "hills.png"
    image.write_bytes(picture(3))
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, chromium_sandbox=not root)
        page = browser.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{board.url}/new")
        page.fill("#username", USERNAME)
        page.fill("#password", "guessed")
        page.click("#login")
        assert page.text_content(".error") == "Wrong user name or password."
        page.fill("#password", PASSWORD)
        page.click("#login")
        page.fill("#title", "Hills")
        page.fill("#description", "Seen </script> today")
        page.select_option("#board", "Reading")
        page.fill("#link", "example.com")
        page.set_input_files("#image", image)
        page.click("#publish")
        assert page.text_content(".error") == "A link starts with http:// or https://."
        assert page.input_value("#description") == "Seen </script> today"
        page.fill("#link", "https://example.com/?mark=row-3")
        page.set_input_files("#image", image)
        page.click("#publish")
        assert page.get_attribute("[data-pin-id]", "data-pin-id") == "1"
        page.goto(f"{board.url}/search?q=hills")
        assert page.locator("[data-pin]").count() == 1
        browser.close()
    assert {url.startswith((board.url, "data:", "blob:")) for url in requested} == {True}
    assert [(pin["description"], pin["board"]) for pin in board.pins(mark="row-3")] == [
        ("Seen </script> today", "Reading")
    ]


def test_a_reset_forgets_all_and_unknown_options_are_refused(user: Visitor) -> None:
    user.publish()
    assert user.http.post("/api/configure", json={"colour": 1}).json()["error"].startswith("there is no option 'col")
    assert user.http.post("/api/reset").status_code == 200
    stats = user.http.get("/api/stats").json()
    assert (stats["pins"], stats["published"], stats["sessions"], stats["twice"]) == (0, 0, 0, [])
    with pytest.raises(TimeoutError):
        user.board.wait_until_held(1, timeout=0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")
def test_the_script_says_where_it_serves_and_ends_when_told(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "pin_board.py"), "--port", "0", "--duplicates", "refuse", "--rate", "5/2"]
    environment = {**os.environ, "ORCHESTRATOR_VENV": "none"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
            assert httpx.get(f"{url}/healthz", timeout=DEADLINE, trust_env=False).json() == {"status": "ok"}
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert process.stderr.read() == "0 pins published, 0 of them twice\n"
    assert list(tmp_path.iterdir()) == []
