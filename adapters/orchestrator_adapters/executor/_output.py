"""What calls print in a child, on its way to the program that made them."""

from __future__ import annotations

import io
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    Say = Callable[[int, str], None]


class Output:
    """Takes the places of `sys.stdout` and `sys.stderr` for the life of the child.

    Attributes:
        say: Takes what is printed during a call: 1 or 2, for stdout or stderr, and lines; None between calls, when what
            threads print goes where it went before.
        held: Whether a writer holds the beginning of a line.
    """

    def __init__(self) -> None:
        self.say: Say | None = None
        self.held = False
        self._writers = [_Writer(self, 1, sys.stdout), _Writer(self, 2, sys.stderr)]
        sys.stdout, sys.stderr = self._writers

    def finish(self) -> None:
        """End a call."""
        if self.held:
            for writer in self._writers:
                writer.flush()
        self.say = None


class _Writer(io.TextIOBase):
    """A text stream that says whole lines."""

    def __init__(self, output: Output, fd: int, before: TextIO) -> None:
        self._output = output
        self._fd = fd
        self._before = before
        self._held = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._before, name)  # what text streams have beside their interface: buffer, name, reconfigure

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._before.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._before.errors

    def close(self) -> None:
        """Stay open, as what it stands for does."""

    def fileno(self) -> int:
        return self._before.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        say = self._output.say
        if say is None:
            return self._before.write(text)
        if self._fd == 2:
            self._before.write(text)  # where the death certificate has its last lines from
        lines, end, self._held = (self._held + text).rpartition("\n")
        self._output.held = True
        if end:
            say(self._fd, lines + end)
        return len(text)

    def flush(self) -> None:
        say, held, self._held = self._output.say, self._held, ""
        if held and say is not None:
            say(self._fd, held)
