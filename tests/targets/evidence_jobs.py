"""Browser jobs that leave evidence: some are killed on purpose, some run side by side."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from standing import stand

PAGE = (
    "data:text/html,<title>evidence</title><h1>evidence</h1><input id='name'>"
    "<button onclick='console.log(document.querySelector(\"input\").value)'>say it</button>"
)
CLOCK = "<p></p><script>setInterval(() => { document.querySelector('p').textContent = Date.now() }, 30)</script>"


def say(page: Any, word: str) -> str:
    page.goto(PAGE)
    page.fill("#name", word)
    page.click("button")
    return word


def say_and_die(page: Any, word: str, note: str) -> str:
    """Die by a signal in the first attempt, when the word is said; succeed in the second."""
    say(page, word)
    if not Path(note).exists():
        Path(note).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return word


def say_and_fail(page: Any, word: str) -> None:
    say(page, word)
    raise ValueError(f"<b>{word}</b> & more")


def move_for(page: Any, seconds: float) -> str:
    page.goto(PAGE + CLOCK)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        page.wait_for_timeout(50)
    return "moved"


def open_many(page: Any, count: int) -> None:
    for number in range(count):
        page.context.new_page().goto(f"data:text/html,<h1>page {number}</h1>")
    raise ValueError("too many")


async def say_beside(page: Any, word: str, port: int, fails: bool) -> str:
    """Say a word while others do, in the same browser."""
    await page.goto(PAGE)
    await asyncio.to_thread(stand, port, word)
    await page.fill("#name", word)
    await page.click("button")
    if fails:
        raise ValueError(word)
    return word


def trace_oneself(page: Any, path: str) -> int:
    """Record a trace as a job does that knows nothing of policies; return its size."""
    page.context.tracing.start(snapshots=True)
    say(page, "mine")
    page.context.tracing.stop(path=path)
    return os.path.getsize(path)
