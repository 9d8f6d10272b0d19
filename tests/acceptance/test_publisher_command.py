"""`orchestrator publish`: a table of pins to a site, one clear error for what is wrong, and the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.publisher import Pin
from orchestrator_adapters.publisher._profile import SHIPPED
from pin_boards import PASSWORD, PinBoard
from pin_tables import ACCOUNT, make_pins, make_table

pytestmark = pytest.mark.usefixtures("browser_path")

COMMAND = (sys.executable, "-m", "orchestrator", "publish")
DEADLINE = 240


@pytest.fixture
def board() -> Iterator[PinBoard]:
    with PinBoard() as made:
        yield made


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    rows: list[dict[str, Any]]
    said: str

    def status(self) -> dict[int, str]:
        return {row["line"]: row["status"] for row in self.rows}


def publish(*arguments: object, cwd: Path, **variables: str) -> Ended:
    command = [*COMMAND, *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=cwd, env=environment(variables), capture_output=True, encoding="utf-8", timeout=DEADLINE
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ended(ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr)


def environment(variables: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **ACCOUNT, "PYTHONIOENCODING": "utf-8", **variables}


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it
        port: int = kept.getsockname()[1]
        yield port


def marks(board: PinBoard) -> list[str]:
    return sorted(pin["link"].rpartition("mark=")[2] for pin in board.pins())


def test_good_rows_are_published_and_bad_ones_told(board: PinBoard, tmp_path: Path) -> None:
    table = make_table(tmp_path, 2)
    with table.open("a", encoding="utf-8") as stream:
        stream.write(
            "No picture,,Gardens,https://pins.example/x,missing.png\n"
            "Short,\n"
            "Nowhere,,Basement,https://pins.example/y,picture.png\n"
        )
    real = publish(table, "--url", board.url, "--output", "results.jsonl", cwd=tmp_path)
    assert real.rows == []
    rows = {row["line"]: row for row in map(json.loads, (tmp_path / "results.jsonl").read_text("utf-8").splitlines())}
    assert [rows[line]["status"] for line in (2, 3)] == ["published"] * 2
    assert {rows[line]["id"] for line in (2, 3)} == {"1", "2"}
    assert rows[2]["url"] == f"{board.url}/pin/{rows[2]['id']}"
    assert [(rows[line]["failure_class"], rows[line]["error"]) for line in (4, 5, 6)] == [
        ("image", "its image 'missing.png' is not there"),
        ("row", "has 2 cells, and the header 5"),
        ("board", "there is no board 'Basement'; there are Gardens, Kitchens, Reading, Travel, Workshops"),
    ]
    for line in (4, 5, 6):
        assert f"line {line}: " in real.said
    assert real.code == 1
    assert marks(board) == sorted(pin.mark for pin in make_pins(tmp_path, 2))
    assert PASSWORD not in real.said + json.dumps(list(rows.values()))


@pytest.mark.parametrize(
    ("options", "variables", "code", "told"),
    [
        ((), {"PIN_BOARD_PASSWORD": "open-sesame"}, 2, "refuses the login of 'ada': Wrong user name or password."),
        (("--proxy", "http://127.0.0.1:{closed}"), {}, 2, "proxy"),
        (("--url", "http://127.0.0.1:{closed}"), {}, 75, "cannot reach http://127.0.0.1:{closed}: connection refused"),
        pytest.param(
            ("--attach", "http://127.0.0.1:{closed}"),
            {},
            75,
            "no browser answers at http://127.0.0.1:{closed}",
            marks=pytest.mark.browser,
        ),
        pytest.param(("--executable", "no-such-browser"), {}, 2, "no-such-browser", marks=pytest.mark.browser),
    ],
    ids=["password", "proxy", "site", "attach", "executable"],
)
def test_where_nothing_can_be_published_there_is_one_error(
    board: PinBoard,
    tmp_path: Path,
    closed_port: int,
    options: tuple[str, ...],
    variables: dict[str, str],
    code: int,
    told: str,
) -> None:
    port = str(closed_port)
    given = [option.replace("{closed}", port) for option in options]
    url = [] if "--url" in given else ["--url", board.url]
    ended = publish(make_table(tmp_path, 2), "--quiet", *url, *given, cwd=tmp_path, **variables)
    assert ended.code == code, ended.said
    assert ended.said.startswith("Error: ")
    assert ended.said.count("\n") == 1
    assert told.replace("{closed}", port) in ended.said
    assert ended.rows == board.pins() == []


@pytest.mark.browser
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('link = "#link"', 'link = "#url"', "[form] link = '#url': not on {url}/new within 15 s"),
        ('items = "pins"', 'items = "rows"', "does not answer as [lookup] items and id say"),
        (
            'submit = "#login"',
            'submit = "#enter"',
            "[login] submit = '#enter': not on {url}/login?next=/new within 15 s",
        ),
    ],
)
def test_a_profile_that_does_not_fit_the_site_is_one_error(
    board: PinBoard, tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    text = Path(SHIPPED, "local.toml").read_text("utf-8")
    assert right in text
    changed = text.replace(right, wrong).replace("timeout = 30.0", "timeout = 15.0")
    (tmp_path / "mine.toml").write_text(changed, "utf-8")
    ended = publish(make_table(tmp_path, 1), "-p", "mine.toml", "--url", board.url, "-q", cwd=tmp_path)
    assert ended.code == 2
    assert told.format(url=board.url) in ended.said
    assert ended.said.count("\n") == 1
    assert ended.rows == board.pins() == []


@contextmanager
def browser_with(profile: Path, program: str) -> Iterator[None]:
    """Have a browser that has a profile open."""
    options = ["--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen([program, *options], stderr=subprocess.PIPE, encoding="utf-8") as browser:
        assert browser.stderr is not None
        try:
            assert any("DevTools listening" in line for line in browser.stderr), "it ended"
            yield
        finally:
            browser.terminate()
            browser.communicate(timeout=DEADLINE)


def test_a_profile_that_another_browser_has_open(board: PinBoard, tmp_path: Path, browser_path: str) -> None:
    profile = tmp_path / "profile"
    with browser_with(profile, browser_path):
        ended = publish(
            make_table(tmp_path, 1), "--url", board.url, "--user-data-dir", profile, "-w", 1, "-q", cwd=tmp_path
        )
    assert ended.code == 75, ended.said
    assert f"the profile '{profile}' is in use" in ended.said
    assert ended.said.count("\n") == 1
    assert ended.rows == board.pins() == []


class Running:
    """A command that runs, with what it says."""

    def __init__(self, *arguments: object, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=cwd,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.said: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._readers = [threading.Thread(target=self._hear), threading.Thread(target=self._take)]
        for reader in self._readers:
            reader.start()

    def _hear(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._note(self.said, line)

    def _take(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._note(self.rows, json.loads(line))

    def _note(self, where: list[Any], what: Any) -> None:
        with self._news:
            where.append(what)
            self._news.notify_all()

    def wait_for_rows(self, number: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.rows) >= number, DEADLINE), self.said

    def end(self) -> int:
        code = self.process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.mark.parametrize("held", ["after", pytest.param("before", marks=pytest.mark.browser)])
def test_a_killed_run_goes_on_and_publishes_nothing_twice(board: PinBoard, tmp_path: Path, held: str) -> None:
    table = make_table(tmp_path, 5)
    arguments = (table, "--url", board.url, "--journal", tmp_path / "run.journal", "--workers", 1)
    running = Running(*arguments, cwd=tmp_path)
    running.wait_for_rows(1)
    board.configure(hold=held)
    board.wait_until_held()
    running.process.send_signal(signal.SIGKILL)
    running.end()
    board.configure(hold=None)

    ended = publish(*arguments, cwd=tmp_path)
    assert ended.code == 0, ended.said
    assert set(ended.status().values()) == {"published"}
    assert sorted(ended.status()) == [2, 3, 4, 5, 6]
    assert marks(board) == sorted(pin.mark for pin in make_pins(tmp_path, 5))
    assert {row["id"] for row in ended.rows} == {str(pin["id"]) for pin in board.pins()}

    for path in tmp_path.glob("run.journal*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.browser
def test_ctrl_c_finishes_what_is_being_published_and_the_same_command_goes_on(board: PinBoard, tmp_path: Path) -> None:
    table = make_table(tmp_path, 8)
    arguments = (table, "--url", board.url, "--journal", tmp_path / "run.journal", "--workers", 1)
    running = Running(*arguments, cwd=tmp_path)
    board.configure(hold="after")
    board.wait_until_held()
    running.process.send_signal(signal.SIGINT)
    running.wait_for_rows(1)  # those that are not begun
    board.configure(hold=None)
    assert running.end() == 130
    status = [row["status"] for row in running.rows]
    assert len(status) == 8
    assert set(status) == {"published", "open"}
    assert status.count("published") == len(board.pins()) < 8
    assert any("finishing the pins that are being published" in line for line in running.said)
    assert running.said[-1] == "The same command goes on from here.\n"

    ended = publish(*arguments, cwd=tmp_path)
    assert (ended.code, set(ended.status().values())) == (0, {"published"})
    assert marks(board) == sorted(pin.mark for pin in make_pins(tmp_path, 8))


@pytest.mark.browser
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_rest_for_the_next_run(board: PinBoard, tmp_path: Path) -> None:
    table = make_table(tmp_path, 6)
    arguments = (table, "--url", board.url, "--journal", tmp_path / "run.journal", "--workers", 2)
    running = Running(*arguments, cwd=tmp_path)
    board.configure(hold="after")
    board.wait_until_held(2)
    running.process.send_signal(signal.SIGINT)
    running.wait_for_rows(1)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 130
    board.configure(hold=None)
    assert {row["status"] for row in running.rows} <= {"open", "unknown"}
    ended = publish(*arguments, cwd=tmp_path)
    assert (ended.code, set(ended.status().values())) == (0, {"published"}), ended.said
    assert marks(board) == sorted(pin.mark for pin in make_pins(tmp_path, 6))


@pytest.mark.browser
def test_what_failed_is_tried_again_by_the_next_run(board: PinBoard, tmp_path: Path) -> None:
    (pin,) = make_pins(tmp_path, 1)
    table = tmp_path / "pins.jsonl"
    rows = [
        {"id": "a", "title": "x" * 101, "board": "Gardens", "link": pin.link, "image": "picture.png"},
        {"id": "b", "title": "B", "board": "Gardens", "link": pin.link, "image": "picture.png"},
    ]
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    arguments = ("pins.jsonl", "--url", board.url, "--journal", "run.journal", "--workers", 1)
    first = publish(*arguments, "--artifacts", "kept", cwd=tmp_path)
    refused, published = sorted(first.rows, key=lambda row: int(row["line"]))
    assert (first.code, refused["status"], published["status"]) == (1, "failed", "published")
    assert refused["failure_class"] == "refused"
    assert any(path.endswith(".png") for path in refused["artifacts"]), "a picture of the page that says why"
    assert "artifacts" not in published

    rows[0]["title"] = "Short enough"
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    changed = publish(*arguments, cwd=tmp_path)
    assert [row["failure_class"] for row in changed.rows if row["status"] == "failed"] == ["changed"]
    rows[0]["id"] = "a2"
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    mended = publish(*arguments, cwd=tmp_path)
    assert (mended.code, sorted(mended.status().values())) == (0, ["published", "published"])
    assert marks(board) == sorted(Pin("any", id=name).mark for name in ("a2", "b"))
