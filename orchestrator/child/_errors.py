"""Turn any exception into data: nothing that user code raises may be lost or break the protocol."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_LONGEST_MESSAGE = 32 * 1024
_LONGEST_TRACEBACK = 128 * 1024
_DEEPEST_CAUSE = 8
# What callers decide by, as a number or a name: a longer text is none, and a larger number no JSON reader's.
_LONGEST_DATA = 1024
_LARGEST = 2**63
_ATTRIBUTES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("code", (int, str)),
    ("status_code", (int, str)),
    ("retry_after", (int, float)),
    ("failure_class", (str,)),
    ("quota_scope", (str,)),
)
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n… {len(text) - longest} characters left out …\n{text[-half:]}"


def _message(error: BaseException) -> str:
    try:
        return _cut(str(error), _LONGEST_MESSAGE)
    except BaseException as problem:  # the text comes from user code, which may do anything
        return f"<its text cannot be had: {type(problem).__name__}>"


def _name(kind: type) -> str:
    try:
        module = getattr(kind, "__module__", None)
        name = getattr(kind, "__qualname__", None) or str(kind)
    except BaseException:  # a metaclass is user code too
        return str(type.__dict__["__qualname__"].__get__(kind))
    if module == "__mp_main__":  # as its program knows it
        module = "__main__"
    return str(name) if module in ("builtins", None) else f"{module}.{name}"


def user_part(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of this package that lead to user code."""
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace if trace is not None else first


def _trace(error: BaseException) -> TracebackType | None:
    """Return the traceback, also of an exception that answers no questions about itself."""
    found: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return found


def _formatted(error: BaseException) -> str:
    import traceback

    try:
        # compact: formatting must not keep every frame's locals alive, or take as long as they are large.
        whole = traceback.TracebackException(type(error), error, user_part(_trace(error)), compact=True)
        return _cut("".join(whole.format()), _LONGEST_TRACEBACK)
    except BaseException as problem:  # a recursive or hostile exception: its own lines still tell where
        lines = traceback.format_tb(_trace(error), 50)
        text = "Traceback (most recent call last):\n" + "".join(lines) + f"{_name(type(error))}: {_message(error)}\n"
        return _cut(f"{text}(not formatted further: {type(problem).__name__})\n", _LONGEST_TRACEBACK)


def _data(error: BaseException) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, kinds in _ATTRIBUTES:
        try:
            value = getattr(error, name, None)
        except BaseException:
            continue  # a property of user code that fails tells nothing
        # Of these very types: a subclass is user code that may do anything when it is looked at.
        if type(value) in kinds and (
            len(value) <= _LONGEST_DATA if type(value) is str else -_LARGEST < value < _LARGEST  # type: ignore[operator]
        ):
            data[name] = value
    return data


def record(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """Return an exception as JSON values; never raises."""
    try:
        found: dict[str, Any] = {
            "type": _name(type(error)),
            "message": _message(error),
            "traceback": _formatted(error) if depth == 0 else "",
        }
    except BaseException as problem:  # last resort, for instance out of memory or stack
        return {"type": _name(type(error)), "message": f"(no details: {type(problem).__name__})", "traceback": ""}
    try:
        _add_details(found, error, depth)
    except BaseException:  # attributes are user code too; what was found so far is enough
        return found
    return found


def _add_details(found: dict[str, Any], error: BaseException, depth: int) -> None:
    found["bases"] = [_name(kind) for kind in type(error).__mro__ if kind not in (object, BaseException, Exception)]
    found["data"] = _data(error)
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        found["notes"] = [_cut(note, _LONGEST_MESSAGE) for note in notes[:50] if isinstance(note, str)]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause is not error and depth < _DEEPEST_CAUSE:
        found["cause"] = record(cause, depth + 1)


def brief(error: BaseException) -> dict[str, Any]:
    """Return what there is to say of an exception that was expected, without importing anything."""
    return {"type": _name(type(error)), "message": _message(error), "traceback": ""}
