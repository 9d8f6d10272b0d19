"""What the handler is called, whether its file is still the same, and whether it is there; without importing it."""

from __future__ import annotations

import ast
import difflib
import os
import sys
from hashlib import blake2b
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from orchestrator_adapters.batch._errors import BatchError

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


def check_named(target: str) -> None:
    """Hold that a handler which is named is in its file and takes one record, as far as reading the file tells.

    A million records would else fail for a slip of the keyboard, each by itself.

    Raises:
        BatchError: If it is not.
    """
    path = _file_of(target)
    name = target.partition(":")[2]
    if path is None or not path.endswith(".py") or not name.isidentifier():
        return
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except SyntaxError as error:
        raise BatchError(f"the target's file {path!r}, line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError):
        return
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = {node.name: node for node in tree.body if isinstance(node, kinds)}
    rest = ast.Module([node for node in tree.body if not isinstance(node, kinds)], [])
    if name in functions and name not in _bound(rest):
        _check_signature(target, functions[name])
    elif not _may_have(tree, name):
        close = difflib.get_close_matches(name, functions, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise BatchError(f"the target {target!r}: {path!r} has no function {name!r}{hint}")


def _bound(node: ast.AST) -> set[str]:
    """Return the names that a statement may bind, wherever in it."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return names | {each.name for each in ast.walk(node) if isinstance(each, kinds)}


def _may_have(tree: ast.Module, name: str) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            alias.name == "*" or (alias.asname or alias.name) == name for alias in node.names
        ):
            return True
        if isinstance(node, ast.Name) and node.id in ("globals", "exec"):
            return True
    return bool(_bound(tree) & {name, "__getattr__"})


def _check_signature(target: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    if function.decorator_list:
        return  # what is called is what a decorator made of it
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    missing = [
        each.arg for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if not default
    ]
    if required > 1:
        missing = [each.arg for each in positional[1:required]] + missing
    if missing:
        raise BatchError(f"the target {target!r} is called with one record, and also needs {', '.join(missing)}")
    if not positional and arguments.vararg is None:
        raise BatchError(f"the target {target!r} takes no argument; it is called with one record")
