"""Frames of a child as typed values, checked once, so that nothing a child says can surprise the engine."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator import _wire
from orchestrator._models import ErrorRecord


class Frame(msgspec.Struct, tag_field="type", gc=False):
    """One frame; every frame that belongs to an attempt names its fence."""


class Hello(Frame, tag="hello"):
    version: int
    nonce: str
    pid: int
    python: str = ""
    flavours: list[str] = []


class Ready(Frame, tag="ready"):
    pass


class Serving(Frame, tag="serving"):
    pass


class Extend(Frame, tag="extend"):
    seconds: float = 0.0


class Started(Frame, tag="started"):
    fence: int
    flavour: str | None = None
    kind: str | None = None
    called: bool = False


class Result(Frame, tag="result"):
    fence: int
    ms: float = 0.0
    value: Any = None
    typed: str | None = None
    value_file: str | None = None
    typed_file: str | None = None
    keep: list[int] = []


class Remote(msgspec.Struct):
    """An exception as the child describes it."""

    type: str
    message: str = ""
    traceback: str = ""
    notes: list[str] = []
    cause: Remote | None = None
    bases: list[str] = []
    data: dict[str, Any] = {}

    def record(self) -> ErrorRecord:
        return ErrorRecord(
            type=self.type,
            message=self.message,
            traceback=self.traceback,
            notes=tuple(self.notes),
            cause=None if self.cause is None else self.cause.record(),
            bases=tuple(self.bases),
            data=self.data,
        )


class Error(Frame, tag="error"):
    fence: int
    error: Remote
    ms: float = 0.0
    cancelled: bool = False
    payload: str | None = None
    keep: list[int] = []


class Progressed(Frame, tag="progress"):
    fence: int
    done: float = 0
    total: float | None = None
    text: str = ""


class Used(Frame, tag="usage"):
    fence: int
    counts: dict[str, int | float] = {}


class Emitted(Frame, tag="item"):
    fence: int
    value: Any = None


class Logged(Frame, tag="log"):
    text: str
    fence: int | None = None
    stream: str = "log"
    level: str = "info"
    logger: str | None = None
    dropped: int = 0
    fields: dict[str, Any] = {}


class Called(Frame, tag="callback"):
    fence: int
    index: int
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Made(Frame, tag="artifact"):
    fence: int
    path: str
    name: str
    folder: bool = False


class Returned(Frame, tag="returned"):
    asked: list[int]
    fences: list[int]
    kind: str | None = None


class Spent(Frame, tag="spent"):
    reason: str = ""


class Acquire(Frame, tag="acquire"):
    fence: int
    request: int
    name: str
    weight: float = 1.0
    units: dict[str, float] = {}
    timeout: float | None = None
    inside: int | None = None


class Release(Frame, tag="release"):
    request: int
    fence: int = 0
    throttled: float | None = None
    used: dict[str, float] = {}


class CacheValue(msgspec.Struct):
    """A value for the cache: JSON as text, bytes in base64, or the name of a file with either."""

    json: str | None = None
    bytes: str | None = None
    file: str | None = None
    kind: str = "json"
    size: int = 0
    sha256: str = ""


class Cache(Frame, tag="cache"):
    fence: int
    op: str = "get"
    request: int = 0
    keys: list[str] = []
    wait: bool = False
    inside: list[int] = []
    unsure: bool = False
    blocks: bool = False
    lost: list[str] = []
    lease: int = 0
    values: list[CacheValue] = []
    problem: str = ""


class EffectBegin(Frame, tag="effect_begin"):
    fence: int
    key: str = ""
    request: int = 0


class EffectDone(Frame, tag="effect_done"):
    fence: int
    key: str = ""
    ref: Any = None


class Pong(Frame, tag="pong"):
    seq: Any = None


class Bye(Frame, tag="bye"):
    reason: str | None = None


AnyFrame = (
    Hello
    | Ready
    | Serving
    | Extend
    | Started
    | Result
    | Error
    | Progressed
    | Used
    | Emitted
    | Logged
    | Called
    | Made
    | Returned
    | Spent
    | Acquire
    | Release
    | Cache
    | EffectBegin
    | EffectDone
    | Pong
    | Bye
)

_decode = msgspec.json.Decoder(AnyFrame).decode


class BadFrame(ValueError):
    """A line that is no frame, or a frame of a known type with wrong members."""


def decode(line: bytes) -> Frame | None:
    """Return a line's frame, or None for a type that a later version may have.

    Raises:
        BadFrame: If it is neither.
    """
    try:
        frame: Frame = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(line)
    return frame


def _decode_slowly(line: bytes) -> Frame | None:
    """Decode what the quick decoder refuses: lone surrogates, unknown types, and what is really bad."""
    try:
        frame = _wire.decode(line)
    except (ValueError, RecursionError) as error:
        raise BadFrame(str(error)) from None
    if frame["type"] not in _wire.CHILD_TO_PARENT:
        return None
    try:
        found: Frame = msgspec.convert(frame, AnyFrame)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadFrame(str(error)) from None
    return found
