"""What the handler is called, and whether its file is still the same; without importing it."""

from __future__ import annotations

import os
import sys
from hashlib import blake2b
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def label_of(target: Callable[..., Any] | str) -> str:
    """Return the name of a handler, `package.module:function`."""
    if isinstance(target, str):
        return target
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', '?')}:{name}"


def file_hash(target: Callable[..., Any] | str) -> str | None:
    """Return a hash of the file that a handler is in; None when there is no such file."""
    path = _file_of(target)
    try:
        with open(path or "", "rb") as file:
            return blake2b(file.read(), digest_size=16).hexdigest()
    except OSError:
        return None


def _file_of(target: Callable[..., Any] | str) -> str | None:
    if not isinstance(target, str):
        code = getattr(target, "__code__", None)
        if code is not None:
            return str(code.co_filename)
        module = sys.modules.get(getattr(target, "__module__", ""))
        return getattr(module, "__file__", None)
    # Step by step: `find_spec` of a module in a package would import the package.
    folders: list[str] | None = None
    found: str | None = None
    for name in target.partition(":")[0].split("."):
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return None
        found = spec.origin
        folders = list(spec.submodule_search_locations or ())
    return found if found is not None and os.path.isfile(found) else None
