"""Calls as they run in a child: read, called, and answered."""

from __future__ import annotations

import time

from orchestrator import child
from orchestrator_adapters.executor import _messages
from orchestrator_adapters.executor._output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator_adapters.executor._messages import Answer, Message

# Under this name the executor tells its children what they need before their first call.
PARAMS = "orchestrator_adapters.executor"

# Calls that take less are not worth one frame there and one back at a time.
_QUICK = 0.002

_prepared = False
_failure: str | None = None
_authkey = ""
_output: Output
# What the initializer printed, until there is a call to tell it.
_early: list[tuple[int, str]] = []


def probe() -> None:
    """Do nothing; a child that can do that is as it should be."""


def call_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each tuple of arguments."""
    return [function(*args) for args in chunk]


def call(message: Message, say: Callable[[int, str], None]):  # type: ignore[no-untyped-def]
    """Make one call and return its answer; without an annotation, which would have that looked at.

    Args:
        message: The call.
        say: Takes what is printed meanwhile: 1 or 2, for stdout or stderr, and lines.
    """
    if not _prepared:
        prepare()
    for early in _early:
        say(*early)
    _early.clear()
    _output.say = say
    try:
        return _call(message)
    finally:
        _output.finish()


def call_quickly(message: Message):  # type: ignore[no-untyped-def]
    """Make one call that is expected to be quick; its answer ends with what it printed, if anything."""
    lines: list[Any] = []

    def say(fd: int, text: str) -> None:
        lines.append([fd, text])

    answer = call(message, say)
    return answer + lines if lines else answer


def call_plainly(*message: Any):  # type: ignore[no-untyped-def]
    """Make one call that is expected to be quick, of a function that is named; returns a plain value by itself.

    The codec of jobs has least to do with values that are in nothing else.
    """
    answer = call_quickly(list(message))
    return answer[1] if answer[0] == _messages.QUICK_PLAIN and len(answer) == 2 else answer


def _call(message: Message) -> Answer:
    if _failure is not None:
        return [_messages.NOT_INITIALIZED, _failure]  # also to calls that were sent before the executor heard of it
    try:
        function, args, kwargs = _messages.read_call(message, _authkey)
    except child.JobCancelled:
        raise
    except BaseException as error:  # what is in a pickle is user code, and may even call exit
        return [_messages.UNREADABLE, _dumps_error(error)]
    started = time.perf_counter()
    try:
        answer = _messages.write_value(function(*args, **kwargs))
    except child.JobCancelled:
        raise
    except BaseException as error:
        answer = [_messages.ERROR, _dumps_error(error)]
    if time.perf_counter() - started < _QUICK:
        answer[0] = answer[0].upper()
    return answer


def prepare() -> None:
    """Run the initializer, before this child counts as ready: one that dies of it has run no call."""
    global _prepared, _failure, _output
    _prepared = True
    _output = Output()
    _output.say = lambda fd, text: _early.append((fd, text))
    try:
        _failure = _initialize()
    finally:
        _output.finish()


def _initialize() -> str | None:
    """Return as text how the initializer failed, if it did."""
    global _authkey
    given = child.params().get(PARAMS) or {}
    _authkey = given.get("authkey", "")
    if "initializer" not in given:
        return None
    try:
        initializer, initargs = _messages.loads(given["initializer"], _authkey)
        initializer(*initargs)
    except BaseException as error:  # told by each call, so that it is a failure of the executor and not of its child
        return _dumps_error(error)
    return None


def _dumps_error(error: BaseException) -> str:
    """Return the pickle of an exception and its traceback; of what cannot be pickled, only of the traceback.

    An exception is user code too: it may refuse anything, to be printed or to be changed, or call exit.
    """
    import traceback

    try:
        trace = error.__traceback__
        # The first frame is this module's.
        lines = traceback.format_exception(type(error), error, trace.tb_next if trace is not None else None)
        text = "".join(lines)
    except BaseException as problem:
        text = f"{type(error).__name__} (it could not be printed: {type(problem).__name__})"
    try:
        BaseException.with_traceback(error, None)  # what its frames hold may live no longer than the call
        return _messages.dumps((error, text, ""))
    except child.JobCancelled:
        raise
    except BaseException as problem:
        return _messages.dumps((None, text, f"{type(problem).__name__}: {problem}"))
