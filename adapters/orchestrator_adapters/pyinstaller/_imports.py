"""Which modules a script imports that no import statement of the app leads to, found without running it."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING

from orchestrator.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Import:
    """One module that a script may import.

    Attributes:
        module: Its dotted name.
        names: What is taken from it: modules of a package perhaps.
        line: Where.
        optional: Whether the script has something to do without it.
    """

    module: str
    names: tuple[str, ...]
    line: int
    optional: bool


def imports(source: str, path: str) -> list[Import]:
    """Return what a script imports anywhere in it, functions too, in its order.

    Raises:
        ConfigurationError: If the script has a syntax error, with its line.
    """
    try:
        tree = ast.parse(source, path)
    except SyntaxError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}", f"{error.msg}") from error
    return list(_walk(tree, optional=False))


def _walk(tree: ast.AST, *, optional: bool) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, optional)
        elif isinstance(node, ast.ImportFrom):
            # A script has no package, so a relative import fails when it runs, and says so itself.
            if node.module and not node.level and node.module != "__future__":
                yield Import(node.module, tuple(alias.name for alias in node.names), node.lineno, optional)
        else:
            # What fails within `try`, on another system, or for the type checker only.
            within = optional or isinstance(node, ast.Try | ast.TryStar | ast.If)
            yield from _walk(node, optional=within)


def resolve(found: Sequence[Import], path: Sequence[str]) -> tuple[list[str], list[Import]]:
    """Return the names of the modules, and the imports of which there is no module although there should be.

    Nothing is imported for it.

    Args:
        found: What `imports` returned.
        path: Where modules are looked for, as `sys.path`.
    """
    names: dict[str, None] = {}
    missing = []
    for each in found:
        spec = find(each.module, path)
        if spec is None:
            if not each.optional:
                missing.append(each)
            continue
        names[each.module] = None
        if spec.submodule_search_locations is not None:
            for name in each.names:
                if name != "*" and find(f"{each.module}.{name}", path) is not None:
                    names[f"{each.module}.{name}"] = None
    return list(names), missing


def find(name: str, path: Sequence[str]) -> ModuleSpec | None:
    """Return where a module is, without importing the packages around it."""
    spec: ModuleSpec | None = None
    places: Sequence[str] | None = path
    above = ""
    for part in name.split("."):
        if places is None:
            return None
        above = f"{above}.{part}" if above else part
        spec = PathFinder.find_spec(above, list(places))
        if spec is None:
            # What is built into Python has no place.
            return ModuleSpec(name, None) if above in sys.stdlib_module_names else None
        places = None if spec.submodule_search_locations is None else [*spec.submodule_search_locations]
    return spec


def modules_of(name: str, path: Sequence[str]) -> list[str]:
    """Return a module and, if it is a package, all modules in it; nothing if there is none of that name."""
    import pkgutil

    spec = find(name, path)
    if spec is None:
        return []
    within: list[str] = []
    for info in pkgutil.iter_modules([*(spec.submodule_search_locations or ())], f"{name}."):
        within += modules_of(info.name, path) if info.ispkg else [info.name]
    return [name, *within]


def read_script(path: Path) -> list[Import]:
    """Return what the script in a file imports."""
    import tokenize

    with tokenize.open(path) as file:
        return imports(file.read(), str(path))
