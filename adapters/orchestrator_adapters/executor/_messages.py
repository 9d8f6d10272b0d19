"""Calls and answers as they travel: as they are where JSON has them exactly, else as pickles in base64.

A child imports this, too. Most calls of small functions need no pickle, which takes more time than all else about them.
"""

from __future__ import annotations

import io
import pickle
import sys
from binascii import a2b_base64, b2a_base64

from orchestrator import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # A pickle of function, arguments and keyword arguments; or the names of a function's module and of the function,
    # and its arguments.
    Message = str | list[Any]
    # What it is, and the value, or a pickle of it or of the error; then what was printed, if that waited for the end.
    Answer = list[Any]

# What an answer is; a capital says that the call was quick.
VALUE, ATOM, PLAIN, ERROR, UNREADABLE, NOT_INITIALIZED = "vapeun"
QUICK_PLAIN = PLAIN.upper()
VALUES = frozenset("vVaApP")
# To read one of these is no work, and runs no code of anybody's.
HARMLESS = frozenset("aApP")

_ATOMS = frozenset((type(None), bool, int, float, str, bytes))
_SHORT = 4096
_PLAIN = PLAIN + QUICK_PLAIN

_FUNCTION = type(lambda: None)
# Integers and floats beyond these are none that every JSON has.
_LARGEST = 2**53
_LARGEST_FLOAT = 1e300
# What is longer goes as a pickle, which is looked at only once.
_SHORT_TEXT = 500
_FEW = 8


def is_plain(value: Any) -> bool:
    """Return whether JSON has a value exactly, and soon."""
    kind = type(value)
    if kind is int:
        found: bool = -_LARGEST < value < _LARGEST
    elif kind is str:
        found = len(value) <= _SHORT_TEXT and value.isascii()
    elif kind is float:
        found = -_LARGEST_FLOAT < value < _LARGEST_FLOAT
    else:
        found = value is None or kind is bool
    return found


def write_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message:
    """Return a call as it travels.

    Raises:
        Exception: Whatever comes of values that cannot be pickled.
    """
    if type(function) is _FUNCTION and not kwargs and len(args) <= _FEW:
        module, name = function.__module__, function.__qualname__
        # As pickle does, which refuses what is not found by its name.
        if getattr(sys.modules.get(module), name, None) is function and all(map(is_plain, args)):
            return [module, name, *args]
    return dumps((function, args, kwargs))


def read_call(message: Message, authkey: str) -> tuple[Callable[..., Any], Any, dict[str, Any]]:
    """Return function, arguments and keyword arguments of a call that came to this child; see `loads`."""
    if isinstance(message, str):
        call: tuple[Callable[..., Any], Any, dict[str, Any]] = loads(message, authkey)
        return call
    module, name, *args = message
    if module == "__main__":
        child.load_main()
    __import__(module)
    return getattr(sys.modules[module], name), args, {}


def write_value(value: Any) -> Answer:
    """Return what a call returned as its answer."""
    if is_plain(value):
        return [PLAIN, value]
    text = dumps(value)
    return [ATOM if type(value) in _ATOMS and len(text) < _SHORT else VALUE, text]


def read_value(answer: Answer) -> Any:
    """Return the value of an answer that has one."""
    kind, value = answer[:2]
    return value if kind in _PLAIN else pickle.loads(a2b_base64(value))


def dumps(value: Any) -> str:
    """Return the pickle of a value; reducers that were registered for multiprocessing count, as in its pools."""
    reduction = sys.modules.get("multiprocessing.reduction")
    dump = pickle.dumps if reduction is None else reduction.ForkingPickler.dumps
    return b2a_base64(dump(value, pickle.HIGHEST_PROTOCOL), newline=False).decode("ascii")


class _Unpickler(pickle.Unpickler):
    """Loads the program's main script when a value names it."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            child.load_main()
        return super().find_class(module, name)


def loads(text: str, authkey: str) -> Any:
    """Return the value of a pickle that came to this child.

    Args:
        text: The pickle, in base64.
        authkey: The key of the family of processes, in hexadecimal.
    """
    data = a2b_base64(text)
    if authkey and b"multiprocessing" in data:
        # Whoever unpickles a proxy of a manager, or a connection, has to prove that it is one of the family.
        from multiprocessing.process import current_process

        current_process().authkey = bytes.fromhex(authkey)
    if b"__main__" in data:
        return _Unpickler(io.BytesIO(data)).load()
    return pickle.loads(data)
