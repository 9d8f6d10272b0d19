"""Frames: what parent and child say to each other, and how it becomes lines; stdlib only, no I/O, shared by both.

One JSON object a line, UTF-8, LF. This module is imported first thing in every child, so it takes the JSON scanner
and encoder straight from the interpreter's C module: `import json` would also load `re` and cost half as much again as
starting Python itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1

# Larger than any reply of an API or page we know of, small enough that a few of them do not hurt the host.
MAX_MESSAGE_BYTES = 16 * 2**20
# Above this a payload travels as a file in the child's temp folder: a pipe would be busy for milliseconds.
SPILL_BYTES = 2**20

PARENT_TO_CHILD = (
    "init",
    "job",
    "cancel",
    "recall",
    "credit",
    "granted",
    "denied",
    "cached",
    "effect_ack",
    "ping",
    "stop",
)
CHILD_TO_PARENT = (
    "hello",
    "ready",
    "serving",
    "extend",
    "started",
    "result",
    "error",
    "progress",
    "usage",
    "item",
    "log",
    "callback",
    "artifact",
    "returned",
    "spent",
    "acquire",
    "release",
    "cache",
    "effect_begin",
    "effect_done",
    "pong",
    "bye",
)

# What a supervisor's temp folder is called, with something random after it; each child has a folder in it.
FOLDER = "orchestrator-"

# In the child's temp folder: the fence of the attempt that a plain child began last, written before it begins it, and
# where the stack goes that SIGUSR2 asks for.
RUNNING_FILE = "running"
STACK_FILE = "stack"

# Exit codes with a meaning of their own: stdin ended, so the parent is gone; the protocol cannot go on; and, on
# Windows, where there are no signals, the supervisor killed it.
EXIT_PARENT_GONE = 113
EXIT_PROTOCOL = 114
EXIT_KILLED = 115


_SPACE = frozenset((" ", "\t", "\r", "\n"))


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _refuse_value(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


class _Context:
    """What the C scanner asks of a decoder."""

    def __init__(self, parse_constant: Callable[[str], object]) -> None:
        self.strict = True
        self.object_hook = None
        self.object_pairs_hook = None
        self.parse_float = float
        self.parse_int = int
        self.parse_constant = parse_constant
        self.memo: dict[str, str] = {}


def _portable_codec() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """Return the codec of interpreters without CPython's private C functions."""
    import json

    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    return encoder.encode, decoder.decode


def _c_codec() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """Return the codec made of CPython's C functions; raises when they are not what we know."""
    import _json

    context: Any = _Context(_refuse_constant)
    scan = _json.make_scanner(context)
    make = _json.make_encoder
    quote = _json.encode_basestring_ascii

    def encode(value: Any) -> str:
        # A fresh marker dict per call finds circular values; both separators are the short ones.
        return "".join(make({}, _refuse_value, quote, None, ":", ",", False, False, False)(value, 0))

    def decode(text: str) -> Any:
        if text[:1] in _SPACE:  # not the scanner's business; lines of our own have none
            text = text.lstrip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except (StopIteration, SystemError):
            # SystemError: the scanner of Python 3.11 cannot find its own error class unless `json` is imported.
            raise ValueError("not JSON") from None
        if end < len(text) and text[end:].strip(" \t\r\n"):
            raise ValueError("more than one JSON value")
        return value

    sample = {"a": [1, -2.5, True, None, "é\ud800\n"], "b": {}}
    if decode(encode(sample)) != sample:
        raise ValueError("this interpreter's JSON functions behave differently")
    return encode, decode


try:
    encode_json, decode_json = _c_codec()
except Exception:  # a newer or another Python: slower to import, otherwise the same
    encode_json, decode_json = _portable_codec()


def encode(frame: dict[str, Any]) -> bytes:
    """Return a frame as one line."""
    return encode_json(frame).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return the frame of one line.

    Raises:
        ValueError: If it is not a JSON object with a string `type`.
    """
    frame = decode_json(str(line, "utf-8"))
    if type(frame) is not dict or type(frame.get("type")) is not str:
        raise ValueError("not a frame")
    return frame


class Lines:
    """Cuts a stream of bytes into lines, in bounded memory.

    A line longer than `limit` is given as its first `keep` bytes, marked by being listed in `oversized`.
    """

    def __init__(self, limit: int, keep: int = 200) -> None:
        self._limit = limit
        self._keep = keep
        self._held = bytearray()  # not a list of parts: of single bytes that would be sixty times as large
        self._size = 0

    def feed(self, data: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the lines that `data` completes, and the heads of those that were too long."""
        if b"\n" not in data:
            self._hold(data)
            return [], []
        lines = data.split(b"\n")
        rest = lines.pop()
        oversized: list[bytes] = []
        if self._size:
            self._hold(lines[0])
            lines[0] = bytes(self._held)
            if self._size > self._limit:
                oversized.append(lines.pop(0)[: self._keep])
            self._held = bytearray()
            self._size = 0
        if len(data) > self._limit:
            oversized += [line[: self._keep] for line in lines if len(line) > self._limit]
            lines = [line for line in lines if len(line) <= self._limit]
        if rest:
            self._hold(rest)
        return lines, oversized

    def _hold(self, data: bytes) -> None:
        too_long = self._size > self._limit
        self._size += len(data)
        if not too_long:
            self._held += data
            if self._size > self._limit:
                # Too long now: only its head is still of interest.
                self._held = self._held[: self._keep]

    def rest(self) -> bytes:
        """Return what came after the last line end."""
        return bytes(self._held)


_ATOMS = frozenset((str, int, bool, type(None)))
_DEEPEST = 200


def find_inexact(value: Any, path: str, depth: int = 0) -> tuple[str, str] | None:
    """Return where and why JSON cannot carry a value exactly, or None when it can (tuples count as lists)."""
    kind = type(value)
    if kind in _ATOMS:
        return None
    if kind is float:
        return None if value - value == 0.0 else (path, f"{value!r} is not a JSON number")
    if depth > _DEEPEST:
        return path, f"is nested deeper than {_DEEPEST} levels, or contains itself"
    if kind is list or kind is tuple:
        for index, item in enumerate(value):
            if type(item) not in _ATOMS:
                found = find_inexact(item, f"{path}[{index}]", depth + 1)
                if found is not None:
                    return found
        return None
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return path, f"has the key {key!r}; JSON keys are strings"
            if type(item) not in _ATOMS:
                found = find_inexact(item, f"{path}.{key}", depth + 1)
                if found is not None:
                    return found
        return None
    return path, f"{kind.__module__}.{kind.__qualname__} is not a JSON type"


def has_tuple(value: Any) -> bool:
    """Return whether a JSON value is or holds a tuple, which JSON makes a list of."""
    kind = type(value)
    if kind is tuple:
        return True
    if kind is list:
        return any(has_tuple(item) for item in value if type(item) not in _ATOMS)
    return kind is dict and any(has_tuple(item) for item in value.values() if type(item) not in _ATOMS)
