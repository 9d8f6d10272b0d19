"""File descriptors and text streams of a child: the protocol on private fds, everything else captured."""

from __future__ import annotations

import io
import os
import sys
from _thread import RLock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

# Longer lines are cut: they are somebody's data, not a message.
_LONGEST_LINE = 16 * 1024


def claim_protocol_fds() -> tuple[int, int]:
    """Move the protocol to private fds; then 0 is empty and 1 is stderr, for C code and grandchildren too."""
    if sys.platform == "win32":
        import msvcrt

        for fd in (0, 1):
            msvcrt.setmode(fd, os.O_BINARY)
    # dup gives non-inheritable fds: no grandchild can hold the protocol open or write to it.
    incoming, outgoing = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return incoming, outgoing


class _Bytes(io.RawIOBase):
    """What `sys.stdout.buffer` is: bytes that become text lines."""

    def __init__(self, text: LineWriter) -> None:
        self._text = text
        self._decode: Callable[[bytes], str] | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._decode is None:
            import codecs

            # Incremental: a buffered writer cuts characters in two.
            self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        raw = bytes(data)
        self._text.write(self._decode(raw))
        return len(raw)

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        """Stay open: a wrapper that is collected closes what it wraps, and the child prints on."""


class LineWriter(io.TextIOBase):
    """A text stream that hands over whole lines.

    Args:
        fd: What `fileno()` answers, for code that passes the stream to a subprocess.
        emit: Called with each line, without its end.
        muted: Threads whose text is dropped at the moment.
    """

    def __init__(self, fd: int, emit: Callable[[str], None], muted: set[int]) -> None:
        self.name = "<stdout>" if fd == 1 else "<stderr>"
        self.mode = "w"
        self._fd = fd
        self._emit = emit
        self._muted = muted
        self._held = ""
        self._lock = RLock()
        self._bytes = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def buffer(self) -> io.RawIOBase:
        return self._bytes

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **_: Any) -> None:
        """Accept what programs ask of a real text stream; lines are UTF-8 and never translated."""

    def close(self) -> None:
        """Stay open: whoever closes the child's output does not mean the child's voice."""

    def renew(self) -> None:
        """Begin anew in a forked copy: the unfinished line is its parent's, as is a lock that another thread held."""
        self._held = ""
        self._lock = RLock()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._muted and get_ident() in self._muted:
            return len(text)
        with self._lock:
            if "\n" not in text:
                self._held += text
                if len(self._held) > _LONGEST_LINE:
                    held, self._held = _shown(self._held), ""
                    if len(held) > _LONGEST_LINE:
                        self._emit(held)
                    else:
                        self._held = held
                return len(text)
            lines = (self._held + text).split("\n")
            self._held = lines.pop()
            for line in lines:
                self._emit(_cut(_shown(line)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    def flush_partial(self) -> None:
        """Hand over an unfinished line, as at the end of a job: it belongs to that job."""
        with self._lock:
            if self._held:
                held, self._held = self._held, ""
                self._emit(_cut(_shown(held)))


def _shown(line: str) -> str:
    """Return what a terminal would show of a line: a carriage return starts it over, as progress bars do."""
    return line.rstrip("\r").rpartition("\r")[2] if "\r" in line else line


def _cut(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{line[:_LONGEST_LINE]}… ({len(line) - _LONGEST_LINE} characters more)"
