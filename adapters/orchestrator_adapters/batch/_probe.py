"""What `orchestrator batch check` runs in a child: is the target there, and are limits granted; calls nothing of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe(target: str) -> dict[str, Any]:
    """Import a target and return what it is: its kind, and what is wrong with it, if anything."""
    import inspect
    from importlib import import_module

    module, _, path = target.partition(":")
    function: Any = import_module(module)
    for name in path.split("."):
        function = getattr(function, name)
    if not callable(function):
        return {"kind": type(function).__name__, "problem": "it cannot be called"}
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return {"kind": "generator", "problem": "it is a generator; a record has one result, so it must return it"}
    kind = "async" if inspect.iscoroutinefunction(function) else "sync"
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        return {"kind": kind, "problem": f"it cannot be called with one record: {error}"}
    except ValueError:
        pass  # some builtins have no signature
    return {"kind": kind, "problem": None}


def take_permit(name: str, timeout: float) -> None:
    """Take one permit of a limit and give it back.

    Raises:
        TimeoutError: If it cannot be had in time.
    """
    from orchestrator import child

    with child.permit(name, timeout=timeout):
        pass
