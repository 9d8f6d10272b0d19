"""What calls print in a child, on its way to the program that made them."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    Say = Callable[[int, str], None]


class Output:
    """Takes the places of `sys.stdout` and `sys.stderr` for the life of the child."""

    def __init__(self) -> None:
        self._writers = [_Writer(1, sys.stdout), _Writer(2, sys.stderr)]
        sys.stdout, sys.stderr = self._writers

    @contextmanager
    def to(self, say: Say) -> Iterator[None]:
        """Send what is printed within this block through `say`."""
        for writer in self._writers:
            writer.say = say
        try:
            yield
        finally:
            for writer in self._writers:
                writer.finish()


class _Writer(io.TextIOBase):
    """A text stream that says whole lines; between calls, what threads print goes where it went before."""

    def __init__(self, fd: int, before: TextIO) -> None:
        self._fd = fd
        self._before = before
        self._held = ""
        self.say: Say | None = None

    @property
    def buffer(self) -> object:
        return self._before.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._before.encoding

    def fileno(self) -> int:
        return self._before.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        say = self.say
        if say is None:
            return self._before.write(text)
        held = self._held + text
        lines, end, self._held = held.rpartition("\n")
        if end:
            say(self._fd, lines + end)
        return len(text)

    def flush(self) -> None:
        say, held, self._held = self.say, self._held, ""
        if held and say is not None:
            say(self._fd, held)

    def finish(self) -> None:
        """Say what is left."""
        self.flush()
        self.say = None
