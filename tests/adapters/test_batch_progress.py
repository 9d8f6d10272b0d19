"""What a batch shows on standard error: the literal line, when it is written, and bars on a real terminal."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from orchestrator_adapters.batch import _progress
from orchestrator_adapters.batch._accounts import Snapshot
from orchestrator_adapters.batch._bars import duration
from orchestrator_adapters.batch._log_lines import is_news, log_line
from orchestrator_adapters.batch._progress import display_for, progress_line

PLAIN = "Progress: 40/320 (12.5%) - 35 successful, 5 failed (rate: 8.2 tasks/sec)"


def counts(**changes: Any) -> Snapshot:
    return dataclasses.replace(Snapshot(total=320, succeeded=35, failed=5, rate=8.2, eta=34.0, elapsed=5.0), **changes)


def line(**changes: Any) -> str:
    return progress_line(counts(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, PLAIN),
        ({"total": None}, "Progress: 40/? - 35 successful, 5 failed (rate: 8.2 tasks/sec)"),
        (
            {"succeeded": 0, "failed": 0, "rate": 0.0},
            "Progress: 0/320 (0.0%) - 0 successful, 0 failed (rate: 0.0 tasks/sec)",
        ),
        (
            {"total": 0, "succeeded": 0, "failed": 0, "rate": 0.0},
            "Progress: 0/0 (100.0%) - 0 successful, 0 failed (rate: 0.0 tasks/sec)",
        ),
        (
            {"total": 1_000_000, "succeeded": 999_998, "failed": 1, "rate": 12345.67},
            "Progress: 999999/1000000 (99.9%) - 999998 successful, 1 failed (rate: 12345.7 tasks/sec)",
        ),
        (
            {"succeeded": 320, "failed": 0},
            "Progress: 320/320 (100.0%) - 320 successful, 0 failed (rate: 8.2 tasks/sec)",
        ),
        (
            {"resumed": 12, "cached": 7, "waiting": 3, "pauses": {"gemini-flash": 40.2}},
            f"{PLAIN} [resumed 12, cached 7, retrying 3, paused gemini-flash 41s]",
        ),
        (
            {"pauses": {"b": 0.0, "c": 0.1, "a": 2.0}, "running": 4, "queued": 20, "by_class": {"crash": 5}},
            f"{PLAIN} [paused a 2s, paused c 1s]",
        ),
    ],
)
def test_the_line_is_literally_this(changes: dict[str, Any], expected: str) -> None:
    assert line(**changes) == expected


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (125, "2 min 05 s"), (11_220, "3 h 07 min")]
)
def test_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# When lines are written


class Watched(io.StringIO):
    """A standard error that tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        self.written.set()


def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    # No fixture: pytest puts its own stream there when the test itself begins.
    stream = Watched()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


async def test_the_last_line_always_comes_and_what_is_said_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = watched(monkeypatch)
    now = counts(succeeded=0, failed=0)
    async with display_for("log", lambda: now) as display:
        display.say("one")
        now = counts(succeeded=318, failed=2)
        display.say("two\n")
    assert stderr.getvalue().splitlines() == [
        "one",
        "two",
        "Progress: 320/320 (100.0%) - 318 successful, 2 failed (rate: 8.2 tasks/sec)",
    ]


async def test_the_last_line_comes_also_when_the_run_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = watched(monkeypatch)
    with pytest.raises(RuntimeError, match="broken"):
        async with display_for("log", counts):
            raise RuntimeError("broken")
    assert stderr.getvalue() == line() + "\n"


async def test_a_line_comes_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = watched(monkeypatch)
    monkeypatch.setattr(_progress._LogDisplay, "interval", 0.01)
    async with display_for("log", counts):
        assert await asyncio.to_thread(stderr.written.wait, 20)
        # Nothing has changed: the line is not repeated.
        assert stderr.getvalue().splitlines() in ([], [line()])
    assert set(stderr.getvalue().splitlines()) == {line()}


async def test_none_shows_only_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = watched(monkeypatch)
    async with display_for("none", counts) as display:
        display.say("only this")
    assert stderr.getvalue() == "only this\n"


async def test_auto_is_the_line_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = watched(monkeypatch)
    async with display_for("auto", counts):
        pass
    assert stderr.getvalue() == line() + "\n"


async def test_a_closed_standard_error_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = watched(monkeypatch)
    async with display_for("log", counts) as display:
        stderr.close()
        display.say("nobody hears this")


async def test_no_standard_error_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    for mode in _progress.MODES:
        async with display_for(mode, counts) as display:
            display.say("nobody hears this")


UNREAD = """
import asyncio
from orchestrator_adapters.batch._accounts import Snapshot
from orchestrator_adapters.batch._progress import display_for

async def main():
    async with display_for("log", Snapshot) as display:
        for number in range(100_000):
            display.say(f"{number} " + 100 * "x")
    print("ended", flush=True)
asyncio.run(main())
"""


def test_a_reader_that_is_stuck_stops_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", UNREAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        # Nobody reads stderr: the pipe is full at once, and the rest is given up after two seconds.
        assert process.stdout.readline() == b"ended\n"
        assert process.wait(30) == 0
        assert process.stderr.read(2) == b"0 "


@pytest.mark.skipif(sys.platform == "win32", reason="pipes that somebody else made non-blocking")
def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    code = "import os, sys; os.set_blocking(2, False)\n" + UNREAD.replace("100_000", "5_000")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = process.stderr.read().decode().splitlines()
        assert process.wait(30) == 0
    assert [line.split()[0] for line in lines] == [*map(str, range(5_000)), "Progress:"]


# What the library logs


@pytest.mark.parametrize(
    ("level", "event", "shown"),
    [
        ("INFO", "child.line_written", True),
        ("WARNING", "worker.child_died", True),
        ("WARNING", "limit.paused", True),
        ("WARNING", "supervisor.fell_back", False),
        ("INFO", "worker.child_ready", False),
        ("INFO", "cache.opened", False),
        ("ERROR", "job.quarantined", False),
    ],
)
def test_what_children_say_and_warnings_are_shown(level: str, event: str, shown: bool) -> None:
    assert is_news(getattr(logging, level), event) == shown


def test_a_log_line_has_the_text_first_and_no_numbers_of_jobs() -> None:
    fields = {"supervisor": "batch", "text": "two words", "worker": "w1", "job": 7, "detail": "a b", "nothing": None}
    assert log_line(0.0, "info", "child.line_written", fields)[8:] == (
        ' info    child.line_written two words worker=w1 detail="a b"'
    )


# On a real terminal

PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from test_batch_progress import counts
from orchestrator_adapters.batch._progress import display_for

now = counts(running=4, queued=16, waiting=3, by_class={"crash": 5}, pauses={"gemini-flash": 41.0})
async def main():
    global now
    async with display_for(sys.argv[1], lambda: now) as display:
        display.say("batch enrich: 4 children")
        await asyncio.sleep(0)
        display.say("the pool is broken, going on in this process")
        now = counts(succeeded=315)
asyncio.run(main())
"""


def on_terminal(width: int, mode: str = "auto", **environment: str) -> str:
    """Run the program with a terminal of that width as its standard streams, and return what it wrote there."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    try:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, mode, str(Path(__file__).parent)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**inherited, "TERM": "xterm-256color", **environment},
        ) as process:
            os.close(theirs)
            written = b""
            try:
                while data := os.read(ours, 65536):
                    written += data
            except OSError:
                pass  # how Linux says that the other end is closed
            assert process.wait(30) == 0, written.decode()
    finally:
        os.close(ours)
    return written.decode()


def plain(written: str) -> str:
    """Return what was drawn, frame after frame, without colours and moves of the cursor."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "", written)


needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")


@needs_pty
@pytest.mark.parametrize("width", [40, 80, 200])
def test_bars_fit_the_terminal(width: int) -> None:
    written = on_terminal(width)
    text = plain(written)
    assert all(len(each) <= width for each in text.splitlines() if each.startswith(("succeeded", "queued")))
    for row in (r"succeeded +35 ━", r"failed +5 ", r"running +4 ", r"retrying +3 ", r"queued +16 "):
        assert re.search(row, text), row
    assert "40/320 (12.5%) ━" in text and "320/320 (100.0%) ━" in text
    assert "8.2 tasks/sec · gemini-flash paused" in text
    # What is said stands above the bars, and the cursor is shown again.
    assert text.index("batch enrich") < text.index("320/320")
    assert written.rstrip().endswith("\x1b[?25h")


@needs_pty
def test_no_color_has_bars_without_colours() -> None:
    written = on_terminal(80, NO_COLOR="1")
    assert "━" in written
    assert not re.search(r"\x1b\[(3|4|9)\d", written)


@needs_pty
@pytest.mark.parametrize("mode", ["auto", "bar"])
def test_a_dumb_terminal_gets_lines(mode: str) -> None:
    written = on_terminal(80, mode, TERM="dumb")
    assert "\x1b" not in written
    assert written.replace("\r", "").splitlines() == [
        "batch enrich: 4 children",
        "the pool is broken, going on in this process",
        "Progress: 320/320 (100.0%) - 315 successful, 5 failed (rate: 8.2 tasks/sec)",
    ]
