"""The demo's job: parse one file of Python and say how large it is and where its longest function stands."""

from __future__ import annotations

import ast
import warnings
from typing import TypedDict


class Survey(TypedDict):
    """What is known of one file; of one that is not Python only its size and the problem."""

    path: str
    bytes: int
    lines: int
    functions: int
    longest: tuple[str, int, int] | None  # name, first line, number of lines
    problem: str | None


def survey(path: str) -> Survey:
    """Parse a file."""
    with open(path, "rb") as file:
        source = file.read()
    found = Survey(path=path, bytes=len(source), lines=source.count(b"\n"), functions=0, longest=None, problem=None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library tests odd escapes on purpose
            tree = ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        found["problem"] = f"{type(error).__name__}: {error}"
        return found
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found["functions"] += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if found["longest"] is None or length > found["longest"][2]:
                found["longest"] = (node.name, node.lineno, length)
    return found
