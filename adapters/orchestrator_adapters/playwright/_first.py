"""The first parameter of a browser job's target says what it gets: a page, a context or the browser."""

from __future__ import annotations

import inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    First = Literal["page", "context", "browser"]

KINDS = ("page", "context", "browser")


def first_parameter(function: Callable[..., Any], *, skip: int = 0) -> tuple[str | None, str]:
    """Return `page`, `context` or `browser` and an empty text; or None and what is wrong.

    Args:
        function: The target, or the method bound to its instance.
        skip: Parameters to leave out first: 1 for a method that is not bound.
    """
    try:
        # By name only: annotations may be text that cannot be evaluated here, and need not be.
        parameters = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError) as error:
        return None, f"its signature cannot be read: {error}"
    called = getattr(function, "__qualname__", repr(function))
    remedy = "name it page, context or browser, after what the job is to get"
    if not parameters:
        return None, f"{called}() takes no parameter, and a browser job gets its first one from us: {remedy}"
    first = parameters[0]
    if first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD, first.VAR_POSITIONAL):
        return None, f"{called}() has no positional parameter, and a browser job gets its first one from us: {remedy}"
    if first.name not in KINDS:
        return None, f"the first parameter of {called}() is {first.name!r}: {remedy}"
    return first.name, ""
