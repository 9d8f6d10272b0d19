"""Writes what pages say, console messages, errors, crashes and failed requests, as JSON lines that survive a kill."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path  # noqa: TC003  whoever asks for type hints must get them
from typing import Any

# A page that logs in a loop must not fill the disk.
MOST_LINES = 10_000
LONGEST_TEXT = 4_000
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class Console:
    """The file `console.jsonl` of one attempt; each line is on its way to the disk when a method returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = 0
        # Made at once, so that an empty file says that nothing was said. Unbuffered: what was written is the kernel's,
        # whoever is killed then.
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _CLOEXEC, 0o600)

    def listen(self, source: Any, *, is_context: bool) -> None:
        """Write down what a context, or one page, tells from now on."""
        source.on("console", self._console)
        source.on("requestfailed", self._request_failed)
        source.on("weberror" if is_context else "pageerror", self._error)

    def listen_for_crash(self, page: Any) -> None:
        """Write down that the page's process died, if it does."""
        page.on("crash", self._crash)

    def note(self, text: str) -> None:
        """Write down something about the evidence itself."""
        self._write("note", text=text)

    def close(self) -> None:
        """Write nothing more."""
        self._lines = MOST_LINES + 1
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _console(self, message: Any) -> None:
        location = message.location or {}
        self._write(
            "console",
            type=message.type,
            text=message.text[:LONGEST_TEXT],
            url=location.get("url"),
            line=location.get("lineNumber"),
        )

    def _error(self, error: Any) -> None:
        # A context wraps what a page gives bare.
        error = getattr(error, "error", error)
        stack = getattr(error, "stack", None) or str(error)
        self._write("page_error", text=str(error)[:LONGEST_TEXT], stack=stack[:LONGEST_TEXT])

    def _request_failed(self, request: Any) -> None:
        self._write("request_failed", method=request.method, url=request.url[:LONGEST_TEXT], text=request.failure)

    def _crash(self, page: Any) -> None:
        self._write("page_crashed", url=page.url)

    def _write(self, kind: str, **facts: Any) -> None:
        if self._lines >= MOST_LINES:
            if self._lines > MOST_LINES:
                return
            kind, facts = "note", {"text": f"there was more: after {MOST_LINES} lines nothing is written"}
        self._lines += 1
        facts = {name: value for name, value in facts.items() if value is not None}
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **facts}, ensure_ascii=False) + "\n"
        if self._file is not None:
            try:
                os.write(self._file, line.encode("utf-8", "replace"))
            except OSError:
                self._lines = MOST_LINES + 1  # a full disk must not break the job
