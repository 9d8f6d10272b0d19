"""What comes through a child's stderr pipe: lines for the log, the last ones for the certificate, never too many."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# As the death certificate promises.
_LAST_LINES = 64
_LONGEST_LINE = 16 * 1024
# Bytes a second that become log events, and how many may come at once: a flood must not cost the loop its time.
_RATE = 2**20
_BURST = 2 * 2**20


class StderrReader:
    """Cuts bytes into lines and passes them on, at a bounded rate; always takes everything, so the child never waits.

    Args:
        passed: Gets lines, and how many were dropped before them.
    """

    def __init__(self, passed: Callable[[list[str], int], None]) -> None:
        self._passed = passed
        self._held = b""
        self._cutting = False  # the line that is coming was cut already
        self._last: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._room = float(_BURST)
        self._at = time.monotonic()
        self._dropped = 0
        self.redact: Callable[[str], str] = str  # takes secrets out

    def feed(self, data: bytes) -> None:
        """Take what came."""
        now = time.monotonic()
        self._room = min(_BURST, self._room + (now - self._at) * _RATE)
        self._at = now
        if len(data) > self._room:
            self._skim(data)
            return
        self._room -= len(data)
        lines = (self._held + data).split(b"\n")
        self._held = lines.pop()
        if self._cutting and lines:
            del lines[0]
            self._cutting = False
        if len(self._held) > _LONGEST_LINE:
            if not self._cutting:
                lines.append(self._held)
            self._cutting = True
            self._held = b""
        if lines:
            self._pass([line[:_LONGEST_LINE] for line in lines])

    def _skim(self, data: bytes) -> None:
        """Keep only the last lines of a flood."""
        self._dropped += data.count(b"\n")
        tail = data[-_LONGEST_LINE:].split(b"\n")
        self._held = tail.pop()[-_LONGEST_LINE:]
        self._cutting = False
        self._last.extend(tail[1:] if len(data) > _LONGEST_LINE else tail)

    def _pass(self, lines: list[bytes]) -> None:
        self._last.extend(lines[-_LAST_LINES:])
        dropped, self._dropped = self._dropped, 0
        self._passed([self._text(line) for line in lines], dropped)

    def note(self, text: str) -> None:
        """Remember a line of stderr that came another way, for the certificate."""
        self._last.append(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Pass on an unfinished last line, and the count of what was dropped."""
        if self._held:
            held, self._held = self._held, b""
            self._pass([held])
        elif self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._passed([], dropped)

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, the unfinished one included."""
        lines = [*self._last, self._held] if self._held else [*self._last]
        return tuple(self._text(line) for line in lines[-_LAST_LINES:])

    def _text(self, line: bytes) -> str:
        return self.redact(line.decode("utf-8", "backslashreplace").rstrip("\r"))
