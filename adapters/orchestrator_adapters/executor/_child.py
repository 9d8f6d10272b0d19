"""Calls as they run in a child: unpickled, called, and their results pickled. A child imports only this."""

from __future__ import annotations

import io
import pickle
import sys
import time
from binascii import a2b_base64, b2a_base64

from orchestrator import child
from orchestrator_adapters.executor._output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Under this name the executor tells its children what they need before their first call.
PARAMS = "orchestrator_adapters.executor"

# What an answer is, by its first character.
VALUE, QUICK_VALUE, ATOM, QUICK_ATOM, ERROR, QUICK_ERROR, UNREADABLE, NOT_INITIALIZED = "vVaAeEun"

# To unpickle one of these is no work, and runs no code of anybody's.
_ATOMS = frozenset((type(None), bool, int, float, str, bytes))
_SHORT = 4096

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


def call(text: str, say: Callable[[int, str], None]) -> str:
    """Make one call and return how it ended, as text.

    Args:
        text: The pickle of function, arguments and keyword arguments, in base64.
        say: Takes what is printed meanwhile: 1 or 2, for stdout or stderr, and lines.
    """
    if not _prepared:
        prepare()
    for early in _early:
        say(*early)
    _early.clear()
    _output.say = say
    try:
        return _call(text)
    finally:
        _output.finish()


def call_quickly(text: str):  # type: ignore[no-untyped-def]  # an annotation would have each answer looked at
    """Make one call that is expected to be quick; returns how it ended, in a list with what it printed, if anything."""
    lines: list[Any] = []

    def say(fd: int, text: str) -> None:
        lines.append([fd, text])

    answer = call(text, say)
    return [answer, *lines] if lines else answer


def _call(text: str) -> str:
    if _failure is not None:
        return NOT_INITIALIZED + _failure  # also to calls that were sent before the executor heard of it
    try:
        function, args, kwargs = _loads(a2b_base64(text))
    except child.JobCancelled:
        raise
    except BaseException as error:  # what is in a pickle is user code, and may even call exit
        return UNREADABLE + _dumps_error(error)
    started = time.perf_counter()
    try:
        value = function(*args, **kwargs)
        answer = _dumps(value)
        kind = ATOM if type(value) in _ATOMS and len(answer) < _SHORT else VALUE
    except child.JobCancelled:
        raise
    except BaseException as error:
        answer, kind = _dumps_error(error), ERROR
    return (kind.upper() if time.perf_counter() - started < _QUICK else kind) + answer


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
        initializer, initargs = _loads(a2b_base64(given["initializer"]))
        initializer(*initargs)
    except BaseException as error:  # told by each call, so that it is a failure of the executor and not of its child
        return _dumps_error(error)
    return None


class _Unpickler(pickle.Unpickler):
    """Loads the program's main script when a value names it."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            child.load_main()
        return super().find_class(module, name)


def _loads(data: bytes) -> Any:
    if _authkey and b"multiprocessing" in data:
        # Whoever unpickles a proxy of a manager, or a connection, has to prove that it is one of the family.
        from multiprocessing.process import current_process

        current_process().authkey = bytes.fromhex(_authkey)
    if b"__main__" in data:
        return _Unpickler(io.BytesIO(data)).load()
    return pickle.loads(data)


def _dumps(value: Any) -> str:
    # Reducers that were registered for multiprocessing count, as they do in its pools.
    reduction = sys.modules.get("multiprocessing.reduction")
    dumps = pickle.dumps if reduction is None else reduction.ForkingPickler.dumps
    return b2a_base64(dumps(value, pickle.HIGHEST_PROTOCOL), newline=False).decode("ascii")


def _dumps_error(error: BaseException) -> str:
    """Return the pickle of an exception and its traceback; of what cannot be pickled, only of the traceback."""
    import traceback

    trace = error.__traceback__
    # The first frame is this module's.
    lines = traceback.format_exception(type(error), error, trace.tb_next if trace is not None else None)
    error.__traceback__ = None  # what its frames hold may live no longer than the call
    text = "".join(lines)
    try:
        return _dumps((error, text))
    except Exception as problem:
        return _dumps((None, f"{text}\n(it could not be pickled: {type(problem).__name__}: {problem})"))
