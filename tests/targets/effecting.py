"""Jobs that act outside: they add lines to a file, between begin and end of an effect."""

from __future__ import annotations

import os

from orchestrator import child


def _add(path: str, line: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _die() -> None:
    os._exit(9)  # as hard as a signal, and on Windows too


def post(path: str, die: str = "") -> str:
    """Add one line, once, whichever attempt this is; `die` says where the child ends."""
    _add(f"{path}.begun", "x")
    if die == "before" and _count(f"{path}.begun") == 1:
        _die()
    effect = child.effect_begin("line")
    if effect.done:
        return f"was there: {effect.ref}"
    if die == "open":
        _die()
    _add(path, "line")
    if die == "late":
        _die()
    child.effect_done("line", {"at": 1})
    if die == "after" and _count(f"{path}.begun") == 1:
        _die()
    return "added"


async def post_async(path: str) -> bool:
    """Add one line from a coroutine."""
    effect = await child.effect_begin("line")
    _add(path, "line")
    child.effect_done("line")
    return effect.done


def post_and_raise(path: str) -> None:
    """Raise in the middle of the effect."""
    child.effect_begin("line")
    raise ConnectionError("no answer")


def is_there(key: str, path: str, die: str = "") -> bool:
    """Look the line up: the effect happened if it is there."""
    assert key == "line"
    return _count(path) > 0


def dies_and_looks(key: str, path: str, die: str = "") -> bool:
    """Die the first time, and look the line up when asked again."""
    _add(f"{path}.asked", "x")
    if _count(f"{path}.asked") == 1:
        _die()
    return is_there(key, path, die)


def dies(key: str, path: str, die: str = "") -> bool:
    """Die whenever it is asked."""
    _add(f"{path}.asked", "x")
    _die()
    return False


def cannot_tell(key: str, path: str, die: str = "") -> None:
    """Look, and find nothing out."""


def breaks(key: str, path: str, die: str = "") -> None:
    """Fail at looking."""
    raise LookupError("the board is down")


def at_most_once(path: str) -> None:
    """Begin, and die."""
    _add(path, "x")
    _die()


def _count(path: str) -> int:
    try:
        with open(path, encoding="utf-8") as file:
            return len(file.readlines())
    except FileNotFoundError:
        return 0
